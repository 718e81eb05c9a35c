//! A tar stream is put into a tree.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use brig_sys::root::Root;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::{Ids, is_kernels};
use crate::compression::Decoder;
use crate::limits::Limits;
use crate::tarball::{Entry, Fault, Kind, Tarball};
use crate::unpack::{Attributes, Extent, normalise, prefixes, split, write_data};

/// How much may follow the end of an archive that its writer wants to get rid of, in bytes.
const TRAILER_MAX: u64 = 1 << 20;

/// Puts every entry of an archive, plain or compressed by gzip or zstd, below a directory of a root.
///
/// What is there is replaced, a directory only by a directory; the directory itself stays as it is. Refused are paths that
/// climb, devices, and what would come to lie in proc, sysfs or a cgroup. Symbolic links in the tree lead where they lead
/// inside the root.
pub fn unpack(input: impl Read, root: &Root, directory: &Path, ids: Ids, limits: &Limits) -> Result<(), Fault> {
    let decoder = Decoder::new(input).map_err(Fault::from_stream)?;
    let mut tarball = Tarball::new(BufReader::with_capacity(256 << 10, decoder));
    let mut target = Target { root, directory, ids, times: Vec::new(), bytes: 0 };
    let mut entries = 0;
    while let Some(entry) = tarball.next_entry()? {
        entries += 1;
        if entries > limits.entries {
            return Err(Fault::TooManyEntries(limits.entries));
        }
        target.take(&entry, &mut tarball, limits)?;
    }
    target.set_times()?;
    // Tar writes whole records of 10 KiB; a writer whose last bytes nobody reads is ended by a signal.
    let trailer = std::io::copy(&mut tarball.into_inner().take(TRAILER_MAX), &mut std::io::sink());
    trailer.map(drop).map_err(Fault::from_stream)
}

struct Target<'a> {
    root: &'a Root,
    directory: &'a Path,
    ids: Ids,
    // Directories get their times last, since what is put into them changes these.
    times: Vec<(Vec<u8>, (i64, u32))>,
    bytes: u64,
}

impl Target<'_> {
    /// Where a normalised path of the archive lies below the root.
    fn place(&self, path: &[u8]) -> PathBuf {
        self.directory.join(OsStr::from_bytes(path))
    }

    /// Opens a directory, through links that lead to one inside the root.
    fn open(&self, path: &[u8]) -> std::io::Result<OwnedFd> {
        self.root.open(&self.place(path), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    fn take(&mut self, entry: &Entry, tarball: &mut Tarball<impl BufRead>, limits: &Limits) -> Result<(), Fault> {
        let path = normalise(&entry.path)?;
        if path.is_empty() {
            return match entry.kind {
                Kind::Directory => Ok(()),
                _ => Err(Fault::path(&entry.path, "the root of an archive is a directory")),
            };
        }
        let (parent, name) = split(&path);
        let parent_fd = self.parent(parent)?;
        if is_kernels(&parent_fd) {
            return Err(Fault::path(&path, "the kernel's own file systems take no files"));
        }
        let mut attributes = Attributes::of_entry(entry);
        attributes.uid = self.ids.outside(entry.uid);
        attributes.gid = self.ids.outside(entry.gid);
        match entry.kind {
            Kind::Directory => self.make_directory(&parent_fd, &path, &attributes),
            Kind::File => {
                self.bytes = self.bytes.saturating_add(entry.size);
                if self.bytes > limits.layer_bytes {
                    return Err(Fault::TooLarge(limits.layer_bytes));
                }
                free(&parent_fd, &path)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(&parent_fd, name, flags, Mode::RUSR | Mode::WUSR);
                let fd = fd.map_err(Fault::io("create", &path))?;
                let extent = Extent { size: entry.size, pieces: entry.sparse.as_deref() };
                write_data(&fd, &path, extent, tarball)?;
                attributes.apply(fd.as_fd(), None).map_err(Fault::io("describe", &path))
            }
            Kind::HardLink => self.hard_link(&parent_fd, &path, entry),
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(Fault::path(&path, "it is a symbolic link to nothing"));
                }
                free(&parent_fd, &path)?;
                rustix::fs::symlinkat(entry.link.as_slice(), &parent_fd, name).map_err(Fault::io("make", &path))?;
                attributes.apply_at(parent_fd.as_fd(), name, true).map_err(Fault::io("describe", &path))
            }
            Kind::Fifo => fifo(&parent_fd, &path, &attributes),
            Kind::Character | Kind::Block => Err(Fault::path(&path, "devices are not taken from a stream")),
        }
    }

    /// Opens the directory that an entry goes into; what of it is missing is made as root's own.
    fn parent(&self, parent: &[u8]) -> Result<OwnedFd, Fault> {
        let failed = |action| move |source| Fault::Io { action, path: crate::tarball::lossy(parent), source };
        match self.open(parent) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            fd => return fd.map_err(failed("open directory")),
        }
        let mut fd = self.open(b"").map_err(failed("open directory"))?;
        for prefix in prefixes(parent) {
            fd = match self.open(prefix) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if is_kernels(&fd) {
                        return Err(Fault::path(prefix, "the kernel's own file systems take no files"));
                    }
                    let name = split(prefix).1;
                    rustix::fs::mkdirat(&fd, name, Mode::RWXU).map_err(Fault::io("make directory", prefix))?;
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let made = rustix::fs::openat(&fd, name, flags, Mode::empty());
                    let made = made.map_err(Fault::io("open directory", prefix))?;
                    let plain = Attributes {
                        uid: self.ids.outside(0),
                        gid: self.ids.outside(0),
                        ..Attributes::plain_directory()
                    };
                    plain.apply(made.as_fd(), None).map_err(Fault::io("describe", prefix))?;
                    made
                }
                fd => fd.map_err(failed("open directory"))?,
            };
        }
        Ok(fd)
    }

    fn make_directory(&mut self, parent_fd: &OwnedFd, path: &[u8], attributes: &Attributes) -> Result<(), Fault> {
        let name = split(path).1;
        match rustix::fs::mkdirat(parent_fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Fault::io("make directory", path)(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(parent_fd, name, flags, Mode::empty()) {
            Ok(fd) if is_kernels(&fd) => Err(Fault::path(path, "the kernel's own file systems take no files")),
            Ok(fd) => {
                self.times.extend(attributes.mtime.map(|time| (path.to_vec(), time)));
                attributes.apply(fd.as_fd(), None).map_err(Fault::io("describe", path))
            }
            // A link to a directory is as good as one: images have /var/run -> /run. It stays, and the directory as it is.
            Err(Errno::LOOP | Errno::NOTDIR) => match self.open(path) {
                Ok(_) => Ok(()),
                Err(_) => Err(Fault::path(path, "something that is no directory is in its place")),
            },
            Err(error) => Err(Fault::io("open directory", path)(error)),
        }
    }

    fn hard_link(&self, parent_fd: &OwnedFd, path: &[u8], entry: &Entry) -> Result<(), Fault> {
        let refused = |reason| Fault::link(path, &entry.link, reason);
        let target = normalise(&entry.link).map_err(|_| refused("its target is outside"))?;
        let (target_parent, target_name) = split(&target);
        if target == path {
            return Ok(());
        }
        let missing = |_| refused("its target is missing");
        let target_fd = self.open(target_parent).map_err(missing)?;
        let stat = rustix::fs::statat(&target_fd, target_name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|_| refused("its target is missing"))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refused("its target is a directory"));
        }
        if is_kernels(&target_fd) {
            return Err(refused("its target is the kernel's"));
        }
        free(parent_fd, path)?;
        rustix::fs::linkat(&target_fd, target_name, parent_fd, split(path).1, AtFlags::empty())
            .map_err(Fault::io("link", path))
    }

    fn set_times(&mut self) -> Result<(), Fault> {
        for (path, (seconds, nanoseconds)) in std::mem::take(&mut self.times).into_iter().rev() {
            // Whoever took it away meanwhile has no use for its time.
            let Ok(fd) = self.open(&path) else { continue };
            let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
            let times = Timestamps { last_access: time, last_modification: time };
            if !is_kernels(&fd) {
                rustix::fs::futimens(&fd, &times).map_err(Fault::io("describe", &path))?;
            }
        }
        Ok(())
    }
}

/// Frees a name for what is not a directory.
fn free(parent_fd: &OwnedFd, path: &[u8]) -> Result<(), Fault> {
    match rustix::fs::unlinkat(parent_fd, split(path).1, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(Fault::path(path, "a directory is in its place")),
        Err(error) => Err(Fault::io("replace", path)(error)),
    }
}

/// Makes a FIFO. It is described by a descriptor: under its name there may be a link by now.
fn fifo(parent_fd: &OwnedFd, path: &[u8], attributes: &Attributes) -> Result<(), Fault> {
    let name = split(path).1;
    free(parent_fd, path)?;
    rustix::fs::mknodat(parent_fd, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .map_err(Fault::io("make", path))?;
    let described = (|| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent_fd, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::Fifo {
            return Err(Errno::AGAIN);
        }
        let this = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let (uid, gid) = (rustix::fs::Uid::from_raw(attributes.uid), rustix::fs::Gid::from_raw(attributes.gid));
        rustix::fs::chownat(CWD, &this, Some(uid), Some(gid), AtFlags::empty())?;
        rustix::fs::chmodat(CWD, &this, Mode::from_raw_mode(attributes.mode), AtFlags::empty())?;
        attributes.times().map_or(Ok(()), |times| rustix::fs::utimensat(CWD, &this, &times, AtFlags::empty()))
    })();
    described.map_err(Fault::io("describe", path))
}
