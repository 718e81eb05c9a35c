//! Owner, mode, times and extended attributes: read from files, and given to files in the one right order.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::tarball::Entry;

/// The metadata of one file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds; `None` leaves the time as it is.
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    /// Returns what a directory gets that nobody describes: root's, 0755.
    pub(crate) fn plain_directory() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: None, xattrs: Vec::new() }
    }

    /// Takes the metadata of an archive entry, without overlay's own attributes.
    pub(crate) fn of_entry(entry: &Entry) -> Self {
        let xattrs = entry.xattrs.iter().filter(|(name, _)| !is_overlays(name)).cloned().collect();
        Self { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: Some(entry.mtime), xattrs }
    }

    /// Reads the metadata of an open file or directory of a lower layer, without overlay's own attributes.
    pub(crate) fn of_file(fd: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<Self> {
        let mut xattrs = Vec::new();
        let mut names = vec![0; 64 << 10];
        let length = match rustix::fs::flistxattr(fd, &mut names[..]) {
            Err(Errno::OPNOTSUPP) => 0,
            result => result?,
        };
        for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty() && !is_overlays(name)) {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::fgetxattr(fd, name, &mut value[..])?;
            value.truncate(length);
            xattrs.push((name.to_vec(), value));
        }
        Ok(Self { xattrs, ..Self::of_stat(stat) })
    }

    /// Takes owner, mode and time alone.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_truncation, clippy::cast_lossless)] // types differ by machine
    pub(crate) fn of_stat(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode as u32 & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Some((stat.st_mtime as i64, stat.st_mtime_nsec as u32)),
            xattrs: Vec::new(),
        }
    }

    /// Gives everything to an open file: owner first (it clears setuid), then mode, attributes, and the time last.
    ///
    /// `created_as` is the mode the file surely has already; a file that was just made as root's own needs no chown.
    pub(crate) fn apply(&self, fd: BorrowedFd<'_>, created_as: Option<u32>) -> rustix::io::Result<()> {
        if self.uid != 0 || self.gid != 0 || created_as.is_none() {
            rustix::fs::fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        }
        if created_as != Some(self.mode) {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(self.mode))?;
        }
        for (name, value) in &self.xattrs {
            forgive(name, rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()))?;
        }
        match self.times() {
            Some(times) => rustix::fs::futimens(fd, &times),
            None => Ok(()),
        }
    }

    /// Gives everything to a symbolic link, a device or a FIFO, which is never opened.
    pub(crate) fn apply_at(&self, parent: BorrowedFd<'_>, name: &[u8], is_link: bool) -> rustix::io::Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        if self.uid != 0 || self.gid != 0 {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), nofollow)?;
        }
        if !is_link {
            // The file was made a moment ago in a directory that is ours alone: it is no symbolic link.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        }
        if !self.xattrs.is_empty() {
            use std::os::fd::AsRawFd;
            let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
            path.extend_from_slice(name);
            for (key, value) in &self.xattrs {
                forgive(key, rustix::fs::lsetxattr(path.as_slice(), key.as_slice(), value, XattrFlags::empty()))?;
            }
        }
        match self.times() {
            Some(times) => rustix::fs::utimensat(parent, name, &times, nofollow),
            None => Ok(()),
        }
    }

    /// Returns the time as the calls for it want it.
    pub(crate) fn times(&self) -> Option<Timestamps> {
        let (seconds, nanoseconds) = self.mtime?;
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        Some(Timestamps { last_access: time, last_modification: time })
    }
}

/// Tells whether an attribute is a command to overlay, which no image may give.
fn is_overlays(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Lets pass what the file system cannot store, except for capabilities, whose loss would break the program.
fn forgive(name: &[u8], result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        // user.* is not for symbolic links and devices; trusted.* and security.* may be beyond our rights.
        Err(Errno::OPNOTSUPP | Errno::PERM) if name != b"security.capability" => Ok(()),
        other => other,
    }
}

/// Marks a directory as opaque, in overlay's own way.
pub(crate) fn make_opaque(fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(fd, "trusted.overlay.opaque", b"y", XattrFlags::empty())
}

/// Tells whether a directory is marked as opaque.
pub(crate) fn is_opaque(fd: BorrowedFd<'_>) -> bool {
    let mut value = [0; 4];
    rustix::fs::fgetxattr(fd, "trusted.overlay.opaque", &mut value[..]).is_ok_and(|n| n == 1 && value[0] == b'y')
}

/// Returns the process's umask, read without changing it; all ones if /proc does not tell.
pub(super) fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0o7777)
}

/// Opens a path below a directory; no symbolic link in it is followed, and it stays below.
pub(super) fn open_beneath(
    root: impl AsFd,
    path: &[u8],
    flags: rustix::fs::OFlags,
) -> rustix::io::Result<std::os::fd::OwnedFd> {
    use rustix::fs::{OFlags, ResolveFlags};
    let path = if path.is_empty() { b".".as_slice() } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename somewhere on the machine can make the kernel unsure.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}
