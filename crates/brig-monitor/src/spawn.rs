//! Starting a monitor: from the engine's process to one that outlives it.
//!
//! The monitor is executed from a read-only clone of its program's mount (`protect.rs`), without the caller's environment,
//! and with one end of a socket pair as its standard input: its first client. It makes a session of its own at once.

use crate::client::Connection;
use crate::protect;
use crate::protocol::Kind;
use brig_sys::exec::StringList;
use brig_sys::spawn;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The first argument that makes a program of brig a monitor.
pub const ARGUMENT: &str = "brig-monitor";

/// What a monitor is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Execute the plan of a container directory.
    Run,
    /// Execute the plan of an exec directory.
    Exec,
    /// Take over a container whose monitor was lost.
    Adopt,
}

impl Job {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Exec => "exec",
            Self::Adopt => "adopt",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Run, Self::Exec, Self::Adopt].into_iter().find(|job| job.word() == word)
    }
}

/// Starts a monitor from `program` on `directory` and returns the connection on which it reports.
///
/// `flags` are those of a client's `Hello`: whether the caller wants the output and may write the input.
pub fn spawn(program: &Path, job: Job, directory: &Path, flags: u8) -> io::Result<Connection> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let connection = Connection::new(ours);
    connection.send(Kind::Hello, &[flags])?;
    let file = protect::open(program)?;
    let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let words = [path.as_bytes(), ARGUMENT.as_bytes(), job.word().as_bytes(), directory.as_os_str().as_bytes()];
    // Freed pieces that the C library keeps at hand would pin pages for as long as the monitor lives; mallopt(3).
    let environment = StringList::new(["GLIBC_TUNABLES=glibc.malloc.tcache_count=0"])?;
    let stdio = [theirs.as_fd(), null.as_fd(), null.as_fd()];
    spawn::spawn(&CString::new(path.as_str())?, &StringList::new(words)?, &environment, stdio)?;
    Ok(connection)
}
