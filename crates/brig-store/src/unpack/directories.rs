//! A layer as files and directories of the file system: overlay's lower directory as it will be used.
//!
//! Directories are opened rarely and kept; all are below the layer's root, whose content was made here and by nobody else.
//! A directory keeps mode 0700 until it is described, so that neither its mode, nor a setgid bit, nor a default ACL can
//! bear on what is put into it.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{self, Attributes};
use super::place::{Data, Extent, Place, Special};
use super::{Fault, join};
use crate::ahead::Ahead;
use crate::disk;

/// The most directories that are held open.
const OPEN_MAX: usize = 128;

/// The directory that a layer is unpacked into.
pub(crate) struct Directories {
    root_fd: Arc<OwnedFd>,
    open: HashMap<Vec<u8>, Arc<OwnedFd>>,
    umask: u32,
    begun: Option<(OwnedFd, u32)>,
}

impl Directories {
    /// Takes an empty directory.
    pub(crate) fn new(root_fd: OwnedFd) -> Self {
        Self { root_fd: Arc::new(root_fd), open: HashMap::new(), umask: attributes::umask(), begun: None }
    }

    fn open(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Errno> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root_fd));
        }
        if let Some(fd) = self.open.get(path) {
            return Ok(Arc::clone(fd));
        }
        let fd = Arc::new(attributes::open_beneath(&self.root_fd, path, OFlags::RDONLY | OFlags::DIRECTORY)?);
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), Arc::clone(&fd));
        Ok(fd)
    }

    /// Forgets the descriptors of a directory and of those below it.
    fn forget(&mut self, path: &[u8]) {
        self.open.retain(|known, _| !known.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest[0] == b'/'));
    }
}

impl Place for Directories {
    fn read_link(&mut self, parent: &[u8], name: &[u8]) -> Result<Vec<u8>, Errno> {
        Ok(rustix::fs::readlinkat(&*self.open(parent)?, name, Vec::new())?.into_bytes())
    }

    fn exists(&mut self, parent: &[u8], name: &[u8]) -> Result<bool, Errno> {
        match rustix::fs::statat(&*self.open(parent)?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn names(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
        let mut names = Vec::new();
        for child in rustix::fs::Dir::read_from(&*self.open(path)?)? {
            let child = child?;
            let name = child.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    fn make_directory(&mut self, parent: &[u8], name: &[u8]) -> Result<(), Errno> {
        rustix::fs::mkdirat(&*self.open(parent)?, name, Mode::RWXU)
    }

    fn remove(&mut self, parent: &[u8], name: &[u8]) -> Result<(), Errno> {
        let fd = self.open(parent)?;
        self.forget(&join(parent, name));
        disk::remove_any(fd.as_fd(), name)
    }

    fn rename(&mut self, from: &[u8], to: &[u8], name: &[u8]) -> Result<(), Errno> {
        let (source, target) = (self.open(from)?, self.open(to)?);
        self.forget(&join(from, name));
        rustix::fs::renameat(&*source, name, &*target, name)
    }

    fn link(&mut self, from: (&[u8], &[u8]), to: (&[u8], &[u8])) -> Result<(), Errno> {
        let (source, target) = (self.open(from.0)?, self.open(to.0)?);
        rustix::fs::linkat(&*source, from.1, &*target, to.1, AtFlags::empty())
    }

    fn begin_file(&mut self, parent: &[u8], name: &[u8], mode: u32) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*self.open(parent)?, name, flags, Mode::from_raw_mode(mode))?;
        self.begun = Some((fd, mode & !self.umask));
        Ok(())
    }

    fn fill_file(
        &mut self,
        path: &[u8],
        extent: Extent<'_>,
        attributes: &Attributes,
        data: &mut dyn Data,
    ) -> Result<u64, Fault> {
        let (fd, mode) = self.begun.take().ok_or(Errno::BADF).map_err(Fault::io("write", path))?;
        let written = write_data(&fd, path, extent, data)?;
        attributes.apply(fd.as_fd(), Some(mode)).map_err(Fault::io("describe", path))?;
        Ok(written)
    }

    fn special(
        &mut self,
        parent: &[u8],
        name: &[u8],
        special: Special<'_>,
        attributes: &Attributes,
    ) -> Result<(), Errno> {
        let fd = self.open(parent)?;
        let node = |kind, device| rustix::fs::mknodat(&*fd, name, kind, Mode::RUSR | Mode::WUSR, device);
        match special {
            Special::Symlink(target) => rustix::fs::symlinkat(target, &*fd, name),
            Special::Character(major, minor) => node(FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
            Special::Block(major, minor) => node(FileType::BlockDevice, rustix::fs::makedev(major, minor)),
            Special::Fifo => node(FileType::Fifo, 0),
            Special::Socket => node(FileType::Socket, 0),
        }?;
        attributes.apply_at(fd.as_fd(), name, matches!(special, Special::Symlink(_)))
    }

    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<(), Errno> {
        rustix::fs::mknodat(&*self.open(parent)?, name, FileType::CharacterDevice, Mode::empty(), 0)
    }

    fn describe(&mut self, path: &[u8], attributes: &Attributes, opaque: bool) -> Result<(), Errno> {
        let fd = self.open(path)?;
        if opaque {
            attributes::make_opaque(fd.as_fd())?;
        }
        attributes.apply(fd.as_fd(), Some(0o700))
    }

    fn close(&mut self) -> Result<(), Errno> {
        self.open.clear();
        Ok(())
    }
}

/// Writes the data of a file, and leaves holes where it has some; returns the number of bytes written.
pub(crate) fn write_data(fd: &OwnedFd, path: &[u8], extent: Extent<'_>, data: &mut dyn Data) -> Result<u64, Fault> {
    match extent.pieces {
        None => write_all(fd, path, data),
        Some(pieces) => write_pieces(fd, path, pieces, extent.size, data),
    }
}

/// Writes the data as it comes; returns the number of bytes.
fn write_all(fd: &OwnedFd, path: &[u8], data: &mut dyn Data) -> Result<u64, Fault> {
    let (mut written, mut ahead) = (0, Ahead::from(0));
    loop {
        let piece = data.piece()?;
        if piece.is_empty() {
            return Ok(written);
        }
        let length = match rustix::io::write(fd, piece) {
            Err(Errno::INTR) => 0,
            result => result.map_err(Fault::io("write", path))?,
        };
        data.take(length);
        written += length as u64;
        ahead.reached(fd, written);
    }
}

/// Writes the stored pieces of a sparse file where they belong, and leaves holes between them.
fn write_pieces(
    fd: &OwnedFd,
    path: &[u8],
    pieces: &[(u64, u64)],
    size: u64,
    data: &mut dyn Data,
) -> Result<u64, Fault> {
    rustix::fs::ftruncate(fd, size).map_err(Fault::io("size", path))?;
    let mut written = 0;
    for (offset, length) in pieces {
        let mut done = 0;
        while done < *length {
            let piece = data.piece()?;
            if piece.is_empty() {
                return Err(Fault::Truncated);
            }
            let step = usize::try_from(length - done).unwrap_or(usize::MAX).min(piece.len());
            let step = match rustix::io::pwrite(fd, &piece[..step], offset + done) {
                Err(Errno::INTR) => 0,
                result => result.map_err(Fault::io("write", path))?,
            };
            data.take(step);
            done += step as u64;
        }
        written += length;
    }
    Ok(written)
}
