//! The three descriptors of a container and what the monitor holds of them.
//!
//! ```text
//! without a terminal                              with one
//!   stdin   pipe, or /dev/null                      the terminal's controlling side, which the
//!   stdout  FIFO <run>/stdout  O_RDWR inside         container's process opened and handed over
//!   stderr  FIFO <run>/stderr  O_RDWR inside
//! ```
//!
//! The container holds its FIFOs open for reading and writing, so that its writes block and never fail while no monitor
//! reads; a new monitor opens them by name and goes on.

use brig_runtime::{Context, Error};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::OwnedFd;
use std::path::Path;

/// The file names of the FIFOs in the run directory.
pub const STDOUT_FILE: &str = "stdout";
/// The file name of standard error's FIFO.
pub const STDERR_FILE: &str = "stderr";

/// The monitor's ends.
#[derive(Debug, Default)]
pub struct Ends {
    /// Where standard input is written; none when it has ended or never was.
    pub stdin: Option<OwnedFd>,
    /// Where standard output is read.
    pub stdout: Option<OwnedFd>,
    /// Where standard error is read.
    pub stderr: Option<OwnedFd>,
    /// The terminal's controlling side, in place of all three.
    pub console: Option<OwnedFd>,
}

impl Ends {
    /// Whether somebody inside may still read what is written.
    pub fn take_input(&self) -> bool {
        self.stdin.is_some() || self.console.is_some()
    }
}

/// Makes the descriptors of a container without a terminal: those for inside, and the monitor's ends.
pub fn make(run_dir: &Path, stdin_open: bool) -> Result<([OwnedFd; 3], Ends), Error> {
    let (stdin, stdin_end) = make_stdin(stdin_open)?;
    let (stdout, stdout_end) = fifo(&run_dir.join(STDOUT_FILE))?;
    let (stderr, stderr_end) = fifo(&run_dir.join(STDERR_FILE))?;
    let ends = Ends { stdin: stdin_end, stdout: Some(stdout_end), stderr: Some(stderr_end), console: None };
    Ok(([stdin, stdout, stderr], ends))
}

/// Makes the descriptors of an exec, which nobody adopts: plain pipes.
pub fn make_pipes(stdin_open: bool) -> Result<([OwnedFd; 3], Ends), Error> {
    let (stdin, stdin_end) = make_stdin(stdin_open)?;
    let make = || pipe_with(PipeFlags::CLOEXEC).step(|| "make a pipe".into());
    let ((stdout_end, stdout), (stderr_end, stderr)) = (make()?, make()?);
    for end in [&stdout_end, &stderr_end] {
        rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK).step(|| "make a pipe".into())?;
    }
    let ends = Ends { stdin: stdin_end, stdout: Some(stdout_end), stderr: Some(stderr_end), console: None };
    Ok(([stdin, stdout, stderr], ends))
}

fn make_stdin(open: bool) -> Result<(OwnedFd, Option<OwnedFd>), Error> {
    if !open {
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        return Ok((null.step(|| "open /dev/null".into())?, None));
    }
    let (inside, end) = pipe_with(PipeFlags::CLOEXEC).step(|| "make a pipe".into())?;
    rustix::fs::fcntl_setfl(&end, OFlags::NONBLOCK).step(|| "make a pipe".into())?;
    Ok((inside, Some(end)))
}

fn fifo(path: &Path) -> Result<(OwnedFd, OwnedFd), Error> {
    let step = || format!("make the FIFO {}", path.display());
    match rustix::fs::mkfifoat(CWD, path, Mode::from_raw_mode(0o600)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).step(step),
    }
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let inside = rustix::fs::open(path, OFlags::RDWR | flags, Mode::empty()).step(step)?;
    Ok((inside, open_end(path)?))
}

/// Opens the reading end of a FIFO that a container writes to.
pub fn open_end(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).step(|| format!("open the FIFO {}", path.display()))
}
