//! One archive entry is put into the tree.

use std::io::BufRead;

use rustix::io::Errno;

use super::attributes::Attributes;
use super::place::{Extent, Special};
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

    /// Takes a regular file.
    fn file(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        path: &[u8],
        tarball: &mut Tarball<impl BufRead>,
    ) -> Result<(), Fault> {
        let name = split(path).1;
        let mode = entry.mode & 0o777;
        let mut begun = self.tree.place.begin_file(parent, name, mode);
        if begun == Err(Errno::EXIST) {
            self.tree.remove(path)?;
            begun = self.tree.place.begin_file(parent, name, mode);
        }
        begun.map_err(Fault::io("create", path))?;
        self.names += 1;
        self.bytes += entry.size;
        let extent = Extent { size: entry.size, pieces: entry.sparse.as_deref() };
        self.size += self.tree.place.fill_file(path, extent, &Attributes::of_entry(entry), tarball)?;
        Ok(())
    }

    /// Makes a hard link, or notes it if its target is not in this layer.
    fn hard_link(&mut self, entry: &Entry, parent: &[u8], path: &[u8]) -> Result<(), Fault> {
        let target = normalise(&entry.link).map_err(|_| Fault::link(path, &entry.link, "its target is outside"))?;
        let (target_parent, target_name) = split(&target);
        if target_name.is_empty() {
            return Err(Fault::link(path, &entry.link, "its target is the root"));
        }
        let name = split(path).1;
        if let Some(target_parent) = self.tree.resolve(target_parent, false)? {
            let resolved = join(&target_parent, target_name);
            if resolved == path {
                return Ok(());
            }
            if self.tree.is_directory(&resolved) {
                return Err(Fault::link(path, &target, "its target is a directory"));
            }
            let (from, to) = ((target_parent.as_slice(), target_name), (parent, name));
            let mut result = self.tree.place.link(from, to);
            if result == Err(Errno::EXIST) {
                self.tree.remove(path)?;
                result = self.tree.place.link(from, to);
            }
            match result {
                Err(Errno::NOENT) => {}
                result => {
                    self.names += 1;
                    return result.map_err(Fault::io("link", path));
                }
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
        let name = split(path).1;
        let (major, minor) = entry.device;
        let special = match entry.kind {
            Kind::Symlink => Special::Symlink(&entry.link),
            Kind::Character => Special::Character(major, minor),
            Kind::Block => Special::Block(major, minor),
            _ => Special::Fifo,
        };
        let attributes = Attributes::of_entry(entry);
        let mut result = self.tree.place.special(parent, name, special, &attributes);
        if result == Err(Errno::EXIST) {
            self.tree.remove(path)?;
            result = self.tree.place.special(parent, name, special, &attributes);
        }
        result.map_err(Fault::io("make", path))?;
        self.names += 1;
        Ok(())
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
        match self.tree.place.whiteout(parent, name) {
            Ok(()) => {
                self.names += 1;
                Ok(())
            }
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(Fault::io("make whiteout", path)(error)),
        }
    }
}
