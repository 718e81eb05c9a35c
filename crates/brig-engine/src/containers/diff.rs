//! What a container has changed in its file system, read from its writable layer; overlayfs(5) tells how it is kept.
//!
//! ```text
//! writable layer            means
//!   character device 0:0      deleted
//!   directory, opaque         all that was below is deleted, then what is here is added
//!   anything else             added, or changed when a layer below has it
//! ```
//!
//! What the engine itself put there for the sake of a mount (an empty file for /etc/hosts, directories) is left out.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::layers;
use crate::record::Record;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The path exists and did not before.
    Added,
    /// The path existed before and is different.
    Changed,
    /// The path is gone.
    Deleted,
}

impl Change {
    /// The letter that Docker prints.
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// The deepest tree that is walked.
pub(crate) const DEPTH_MAX: usize = 512;

/// Lists the changes, sorted by path.
pub fn diff(config: &Config, record: &Record) -> Result<Vec<(Change, PathBuf)>> {
    let failed =
        |error: std::io::Error| Error::io(format!("cannot compare container `{}` with its image", record.name), error);
    let mut changes = BTreeMap::new();
    let dir = record.dir(config);
    let mut trees = vec![(dir.join("upper"), record.image.layers.clone(), PathBuf::from("/"))];
    trees
        .extend(record.image.submounts.iter().map(|s| (s.upper.clone(), vec![s.lower.clone()], s.destination.clone())));
    let places = places(&dir);
    for (upper, lowers, base) in trees {
        let Ok(upper) = layers::open(&upper) else { continue };
        let lowers = lowers.iter().map(|l| layers::open(l)).collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
        let walk = Walk { lowers, base, places: &places };
        walk.directory(upper.as_fd(), Path::new(""), &mut changes, 0).map_err(failed)?;
    }
    Ok(changes.into_iter().map(|(path, change)| (change, path)).collect())
}

/// The places of mounts inside, as the last start of the container in `dir` made them.
pub(super) fn places(dir: &Path) -> Vec<PathBuf> {
    brig_monitor::run::read_plan(dir)
        .map(|plan| plan.spec.mounts.into_iter().map(|m| m.destination).collect())
        .unwrap_or_default()
}

/// Lists what the topmost layer of an image changes, sorted by path; `layers` are its trees, bottom first.
pub(crate) fn diff_image(layers: &[PathBuf]) -> Result<Vec<(Change, PathBuf)>> {
    let failed = |error: std::io::Error| Error::io("cannot compare the image with the layers below", error);
    let mut changes = BTreeMap::new();
    let Some((top, below)) = layers.split_last() else { return Ok(Vec::new()) };
    let top = layers::open(top).map_err(failed)?;
    let lowers = below.iter().rev().map(|l| layers::open(l)).collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    let walk = Walk { lowers, base: PathBuf::from("/"), places: &[] };
    walk.directory(top.as_fd(), Path::new(""), &mut changes, 0).map_err(failed)?;
    Ok(changes.into_iter().map(|(path, change)| (change, path)).collect())
}

struct Walk<'a> {
    lowers: Vec<OwnedFd>,
    base: PathBuf,
    places: &'a [PathBuf],
}

pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(crate) fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0u8; 8];
    rustix::fs::fgetxattr(directory, "trusted.overlay.opaque", &mut value).is_ok_and(|n| value[..n] == *b"y")
}

impl Walk<'_> {
    /// Walks one directory of the writable layer; `path` is relative to its root. Returns whether anything was told.
    fn directory(
        &self,
        fd: BorrowedFd<'_>,
        path: &Path,
        changes: &mut BTreeMap<PathBuf, Change>,
        depth: usize,
    ) -> std::io::Result<bool> {
        if depth > DEPTH_MAX {
            return Err(rustix::io::Errno::NAMETOOLONG.into());
        }
        let mut told = false;
        let mut names = Vec::new();
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            if ![c".", c".."].contains(&entry.file_name()) {
                names.push(entry.file_name().to_owned());
            }
        }
        for name in &names {
            told |= self.entry(fd, name, &path.join(OsStr::from_bytes(name.to_bytes())), changes, depth)?;
        }
        if !path.as_os_str().is_empty() && is_opaque(fd) {
            told |= self.hidden(path, &names, changes)?;
        }
        Ok(told)
    }

    fn entry(
        &self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: &Path,
        changes: &mut BTreeMap<PathBuf, Change>,
        depth: usize,
    ) -> std::io::Result<bool> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // A running container has removed it since its directory was read.
            Err(rustix::io::Errno::NOENT) => return Ok(false),
            stat => stat?,
        };
        let shown = self.base.join(path);
        if is_whiteout(&stat) {
            changes.insert(shown, Change::Deleted);
            return Ok(true);
        }
        let below = self.below(path)?;
        let is_place = self.places.contains(&shown);
        if !is_directory(&stat) {
            if is_place && stat.st_size == 0 {
                return Ok(false);
            }
            changes.insert(shown, if below.is_some() { Change::Changed } else { Change::Added });
            return Ok(true);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(false),
            fd => fd?,
        };
        let inner = self.directory(fd.as_fd(), path, changes, depth + 1)?;
        match below {
            // A directory that is there for the sake of a mount, or of one below it, is no change of the container's.
            None if !inner && self.places.iter().any(|p| p.starts_with(&shown)) => Ok(false),
            None => {
                changes.insert(shown, Change::Added);
                Ok(true)
            }
            Some(below) => {
                let same = is_directory(&below)
                    && (below.st_mode, below.st_uid, below.st_gid) == (stat.st_mode, stat.st_uid, stat.st_gid);
                if inner || !same {
                    changes.insert(shown, Change::Changed);
                }
                Ok(inner || !same)
            }
        }
    }

    /// Looks a path up in the layers below, as the overlay does: an ancestor that is deleted or opaque hides what is deeper.
    fn below(&self, path: &Path) -> std::io::Result<Option<Stat>> {
        'layers: for lower in &self.lowers {
            let mut at = PathBuf::new();
            let mut last_layer = false;
            let count = path.components().count();
            for (index, component) in path.components().enumerate() {
                at.push(component);
                let Some((stat, fd)) = look(lower.as_fd(), &at)? else {
                    if last_layer {
                        return Ok(None);
                    }
                    continue 'layers;
                };
                if is_whiteout(&stat) {
                    return Ok(None);
                }
                if index + 1 == count {
                    return Ok(Some(stat));
                }
                if !is_directory(&stat) {
                    return Ok(None);
                }
                last_layer |= fd.is_some_and(|fd| is_opaque(fd.as_fd()));
            }
        }
        Ok(None)
    }

    /// Tells as deleted what an opaque directory hides and does not bring back.
    fn hidden(
        &self,
        path: &Path,
        present: &[std::ffi::CString],
        changes: &mut BTreeMap<PathBuf, Change>,
    ) -> std::io::Result<bool> {
        let mut told = false;
        for lower in &self.lowers {
            let Some((_, Some(fd))) = look(lower.as_fd(), path)? else { continue };
            for entry in Dir::read_from(&fd)? {
                let entry = entry?;
                let name = entry.file_name();
                if [c".", c".."].contains(&name) || present.iter().any(|p| p.as_c_str() == name) {
                    continue;
                }
                let hidden = path.join(OsStr::from_bytes(name.to_bytes()));
                if self.below(&hidden)?.is_some() {
                    changes.insert(self.base.join(hidden), Change::Deleted);
                    told = true;
                }
            }
        }
        Ok(told)
    }
}

/// Looks at a path inside one layer, following no link; a directory is opened too.
pub(crate) fn look(layer: BorrowedFd<'_>, path: &Path) -> std::io::Result<Option<(Stat, Option<OwnedFd>)>> {
    use rustix::io::Errno;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    // With NO_SYMLINKS a link in the last place is refused unless it is only referred to.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat2(layer, path, flags, Mode::empty(), resolve) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&fd)?;
    if !is_directory(&stat) {
        return Ok(Some((stat, None)));
    }
    let directory = rustix::fs::openat(&fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(Some((stat, Some(directory))))
}
