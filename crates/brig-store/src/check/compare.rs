//! Two trees of a layer are compared: names, kinds, owners, modes, times, attributes, links, content.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use crate::tarball::lossy;
use crate::unpack::{Attributes, is_opaque};

/// The deepest tree that is compared.
const DEPTH_MAX: usize = 4096;

/// Says what is different in `here` from `good`; none if they are alike.
pub(super) fn compare(here: BorrowedFd<'_>, good: BorrowedFd<'_>) -> std::io::Result<Option<String>> {
    directory(here, good, &mut Vec::new(), 0)
}

fn names(fd: BorrowedFd<'_>) -> std::io::Result<BTreeMap<CString, Stat>> {
    let mut all = BTreeMap::new();
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            let stat = rustix::fs::statat(fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
            all.insert(entry.file_name().to_owned(), stat);
        }
    }
    Ok(all)
}

fn directory(
    here: BorrowedFd<'_>,
    good: BorrowedFd<'_>,
    path: &mut Vec<u8>,
    depth: usize,
) -> std::io::Result<Option<String>> {
    if depth > DEPTH_MAX {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    if is_opaque(here) != is_opaque(good) {
        return Ok(Some(format!("`{}` hides what is below in one of them only", lossy(path))));
    }
    let (mine, theirs) = (names(here)?, names(good)?);
    if let Some(extra) = mine.keys().find(|name| !theirs.contains_key(*name)) {
        return Ok(Some(format!("`{}` does not belong there", shown(path, extra))));
    }
    for (name, wanted) in &theirs {
        let Some(found) = mine.get(name) else {
            return Ok(Some(format!("`{}` is missing", shown(path, name))));
        };
        if let Some(what) = metadata(found, wanted) {
            return Ok(Some(format!("`{}` has another {what}", shown(path, name))));
        }
        let kind = FileType::from_raw_mode(wanted.st_mode);
        let length = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let different = match kind {
            FileType::Directory => {
                let (a, b) = (open(here, name, OFlags::DIRECTORY)?, open(good, name, OFlags::DIRECTORY)?);
                match attributes(&a, &b, found, wanted, path)? {
                    None => directory(a.as_fd(), b.as_fd(), path, depth + 1)?,
                    different => different,
                }
            }
            FileType::RegularFile => {
                let (a, b) = (open(here, name, OFlags::empty())?, open(good, name, OFlags::empty())?);
                match attributes(&a, &b, found, wanted, path)? {
                    None => (!same_bytes(a, b)?).then(|| format!("`{}` has other content", lossy(path))),
                    different => different,
                }
            }
            FileType::Symlink => {
                let (a, b) =
                    (rustix::fs::readlinkat(here, name, Vec::new())?, rustix::fs::readlinkat(good, name, Vec::new())?);
                (a != b).then(|| format!("`{}` leads elsewhere", lossy(path)))
            }
            _ => None,
        };
        if different.is_some() {
            return Ok(different);
        }
        path.truncate(length);
    }
    Ok(None)
}

fn shown(path: &[u8], name: &CString) -> String {
    let whole = if path.is_empty() { name.as_bytes().to_vec() } else { [path, b"/", name.as_bytes()].concat() };
    lossy(&whole)
}

/// Names the first thing in which two entries differ by stat(2).
fn metadata(found: &Stat, wanted: &Stat) -> Option<&'static str> {
    let kind = FileType::from_raw_mode(wanted.st_mode);
    if FileType::from_raw_mode(found.st_mode) != kind {
        return Some("kind");
    }
    let is_mark = kind == FileType::CharacterDevice && wanted.st_rdev == 0;
    if (found.st_mode, found.st_uid, found.st_gid) != (wanted.st_mode, wanted.st_uid, wanted.st_gid) {
        return Some("mode or owner");
    }
    if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) && found.st_rdev != wanted.st_rdev {
        return Some("device number");
    }
    if kind != FileType::Directory && found.st_size != wanted.st_size {
        return Some("size");
    }
    // A directory that no entry describes has the time at which it was made.
    if kind != FileType::Directory
        && !is_mark
        && (found.st_mtime, found.st_mtime_nsec) != (wanted.st_mtime, wanted.st_mtime_nsec)
    {
        return Some("time");
    }
    None
}

fn open(parent: BorrowedFd<'_>, name: &CString, flags: OFlags) -> std::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name.as_c_str(), flags, Mode::empty())?)
}

fn attributes(a: &OwnedFd, b: &OwnedFd, of_a: &Stat, of_b: &Stat, path: &[u8]) -> std::io::Result<Option<String>> {
    let mut sets = [Attributes::of_file(a.as_fd(), of_a)?.xattrs, Attributes::of_file(b.as_fd(), of_b)?.xattrs];
    for set in &mut sets {
        set.retain(|(name, _)| name != b"security.selinux");
        set.sort();
    }
    Ok((sets[0] != sets[1]).then(|| format!("`{}` has other extended attributes", lossy(path))))
}

fn same_bytes(a: OwnedFd, b: OwnedFd) -> std::io::Result<bool> {
    let reader = |fd: OwnedFd| BufReader::with_capacity(256 << 10, std::fs::File::from(fd));
    let (mut a, mut b) = (reader(a), reader(b));
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let length = left.len().min(right.len());
        if left[..length] != right[..length] || length == 0 && left.len() != right.len() {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
        a.consume(length);
        b.consume(length);
    }
}
