//! Blocks and inodes are given places in the image's file, front to back.

use std::fs::File;

use rustix::io::Errno;

use super::format::{self, BLOCK, INODE, Inode, Layout, ROOT_AT, SLOT};
use crate::ahead::Ahead;

/// How many blocks are taken for inodes at a time.
const CHUNK: u64 = 16;

/// The image's file, and how far it is taken.
pub(super) struct Writer {
    file: File,
    /// The first block that nobody has.
    next: u64,
    /// The inodes that are being collected, and where they will be written, in bytes.
    chunk: Vec<u8>,
    chunk_at: u64,
    /// Bytes of the chunk that are taken.
    used: usize,
    inodes: u32,
    ahead: Ahead,
}

/// A place for an inode and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    /// In bytes from the image's start.
    pub(super) at: u64,
}

impl Spot {
    /// Returns the number of the inode here.
    pub(super) fn number(self) -> u64 {
        self.at / SLOT
    }
}

impl Writer {
    /// Takes an empty file. Block 0 is the superblock's, which is written last.
    pub(super) fn new(file: File) -> Self {
        Self { file, next: 1, chunk: Vec::new(), chunk_at: 0, used: 0, inodes: 0, ahead: Ahead::from(0) }
    }

    /// Takes blocks one behind the other; returns the first. Errors: `EFBIG`, the image would have too many.
    pub(super) fn take_blocks(&mut self, count: u64) -> Result<u32, Errno> {
        let first = u32::try_from(self.next).map_err(|_| Errno::FBIG)?;
        // What was taken before is written by now, but for the chunk.
        self.ahead.reached(&self.file, self.next * BLOCK as u64);
        let end = self.next.checked_add(count).filter(|end| *end < u64::from(u32::MAX)).ok_or(Errno::FBIG)?;
        self.next = end;
        Ok(first)
    }

    /// Finds a place for an inode with what follows it. Within one block, unless it is longer than one.
    pub(super) fn take_spot(&mut self, length: usize) -> Result<Spot, Errno> {
        let length = length.next_multiple_of(usize::try_from(SLOT).unwrap_or(INODE));
        if length > BLOCK {
            let first = self.take_blocks(length.div_ceil(BLOCK) as u64)?;
            return Ok(Spot { at: u64::from(first) * BLOCK as u64 });
        }
        if self.used % BLOCK + length > BLOCK {
            self.used = self.used.next_multiple_of(BLOCK);
        }
        if self.used + length > self.chunk.len() {
            self.flush()?;
            let first = self.take_blocks(CHUNK)?;
            self.chunk_at = u64::from(first) * BLOCK as u64;
            self.chunk.clear();
            self.chunk.resize(usize::try_from(CHUNK).unwrap_or_default() * BLOCK, 0);
            self.used = 0;
        }
        let at = self.chunk_at + self.used as u64;
        self.used += length;
        Ok(Spot { at })
    }

    /// Writes an inode, its attributes and the tail of its data at their place.
    pub(super) fn write_inode(
        &mut self,
        spot: Spot,
        inode: &Inode,
        attributes: &[u8],
        tail: &[u8],
    ) -> Result<(), Errno> {
        self.inodes = self.inodes.wrapping_add(1);
        let bytes = inode.bytes(self.inodes)?;
        let mut at = spot.at;
        for part in [&bytes[..], attributes, tail] {
            self.write_at(at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Writes bytes at a place that was taken.
    pub(super) fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        match self.in_chunk(at, bytes.len()) {
            Some(range) => self.chunk[range].copy_from_slice(bytes),
            None => write_all(&self.file, at, bytes)?,
        }
        Ok(())
    }

    /// Reads bytes that were written.
    pub(super) fn read_at(&self, at: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        if let Some(range) = self.in_chunk(at, bytes.len()) {
            bytes.copy_from_slice(&self.chunk[range]);
            return Ok(());
        }
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pread(&self.file, &mut bytes[done..], at + done as u64) {
                Ok(0) => return Err(Errno::IO),
                Ok(length) => done += length,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn in_chunk(&self, at: u64, length: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(at.checked_sub(self.chunk_at)?).ok()?;
        let end = start.checked_add(length)?;
        (end <= self.chunk.len()).then_some(start..end)
    }

    /// Writes the inodes that were collected.
    fn flush(&mut self) -> Result<(), Errno> {
        write_all(&self.file, self.chunk_at, &self.chunk[..self.used])
    }

    /// Writes the root's inode and the superblock: from here on it is a file system.
    pub(super) fn close(&mut self, inodes: u64, root: &Inode, attributes: &[u8], tail: &[u8]) -> Result<(), Errno> {
        self.flush()?;
        let blocks = u32::try_from(self.next).map_err(|_| Errno::FBIG)?;
        let mut block = format::superblock(blocks, inodes);
        let mut at = ROOT_AT;
        for part in [&root.bytes(0)?[..], attributes, tail] {
            block.get_mut(at..at + part.len()).ok_or(Errno::NOSPC)?.copy_from_slice(part);
            at += part.len();
        }
        write_all(&self.file, 0, &block)?;
        rustix::fs::ftruncate(&self.file, u64::from(blocks) * BLOCK as u64)
    }
}

/// Where the data of a size lies: behind the inode as far as it can, in blocks otherwise. `room` is what the inode and its
/// attributes may take with it, in bytes.
pub(super) fn layout(writer: &mut Writer, size: u64, attributes: usize, room: usize) -> Result<(Layout, usize), Errno> {
    let tail = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    let inline = tail > 0 && INODE + attributes + tail <= room;
    let whole = size / BLOCK as u64;
    let count = whole + u64::from(!inline && tail > 0);
    let first = if count > 0 { writer.take_blocks(count)? } else { 0 };
    Ok(if inline { (Layout::Inline(first), tail) } else { (Layout::Plain(first), 0) })
}

fn write_all(file: &File, mut at: u64, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, at) {
            Ok(length) => {
                bytes = &bytes[length..];
                at += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
