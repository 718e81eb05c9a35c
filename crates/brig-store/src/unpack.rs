//! A layer's tar stream becomes a directory tree in overlay's form.
//!
//! ```text
//!   entries --> Tree (this layer alone) --> what stayed open? -- nothing --> seal: stored by diff id
//!                                             `- implicit parents, foreign link targets, whiteouts in
//!                                                directories of others --> finish over the layers below
//!                                                                           --> seal: stored by chain id
//! ```
//!
//! Layers of an image are unpacked side by side, none seeing another, and yet the result is what unpacking one over
//! the other would give; `finish` makes up for the difference. The directory is private to the store while this goes
//! on. Nothing is opened by a path that a link could bend: every directory is opened below the layer's root with
//! openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS), and symbolic links of the layer are followed by this code, which
//! refuses to climb above the root.

mod attributes;
mod directories;
mod entry;
mod finish;
mod merged;
mod place;
mod tree;
mod walk;

use std::collections::BTreeSet;
use std::io::BufRead;

pub(crate) use attributes::{Attributes, is_opaque, make_opaque};
pub(crate) use directories::{Directories, write_data};
pub(crate) use merged::Merged;
pub(crate) use place::{Data, Extent, Place, Special};

use crate::layers::Census;
use crate::limits::Limits;
use crate::tarball::{Fault, Tarball};
use tree::Tree;

/// A layer on its way from a tar stream to a sealed tree.
pub(crate) struct Unpacked {
    tree: Tree,
    /// Paths that the layer deletes from the layers below, as the archive names them.
    whiteouts: BTreeSet<Vec<u8>>,
    /// Directories whose content in the layers below the layer hides, as the archive names them.
    opaques: BTreeSet<Vec<u8>>,
    /// Hard links (path, target) whose target is not in this layer.
    links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whiteouts and opaque marks of directories that are not in this layer.
    foreign: Vec<Foreign>,
    entries: u64,
    /// Names that were made and are no directories.
    names: u64,
    /// The sizes of the files, holes included.
    bytes: u64,
    /// Whether the layers below had a part in it.
    finished: bool,
    size: u64,
}

/// A mark that belongs into a directory which only the layers below can know.
enum Foreign {
    Whiteout(Vec<u8>),
    Opaque(Vec<u8>),
}

impl Unpacked {
    /// Unpacks a whole tar stream into an empty place.
    pub(crate) fn read(
        place: Box<dyn Place>,
        tarball: &mut Tarball<impl BufRead>,
        limits: &Limits,
    ) -> Result<Self, Fault> {
        let mut layer = Self {
            tree: Tree::new(place),
            whiteouts: BTreeSet::new(),
            opaques: BTreeSet::new(),
            links: Vec::new(),
            foreign: Vec::new(),
            entries: 0,
            names: 0,
            bytes: 0,
            finished: false,
            size: 0,
        };
        while let Some(entry) = tarball.next_entry()? {
            layer.entries += 1;
            if layer.entries > limits.entries {
                return Err(Fault::TooManyEntries(limits.entries));
            }
            layer.take(&entry, tarball, limits)?;
        }
        layer.place_marks()?;
        Ok(layer)
    }

    /// Tells whether the layer came out complete without looking at the layers below.
    pub(crate) fn stands_alone(&self) -> bool {
        self.links.is_empty() && self.foreign.is_empty() && !self.tree.has_implicit()
    }

    /// Returns the sum of the sizes of the layer's files, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the number of entries that the archive had.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Returns what the tree has; none where something was replaced, moved or copied up, and counting would mean looking.
    pub(crate) fn census(&self) -> Option<Census> {
        let simple = !self.finished && self.stands_alone() && !self.tree.has_replaced();
        simple.then(|| Census { directories: self.tree.count(), names: self.names, bytes: self.bytes })
    }

    /// Returns the metadata of the root directory, if the layer has an entry for it.
    pub(crate) fn root_attributes(&self) -> Option<&Attributes> {
        self.tree.explicit(b"")
    }

    /// Gives the directories their final owners, modes and times: the last thing done to a layer.
    pub(crate) fn seal(mut self) -> Result<(), Fault> {
        self.tree.seal()
    }
}

/// Splits a path of the archive into components: `.` and empty ones fall away, `..` is refused.
pub(crate) fn normalise(path: &[u8]) -> Result<Vec<u8>, Fault> {
    if path.is_empty() || path.contains(&0) {
        return Err(Fault::path(path, "it is not a path"));
    }
    if path.len() > 4000 {
        return Err(Fault::path(path, "it is too long"));
    }
    let mut normal = Vec::with_capacity(path.len());
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(Fault::path(path, "it climbs with `..`")),
            _ if component.len() > 255 => return Err(Fault::path(path, "a part of it is too long")),
            _ => {
                if !normal.is_empty() {
                    normal.push(b'/');
                }
                normal.extend_from_slice(component);
            }
        }
    }
    Ok(normal)
}

/// Splits a normalised path into its parent and its last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Joins a normalised parent and a component.
fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        return name.to_vec();
    }
    let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
    path.extend_from_slice(parent);
    path.push(b'/');
    path.extend_from_slice(name);
    path
}

/// Yields the path's prefixes from the first component to the whole.
pub(crate) fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).chain([path.len()]);
    ends.filter(|end| *end > 0).map(move |end| &path[..end])
}
