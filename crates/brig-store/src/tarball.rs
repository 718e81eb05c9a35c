//! A tar stream as a sequence of entries: ustar, GNU (long names, sparse) and pax (all of it that images use).
//!
//! ```text
//!   [L header][long name..][x header][pax records..][header][data..][pad] ... [zero block][zero block]
//!    `------ belong to the next real header -------'
//! ```
//!
//! The `tar` crate reads single header blocks; the loop over them is here, because a layer is hostile: every piece that
//! is held in memory has a bound, nothing is extracted by anybody else, and the data is handed out without being copied.

mod fault;
mod pax;
mod sparse;

use std::io::{self, BufRead, BufReader, Read, Seek};

pub use fault::Fault;
use tar::Header;

/// The size of a tar block in bytes.
const BLOCK: usize = 512;
/// The most bytes that a long name or a set of pax records may have.
const EXTENSION_MAX: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    Character,
    Block,
}

/// One entry, all extensions applied.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The path as the archive has it.
    pub(crate) path: Vec<u8>,
    /// The target of a link.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since the epoch, and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// The size of the file in bytes, holes included.
    pub(crate) size: u64,
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the stored data belongs (offset, length), if the file is sparse.
    pub(crate) sparse: Option<Vec<(u64, u64)>>,
}

/// A reader of tar entries.
pub(crate) struct Tarball<R> {
    input: R,
    position: u64,
    /// Bytes of the present entry's data that were not taken yet.
    data: u64,
    /// Bytes of padding behind them.
    padding: u64,
}

impl<R: BufRead> Tarball<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, position: 0, data: 0, padding: 0 }
    }

    /// Gives the stream back, wherever it stands.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    /// Returns the next entry, or `None` at the end of the archive; data of the last one that was not taken is skipped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Fault> {
        let mut long_name = None;
        let mut long_link = None;
        let mut pax = pax::Records::default();
        loop {
            self.skip(self.data + self.padding)?;
            (self.data, self.padding) = (0, 0);
            let mut block = [0; BLOCK];
            if !self.read_block(&mut block)? || block.iter().all(|b| *b == 0) {
                return Ok(None);
            }
            let at = self.position - BLOCK as u64;
            let header = Header::from_byte_slice(&block);
            check_sum(&block, at)?;
            let stored = header.entry_size().map_err(|_| Fault::Header { at, field: "size" })?;
            match header.as_old().linkflag[0] {
                b'x' => pax = pax::Records::parse(&self.extension(stored)?, at)?,
                b'L' => long_name = Some(c_string(self.extension(stored)?)),
                b'K' => long_link = Some(c_string(self.extension(stored)?)),
                // Global records and volume labels say nothing about files of a layer.
                b'g' | b'V' => self.expect(stored)?,
                _ => return self.entry(header, at, long_name, long_link, pax).map(Some),
            }
        }
    }

    /// Puts one entry together from its header and the extensions before it.
    fn entry(
        &mut self,
        header: &Header,
        at: u64,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        mut pax: pax::Records,
    ) -> Result<Entry, Fault> {
        let fail = |field: &'static str| move |_: io::Error| Fault::Header { at, field };
        let mut stored = pax.size.map_or_else(|| header.entry_size().map_err(fail("size")), Ok)?;
        let flag = header.as_old().linkflag[0];
        let header_name = || header.path_bytes().into_owned();
        let path = pax.sparse_name.take().or(pax.path.take()).or(long_name).unwrap_or_else(header_name);
        let link = pax
            .link
            .take()
            .or(long_link)
            .or(header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        let kind = match flag {
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(Fault::EntryType { path: lossy(&path), kind: char::from(other) }),
        };
        // Links, devices and directories have a size field in old archives, but no data.
        if kind != Kind::File && flag != b'D' && !(kind == Kind::HardLink && pax.size.is_some()) {
            stored = 0;
        }
        self.expect(stored)?;
        let old = header.as_old();
        let id = |pax: Option<u64>, blank: bool, header: io::Result<u64>, field| {
            let id = pax.map_or(if blank { Ok(0) } else { header }, Ok).map_err(fail(field))?;
            // The all-ones id means "leave unchanged" to chown(2).
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(Fault::Header { at, field })
        };
        let device = match kind {
            Kind::Character | Kind::Block => (
                header.device_major().map_err(fail("device"))?.unwrap_or(0),
                header.device_minor().map_err(fail("device"))?.unwrap_or(0),
            ),
            _ => (0, 0),
        };
        let mtime = pax.mtime.map_or_else(|| mtime(header).ok_or(Fault::Header { at, field: "mtime" }), Ok)?;
        let mut entry = Entry {
            path,
            link,
            kind,
            mode: if is_blank(&old.mode) { 0 } else { header.mode().map_err(fail("mode"))? & 0o7777 },
            uid: id(pax.uid, is_blank(&old.uid), header.uid(), "uid")?,
            gid: id(pax.gid, is_blank(&old.gid), header.gid(), "gid")?,
            mtime,
            size: stored,
            device,
            xattrs: std::mem::take(&mut pax.xattrs),
            sparse: None,
        };
        if flag == b'S' || pax.is_sparse() {
            self.sparse(&mut entry, header, &pax, at)?;
        }
        Ok(entry)
    }

    /// Returns a piece of the present entry's data without copying it; empty at its end. Follow with [`Self::consume`].
    pub(crate) fn data(&mut self) -> Result<&[u8], Fault> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let available = self.input.fill_buf().map_err(Fault::from_stream)?;
        if available.is_empty() {
            return Err(Fault::Truncated);
        }
        let length = usize::try_from(self.data).unwrap_or(usize::MAX).min(available.len());
        Ok(&available[..length])
    }

    /// Takes `length` bytes of what [`Self::data`] returned.
    pub(crate) fn consume(&mut self, length: usize) {
        self.input.consume(length);
        self.data -= length as u64;
        self.position += length as u64;
    }

    /// Returns where the present entry's data begins in the stream, and how long the stored data is, in bytes.
    pub(crate) fn data_range(&self) -> (u64, u64) {
        (self.position, self.data)
    }

    fn expect(&mut self, stored: u64) -> Result<(), Fault> {
        if stored > i64::MAX as u64 - 1024 {
            return Err(Fault::Header { at: self.position, field: "size" });
        }
        self.data = stored;
        self.padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        Ok(())
    }

    /// Reads the body of an extension header into memory.
    fn extension(&mut self, stored: u64) -> Result<Vec<u8>, Fault> {
        if stored > EXTENSION_MAX {
            return Err(Fault::ExtensionTooLong { at: self.position, limit: EXTENSION_MAX });
        }
        self.expect(stored)?;
        let mut bytes = Vec::new();
        self.input.by_ref().take(stored).read_to_end(&mut bytes).map_err(Fault::from_stream)?;
        if bytes.len() as u64 != stored {
            return Err(Fault::Truncated);
        }
        self.position += stored;
        self.data = 0;
        Ok(bytes)
    }

    /// Reads one block; false at a clean end of the stream.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, Fault> {
        let mut have = 0;
        while have < BLOCK {
            match self.input.read(&mut block[have..]).map_err(Fault::from_stream)? {
                0 if have == 0 => return Ok(false),
                0 => return Err(Fault::Truncated),
                n => have += n,
            }
        }
        self.position += BLOCK as u64;
        Ok(true)
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), Fault> {
        while bytes > 0 {
            let available = self.input.fill_buf().map_err(Fault::from_stream)?.len();
            if available == 0 {
                return Err(Fault::Truncated);
            }
            let step = usize::try_from(bytes).unwrap_or(usize::MAX).min(available);
            self.input.consume(step);
            self.position += step as u64;
            bytes -= step as u64;
        }
        Ok(())
    }
}

impl<R: Read + Seek> Tarball<BufReader<R>> {
    /// Skips the present entry's data by seeking, for archives that are files.
    pub(crate) fn seek_past_data(&mut self) -> Result<(), Fault> {
        let distance = self.data + self.padding;
        let offset = i64::try_from(distance).map_err(|_| Fault::Truncated)?;
        self.input.seek_relative(offset).map_err(Fault::from_stream)?;
        self.position += distance;
        (self.data, self.padding) = (0, 0);
        Ok(())
    }
}

/// Compares a header's checksum; the field itself counts as spaces. Both the unsigned and the old signed sum pass.
fn check_sum(block: &[u8; BLOCK], at: u64) -> Result<(), Fault> {
    let told = Header::from_byte_slice(block).cksum().map_err(|_| Fault::Header { at, field: "checksum" })?;
    let bytes = || block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]);
    let unsigned: u32 = bytes().map(|b| u32::from(*b)).sum();
    let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
    if told == unsigned || i64::from(told) == signed { Ok(()) } else { Err(Fault::Header { at, field: "checksum" }) }
}

/// Reads the modification time, which may be negative in GNU's binary form.
fn mtime(header: &Header) -> Option<(i64, u32)> {
    let field = &header.as_old().mtime;
    if field[0] == 0xff {
        let mut wide = [0xff; 16];
        wide[4..].copy_from_slice(field);
        return i64::try_from(i128::from_be_bytes(wide)).ok().map(|seconds| (seconds, 0));
    }
    if is_blank(field) {
        return Some((0, 0));
    }
    header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).map(|seconds| (seconds, 0))
}

/// Tells whether a number's field was left empty, which means zero.
fn is_blank(field: &[u8]) -> bool {
    field.iter().all(|b| matches!(b, 0 | b' '))
}

/// Cuts a long name at its terminating zero.
fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Makes a hostile path fit for an error message.
pub(crate) fn lossy(path: &[u8]) -> String {
    let shown = &path[..path.len().min(200)];
    String::from_utf8_lossy(shown).escape_debug().to_string()
}
