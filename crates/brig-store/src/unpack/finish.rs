//! What a layer could not know alone is made up from the layers below it.
//!
//! ```text
//!   tmp/foo without an entry for tmp      tmp takes mode, owner, time and attributes from below
//!   lib/x.so, and below lib -> usr/lib    what is in lib moves to usr/lib, which is made like the one below
//!   b is a hard link to a, a is below     a is copied up as it is, and b linked to it
//!   .wh.x in a directory of others        the whiteout is placed where the directory really is; if x is not
//!                                         below, there is nothing to delete and nothing is made
//! ```

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::merged::{Found, Merged};
use super::place::{Extent, FileData, Special};
use super::tree::State;
use super::{Fault, Foreign, Unpacked, join, prefixes, split};

impl Unpacked {
    /// Settles everything open; afterwards the layer can be sealed.
    pub(crate) fn finish(&mut self, below: &Merged) -> Result<(), Fault> {
        self.finished = true;
        // 1. Implicit directories, parents first: metadata copied, or moved to where a link below leads.
        self.settle(below)?;
        // 2. Hard links whose targets are below.
        for (path, target) in std::mem::take(&mut self.links) {
            self.link_below(&path, &target, below)?;
            self.settle(below)?;
        }
        // 3. Deletions in directories that this layer does not have.
        for mark in std::mem::take(&mut self.foreign) {
            self.place_foreign(&mark, below)?;
            self.settle(below)?;
        }
        Ok(())
    }

    /// Settles implicit directories until none is left.
    fn settle(&mut self, below: &Merged) -> Result<(), Fault> {
        loop {
            let open: BTreeSet<Vec<u8>> = self.tree.implicit();
            if open.is_empty() {
                return Ok(());
            }
            for path in open {
                // A directory that was moved meanwhile comes again in the next round under its new path.
                if self.tree.is_implicit(&path) {
                    self.settle_one(&path, below)?;
                }
            }
        }
    }

    fn settle_one(&mut self, path: &[u8], below: &Merged) -> Result<(), Fault> {
        if self.hides(split(path).0) {
            self.tree.set(path, State::Settled(Attributes::plain_directory()));
            return Ok(());
        }
        match below.look_up(path)? {
            Found::Missing => self.tree.set(path, State::Settled(Attributes::plain_directory())),
            Found::Directory(fd, stat) => {
                let attributes = Attributes::of_file(fd.as_fd(), &stat).map_err(Fault::io("look at", path))?;
                self.tree.set(path, State::Settled(attributes));
            }
            Found::Other(_, stat, _) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                let real = below.resolve(path)?;
                let inside = real.len() > path.len() && real.starts_with(path) && real[path.len()] == b'/';
                if real == path || inside {
                    return Err(Fault::path(path, "its parent is a symbolic link that leads to itself"));
                }
                self.lead_to(&real)?;
                for (link, _) in &mut self.links {
                    let rest = link.strip_prefix(path).filter(|rest| rest.starts_with(b"/"));
                    if let Some(rest) = rest {
                        *link = [&real, rest].concat();
                    }
                }
                self.tree.merge(path, &real)?;
            }
            Found::Other(..) => return Err(Fault::path(path, "its parent is not a directory in the layers below")),
        }
        Ok(())
    }

    /// Tells whether this layer hides what the layers below have in directory `path`.
    fn hides(&self, path: &[u8]) -> bool {
        self.tree.is_opaque(b"") || prefixes(path).any(|prefix| self.tree.is_opaque(prefix))
    }

    /// Makes the directories that lead to `path`, and `path` itself, as implicit ones.
    fn lead_to(&mut self, path: &[u8]) -> Result<(), Fault> {
        for prefix in prefixes(path) {
            if self.tree.is_directory(prefix) {
                continue;
            }
            let (parent, name) = split(prefix);
            match self.tree.place.make_directory(parent, name) {
                Err(Errno::EXIST) => return Err(Fault::path(prefix, "it is a directory below and another thing here")),
                result => result.map_err(Fault::io("make directory", prefix))?,
            }
            self.tree.set(prefix, State::Implicit);
        }
        Ok(())
    }

    /// Links `path` to a file that the layers below have.
    fn link_below(&mut self, path: &[u8], target: &[u8], below: &Merged) -> Result<(), Fault> {
        let (parent, name) = split(path);
        if self.tree.place.exists(parent, name).map_err(Fault::io("look up", path))? {
            return Ok(()); // a later entry of the same name replaced the link
        }
        let (target_parent, target_name) = split(target);
        let target_parent = match self.tree.resolve(target_parent, false)? {
            Some(parent) => parent,
            None => below.resolve(target_parent)?,
        };
        let real = join(&target_parent, target_name);
        let here = self.tree.is_directory(&target_parent)
            && self.tree.place.exists(&target_parent, target_name).map_err(Fault::io("look up", target))?;
        if !here {
            let Found::Other(fd, stat, layer) = below.look_up(&real)? else {
                return Err(Fault::link(path, target, "its target is neither here nor in the layers below"));
            };
            self.lead_to(&target_parent)?;
            self.copy_up(&real, &fd, &stat, layer, below)?;
        }
        self.tree.place.link((&target_parent, target_name), (parent, name)).map_err(Fault::io("link", path))
    }

    /// Copies a file, link or node from below to the same path in this layer.
    fn copy_up(
        &mut self,
        path: &[u8],
        fd: &std::os::fd::OwnedFd,
        stat: &Stat,
        layer: usize,
        below: &Merged,
    ) -> Result<(), Fault> {
        let (parent, name) = split(path);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let fail = |action| Fault::io(action, path);
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let target;
        let special = match kind {
            FileType::RegularFile => {
                let source = below.open_file(layer, path).map_err(fail("open below"))?;
                let attributes = Attributes::of_file(source.as_fd(), stat).map_err(fail("look at"))?;
                self.tree.place.begin_file(parent, name, 0o400).map_err(fail("create"))?;
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                let mut data = FileData::new(source.into());
                let extent = Extent { size, pieces: None };
                self.size += self.tree.place.fill_file(path, extent, &attributes, &mut data)?;
                return Ok(());
            }
            FileType::Symlink => {
                target = rustix::fs::readlinkat(fd, "", Vec::new()).map_err(fail("read link"))?;
                Special::Symlink(target.as_bytes())
            }
            FileType::CharacterDevice => Special::Character(major, minor),
            FileType::BlockDevice => Special::Block(major, minor),
            FileType::Socket => Special::Socket,
            _ => Special::Fifo,
        };
        self.tree.place.special(parent, name, special, &Attributes::of_stat(stat)).map_err(fail("make"))
    }

    /// Places a whiteout or opaque mark into a directory that only the layers below have.
    fn place_foreign(&mut self, mark: &Foreign, below: &Merged) -> Result<(), Fault> {
        match mark {
            Foreign::Opaque(path) => {
                let real = self.real(path, below)?;
                if matches!(below.look_up(&real)?, Found::Directory(..)) {
                    self.lead_to(&real)?;
                    self.tree.set_opaque(&real);
                }
            }
            Foreign::Whiteout(path) => {
                let (parent, name) = split(path);
                let parent = self.real(parent, below)?;
                let real = join(&parent, name);
                if !matches!(below.look_up(&real)?, Found::Missing) {
                    self.lead_to(&parent)?;
                    self.place_whiteout(&real)?;
                }
            }
        }
        Ok(())
    }

    /// Returns where a directory is, by this layer's links first and then by those below.
    fn real(&mut self, path: &[u8], below: &Merged) -> Result<Vec<u8>, Fault> {
        match self.tree.resolve(path, false)? {
            Some(path) => Ok(path),
            None => below.resolve(path),
        }
    }
}
