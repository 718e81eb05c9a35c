//! A tree is written as a tar stream.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::{BufWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::{Ids, is_kernels};
use crate::tarball::{Fault, lossy};
use crate::unpack::Attributes;

/// The deepest tree that is written.
const DEPTH_MAX: usize = 512;

/// Writes what lies under `name` in a directory, whatever it is, as an archive in which it is called `called`.
///
/// Sockets are left out, and so is what the kernel shows below a directory that is asked for (/proc, /sys).
pub fn pack(directory: BorrowedFd<'_>, name: &CStr, called: &[u8], ids: Ids, output: impl Write) -> Result<(), Fault> {
    run(directory, name, called, ids, false, output)
}

/// Writes a root file system with paths relative to it; of what is mounted on it, only the places are written, empty.
pub fn pack_root(root: BorrowedFd<'_>, ids: Ids, output: impl Write) -> Result<(), Fault> {
    run(root, c".", b".", ids, true, output)
}

fn run(
    directory: BorrowedFd<'_>,
    name: &CStr,
    called: &[u8],
    ids: Ids,
    one_mount: bool,
    output: impl Write,
) -> Result<(), Fault> {
    let mut builder = Builder::new(BufWriter::with_capacity(1 << 20, output));
    builder.sparse(false);
    let mut packer = Packer { builder, ids, one_mount, links: HashMap::new() };
    packer.entry(directory, name, &mut called.to_vec(), 0)?;
    let finished = packer.builder.into_inner().and_then(|mut output| output.flush());
    finished.map_err(|source| Fault::Io { action: "write", path: lossy(called), source })
}

/// One entry but for its data.
pub(crate) struct Part<'a> {
    pub(crate) kind: EntryType,
    pub(crate) stat: &'a Stat,
    pub(crate) path: &'a [u8],
    /// The target of a link.
    pub(crate) link: &'a [u8],
    /// As pax records.
    pub(crate) xattrs: &'a [(String, Vec<u8>)],
}

impl<'a> Part<'a> {
    pub(crate) fn plain(kind: EntryType, stat: &'a Stat, path: &'a [u8]) -> Self {
        Self { kind, stat, path, link: b"", xattrs: &[] }
    }
}

struct Packer<W: Write> {
    builder: Builder<W>,
    ids: Ids,
    // What is mounted below is left out, but for its place.
    one_mount: bool,
    // Where files with more than one name were written first.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<W> {
    fn entry(&mut self, directory: BorrowedFd<'_>, name: &CStr, path: &mut Vec<u8>, depth: usize) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err(Fault::path(path, "it lies too deep"));
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            // Removed since the directory was read.
            Err(Errno::NOENT) if depth > 0 => return Ok(()),
            fd => fd.map_err(Fault::io("look at", path))?,
        };
        let stat = rustix::fs::fstat(&fd).map_err(Fault::io("look at", path))?;
        if self.one_mount && depth > 0 && is_mounted(&fd) {
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => EntryType::Directory,
                _ => EntryType::Regular,
            };
            return self.write(&Part::plain(kind, &stat, path));
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(&fd, &stat, path, depth),
            FileType::RegularFile => self.file(&fd, &stat, path),
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(Fault::io("read link", path))?;
                self.write(&Part { link: link.as_bytes(), ..Part::plain(EntryType::Symlink, &stat, path) })
            }
            FileType::Fifo => self.write(&Part::plain(EntryType::Fifo, &stat, path)),
            FileType::CharacterDevice => self.write(&Part::plain(EntryType::Char, &stat, path)),
            FileType::BlockDevice => self.write(&Part::plain(EntryType::Block, &stat, path)),
            _ => Ok(()),
        }
    }

    fn directory(&mut self, place: &OwnedFd, stat: &Stat, path: &mut Vec<u8>, depth: usize) -> Result<(), Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(place, c".", flags, Mode::empty()).map_err(Fault::io("open", path))?;
        let xattrs = xattrs(&fd, stat, self.ids, path)?;
        self.write(&Part { xattrs: &xattrs, ..Part::plain(EntryType::Directory, stat, path) })?;
        if depth > 0 && is_kernels(&fd) {
            return Ok(());
        }
        let length = path.len();
        for name in names(fd.as_fd(), path)? {
            path.push(b'/');
            path.extend_from_slice(name.as_bytes());
            self.entry(fd.as_fd(), &name, path, depth + 1)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn file(&mut self, place: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), Fault> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let first = first.clone();
                return self.write(&Part { link: &first, ..Part::plain(EntryType::Link, stat, path) });
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size == 0 {
            // Not opened at all: files of the kernel say that they are empty, and to open one can be an act.
            return self.write(&Part::plain(EntryType::Regular, stat, path));
        }
        let again = format!("/proc/self/fd/{}", place.as_raw_fd());
        let fd = rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let fd = fd.map_err(Fault::io("open", path))?;
        let xattrs = xattrs(&fd, stat, self.ids, path)?;
        // What grows meanwhile is cut, and what shrinks is filled up: the header has told the size already.
        let data = std::fs::File::from(fd).chain(std::io::repeat(0)).take(size);
        self.write_with(&Part { xattrs: &xattrs, ..Part::plain(EntryType::Regular, stat, path) }, size, data)
    }

    fn write(&mut self, part: &Part<'_>) -> Result<(), Fault> {
        self.write_with(part, 0, std::io::empty())
    }

    fn write_with(&mut self, part: &Part<'_>, size: u64, data: impl Read) -> Result<(), Fault> {
        append(&mut self.builder, self.ids, part, size, data)
    }
}

/// Appends one entry: names as they are, byte by byte; what does not fit stands in a record before.
pub(crate) fn append(
    builder: &mut Builder<impl Write>,
    ids: Ids,
    part: &Part<'_>,
    size: u64,
    data: impl Read,
) -> Result<(), Fault> {
    let Part { kind, stat, path, link, xattrs } = *part;
    let failed = |source| Fault::Io { action: "write", path: lossy(path), source };
    let attributes = Attributes::of_stat(stat);
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(attributes.mode);
    header.set_uid(ids.inside(attributes.uid).into());
    header.set_gid(ids.inside(attributes.gid).into());
    header.set_mtime(attributes.mtime.and_then(|(seconds, _)| u64::try_from(seconds).ok()).unwrap_or(0));
    if matches!(kind, EntryType::Char | EntryType::Block) {
        header.set_device_major(rustix::fs::major(stat.st_rdev)).map_err(failed)?;
        header.set_device_minor(rustix::fs::minor(stat.st_rdev)).map_err(failed)?;
    }
    let mut records: Vec<(&str, &[u8])> = xattrs.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect();
    let mut slashed = path.to_vec();
    if kind == EntryType::Directory {
        slashed.push(b'/');
    }
    let old = header.as_old_mut();
    if !put(&mut old.name, &slashed) {
        records.push(("path", &slashed));
    }
    if !put(&mut old.linkname, link) {
        records.push(("linkpath", link));
    }
    if !records.is_empty() {
        builder.append_pax_extensions(records).map_err(failed)?;
    }
    header.set_cksum();
    builder.append(&header, data).map_err(failed)
}

/// Returns the names in a directory in the order of their bytes; `path` is for errors.
pub(crate) fn names(directory: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<CString>, Fault> {
    let mut names: Vec<CString> = Vec::new();
    for child in Dir::read_from(directory).map_err(Fault::io("read", path))? {
        let child = child.map_err(Fault::io("read", path))?;
        if ![c".", c".."].contains(&child.file_name()) {
            names.push(child.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Says whether something is mounted at the place that a descriptor refers to: statx(2).
fn is_mounted(fd: &OwnedFd) -> bool {
    let look = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE);
    look.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Puts a text into a field of a header; false when only its beginning fits.
fn put(field: &mut [u8; 100], text: &[u8]) -> bool {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    length == text.len()
}

/// The extended attributes of an open file, as pax records.
fn xattrs(fd: &OwnedFd, stat: &Stat, ids: Ids, path: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Fault> {
    let mut attributes = Attributes::of_file(fd.as_fd(), stat).map_err(Fault::io("read attributes of", path))?;
    ids.bring_in(&mut attributes);
    Ok(records_of(&attributes))
}

/// Turns extended attributes into pax records.
pub(crate) fn records_of(attributes: &Attributes) -> Vec<(String, Vec<u8>)> {
    let named = |(name, value): &(Vec<u8>, Vec<u8>)| {
        // Labels are for the policy of the place that the archive goes to.
        let name = std::str::from_utf8(name).ok().filter(|name| *name != "security.selinux")?;
        Some((format!("SCHILY.xattr.{name}"), value.clone()))
    };
    attributes.xattrs.iter().filter_map(named).collect()
}
