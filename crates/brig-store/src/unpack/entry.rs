//! One archive entry is put into the tree.

use std::io::BufRead;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::tree::State;
use super::{Fault, Foreign, Unpacked, join, normalise, split};
use crate::limits::Limits;
use crate::tarball::{Entry, Kind, Tarball};

/// What the image spec puts before the name of a file that a layer deletes.
const WHITEOUT: &[u8] = b".wh.";
/// The name that makes a directory opaque, behind [`WHITEOUT`].
const OPAQUE: &[u8] = b".wh..opq";
/// Files that engines read before a container starts; nothing but a plain file or a link makes sense there.
const READ_BY_ENGINES: [&[u8]; 5] = [b"etc/passwd", b"etc/group", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf"];

impl Unpacked {
    /// Puts one entry, and its data, into the tree.
    pub(super) fn take(
        &mut self,
        entry: &Entry,
        tarball: &mut Tarball<impl BufRead>,
        limits: &Limits,
    ) -> Result<(), Fault> {
        let path = normalise(&entry.path)?;
        if path.is_empty() {
            if entry.kind != Kind::Directory {
                return Err(Fault::path(&entry.path, "the root is not a directory"));
            }
            self.tree.set(b"", State::Explicit(Attributes::of_entry(entry)));
            return Ok(());
        }
        let (parent, name) = split(&path);
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.note_whiteout(entry, parent, hidden);
        }
        // 1. Where it goes: the parent, through the layer's own links.
        let parent = self.tree.resolve(parent, true)?.unwrap_or_default();
        let path = join(&parent, name);
        if entry.kind == Kind::Directory {
            return self.tree.make(&path, State::Explicit(Attributes::of_entry(entry)));
        }
        if !matches!(entry.kind, Kind::File | Kind::Symlink | Kind::HardLink)
            && READ_BY_ENGINES.contains(&path.as_slice())
        {
            return Err(Fault::path(&path, "it must be a regular file"));
        }
        // 2. What it is.
        match entry.kind {
            Kind::File => {
                if entry.size > limits.layer_bytes || self.size.saturating_add(entry.size) > limits.layer_bytes {
                    return Err(Fault::TooLarge(limits.layer_bytes));
                }
                self.file(entry, &parent, &path, tarball)
            }
            Kind::HardLink => self.hard_link(entry, &parent, &path),
            Kind::Symlink | Kind::Fifo | Kind::Character | Kind::Block => self.special(entry, &parent, &path),
            Kind::Directory => Ok(()),
        }
    }

    /// Notes a deletion, to be placed when the layer is complete: entries may come in any order.
    fn note_whiteout(&mut self, entry: &Entry, parent: &[u8], hidden: &[u8]) -> Result<(), Fault> {
        if hidden == OPAQUE {
            self.opaques.insert(parent.to_vec());
        } else if matches!(hidden, b"" | b"." | b"..") {
            return Err(Fault::path(&entry.path, "it deletes nothing that has a name"));
        } else if !hidden.starts_with(WHITEOUT) {
            // Other names with the mark twice are notes of AUFS to itself.
            self.whiteouts.insert(join(parent, hidden));
        }
        Ok(())
    }

    /// Writes a regular file: open, write, describe, close.
    fn file(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        path: &[u8],
        tarball: &mut Tarball<impl BufRead>,
    ) -> Result<(), Fault> {
        let directory = self.tree.open(parent)?;
        let name = split(path).1;
        let mode = entry.mode & 0o777;
        let create = |mode: u32| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&*directory, name, flags, Mode::from_raw_mode(mode))
        };
        let mut created = create(mode);
        if matches!(created, Err(Errno::EXIST)) {
            self.tree.remove(path)?;
            created = create(mode);
        }
        let fd = created.map_err(Fault::io("create", path))?;
        self.size += write_data(&fd, path, entry, tarball)?;
        Attributes::of_entry(entry).apply(fd.as_fd(), Some(mode & !self.umask)).map_err(Fault::io("describe", path))
    }

    /// Makes a hard link, or notes it if its target is not in this layer.
    fn hard_link(&mut self, entry: &Entry, parent: &[u8], path: &[u8]) -> Result<(), Fault> {
        let target = normalise(&entry.link).map_err(|_| Fault::link(path, &entry.link, "its target is outside"))?;
        let (target_parent, target_name) = split(&target);
        if target_name.is_empty() {
            return Err(Fault::link(path, &entry.link, "its target is the root"));
        }
        let directory = self.tree.open(parent)?;
        let name = split(path).1;
        if let Some(target_parent) = self.tree.resolve(target_parent, false)? {
            let resolved = join(&target_parent, target_name);
            if resolved == path {
                return Ok(());
            }
            if self.tree.is_directory(&resolved) {
                return Err(Fault::link(path, &target, "its target is a directory"));
            }
            let target_directory = self.tree.open(&target_parent)?;
            let link = || rustix::fs::linkat(&*target_directory, target_name, &*directory, name, AtFlags::empty());
            let mut result = link();
            if result == Err(Errno::EXIST) {
                self.tree.remove(path)?;
                result = link();
            }
            match result {
                Err(Errno::NOENT) => {}
                result => return result.map_err(Fault::io("link", path)),
            }
        }
        self.tree.remove(path)?;
        self.links.push((path.to_vec(), target));
        Ok(())
    }

    /// Makes a symbolic link, a FIFO or a device node.
    fn special(&mut self, entry: &Entry, parent: &[u8], path: &[u8]) -> Result<(), Fault> {
        let is_link = entry.kind == Kind::Symlink;
        if is_link && (entry.link.is_empty() || entry.link.contains(&0)) {
            return Err(Fault::path(path, "it is a symbolic link to nothing"));
        }
        if entry.kind == Kind::Character && entry.device == (0, 0) {
            return Err(Fault::path(path, "device 0:0 is how overlay deletes files"));
        }
        let directory = self.tree.open(parent)?;
        let name = split(path).1;
        let make = || {
            let node = |kind, device| rustix::fs::mknodat(&*directory, name, kind, Mode::RUSR | Mode::WUSR, device);
            let device = rustix::fs::makedev(entry.device.0, entry.device.1);
            match entry.kind {
                Kind::Symlink => rustix::fs::symlinkat(entry.link.as_slice(), &*directory, name),
                Kind::Character => node(FileType::CharacterDevice, device),
                Kind::Block => node(FileType::BlockDevice, device),
                _ => node(FileType::Fifo, 0),
            }
        };
        let mut result = make();
        if result == Err(Errno::EXIST) {
            self.tree.remove(path)?;
            result = make();
        }
        result.map_err(Fault::io("make", path))?;
        let attributes = Attributes::of_entry(entry);
        attributes.apply_at(directory.as_fd(), name, is_link).map_err(Fault::io("describe", path))
    }

    /// Places whiteouts and opaque marks whose directory is in this layer; the others wait for the layers below.
    pub(super) fn place_marks(&mut self) -> Result<(), Fault> {
        for path in std::mem::take(&mut self.opaques) {
            match self.tree.resolve(&path, false)? {
                Some(resolved) => self.tree.set_opaque(&resolved),
                None => self.foreign.push(Foreign::Opaque(path)),
            }
        }
        for path in std::mem::take(&mut self.whiteouts) {
            let (parent, name) = split(&path);
            match self.tree.resolve(parent, false)? {
                Some(resolved) => self.place_whiteout(&join(&resolved, name))?,
                None => self.foreign.push(Foreign::Whiteout(path)),
            }
        }
        Ok(())
    }

    /// Makes overlay's whiteout at a resolved path. Beside a directory it means opaque; beside a file it means nothing.
    pub(super) fn place_whiteout(&mut self, path: &[u8]) -> Result<(), Fault> {
        if self.tree.is_directory(path) {
            self.tree.set_opaque(path);
            if self.tree.is_implicit(path) {
                // Deleted below and made anew: there is nobody to take the metadata from.
                self.tree.set(path, State::Settled(Attributes::plain_directory()));
            }
            return Ok(());
        }
        let (parent, name) = split(path);
        let directory = self.tree.open(parent)?;
        match rustix::fs::mknodat(&*directory, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(Fault::io("make whiteout", path)(error)),
        }
    }
}

/// Writes the data of an entry that is a file, and leaves holes where it has some; returns the number of bytes written.
pub(crate) fn write_data(
    fd: &OwnedFd,
    path: &[u8],
    entry: &Entry,
    tarball: &mut Tarball<impl BufRead>,
) -> Result<u64, Fault> {
    match &entry.sparse {
        None => write_all(fd, path, tarball),
        Some(pieces) => write_pieces(fd, path, pieces, entry.size, tarball),
    }
}

/// Writes the entry's data as it comes; returns the number of bytes.
fn write_all(fd: &OwnedFd, path: &[u8], tarball: &mut Tarball<impl BufRead>) -> Result<u64, Fault> {
    let mut written = 0;
    loop {
        let piece = tarball.data()?;
        if piece.is_empty() {
            return Ok(written);
        }
        let length = match rustix::io::write(fd, piece) {
            Err(Errno::INTR) => 0,
            result => result.map_err(Fault::io("write", path))?,
        };
        tarball.consume(length);
        written += length as u64;
    }
}

/// Writes the stored pieces of a sparse file where they belong, and leaves holes between them.
fn write_pieces(
    fd: &OwnedFd,
    path: &[u8],
    pieces: &[(u64, u64)],
    size: u64,
    tarball: &mut Tarball<impl BufRead>,
) -> Result<u64, Fault> {
    rustix::fs::ftruncate(fd, size).map_err(Fault::io("size", path))?;
    let mut written = 0;
    for (offset, length) in pieces {
        let mut done = 0;
        while done < *length {
            let piece = tarball.data()?;
            if piece.is_empty() {
                return Err(Fault::Truncated);
            }
            let step = usize::try_from(length - done).unwrap_or(usize::MAX).min(piece.len());
            let step = match rustix::io::pwrite(fd, &piece[..step], offset + done) {
                Err(Errno::INTR) => 0,
                result => result.map_err(Fault::io("write", path))?,
            };
            tarball.consume(step);
            done += step as u64;
        }
        written += length;
    }
    Ok(written)
}
