//! Control files: small texts that the kernel makes when they are read, and acts upon when they are written.
//!
//! One open, one read or write, one close: nothing is probed before it is used, and what the kernel answers decides. An
//! error names the file, the value and, where the reason is known, what can be done.

use crate::error::Error;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The most that is read of one file: a million pids.
const MOST: usize = 8 << 20;

fn open(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// Reads a file whole.
pub(super) fn read(path: &Path) -> rustix::io::Result<String> {
    const FIRST: usize = 4096;
    let fd = open(path, OFlags::RDONLY)?;
    let mut bytes = Vec::with_capacity(FIRST);
    loop {
        let before = bytes.len();
        if bytes.capacity() - before < FIRST / 2 {
            bytes.reserve(bytes.capacity());
        }
        let read = rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes))?;
        // A file that is made in one piece is read in one piece; only a list (of pids, of devices) comes in several.
        if read == 0 || (before == 0 && read < FIRST / 2) || bytes.len() > MOST {
            break;
        }
    }
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Reads a file; one that is not there, or went while it was read, is none.
pub(crate) fn read_if_there(path: &Path) -> Option<String> {
    read(path).ok()
}

/// Writes one control file.
pub(super) fn write(path: &Path, value: &str) -> Result<(), Error> {
    try_write(path, value).map_err(|errno| refused(path, value, errno))
}

/// Writes one control file, and leaves the error for the caller to judge.
pub(super) fn try_write(path: &Path, value: &str) -> rustix::io::Result<()> {
    let fd = open(path, OFlags::WRONLY)?;
    rustix::io::write(&fd, value.as_bytes()).map(drop)
}

/// A control file that takes several values, one a write.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    fd: OwnedFd,
}

impl Writer {
    /// Opens the file.
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        match open(&path, OFlags::WRONLY) {
            Ok(fd) => Ok(Self { path, fd }),
            Err(errno) => Err(failed(format!("open {}", path.display()), &path, errno)),
        }
    }

    /// Writes one value.
    pub(super) fn write(&self, value: &str) -> Result<(), Error> {
        rustix::io::write(&self.fd, value.as_bytes()).map(drop).map_err(|errno| refused(&self.path, value, errno))
    }
}

/// Says which value the kernel refused in which file, and why where that is known.
pub(super) fn refused(path: &Path, value: &str, errno: Errno) -> Error {
    failed(format!("write `{}` to {}", value.trim_end(), path.display()), path, errno)
}

fn failed(step: String, path: &Path, errno: Errno) -> Error {
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let controller = file.split('.').next().unwrap_or_default();
    let hint = match errno {
        Errno::NOENT if path.parent().is_some_and(Path::exists) => {
            format!(
                "the controller `{controller}` is not enabled for this cgroup, or this kernel does not have the file"
            )
        }
        Errno::OPNOTSUPP if file == "io.weight" => {
            "nothing weighs the I/O of that device: neither BFQ nor iocost".into()
        }
        Errno::OPNOTSUPP => "the cgroup is a threaded one, or below a threaded one".into(),
        Errno::BUSY if file == "cgroup.procs" => {
            "the cgroup hands controllers down to cgroups below it, and then takes no process itself".into()
        }
        Errno::NOSPC if file == "cgroup.procs" => "the cpuset has no CPUs or no memory nodes".into(),
        Errno::ACCESS if file == "cpuset.cpus" || file == "cpuset.mems" => {
            "the list names what the parent cgroup does not have".into()
        }
        Errno::INVAL if file.starts_with("cpu.cfs") || file == "cpu.max" => {
            "the limit is over that of the parent cgroup, or out of the kernel's range".into()
        }
        Errno::INVAL if file.starts_with("cpu.rt") => "the parent cgroup has less real time to give".into(),
        _ => return Error::setup(step, errno),
    };
    let cause = io::Error::from(errno);
    Error::setup(step, io::Error::new(cause.kind(), Hinted { cause, hint }))
}

/// Says whether an error is the kernel's `errno`, with a hint or without.
pub(super) fn is(error: &Error, errno: Errno) -> bool {
    let hinted = error.source.get_ref().and_then(|inner| inner.downcast_ref::<Hinted>());
    hinted.map_or(&error.source, |hinted| &hinted.cause).raw_os_error() == Some(errno.raw_os_error())
}

/// An error of the kernel with what is known about it.
#[derive(Debug, thiserror::Error)]
#[error("{cause} ({hint})")]
struct Hinted {
    cause: io::Error,
    hint: String,
}
