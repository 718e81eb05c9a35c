//! Where the entries of a layer are put: what every form of a layer can do.
//!
//! ```text
//!   Unpacked (rules of layers) --> Tree (directories by path) --> Place:  Directories   files of the file system
//!                                                                         erofs::Image  one image of all of them
//! ```
//!
//! The rules are written once, above; a place only does what it is told. Errors are those of the system calls that a
//! directory would get, whether there is one or not: `EEXIST`, `ENOENT`, and `EINVAL` for the target of what is no link.

use std::io::{BufRead, Read};

use rustix::io::Errno;

use super::attributes::Attributes;
use crate::tarball::{Fault, Tarball};

/// The bytes of one file, piece by piece.
pub(crate) trait Data {
    /// Returns the next bytes without taking them; none at the end.
    fn piece(&mut self) -> Result<&[u8], Fault>;
    /// Takes `length` bytes of what [`Self::piece`] returned.
    fn take(&mut self, length: usize);
}

impl<R: BufRead> Data for Tarball<R> {
    fn piece(&mut self) -> Result<&[u8], Fault> {
        self.data()
    }

    fn take(&mut self, length: usize) {
        self.consume(length);
    }
}

/// The bytes of a file of a layer below.
pub(super) struct FileData {
    file: std::fs::File,
    buffer: Vec<u8>,
    at: usize,
}

impl FileData {
    pub(super) fn new(file: std::fs::File) -> Self {
        Self { file, buffer: Vec::new(), at: 0 }
    }
}

impl Data for FileData {
    fn piece(&mut self) -> Result<&[u8], Fault> {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
            let read = self.file.by_ref().take(256 << 10).read_to_end(&mut self.buffer);
            read.map_err(Fault::from_stream)?;
        }
        Ok(&self.buffer[self.at..])
    }

    fn take(&mut self, length: usize) {
        self.at += length;
    }
}

/// How large a file is, and where its stored bytes belong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent<'a> {
    /// The size in bytes, holes included.
    pub(crate) size: u64,
    /// Offset and length of each stored piece, if the file has holes.
    pub(crate) pieces: Option<&'a [(u64, u64)]>,
}

/// What is neither a file nor a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Special<'a> {
    /// A symbolic link and its target.
    Symlink(&'a [u8]),
    /// A character device, major and minor.
    Character(u32, u32),
    /// A block device, major and minor.
    Block(u32, u32),
    /// A FIFO.
    Fifo,
    /// A socket: what a layer below has, no archive does.
    Socket,
}

/// One layer in the making. Parents are resolved paths of directories that are there.
pub(crate) trait Place: Send {
    /// Returns the target of a symbolic link.
    fn read_link(&mut self, parent: &[u8], name: &[u8]) -> Result<Vec<u8>, Errno>;
    /// Tells whether a name is taken.
    fn exists(&mut self, parent: &[u8], name: &[u8]) -> Result<bool, Errno>;
    /// Lists a directory.
    fn names(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, Errno>;
    /// Makes an empty directory.
    fn make_directory(&mut self, parent: &[u8], name: &[u8]) -> Result<(), Errno>;
    /// Removes what is under a name, with all below it; nothing there is fine.
    fn remove(&mut self, parent: &[u8], name: &[u8]) -> Result<(), Errno>;
    /// Moves a name from one directory into another, where it is free.
    fn rename(&mut self, from: &[u8], to: &[u8], name: &[u8]) -> Result<(), Errno>;
    /// Gives what is no directory one more name.
    fn link(&mut self, from: (&[u8], &[u8]), to: (&[u8], &[u8])) -> Result<(), Errno>;
    /// Takes a name for a file of this mode; [`Self::fill_file`] follows.
    fn begin_file(&mut self, parent: &[u8], name: &[u8], mode: u32) -> Result<(), Errno>;
    /// Writes and describes the file that was begun; `path` is for errors. Returns the bytes written.
    fn fill_file(
        &mut self,
        path: &[u8],
        extent: Extent<'_>,
        attributes: &Attributes,
        data: &mut dyn Data,
    ) -> Result<u64, Fault>;
    /// Makes and describes what is neither a file nor a directory.
    fn special(
        &mut self,
        parent: &[u8],
        name: &[u8],
        special: Special<'_>,
        attributes: &Attributes,
    ) -> Result<(), Errno>;
    /// Makes overlay's mark of a deletion.
    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<(), Errno>;
    /// Gives a directory its attributes, and overlay's opaque mark; comes once for each, when nothing else will.
    fn describe(&mut self, path: &[u8], attributes: &Attributes, opaque: bool) -> Result<(), Errno>;
    /// Completes the layer; nothing comes after it.
    fn close(&mut self) -> Result<(), Errno>;
}
