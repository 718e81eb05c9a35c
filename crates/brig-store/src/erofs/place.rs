//! A layer as an image in the making: names in memory, everything else in the file at once.
//!
//! ```text
//!   a directory   its names, in the order of their bytes   written by close(), when all numbers are known
//!   anything else an inode in the file                     its number of links is corrected by close()
//! ```
//!
//! What an archive replaces stays in the file without a name.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use rustix::io::Errno;

use super::format::{self, BLOCK, FileKind, INODE, Inode, LINKS_AT, Layout, Name, ROOT_AT};
use super::writer::{Spot, Writer, layout};
use crate::tarball::Fault;
use crate::unpack::{Attributes, Data, Extent, Place, Special};

/// The longest name in bytes, as Linux has it.
const NAME_MAX: usize = 255;
/// The longest path and the longest target of a symbolic link in bytes, as Linux has them.
const LINK_MAX: usize = 4095;
/// What the root's inode and all that follows it may take, in bytes.
const ROOT_ROOM: usize = BLOCK - ROOT_AT;

/// Files up to this size lie behind their inodes, in bytes: two of them share a block. The block is cached beside the file's own
/// page, and is read alone and not ahead, so that the end of a larger file would cost more there than the room it saves.
const SMALL: u64 = 2048 - INODE as u64;

/// What a name means: an index into [`Image::directories`] or [`Image::files`].
#[derive(Debug, Clone, Copy)]
enum Child {
    Directory(u32),
    File(u32),
}

/// One directory.
#[derive(Default)]
struct Directory {
    children: BTreeMap<Box<[u8]>, Child>,
    described: Option<Box<(Attributes, bool)>>,
}

/// One inode that is no directory.
struct Node {
    spot: Spot,
    links: u32,
    kind: FileKind,
    /// The length of a link's target, and where it is in the file.
    target: (u16, u64),
}

/// One layer that becomes an EROFS image.
pub(crate) struct Image {
    writer: Writer,
    /// The root is the first.
    directories: Vec<Directory>,
    files: Vec<Node>,
    /// The directory that was looked up last.
    last: (Vec<u8>, u32),
    begun: Option<(u32, Box<[u8]>)>,
}

/// A directory with a place in the file, on the way out.
struct Placed {
    directory: u32,
    parent: u32,
    spot: Spot,
    layout: Layout,
    tail: usize,
    size: u64,
    attributes: Vec<u8>,
}

impl Image {
    /// Makes the file of an image, where none is.
    pub(crate) fn create(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        Ok(Self::new(options.read(true).write(true).create_new(true).mode(0o600).open(path)?))
    }

    /// Makes an image in an empty file that can be read and written.
    pub(super) fn new(file: File) -> Self {
        let directories = vec![Directory::default()];
        Self { writer: Writer::new(file), directories, files: Vec::new(), last: (Vec::new(), 0), begun: None }
    }

    /// Finds a directory by its path.
    fn find(&mut self, path: &[u8]) -> Result<u32, Errno> {
        if self.last.0 == path {
            return Ok(self.last.1);
        }
        if path.len() > LINK_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let mut index = 0;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            index = match self.child(index, name)? {
                Some(Child::Directory(index)) => index,
                Some(Child::File(_)) => return Err(Errno::NOTDIR),
                None => return Err(Errno::NOENT),
            };
        }
        self.last.0.clear();
        self.last.0.extend_from_slice(path);
        self.last.1 = index;
        Ok(index)
    }

    fn child(&self, directory: u32, name: &[u8]) -> Result<Option<Child>, Errno> {
        // The archive's names are short; those in the targets of links may be anything.
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(self.directories.get(directory as usize).and_then(|known| known.children.get(name).copied()))
    }

    fn free(&mut self, parent: &[u8], name: &[u8]) -> Result<u32, Errno> {
        let directory = self.find(parent)?;
        if self.child(directory, name)?.is_some() { Err(Errno::EXIST) } else { Ok(directory) }
    }

    fn insert(&mut self, directory: u32, name: &[u8], child: Child) {
        self.directories[directory as usize].children.insert(name.into(), child);
    }

    fn forget_last(&mut self) {
        self.last.0.clear();
        self.last.1 = 0;
    }

    /// Writes an inode that is no directory, and gives it its first name.
    fn add(&mut self, directory: u32, name: &[u8], inode: &Inode, attributes: &[u8], tail: &[u8]) -> Result<(), Errno> {
        let index = u32::try_from(self.files.len()).map_err(|_| Errno::FBIG)?;
        let spot = self.writer.take_spot(INODE + attributes.len() + tail.len())?;
        self.writer.write_inode(spot, inode, attributes, tail)?;
        let target = match (inode.kind, inode.layout) {
            (FileKind::Symlink, Layout::Inline(_)) => spot.at + (INODE + attributes.len()) as u64,
            (FileKind::Symlink, Layout::Plain(block)) => u64::from(block) * BLOCK as u64,
            _ => 0,
        };
        let length = if inode.kind == FileKind::Symlink { u16::try_from(inode.size).unwrap_or(u16::MAX) } else { 0 };
        self.files.push(Node { spot, links: 1, kind: inode.kind, target: (length, target) });
        self.insert(directory, name, Child::File(index));
        Ok(())
    }

    /// Drops a name; what has no other is gone.
    fn drop_name(&mut self, directory: u32, name: &[u8]) {
        if let Some(Child::File(index)) = self.directories[directory as usize].children.remove(name)
            && let Some(node) = self.files.get_mut(index as usize)
        {
            node.links = node.links.saturating_sub(1);
        }
    }

    /// Empties a directory that lost its name, and all below it, without recursion.
    fn drop_directory(&mut self, directory: u32) {
        let mut rest = vec![directory];
        while let Some(index) = rest.pop() {
            let gone = std::mem::take(&mut self.directories[index as usize]);
            for child in gone.children.into_values() {
                match child {
                    Child::Directory(index) => rest.push(index),
                    Child::File(index) => {
                        if let Some(node) = self.files.get_mut(index as usize) {
                            node.links = node.links.saturating_sub(1);
                        }
                    }
                }
            }
        }
    }

    /// Gives every directory that has a name a place in the file; the root's is known.
    fn place_directories(&mut self) -> Result<Vec<Placed>, Errno> {
        let mut placed = Vec::new();
        let mut rest = vec![(0_u32, 0_u32)];
        while let Some((index, parent)) = rest.pop() {
            let directory = &self.directories[index as usize];
            let size = format::directory_size(with_dots(directory, |name, _| name.len()));
            let described = directory.described.as_deref();
            let opaque = described.filter(|(_, opaque)| *opaque).map(|_| (&b"trusted.overlay.opaque"[..], &b"y"[..]));
            let own = described.into_iter().flat_map(|(attributes, _)| &attributes.xattrs);
            let all = opaque.into_iter().chain(own.map(|(name, value)| (name.as_slice(), value.as_slice())));
            let attributes = format::attributes(FileKind::Directory, all)?;
            rest.extend(directory.children.values().filter_map(|child| match child {
                Child::Directory(child) => Some((*child, index)),
                Child::File(_) => None,
            }));
            let room = if index == 0 { ROOT_ROOM } else { BLOCK };
            let (layout, tail) = layout(&mut self.writer, size, attributes.len(), room)?;
            let spot = if index == 0 {
                Spot { at: ROOT_AT as u64 }
            } else {
                self.writer.take_spot(INODE + attributes.len() + tail)?
            };
            placed.push(Placed { directory: index, parent, spot, layout, tail, size, attributes });
        }
        Ok(placed)
    }

    /// Writes one directory; returns the root's inode and tail instead of writing them.
    fn write_directory(&mut self, placed: &Placed, numbers: &[u64]) -> Result<Option<(Inode, Vec<u8>)>, Errno> {
        let directory = &self.directories[placed.directory as usize];
        let number = |index: u32| numbers[index as usize];
        let names = with_dots(directory, |name, child| {
            let (number, kind) = match child {
                Some(Child::Directory(index)) => (number(index), FileKind::Directory),
                Some(Child::File(index)) => {
                    let node = &self.files[index as usize];
                    (node.spot.number(), node.kind)
                }
                None if name == b"." => (number(placed.directory), FileKind::Directory),
                None => (number(placed.parent), FileKind::Directory),
            };
            Name { text: name, number, kind }
        });
        let bytes = format::directory(names);
        let below = directory.children.values().filter(|child| matches!(child, Child::Directory(_))).count();
        let plain = (Attributes::plain_directory(), false);
        let (described, _) = directory.described.as_deref().unwrap_or(&plain);
        let inode = Inode {
            kind: FileKind::Directory,
            mode: described.mode,
            uid: described.uid,
            gid: described.gid,
            mtime: described.mtime.unwrap_or_default(),
            links: u32::try_from(below + 2).map_err(|_| Errno::FBIG)?,
            size: placed.size,
            layout: placed.layout,
            attributes: placed.attributes.len(),
        };
        let (blocks, tail) = bytes.split_at(bytes.len() - placed.tail);
        if let Layout::Plain(first) | Layout::Inline(first) = placed.layout {
            self.writer.write_at(u64::from(first) * BLOCK as u64, blocks)?;
        }
        if placed.directory == 0 {
            return Ok(Some((inode, tail.to_vec())));
        }
        self.writer.write_inode(placed.spot, &inode, &placed.attributes, tail)?;
        Ok(None)
    }
}

/// Goes through a directory's names in the order of their bytes, `.` and `..` among them.
fn with_dots<'a, T>(
    directory: &'a Directory,
    mut each: impl FnMut(&'a [u8], Option<Child>) -> T,
) -> impl Iterator<Item = T> {
    let mut dots = [&b"."[..], b".."].into_iter().peekable();
    let mut children = directory.children.iter().peekable();
    std::iter::from_fn(move || {
        let first = dots.peek().filter(|dot| children.peek().is_none_or(|(name, _)| **dot < &name[..]));
        if first.is_some() {
            return dots.next().map(|dot| each(dot, None));
        }
        children.next().map(|(name, child)| each(name, Some(*child)))
    })
}

impl Place for Image {
    fn read_link(&mut self, parent: &[u8], name: &[u8]) -> Result<Vec<u8>, Errno> {
        let directory = self.find(parent)?;
        let index = match self.child(directory, name)? {
            None => return Err(Errno::NOENT),
            Some(Child::Directory(_)) => return Err(Errno::INVAL),
            Some(Child::File(index)) => index,
        };
        let node = &self.files[index as usize];
        if node.kind != FileKind::Symlink {
            return Err(Errno::INVAL);
        }
        let mut target = vec![0; usize::from(node.target.0)];
        self.writer.read_at(node.target.1, &mut target)?;
        Ok(target)
    }

    fn exists(&mut self, parent: &[u8], name: &[u8]) -> Result<bool, Errno> {
        let directory = self.find(parent)?;
        Ok(self.child(directory, name)?.is_some())
    }

    fn names(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
        let directory = self.find(path)?;
        Ok(self.directories[directory as usize].children.keys().map(|name| name.to_vec()).collect())
    }

    fn make_directory(&mut self, parent: &[u8], name: &[u8]) -> Result<(), Errno> {
        let directory = self.free(parent, name)?;
        let index = u32::try_from(self.directories.len()).map_err(|_| Errno::FBIG)?;
        self.directories.push(Directory::default());
        self.insert(directory, name, Child::Directory(index));
        Ok(())
    }

    fn remove(&mut self, parent: &[u8], name: &[u8]) -> Result<(), Errno> {
        let directory = self.find(parent)?;
        match self.child(directory, name)? {
            Some(Child::Directory(index)) => {
                self.directories[directory as usize].children.remove(name);
                self.drop_directory(index);
                self.forget_last();
            }
            Some(Child::File(_)) => self.drop_name(directory, name),
            None => {}
        }
        Ok(())
    }

    fn rename(&mut self, from: &[u8], to: &[u8], name: &[u8]) -> Result<(), Errno> {
        let source = self.find(from)?;
        let target = self.find(to)?;
        let child = self.directories[source as usize].children.remove(name).ok_or(Errno::NOENT)?;
        self.insert(target, name, child);
        self.forget_last();
        Ok(())
    }

    fn link(&mut self, from: (&[u8], &[u8]), to: (&[u8], &[u8])) -> Result<(), Errno> {
        let source = self.find(from.0)?;
        let index = match self.child(source, from.1)? {
            None => return Err(Errno::NOENT),
            Some(Child::Directory(_)) => return Err(Errno::PERM),
            Some(Child::File(index)) => index,
        };
        let target = self.free(to.0, to.1)?;
        self.files[index as usize].links += 1;
        self.insert(target, to.1, Child::File(index));
        Ok(())
    }

    fn begin_file(&mut self, parent: &[u8], name: &[u8], _mode: u32) -> Result<(), Errno> {
        let directory = self.free(parent, name)?;
        self.begun = Some((directory, name.into()));
        Ok(())
    }

    fn fill_file(
        &mut self,
        path: &[u8],
        extent: Extent<'_>,
        attributes: &Attributes,
        data: &mut dyn Data,
    ) -> Result<u64, Fault> {
        let fail = |errno| Fault::io("write", path)(errno);
        let (directory, name) = self.begun.take().ok_or(Errno::BADF).map_err(fail)?;
        let encoded = format::attributes(FileKind::Regular, pairs(attributes)).map_err(fail)?;
        // The holes of a sparse file are holes of the image.
        let room = if extent.pieces.is_some() || extent.size > SMALL { 0 } else { BLOCK };
        let (layout, tail) = layout(&mut self.writer, extent.size, encoded.len(), room).map_err(fail)?;
        let start = match layout {
            Layout::Plain(block) | Layout::Inline(block) => u64::from(block) * BLOCK as u64,
            Layout::Device(_) => 0,
        };
        let whole = extent.size - tail as u64;
        let mut rest = [0; BLOCK];
        let mut written = 0;
        let all = [(0, extent.size)];
        for (offset, length) in extent.pieces.unwrap_or(&all) {
            let end =
                offset.checked_add(*length).filter(|end| *end <= extent.size).ok_or(Errno::INVAL).map_err(fail)?;
            let mut at = *offset;
            while at < end {
                let piece = data.piece()?;
                if piece.is_empty() {
                    return Err(Fault::Truncated);
                }
                let bound = if at < whole { end.min(whole) } else { end };
                let step = usize::try_from(bound - at).unwrap_or(usize::MAX).min(piece.len());
                if at < whole {
                    self.writer.write_at(start + at, &piece[..step]).map_err(fail)?;
                } else {
                    let from = usize::try_from(at - whole).unwrap_or(BLOCK);
                    rest[from..from + step].copy_from_slice(&piece[..step]);
                }
                data.take(step);
                at += step as u64;
            }
            written += length;
        }
        let inode = Inode { size: extent.size, layout, ..inode(FileKind::Regular, attributes, encoded.len()) };
        self.add(directory, &name, &inode, &encoded, &rest[..tail]).map_err(fail)?;
        Ok(written)
    }

    fn special(
        &mut self,
        parent: &[u8],
        name: &[u8],
        special: Special<'_>,
        attributes: &Attributes,
    ) -> Result<(), Errno> {
        let directory = self.free(parent, name)?;
        let (kind, layout_of, target) = match special {
            Special::Symlink(target) if target.len() > LINK_MAX => return Err(Errno::NAMETOOLONG),
            Special::Symlink(target) => (FileKind::Symlink, None, target),
            Special::Character(major, minor) => (FileKind::Character, Some(format::device(major, minor)?), &b""[..]),
            Special::Block(major, minor) => (FileKind::Block, Some(format::device(major, minor)?), &b""[..]),
            Special::Fifo => (FileKind::Fifo, Some(0), &b""[..]),
            Special::Socket => (FileKind::Socket, Some(0), &b""[..]),
        };
        let encoded = format::attributes(kind, pairs(attributes))?;
        let size = target.len() as u64;
        let (layout, tail) = match layout_of {
            Some(device) => (Layout::Device(device), 0),
            None => layout(&mut self.writer, size, encoded.len(), BLOCK)?,
        };
        if let Layout::Plain(block) = layout {
            self.writer.write_at(u64::from(block) * BLOCK as u64, target)?;
        }
        let mut inode = Inode { size, layout, ..inode(kind, attributes, encoded.len()) };
        if kind == FileKind::Symlink {
            inode.mode = 0o777;
        }
        self.add(directory, name, &inode, &encoded, &target[target.len() - tail..])
    }

    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<(), Errno> {
        let attributes = Attributes { mode: 0, ..Attributes::plain_directory() };
        self.special(parent, name, Special::Character(0, 0), &attributes)
    }

    fn describe(&mut self, path: &[u8], attributes: &Attributes, opaque: bool) -> Result<(), Errno> {
        let directory = self.find(path)?;
        self.directories[directory as usize].described = Some(Box::new((attributes.clone(), opaque)));
        Ok(())
    }

    fn close(&mut self) -> Result<(), Errno> {
        let placed = self.place_directories()?;
        let mut numbers = vec![0; self.directories.len()];
        for one in &placed {
            numbers[one.directory as usize] = one.spot.number();
        }
        let mut root = None;
        for one in &placed {
            let kept = self.write_directory(one, &numbers)?;
            root = root.or(kept.map(|(inode, tail)| (inode, tail, &one.attributes)));
        }
        for node in self.files.iter().filter(|node| node.links > 1) {
            self.writer.write_at(node.spot.at + LINKS_AT, &node.links.to_le_bytes())?;
        }
        let files = self.files.iter().filter(|node| node.links > 0).count();
        let (inode, tail, attributes) = root.ok_or(Errno::NOENT)?;
        self.writer.close((placed.len() + files) as u64, &inode, attributes, &tail)
    }
}

fn pairs(attributes: &Attributes) -> impl Iterator<Item = (&[u8], &[u8])> {
    attributes.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
}

/// Describes an inode with one name and without data.
fn inode(kind: FileKind, attributes: &Attributes, length: usize) -> Inode {
    Inode {
        kind,
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: attributes.mtime.unwrap_or_default(),
        links: 1,
        size: 0,
        layout: Layout::Plain(0),
        attributes: length,
    }
}
