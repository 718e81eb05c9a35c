//! The directories of a checkpoint: the images, and where criu leaves its log.

use crate::arguments::Parsed;
use crate::failure::{Failure, Step};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// Where the images lie when nothing is said, below the caller's directory.
const DEFAULT: &str = "checkpoint";

/// The opened directories.
#[derive(Debug)]
pub(crate) struct Directories {
    pub images: OwnedFd,
    pub images_path: PathBuf,
    /// Where criu works, if that is elsewhere.
    pub work: Option<(OwnedFd, PathBuf)>,
    /// The images of an earlier pre-dump, relative to these.
    pub parent: Option<PathBuf>,
}

impl Directories {
    /// Opens the directories that the options name, and makes those that a checkpoint is to fill. Paths are those of the
    /// caller's directory.
    pub fn open(parsed: &Parsed, make_images: bool) -> Result<Self, Failure> {
        let absolute = |path: &str| std::path::absolute(path).step(|| format!("find {path}"));
        let images_path = absolute(parsed.filled("image-path").unwrap_or(DEFAULT))?;
        let images = open(&images_path, make_images)?;
        let parent = parsed.filled("parent-path").map(|path| parent_of(&images_path, Path::new(path))).transpose()?;
        let work = match parsed.filled("work-path") {
            None => None,
            Some(path) => {
                let path = absolute(path)?;
                Some((open(&path, true)?, path))
            }
        };
        Ok(Self { images, images_path, work, parent })
    }

    /// Where criu's log `name` lies, unless criu's configuration says otherwise.
    pub fn log(&self, name: &str) -> PathBuf {
        self.work.as_ref().map_or(&self.images_path, |(_, path)| path).join(name)
    }
}

fn open(path: &Path, make: bool) -> Result<OwnedFd, Failure> {
    use std::os::unix::fs::DirBuilderExt;
    if make {
        let result = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        result.step(|| format!("make the directory {}", path.display()))?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).step(|| format!("open the directory {}", path.display()))
}

/// Checks the path of an earlier pre-dump: criu keeps it as a link, which has to hold when all is moved together.
fn parent_of(images: &Path, parent: &Path) -> Result<PathBuf, Failure> {
    if !parent.components().all(|part| matches!(part, Component::Normal(_) | Component::ParentDir | Component::CurDir))
    {
        return Err(Failure::new("--parent-path must be relative"));
    }
    let real = images.join(parent);
    let wrong = |why: String| Failure::new(format!("invalid --parent-path: {}: {why}", real.display()));
    match std::fs::metadata(&real) {
        Ok(found) if found.is_dir() => Ok(parent.to_owned()),
        Ok(_) => Err(wrong("it is not a directory".into())),
        Err(error) => Err(wrong(error.to_string())),
    }
}
