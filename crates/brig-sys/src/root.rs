//! `Root`: the only way into a container's file system from outside.
//!
//! A `Root` is a directory descriptor, and every path is resolved below it by the kernel with
//! `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`: `..`, absolute paths and symbolic links, however they are swapped
//! meanwhile, end inside. Links are followed inside the root, not refused: images have symlinked /etc/passwd and
//! /var/run. See openat2(2).

use crate::Result;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// How often a resolution that raced with a rename is tried again.
const RETRIES: usize = 128;

/// A root file system, held by descriptor.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Takes over a descriptor of the root directory (`O_PATH` is enough).
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens a directory of the machine as a root.
    pub fn open_directory(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Opens `path` inside the root; `O_CLOEXEC` is added.
    pub fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        open_below(self.fd.as_fd(), path, flags, mode, ResolveFlags::empty())
    }

    /// Opens `path` for nothing but to refer to it; the last component is followed.
    pub fn locate(&self, path: &Path) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH, Mode::empty())
    }

    /// Opens `path` without following a symbolic link in its last component.
    pub fn locate_nofollow(&self, path: &Path) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
    }

    /// Reads a regular file of at most `limit` bytes. A FIFO or device under that name is refused without waiting for it.
    pub fn read_file(&self, path: &Path, limit: u64) -> Result<Vec<u8>> {
        use std::io::Read;
        let fd = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL.into());
        }
        let mut bytes = Vec::new();
        std::fs::File::from(fd).take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit { Err(Errno::FBIG.into()) } else { Ok(bytes) }
    }

    /// Returns the directory at `path`, making it and what leads to it with `mode` where it is missing.
    ///
    /// A dangling symbolic link on the way is followed inside the root: what it names is made.
    pub fn make_directories(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            result => return result,
        }
        self.make_missing(path, mode)
    }

    /// Makes a directory where there is nothing yet, not a link either, and what leads to it is there. None: it is otherwise.
    pub fn make_new(&self, path: &Path, mode: Mode) -> Option<OwnedFd> {
        let (parent, name) = self.parent_of(path).ok()?;
        rustix::fs::mkdirat(&parent, name, mode).ok()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::empty()).ok()
    }

    /// The same for a directory of which it is known that it is not there.
    pub fn make_missing(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        // Most often the last component alone is missing, and no link is in its place.
        if let Some(new) = self.make_new(path, mode) {
            return Ok(new);
        }
        let path = self.readable(path)?;
        let mut reached = PathBuf::new();
        let mut fd =
            rustix::fs::openat(&self.fd, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            reached.push(name);
            fd = match self.open(&reached, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    match rustix::fs::mkdirat(&fd, name, mode) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    self.open(&reached, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?
                }
                result => result?,
            };
        }
        Ok(fd)
    }

    /// Returns the file at `path`, making an empty one, and the directories that lead to it, where it is missing.
    pub fn make_file(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        match self.locate(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            result => return result,
        }
        let path = self.readable(path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL.into()) };
        let parent = self.make_directories(parent, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, name, flags, mode) {
            Ok(_) | Err(Errno::EXIST) => self.locate(&path),
            Err(error) => Err(error.into()),
        }
    }

    /// Splits `path` into its parent directory, resolved inside the root, and its last component, not resolved.
    pub fn parent_of<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a std::ffi::OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.open(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?, name))
    }

    /// Rewrites `path` without `..` and without symbolic links as far as it exists: each existing component is looked at
    /// once, links are put in place of their names. The result is still only opened through the root.
    fn readable(&self, path: &Path) -> Result<PathBuf> {
        let mut todo: Vec<std::ffi::OsString> = components_reversed(path);
        let mut done = PathBuf::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&name);
            let target = match self.locate_nofollow(&next) {
                Ok(fd) => rustix::fs::readlinkat(&fd, "", Vec::new()).ok(),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
                Err(error) => return Err(error),
            };
            let Some(target) = target else {
                done = next;
                continue;
            };
            links += 1;
            if links > 40 {
                return Err(Errno::LOOP.into());
            }
            let target = Path::new(std::ffi::OsStr::from_bytes(target.to_bytes()));
            if target.is_absolute() {
                done = PathBuf::new();
            }
            todo.extend(components_reversed(target));
        }
        Ok(done)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn components_reversed(path: &Path) -> Vec<std::ffi::OsString> {
    let mut parts: Vec<_> = path
        .components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    parts.reverse();
    parts
}

/// Opens `path` below the directory `fd` as if that were the root, with further `resolve` flags.
///
/// An absolute or empty path names the root. A resolution that the kernel gave up because of a concurrent rename is
/// tried again, a bounded number of times.
pub fn open_below(
    fd: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    for _ in 0..RETRIES {
        match rustix::fs::openat2(fd, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Says whether two descriptors refer to the same file.
pub fn same_file(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> Result<bool> {
    let (a, b) = (rustix::fs::fstat(a)?, rustix::fs::fstat(b)?);
    Ok(a.st_dev == b.st_dev && a.st_ino == b.st_ino)
}

/// Looks at a name below a directory without following it.
pub fn stat_nofollow(fd: BorrowedFd<'_>, name: &std::ffi::OsStr) -> Result<rustix::fs::Stat> {
    Ok(rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scratch() -> (PathBuf, Root) {
        let path = std::env::temp_dir().join(format!("brig-root-{}-{:p}", std::process::id(), &0u8));
        let path = path.with_extension(format!("{:?}", std::thread::current().id()));
        std::fs::create_dir_all(path.join("root/etc")).unwrap();
        let root = Root::open_directory(&path.join("root")).unwrap();
        (path, root)
    }

    #[test]
    fn a_link_to_the_outside_ends_inside() {
        let (path, root) = scratch();
        std::fs::write(path.join("secret"), "outside").unwrap();
        std::fs::write(path.join("root/secret"), "inside").unwrap();
        symlink("../../secret", path.join("root/etc/link")).unwrap();
        symlink(path.join("secret"), path.join("root/etc/absolute")).unwrap();
        assert_eq!(root.read_file(Path::new("/etc/link"), 100).unwrap(), b"inside");
        assert!(root.read_file(Path::new("etc/absolute"), 100).is_err());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn directories_are_made_through_a_dangling_link_inside_the_root() {
        let (path, root) = scratch();
        symlink("/../../run", path.join("root/var")).unwrap();
        root.make_directories(Path::new("/var/lib/x"), Mode::from_raw_mode(0o755)).unwrap();
        assert!(path.join("root/run/lib/x").is_dir());
        assert!(!path.join("run").exists());
        root.make_file(Path::new("/var/lib/y/file"), Mode::from_raw_mode(0o644)).unwrap();
        assert!(path.join("root/run/lib/y/file").is_file());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_fifo_is_refused_and_not_waited_for() {
        let (path, root) = scratch();
        rustix::fs::mkfifoat(rustix::fs::CWD, path.join("root/etc/passwd"), Mode::from_raw_mode(0o600)).unwrap();
        assert!(root.read_file(Path::new("/etc/passwd"), 100).is_err());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let (path, root) = scratch();
        std::fs::write(path.join("root/big"), [0; 11]).unwrap();
        assert!(root.read_file(Path::new("big"), 10).is_err());
        assert_eq!(root.read_file(Path::new("big"), 11).unwrap().len(), 11);
        std::fs::remove_dir_all(path).unwrap();
    }
}
