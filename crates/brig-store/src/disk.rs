//! Small things done to directories: make, replace atomically, lock with a bound, remove whole trees.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::observe::Observer;

/// Makes a directory of mode 0700 and its parents, unless they are there.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::io("make directory", path.display()))
}

/// Opens a directory.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open directory", path.display()))
}

/// Returns sixteen random hexadecimal digits.
pub(crate) fn random_name() -> String {
    format!("{:016x}", random_number())
}

/// Returns a random number.
pub(crate) fn random_number() -> u64 {
    let mut bytes = [0_u8; 8];
    // The pool is ready on any machine that runs containers; eight bytes are never a short read.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}

/// Makes a file of mode 0600 that was not there, with these bytes.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<File> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// Removes a file; none is fine.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path.display())(error)),
        _ => Ok(()),
    }
}

/// Writes a file in one step: a temporary name in the same directory, fsync, rename, fsync of the directory.
pub(crate) fn replace_file(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let temporary = directory.join(format!(".{name}.{}", random_name()));
    let written = (|| {
        write_new(&temporary, bytes)?.sync_all()?;
        std::fs::rename(&temporary, directory.join(name))?;
        File::open(directory)?.sync_all()
    })();
    written.map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        Error::Io { action: "write", object: directory.join(name).display().to_string(), source }
    })
}

/// Reads a regular file of at most `limit` bytes; `None` if there is no such file.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let open = std::fs::OpenOptions::new().read(true).custom_flags(0o4000).open(path);
    let file = match open {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::io("open", path.display())(source)),
    };
    // Room for what most records have, so that they are read in one go.
    let mut bytes = Vec::with_capacity(4096);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("read", path.display()))?;
    if bytes.len() as u64 > limit {
        let reason = format!("it has more than {limit} bytes");
        return Err(Error::Record { path: path.display().to_string(), reason });
    }
    Ok(Some(bytes))
}

/// Takes an exclusive lock on an open file, polling up to `wait`; false if the time is over.
///
/// `on_wait` is called once, when the first attempt finds the lock taken.
pub(crate) fn lock_within(
    fd: BorrowedFd<'_>,
    wait: Duration,
    observer: &dyn Observer,
    on_wait: impl Fn(),
) -> Result<bool> {
    let start = Instant::now();
    let mut waited = false;
    loop {
        match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(error) => return Err(Error::io("lock", "a file of the store")(error)),
        }
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        if start.elapsed() >= wait {
            return Ok(false);
        }
        if !waited {
            on_wait();
            waited = true;
        }
        std::thread::sleep(Duration::from_millis(if start.elapsed() < Duration::from_millis(200) { 2 } else { 50 }));
    }
}

/// Opens (or makes) a lock file and takes it, sure that the file still lies under its name afterwards.
pub(crate) fn lock_file(path: &Path, wait: Duration, observer: &dyn Observer, on_wait: impl Fn()) -> Result<File> {
    loop {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("open", path.display()))?;
        if !lock_within(file.as_fd(), wait, observer, &on_wait)? {
            return Err(Error::Busy(path.display().to_string()));
        }
        let held = file.metadata().map_err(Error::io("look at", path.display()))?;
        match std::fs::symlink_metadata(path) {
            Ok(named) if named.ino() == held.ino() && named.dev() == held.dev() => return Ok(file),
            _ => {} // renamed or removed by the one who held it: once more
        }
    }
}

pub(crate) use brig_sys::tree::remove as remove_any;

/// Removes a directory and all below it; nothing there is fine.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let parent = open_directory(parent)?;
    remove_any(parent.as_fd(), name.as_encoded_bytes()).map_err(Error::io("remove", path.display()))
}

/// Makes renames and new names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::io("flush", path.display()))
}
