//! The layers below, seen as one: what overlay would show, without mounting anything.
//!
//! ```text
//!   look up a/b/c, topmost layer first:
//!     layer 3   a (opaque)              a/b missing here; nothing below layer 3 shows through a
//!     layer 2   a/b is 0:0              deleted: whatever lies below is gone
//!     layer 1   a/b/c                   found, if no layer above stopped the search
//! ```

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use super::attributes::{is_opaque, open_beneath};
use super::walk::Walk;
use super::{Fault, prefixes};

/// A stack of sealed layers, bottom first.
#[derive(Default)]
pub(crate) struct Merged {
    layers: Vec<OwnedFd>,
}

/// What a path is in the merged view.
pub(super) enum Found {
    Missing,
    /// A directory, opened.
    Directory(OwnedFd, Stat),
    /// Something else, opened with O_PATH, and the layer that it is in.
    Other(OwnedFd, Stat, usize),
}

/// What one layer says about a path.
enum Answer {
    /// Nothing: ask the layer below.
    Nothing,
    /// It deletes or hides what lies below.
    Hidden,
    Found(Found),
}

impl Merged {
    /// Puts the root of one more layer on top.
    pub(crate) fn push(&mut self, root_fd: OwnedFd) {
        self.layers.push(root_fd);
    }

    /// Returns the number of layers.
    pub(crate) fn count(&self) -> usize {
        self.layers.len()
    }

    /// Looks up a normalised path; no symbolic link is followed, not even on the way.
    pub(super) fn look_up(&self, path: &[u8]) -> Result<Found, Fault> {
        for index in (0..self.layers.len()).rev() {
            match self.ask(index, path).map_err(Fault::io("look up below", path))? {
                Answer::Nothing => {}
                Answer::Hidden => return Ok(Found::Missing),
                Answer::Found(found) => return Ok(found),
            }
        }
        Ok(Found::Missing)
    }

    fn ask(&self, index: usize, path: &[u8]) -> rustix::io::Result<Answer> {
        let layer = &self.layers[index];
        for prefix in prefixes(path) {
            let fd = match open_beneath(layer, prefix, OFlags::PATH | OFlags::NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(Answer::Nothing),
                result => result?,
            };
            let stat = rustix::fs::fstat(&fd)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
                return Ok(Answer::Hidden);
            }
            if prefix.len() == path.len() {
                return Ok(Answer::Found(if kind == FileType::Directory {
                    Found::Directory(open_beneath(layer, path, OFlags::RDONLY | OFlags::DIRECTORY)?, stat)
                } else {
                    Found::Other(fd, stat, index)
                }));
            }
            if kind != FileType::Directory {
                return Ok(Answer::Hidden);
            }
            let fd = open_beneath(layer, prefix, OFlags::RDONLY | OFlags::DIRECTORY)?;
            if is_opaque(fd.as_fd()) {
                return self.ask_opaque(index, path, prefix.len());
            }
        }
        Ok(Answer::Nothing)
    }

    /// Looks in one layer only, because a directory on the way hides the layers below.
    fn ask_opaque(&self, index: usize, path: &[u8], known: usize) -> rustix::io::Result<Answer> {
        let layer = &self.layers[index];
        for prefix in prefixes(path).filter(|prefix| prefix.len() > known) {
            let fd = match open_beneath(layer, prefix, OFlags::PATH | OFlags::NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(Answer::Hidden),
                result => result?,
            };
            let stat = rustix::fs::fstat(&fd)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
            if prefix.len() == path.len() && !whiteout {
                return Ok(Answer::Found(if kind == FileType::Directory {
                    Found::Directory(open_beneath(layer, path, OFlags::RDONLY | OFlags::DIRECTORY)?, stat)
                } else {
                    Found::Other(fd, stat, index)
                }));
            }
            if kind != FileType::Directory {
                return Ok(Answer::Hidden);
            }
        }
        Ok(Answer::Hidden)
    }

    /// Opens for reading what [`Self::look_up`] found as another kind in layer `index`.
    pub(super) fn open_file(&self, index: usize, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        open_beneath(&self.layers[index], path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)
    }

    /// Returns the path without symbolic links that `path` leads to; what does not exist is kept as it is.
    pub(super) fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut walk = Walk::new(path);
        while let Some(step) = walk.next()? {
            match self.look_up(&step.path)? {
                Found::Other(fd, stat, _) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    let target =
                        rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(Fault::io("read link", &step.path))?;
                    walk.follow(target.as_bytes())?;
                }
                _ => walk.enter(step),
            }
        }
        Ok(walk.end())
    }
}
