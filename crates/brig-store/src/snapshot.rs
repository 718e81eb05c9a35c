//! A container's writable layer becomes a layer of an image: read once, written twice.
//!
//! ```text
//!   upper --> Walk --+--> tar --> [pump] --> sha256 (diff id) --> blob                (compress.rs, when it is pushed)
//!                    `--> tree, as unpacking that tar would make it; file data shared by reflink where the file system can
//!
//!   in the upper              in the tar                in the tree
//!   character device 0:0      .wh.NAME                  character device 0:0
//!   opaque directory          NAME/.wh..wh..opq         the same mark
//!   ids of a user namespace   ids as they are inside    the same
//! ```
//!
//! The work is proportional to what was written, not to the image. The layer has an entry for every directory on the way to
//! a change, so it stands alone.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use crate::ahead::Ahead;
use crate::stream::{Ids, Part, append, names, records_of};
use crate::tarball::{Fault, lossy};
use crate::unpack::{Attributes, is_opaque, make_opaque};

/// The deepest tree that is read.
const DEPTH_MAX: usize = 512;
/// The most pieces of a file that is written with its holes.
const PIECES_MAX: usize = 4096;
/// The most that is read of a file at a time, in bytes. Few enough that the memory for it costs little to get.
pub(crate) const PIECE: usize = 256 << 10;
/// What a layer's tar puts before the name of what it deletes.
const WHITEOUT: &[u8] = b".wh.";
/// The entry that makes a directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a walk has found.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Entries of the tar.
    pub(crate) entries: u64,
    /// Names in the tree that are no directories, and directories with the root.
    pub(crate) names: u64,
    pub(crate) directories: u64,
    /// Bytes of file data.
    pub(crate) bytes: u64,
    /// The sizes of the files, holes included.
    pub(crate) logical: u64,
    /// What cannot be said in a layer: names that begin with the mark of deletion.
    pub(crate) omitted: Vec<String>,
}

/// How an upper is read.
pub(crate) struct Rules<'a> {
    pub(crate) ids: Ids,
    /// Paths that are not the container's doing, relative to the root.
    pub(crate) skip: &'a dyn Fn(&[u8]) -> bool,
    /// Whether the root directory gets an entry.
    pub(crate) root: bool,
    pub(crate) cancelled: &'a dyn Fn() -> bool,
}

/// Reads the writable layer `upper` into a tar and into the empty directory `tree`.
pub(crate) fn take(
    upper: BorrowedFd<'_>,
    tree: BorrowedFd<'_>,
    rules: &Rules<'_>,
    output: impl Write,
) -> Result<Taken, Fault> {
    let (builder, taken) = (Builder::new(output), Taken::default());
    let mut walk = Walk { builder, rules, root: tree, links: HashMap::new(), taken };
    let stat = rustix::fs::fstat(upper).map_err(Fault::io("look at", b"."))?;
    let mut attributes = Attributes::plain_directory();
    if rules.root {
        attributes = walk.attributes(upper, &stat, b".")?;
        walk.write(&Part { xattrs: &records_of(&attributes), ..Part::plain(EntryType::Directory, &stat, b".") })?;
    }
    walk.taken.directories = 1;
    walk.children(upper, tree, &mut Vec::new(), 0)?;
    attributes.apply(tree, None).map_err(Fault::io("describe", b"."))?;
    let finished = walk.builder.into_inner().and_then(|mut output| output.flush());
    finished.map_err(|source| Fault::Io { action: "write", path: "the layer".to_owned(), source })?;
    Ok(walk.taken)
}

struct Walk<'a, W: Write> {
    builder: Builder<W>,
    rules: &'a Rules<'a>,
    root: BorrowedFd<'a>,
    /// Where files with more than one name were met first.
    links: HashMap<(u64, u64), Vec<u8>>,
    taken: Taken,
}

impl<W: Write> Walk<'_, W> {
    fn children(
        &mut self,
        upper: BorrowedFd<'_>,
        tree: BorrowedFd<'_>,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err(Fault::path(path, "it lies too deep"));
        }
        let length = path.len();
        for name in names(upper, path)? {
            if (self.rules.cancelled)() {
                return Err(Fault::Stream(std::io::ErrorKind::Interrupted.into()));
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            if name.as_bytes().starts_with(WHITEOUT) {
                self.taken.omitted.push(lossy(path));
            } else if !(self.rules.skip)(path) {
                self.entry(upper, tree, &name, path, depth)?;
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        upper: BorrowedFd<'_>,
        tree: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Fault> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = match rustix::fs::openat(upper, name, flags, Mode::empty()) {
            // A container that was not paused has removed it.
            Err(Errno::NOENT) => return Ok(()),
            fd => fd.map_err(Fault::io("look at", path))?,
        };
        let stat = rustix::fs::fstat(&place).map_err(Fault::io("look at", path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(&place, &stat, tree, name, path, depth),
            FileType::RegularFile => self.file(&place, &stat, tree, name, path),
            FileType::CharacterDevice if stat.st_rdev == 0 => self.whiteout(tree, name, path),
            FileType::Socket | FileType::Unknown => Ok(()),
            kind => self.special(&place, &stat, kind, tree, name, path),
        }
    }

    fn directory(
        &mut self,
        place: &OwnedFd,
        stat: &Stat,
        tree: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(place, c".", flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            fd => fd.map_err(Fault::io("open", path))?,
        };
        let attributes = self.attributes(fd.as_fd(), stat, path)?;
        self.write(&Part { xattrs: &records_of(&attributes), ..Part::plain(EntryType::Directory, stat, path) })?;
        rustix::fs::mkdirat(tree, name, Mode::RWXU).map_err(Fault::io("make directory", path))?;
        let copy = rustix::fs::openat(tree, name, flags, Mode::empty()).map_err(Fault::io("open directory", path))?;
        self.taken.directories += 1;
        if is_opaque(fd.as_fd()) {
            let length = path.len();
            path.push(b'/');
            path.extend_from_slice(OPAQUE);
            self.mark(path)?;
            path.truncate(length);
            make_opaque(copy.as_fd()).map_err(Fault::io("mark as opaque", path))?;
        }
        self.children(fd.as_fd(), copy.as_fd(), path, depth + 1)?;
        // What was put into it has changed its time.
        attributes.apply(copy.as_fd(), None).map_err(Fault::io("describe", path))
    }

    fn whiteout(&mut self, tree: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<(), Fault> {
        let hidden = name.to_bytes();
        let parent = path.len() - hidden.len();
        let marked = [&path[..parent], WHITEOUT, hidden].concat();
        self.mark(&marked)?;
        self.taken.names += 1;
        rustix::fs::mknodat(tree, name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(Fault::io("make whiteout", path))
    }

    fn file(
        &mut self,
        place: &OwnedFd,
        stat: &Stat,
        tree: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
    ) -> Result<(), Fault> {
        self.taken.names += 1;
        if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
            // The way to it is one that was made here: no link is on it.
            let first = first.clone();
            rustix::fs::linkat(self.root, first.as_slice(), tree, name, AtFlags::empty())
                .map_err(Fault::io("link", path))?;
            return self.write(&Part { link: &first, ..Part::plain(EntryType::Link, stat, path) });
        }
        let again = format!("/proc/self/fd/{}", place.as_raw_fd());
        let source = rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let source = source.map_err(Fault::io("open", path))?;
        let attributes = self.attributes(source.as_fd(), stat, path)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(tree, name, flags, Mode::RUSR | Mode::WUSR).map_err(Fault::io("create", path))?;
        let shared = size > 0 && rustix::fs::ioctl_ficlone(&copy, &source).is_ok();
        if shared {
            // It may have grown since it was looked at, and the tar cuts that off too.
            rustix::fs::ftruncate(&copy, size).map_err(Fault::io("size", path))?;
        }
        let part = Part { xattrs: &records_of(&attributes), ..Part::plain(EntryType::Regular, stat, path) };
        self.taken.logical += size;
        if let Some(pieces) = pieces(&source, stat, size) {
            self.sparse(&part, &source, &copy, shared, size, &pieces)?;
        } else {
            // What grows meanwhile is cut, and what shrinks is filled up: the header has told the size already.
            let data = At { file: &source, at: 0 }.chain(std::io::repeat(0)).take(size);
            let data = Tee::new(data, (!shared).then_some(&copy), 0);
            let room = usize::try_from(size).map_or(PIECE, |size| size.clamp(512, PIECE));
            self.write_with(&part, size, std::io::BufReader::with_capacity(room, data))?;
            self.taken.bytes += size;
        }
        attributes.apply(copy.as_fd(), None).map_err(Fault::io("describe", path))?;
        if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        Ok(())
    }

    /// Writes a file with its holes, as GNU tar's format 1.0: the map leads the data.
    fn sparse(
        &mut self,
        part: &Part<'_>,
        source: &OwnedFd,
        copy: &OwnedFd,
        shared: bool,
        size: u64,
        pieces: &[(u64, u64)],
    ) -> Result<(), Fault> {
        let mut map = format!("{}\n", pieces.len()).into_bytes();
        for (offset, length) in pieces {
            map.extend_from_slice(format!("{offset}\n{length}\n").as_bytes());
        }
        map.resize(map.len().next_multiple_of(512), 0);
        let mut xattrs = part.xattrs.to_vec();
        let mut record = |name: &str, value: &[u8]| xattrs.push((name.to_owned(), value.to_vec()));
        record("GNU.sparse.major", b"1");
        record("GNU.sparse.minor", b"0");
        record("GNU.sparse.name", part.path);
        record("GNU.sparse.realsize", size.to_string().as_bytes());
        let stored: u64 = pieces.iter().map(|(_, length)| length).sum();
        let total = map.len() as u64 + stored;
        let mut data: Box<dyn Read> = Box::new(std::io::Cursor::new(map));
        for (offset, length) in pieces {
            let piece = At { file: source, at: *offset }.chain(std::io::repeat(0)).take(*length);
            data = Box::new(data.chain(Tee::new(piece, (!shared).then_some(copy), *offset)));
        }
        let placed = Part { xattrs: &xattrs, path: b"GNUSparseFile.0/file", ..*part };
        self.write_with(&placed, total, data)?;
        self.taken.bytes += stored;
        rustix::fs::ftruncate(copy, size).map_err(Fault::io("size", part.path))
    }

    /// A symbolic link, a device or a FIFO: never opened.
    fn special(
        &mut self,
        place: &OwnedFd,
        stat: &Stat,
        kind: FileType,
        tree: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
    ) -> Result<(), Fault> {
        self.taken.names += 1;
        let mut attributes = Attributes::of_stat(stat);
        self.rules.ids.bring_in(&mut attributes);
        let device = match kind {
            FileType::CharacterDevice | FileType::BlockDevice => stat.st_rdev,
            _ => 0,
        };
        if kind == FileType::Symlink {
            let link = rustix::fs::readlinkat(place, "", Vec::new()).map_err(Fault::io("read link", path))?;
            self.write(&Part { link: link.as_bytes(), ..Part::plain(EntryType::Symlink, stat, path) })?;
            rustix::fs::symlinkat(&link, tree, name).map_err(Fault::io("make", path))?;
        } else {
            let entry = match kind {
                FileType::CharacterDevice => EntryType::Char,
                FileType::BlockDevice => EntryType::Block,
                _ => EntryType::Fifo,
            };
            self.write(&Part::plain(entry, stat, path))?;
            rustix::fs::mknodat(tree, name, kind, Mode::RUSR | Mode::WUSR, device).map_err(Fault::io("make", path))?;
        }
        attributes.apply_at(tree, name.to_bytes(), kind == FileType::Symlink).map_err(Fault::io("describe", path))
    }

    fn attributes(&self, fd: BorrowedFd<'_>, stat: &Stat, path: &[u8]) -> Result<Attributes, Fault> {
        let mut attributes = Attributes::of_file(fd, stat).map_err(Fault::io("read attributes of", path))?;
        attributes.xattrs.retain(|(name, _)| name != b"security.selinux");
        self.rules.ids.bring_in(&mut attributes);
        Ok(attributes)
    }

    fn write(&mut self, part: &Part<'_>) -> Result<(), Fault> {
        self.write_with(part, 0, std::io::empty())
    }

    /// Writes an entry; a time with a fraction, or before 1970, stands in a record before it.
    fn write_with(&mut self, part: &Part<'_>, size: u64, data: impl Read) -> Result<(), Fault> {
        self.taken.entries += 1;
        let mut xattrs = part.xattrs.to_vec();
        if part.kind != EntryType::Link {
            xattrs.extend(Attributes::of_stat(part.stat).mtime.and_then(fraction));
        }
        append(&mut self.builder, self.rules.ids, &Part { xattrs: &xattrs, ..*part }, size, data)
    }

    /// Writes an empty entry that deletes or hides.
    fn mark(&mut self, path: &[u8]) -> Result<(), Fault> {
        self.taken.entries += 1;
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(0);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let failed = |source| io_fault("write", path, source);
        let old = header.as_old_mut();
        let short = path.len().min(old.name.len());
        old.name[..short].copy_from_slice(&path[..short]);
        if short < path.len() {
            self.builder.append_pax_extensions([("path", path)]).map_err(failed)?;
        }
        header.set_cksum();
        self.builder.append(&header, std::io::empty()).map_err(failed)
    }
}

fn io_fault(action: &'static str, path: &[u8], source: std::io::Error) -> Fault {
    Fault::Io { action, path: lossy(path), source }
}

/// A time that a header cannot hold, as a pax record.
fn fraction((seconds, nanoseconds): (i64, u32)) -> Option<(String, Vec<u8>)> {
    if nanoseconds == 0 && seconds >= 0 {
        return None;
    }
    // Before 1970 the whole is rounded towards the past, and a decimal number towards zero.
    let text = match (seconds < 0, nanoseconds) {
        (true, 0) => seconds.to_string(),
        (true, n) => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - n),
        (false, n) => format!("{seconds}.{n:09}"),
    };
    Some(("mtime".to_owned(), text.into_bytes()))
}

/// Returns where a file has data, if it has holes and not too many: lseek(2), `SEEK_DATA`.
fn pieces(file: &OwnedFd, stat: &Stat, size: u64) -> Option<Vec<(u64, u64)>> {
    if u64::try_from(stat.st_blocks).unwrap_or(u64::MAX).saturating_mul(512) >= size {
        return None;
    }
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let from = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(from) => from,
            Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(from)).ok()?.min(size);
        if from >= end {
            break;
        }
        pieces.push((from, end - from));
        if pieces.len() > PIECES_MAX {
            return None;
        }
        at = end;
    }
    rustix::fs::seek(file, SeekFrom::Start(0)).ok()?;
    (pieces != [(0, size)]).then_some(pieces)
}

/// A reader that also writes what passes into the copy.
struct Tee<'a, R> {
    data: R,
    copy: Option<&'a OwnedFd>,
    at: u64,
    ahead: Ahead,
}

impl<'a, R> Tee<'a, R> {
    fn new(data: R, copy: Option<&'a OwnedFd>, at: u64) -> Self {
        Self { data, copy, at, ahead: Ahead::from(at) }
    }
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.data.read(buffer)?;
        if let Some(copy) = self.copy {
            let mut done = 0;
            while done < length {
                done += rustix::io::pwrite(copy, &buffer[done..length], self.at + done as u64)?;
            }
            self.ahead.reached(copy, self.at + length as u64);
        }
        self.at += length as u64;
        Ok(length)
    }
}

/// A file read from a position of one's own.
struct At<'a> {
    file: &'a OwnedFd,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = rustix::io::pread(self.file, buffer, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::fraction;

    #[test]
    fn times_that_a_header_cannot_hold() {
        let text = |time| fraction(time).map(|(_, value)| String::from_utf8(value).unwrap());
        assert_eq!(text((5, 0)), None);
        assert_eq!(text((5, 7)).unwrap(), "5.000000007");
        assert_eq!(text((-2, 750_000_000)).unwrap(), "-1.250000000");
        assert_eq!(text((-1, 250_000_000)).unwrap(), "-0.750000000");
        assert_eq!(text((-3, 0)).unwrap(), "-3");
    }
}
