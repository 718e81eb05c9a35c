//! The directories of a layer that is being unpacked: known by path, described at the end.
//!
//! The tree began empty and everything in it was made here, so a map of directories replaces most look-ups on disk: a
//! path whose parent is in the map needs no resolving at all. A directory keeps mode 0700 until `seal`, so that neither
//! its mode, nor a setgid bit, nor a default ACL can bear on what is put into it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use rustix::io::Errno;

use super::attributes::Attributes;
use super::place::Place;
use super::walk::Walk;
use super::{Fault, join, split};

/// How a directory came into the tree.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// The layer has an entry for it.
    Explicit(Attributes),
    /// It only leads to an entry; the layers below decide what it is.
    Implicit,
    /// It was implicit, and the layers below have decided.
    Settled(Attributes),
}

/// The directories of one layer.
pub(super) struct Tree {
    /// Where everything is put.
    pub(super) place: Box<dyn Place>,
    directories: BTreeMap<Vec<u8>, State>,
    opaque: BTreeSet<Vec<u8>>,
    replaced: bool,
}

impl Tree {
    pub(super) fn new(place: Box<dyn Place>) -> Self {
        // The root is settled from the start: nearly no layer describes it, and the topmost that does counts.
        let root = State::Settled(Attributes::plain_directory());
        Self { place, directories: BTreeMap::from([(Vec::new(), root)]), opaque: BTreeSet::new(), replaced: false }
    }

    /// Says whether something was taken away again, so that what was made is more than what is there.
    pub(super) fn has_replaced(&self) -> bool {
        self.replaced
    }

    /// Returns the number of directories, the root included.
    pub(super) fn count(&self) -> u64 {
        self.directories.len() as u64
    }

    pub(super) fn has_implicit(&self) -> bool {
        self.directories.values().any(|state| matches!(state, State::Implicit))
    }

    /// Returns the paths of all implicit directories.
    pub(super) fn implicit(&self) -> BTreeSet<Vec<u8>> {
        let implicit = self.directories.iter().filter(|(_, state)| matches!(state, State::Implicit));
        implicit.map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn explicit(&self, path: &[u8]) -> Option<&Attributes> {
        match self.directories.get(path) {
            Some(State::Explicit(attributes)) => Some(attributes),
            _ => None,
        }
    }

    pub(super) fn is_directory(&self, path: &[u8]) -> bool {
        self.directories.contains_key(path)
    }

    pub(super) fn is_implicit(&self, path: &[u8]) -> bool {
        matches!(self.directories.get(path), Some(State::Implicit))
    }

    pub(super) fn set(&mut self, path: &[u8], state: State) {
        self.directories.insert(path.to_vec(), state);
    }

    pub(super) fn set_opaque(&mut self, path: &[u8]) {
        self.opaque.insert(path.to_vec());
    }

    pub(super) fn is_opaque(&self, path: &[u8]) -> bool {
        self.opaque.contains(path)
    }

    /// Resolves a directory path through the layer's own symbolic links.
    ///
    /// What is missing is made as an implicit directory if `make` is set; else the answer is `None`.
    pub(super) fn resolve(&mut self, path: &[u8], make: bool) -> Result<Option<Vec<u8>>, Fault> {
        if self.directories.contains_key(path) {
            return Ok(Some(path.to_vec()));
        }
        let mut walk = Walk::new(path);
        while let Some(step) = walk.next()? {
            if self.directories.contains_key(&step.path) {
                walk.enter(step);
                continue;
            }
            match self.place.read_link(&step.parent, &step.name) {
                Ok(target) => walk.follow(&target)?,
                Err(Errno::NOENT) if make => {
                    self.place
                        .make_directory(&step.parent, &step.name)
                        .map_err(Fault::io("make directory", &step.path))?;
                    self.directories.insert(step.path.clone(), State::Implicit);
                    walk.enter(step);
                }
                Err(Errno::INVAL) if make => return Err(Fault::path(path, "its parent is not a directory")),
                Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
                Err(error) => return Err(Fault::io("look up", &step.path)(error)),
            }
        }
        Ok(Some(walk.end()))
    }

    /// Makes a directory at a resolved path, or takes the one that is there.
    pub(super) fn make(&mut self, path: &[u8], state: State) -> Result<(), Fault> {
        if !self.directories.contains_key(path) {
            let (parent, name) = split(path);
            let mut result = self.place.make_directory(parent, name);
            if result == Err(Errno::EXIST) {
                self.remove(path)?;
                result = self.place.make_directory(parent, name);
            }
            result.map_err(Fault::io("make directory", path))?;
        }
        self.directories.insert(path.to_vec(), state);
        Ok(())
    }

    /// Removes what lies at a resolved path, with all below it.
    pub(super) fn remove(&mut self, path: &[u8]) -> Result<(), Fault> {
        self.replaced = true;
        let (parent, name) = split(path);
        if self.directories.contains_key(path) {
            for gone in self.below(path) {
                self.directories.remove(&gone);
                self.opaque.remove(&gone);
            }
        }
        self.place.remove(parent, name).map_err(Fault::io("remove", path))
    }

    /// Returns the directory itself and the directories below it.
    fn below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let mut prefix = path.to_vec();
        prefix.push(b'/');
        let range = (Bound::Included(prefix.clone()), Bound::Unbounded);
        let inner = self.directories.range(range).map(|(p, _)| p).take_while(|p| p.starts_with(&prefix));
        std::iter::once(path).map(<[u8]>::to_vec).chain(inner.cloned()).collect()
    }

    /// Moves everything in directory `from` into directory `to`, and removes `from`; both are resolved paths.
    ///
    /// Returns the pairs of old and new path of each directory that moved.
    pub(super) fn merge(&mut self, from: &[u8], to: &[u8]) -> Result<(), Fault> {
        let names = self.place.names(from).map_err(Fault::io("read", from))?;
        for name in names {
            let (old, new) = (join(from, &name), join(to, &name));
            if self.is_directory(&old) && self.is_directory(&new) {
                if let Some(State::Explicit(attributes)) = self.directories.get(&old).cloned() {
                    self.set(&new, State::Explicit(attributes));
                }
                self.merge(&old, &new)?;
                continue;
            }
            self.remove(&new)?;
            self.place.rename(from, to, &name).map_err(Fault::io("move", &old))?;
            if self.is_directory(&old) {
                for path in self.below(&old) {
                    let moved = [&new, &path[old.len()..]].concat();
                    if let Some(state) = self.directories.remove(&path) {
                        self.directories.insert(moved.clone(), state);
                    }
                    if self.opaque.remove(&path) {
                        self.opaque.insert(moved);
                    }
                }
            }
        }
        if self.opaque.remove(from) {
            self.opaque.insert(to.to_vec());
        }
        self.remove(from)
    }

    /// Gives every directory its attributes and opaque marks, and completes the place.
    pub(super) fn seal(&mut self) -> Result<(), Fault> {
        let opaque = std::mem::take(&mut self.opaque);
        let plain = Attributes::plain_directory();
        for (path, state) in std::mem::take(&mut self.directories) {
            let attributes = match &state {
                State::Explicit(attributes) | State::Settled(attributes) => attributes,
                State::Implicit => &plain,
            };
            self.place.describe(&path, attributes, opaque.contains(&path)).map_err(Fault::io("describe", &path))?;
        }
        self.place.close().map_err(Fault::io("complete", b""))
    }
}
