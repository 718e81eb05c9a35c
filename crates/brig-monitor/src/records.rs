//! Writing small files so that a reader sees the old one or the new one, never half of one; the engine's records too.
//!
//! ```text
//!   <name>                    what readers open
//!   <name>.<pid>-<n>.tmp      being written by that process: flushed, then renamed to <name>
//!   the same, pid not alive   what a killed writer left; `sweep` removes it
//! ```

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The end of the names of files that are being written.
const ENDING: &str = ".tmp";

/// Writes `bytes` to `path` by way of a temporary file beside it. `durable` flushes the file and its directory.
pub fn write(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let temporary = put_beside(path, bytes, durable)?;
    if let Err(error) = rustix::fs::renameat(CWD, &temporary, CWD, path) {
        let _ = std::fs::remove_file(&temporary);
        return Err(error.into());
    }
    if durable { flush_directory(path) } else { Ok(()) }
}

/// Writes a file that must not be there yet: of two who do so at once, one gets `AlreadyExists`.
pub fn create(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let temporary = put_beside(path, bytes, durable)?;
    let linked = rustix::fs::linkat(CWD, &temporary, CWD, path, AtFlags::empty());
    let _ = std::fs::remove_file(&temporary);
    linked?;
    if durable { flush_directory(path) } else { Ok(()) }
}

/// Writes a record as JSON.
pub fn write_json(path: &Path, record: &impl serde::Serialize, durable: bool) -> io::Result<()> {
    write(path, &serde_json::to_vec(record)?, durable)
}

/// Removes the temporary files of a directory whose writers are gone; a directory that is not there has none.
pub fn sweep(directory: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        let Some(writer) = writer(&entry.file_name()) else { continue };
        if Path::new("/proc").join(writer.to_string()).exists() {
            continue;
        }
        match std::fs::remove_file(entry.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The process that writes a file of this name, if it is a temporary one.
fn writer(name: &OsStr) -> Option<u32> {
    let (_, mark) = name.to_str()?.strip_suffix(ENDING)?.rsplit_once('.')?;
    let (pid, number) = mark.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// Writes the temporary file; nothing stays of it after an error.
fn put_beside(path: &Path, bytes: &[u8], durable: bool) -> io::Result<PathBuf> {
    // Threads of one process may write the same file at once.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}{ENDING}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    let temporary = path.with_file_name(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(CWD, &temporary, flags, Mode::from_raw_mode(0o600))?;
    let written = write_all(&fd, bytes).and_then(|()| if durable { rustix::fs::fsync(&fd) } else { Ok(()) });
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            let _ = std::fs::remove_file(&temporary);
            Err(error.into())
        }
    }
}

fn write_all(fd: &std::os::fd::OwnedFd, mut rest: &[u8]) -> rustix::io::Result<()> {
    while !rest.is_empty() {
        match rustix::io::write(fd, rest) {
            Ok(count) => rest = &rest[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn flush_directory(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match path.parent() {
        Some(parent) => Ok(rustix::fs::fsync(rustix::fs::open(parent, flags, Mode::empty())?)?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("brig-records-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_made_once() {
        let dir = Scratch::new("whole");
        let path = dir.0.join("record");
        create(&path, b"one", true).unwrap();
        assert_eq!(create(&path, b"two", true).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(&path, b"three", false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(dir.names(), ["record"]);
        assert!(write(&dir.0.join("no/record"), b"x", false).is_err());
        fs::create_dir(dir.0.join("taken")).unwrap();
        assert!(write(&dir.0.join("taken"), b"x", false).is_err());
        assert_eq!(dir.names(), ["record", "taken"], "a failed write leaves nothing");
    }

    #[test]
    fn what_a_killed_writer_left_is_swept_and_a_living_ones_is_not() {
        let dir = Scratch::new("swept");
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let (gone, mine) = (format!("exit.{}-0.tmp", dead.id()), format!("exit.{}-7.tmp", std::process::id()));
        for name in [gone.as_str(), mine.as_str(), "exit", "upper.tmp", "x.1.tmp"] {
            fs::write(dir.0.join(name), "x").unwrap();
        }
        sweep(&dir.0).unwrap();
        let mut left = ["exit", mine.as_str(), "upper.tmp", "x.1.tmp"];
        left.sort_unstable();
        assert_eq!(dir.names(), left);
        sweep(&dir.0.join("none")).unwrap();
    }
}
