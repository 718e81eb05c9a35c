//! Copies a directory tree by descriptors: owners, modes, times, extended attributes, links, nodes and FIFOs.
//!
//! Used where a volume takes over what the image has at its place, and by cp. Nothing is opened by a path of more than one
//! component, so no symbolic link is ever followed.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The deepest tree that is copied.
const DEPTH_MAX: u32 = 512;

/// Whose the copies are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// The same as the originals'.
    Keep,
    /// One user and group for all.
    All(u32, u32),
    /// The same, moved from one range of 65,536 ids to another: into a user namespace or out of it. An id outside of the
    /// range becomes the first of the new one.
    Shift {
        /// Where the originals' range begins.
        from: u32,
        /// Where the copies' range begins.
        to: u32,
    },
}

impl Owners {
    fn of(self, stat: &Stat) -> (u32, u32) {
        let shift = |id: u32, from: u32, to: u32| match id.checked_sub(from) {
            Some(n) if n < 65_536 => to.saturating_add(n),
            _ => to,
        };
        match self {
            Self::Keep => (stat.st_uid, stat.st_gid),
            Self::All(uid, gid) => (uid, gid),
            Self::Shift { from, to } => (shift(stat.st_uid, from, to), shift(stat.st_gid, from, to)),
        }
    }
}

/// How to copy.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whose the copies are.
    pub owners: Owners,
    /// Whether a file that is there already is replaced; a directory never gives way to a file.
    pub replace: bool,
}

/// Says whether a directory has no entries.
pub fn is_empty(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let fd = reopen(directory)?;
    for entry in Dir::read_from(&fd)? {
        let name = entry?;
        // A new ext4 has lost+found: Docker counts such a volume as empty too.
        if ![c".", c"..", c"lost+found"].contains(&name.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Copies everything below `from` into `to`, and the attributes of `from` itself.
pub fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    copy_tree_with(from, to, Options { owners: Owners::Keep, replace: false })
}

/// Copies everything below `from` into `to`, with options.
pub fn copy_tree_with(from: BorrowedFd<'_>, to: BorrowedFd<'_>, options: Options) -> io::Result<()> {
    let from = reopen(from)?;
    let to = reopen(to)?;
    copy_directory(from.as_fd(), to.as_fd(), options, 0)
}

/// Copies one entry of a directory, whatever it is, to a name in another.
pub fn copy_entry(
    from: BorrowedFd<'_>,
    name: &CStr,
    to: BorrowedFd<'_>,
    new_name: &CStr,
    options: Options,
) -> io::Result<()> {
    entry(from, name, to, new_name, options, 0)
}

fn reopen(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(fd, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, options: Options, depth: u32) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        self::entry(from, name, to, name, options, depth)?;
    }
    let stat = rustix::fs::fstat(from)?;
    copy_attributes_fd(from, to, &stat, options.owners)
}

fn entry(
    from: BorrowedFd<'_>,
    name: &CStr,
    to: BorrowedFd<'_>,
    new_name: &CStr,
    options: Options,
    depth: u32,
) -> io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if options.replace && kind != FileType::Directory {
        match rustix::fs::unlinkat(to, new_name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match kind {
        FileType::Directory => {
            match rustix::fs::mkdirat(to, new_name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let source = rustix::fs::openat(from, name, OFlags::RDONLY | OFlags::DIRECTORY | nofollow, Mode::empty())?;
            let target =
                rustix::fs::openat(to, new_name, OFlags::RDONLY | OFlags::DIRECTORY | nofollow, Mode::empty())?;
            copy_directory(source.as_fd(), target.as_fd(), options, depth + 1)
        }
        FileType::RegularFile => {
            // What was looked at may have been swapped since. Only a regular file is opened: to open a device is an act, even
            // for a moment (a watchdog begins to count).
            let place = rustix::fs::openat(from, name, OFlags::PATH | nofollow, Mode::empty())?;
            let stat = rustix::fs::fstat(&place)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(Errno::AGAIN.into());
            }
            let path = format!("/proc/self/fd/{}", place.as_raw_fd());
            let source = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | nofollow;
            let target = rustix::fs::openat(to, new_name, flags, Mode::from_raw_mode(0o600))?;
            copy_bytes(&source, &target)?;
            copy_attributes_fd(source.as_fd(), target.as_fd(), &stat, options.owners)
        }
        FileType::Symlink => {
            let text = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&text, to, new_name)?;
            chown_at(to, new_name, &stat, options.owners)?;
            Ok(rustix::fs::utimensat(to, new_name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        FileType::Socket => Ok(()),
        _ => {
            rustix::fs::mknodat(to, new_name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
            chown_at(to, new_name, &stat, options.owners)?;
            Ok(rustix::fs::utimensat(to, new_name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
        }
    }
}

/// Copies a file's bytes inside the kernel, sharing blocks where the file system can.
fn copy_bytes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut source = std::fs::File::from(from.try_clone()?);
    let mut target = std::fs::File::from(to.try_clone()?);
    io::copy(&mut source, &mut target).map(drop)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn owner(stat: &Stat, owners: Owners) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    let (uid, gid) = owners.of(stat);
    (Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)))
}

fn chown_at(to: BorrowedFd<'_>, name: &CStr, stat: &Stat, owners: Owners) -> io::Result<()> {
    let (uid, gid) = owner(stat, owners);
    Ok(rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_attributes_fd(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat, owners: Owners) -> io::Result<()> {
    let (uid, gid) = owner(stat, owners);
    rustix::fs::fchown(to, uid, gid)?;
    copy_xattrs(from, to)?;
    // After chown, which clears setuid and setgid.
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(rustix::fs::futimens(to, &times(stat))?)
}

fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut names = vec![0u8; 64 * 1024];
    let count = match rustix::fs::flistxattr(from, &mut names) {
        Ok(count) => count,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in names[..count].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        // The overlay's own, and the labels that the target's policy decides about, stay behind.
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") || name == b"security.selinux" {
            continue;
        }
        let name = CString::new(name)?;
        let mut value = vec![0u8; 64 * 1024];
        let length = rustix::fs::fgetxattr(from, &name, &mut value)?;
        match rustix::fs::fsetxattr(to, &name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_tree_comes_out_as_it_went_in() {
        let base = std::env::temp_dir().join(format!("brig-copy-{}", std::process::id()));
        let (from, to) = (base.join("from"), base.join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir_all(&to).unwrap();
        std::fs::write(from.join("a/file"), "text").unwrap();
        std::fs::set_permissions(from.join("a/file"), std::fs::Permissions::from_mode(0o4751)).unwrap();
        symlink("/etc/passwd", from.join("a/link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, from.join("a/fifo"), Mode::from_raw_mode(0o640)).unwrap();
        std::os::unix::fs::chown(from.join("a/b"), Some(33), Some(44)).unwrap();
        let open = |p: &std::path::Path| std::fs::File::open(p).unwrap();
        assert!(is_empty(open(&to).as_fd()).unwrap());
        copy_tree(open(&from).as_fd(), open(&to).as_fd()).unwrap();
        assert!(!is_empty(open(&to).as_fd()).unwrap());
        assert_eq!(std::fs::read_to_string(to.join("a/file")).unwrap(), "text");
        let meta = |p: &str| std::fs::symlink_metadata(to.join(p)).unwrap();
        assert_eq!(meta("a/file").mode() & 0o7777, 0o4751);
        assert_eq!(std::fs::read_link(to.join("a/link")).unwrap(), std::path::Path::new("/etc/passwd"));
        assert_eq!((meta("a/b").uid(), meta("a/b").gid()), (33, 44));
        assert_eq!(meta("a/fifo").mode() & 0o170_000, 0o010_000);
        assert_eq!(meta("a").mtime(), std::fs::metadata(from.join("a")).unwrap().mtime());
        std::fs::remove_dir_all(base).unwrap();
    }
}
