//! A process in the foreground: its terminal is joined to ours, signals are passed on, orphans are buried, and its exit status
//! becomes ours.
//!
//! ```text
//! our standard input ──> console ──> our standard output      raw mode while it lasts, window size on SIGWINCH
//! signals to us      ──> the process
//! ```

use crate::failure::{Failure, Step};
use brig_sys::clone::Child;
use brig_sys::signals;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitOptions, WaitStatus};
use rustix::termios::{OptionalActions, OutputModes, Termios};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const SIGINT: i32 = 2;
const SIGCHLD: i32 = 17;
const SIGWINCH: i32 = 28;
/// Signals of a fault of this process itself, those that cannot be caught, and those that only the kernel sends.
const NOT_PASSED_ON: [i32; 13] = [4, 5, 6, 7, 8, 9, 11, 13, 19, 23, 32, 33, SIGCHLD];

/// The signals are held back from here on.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: OwnedFd,
}

impl Foreground {
    /// Begins to hold signals back, so that none is lost before there is a process to send it to.
    pub fn begin() -> Result<Self, Failure> {
        let caught: Vec<i32> = (1..=64).filter(|s| !NOT_PASSED_ON.contains(s) || *s == SIGCHLD).collect();
        Ok(Self { signals: signals::descriptor(&caught).step(|| "wait for signals")? })
    }

    /// Stays with `child` until it has ended, and returns its exit status: 128 and the signal that ended it.
    pub fn attend(&self, child: &Child, console: Option<OwnedFd>) -> Result<u8, Failure> {
        let mut terminal = console.map(Terminal::join).transpose().step(|| "join the terminals")?;
        let mut status = None;
        while status.is_none() {
            let mut ready = [false; 3];
            let mut polled = vec![PollFd::new(&self.signals, PollFlags::IN)];
            if let Some(terminal) = &terminal {
                polled.push(PollFd::new(&terminal.console, PollFlags::IN));
                if terminal.reads_input {
                    polled.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
                }
            }
            match poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result.step(|| "wait for the process")?,
            };
            for (ready, polled) in ready.iter_mut().zip(&polled) {
                *ready = !polled.revents().is_empty();
            }
            if let Some(joined) = &mut terminal {
                if ready[2] {
                    joined.input();
                }
                if ready[1] && !joined.output() {
                    terminal = None;
                }
            }
            while let Some(signal) = signals::next(self.signals.as_fd()) {
                match (signal, &terminal) {
                    (SIGCHLD, _) => status = status.or(bury(child.pid)),
                    (SIGWINCH, Some(terminal)) => terminal.resize(),
                    // On a terminal of its own the key reaches the process as a character.
                    (SIGINT, Some(terminal)) if terminal.before.is_some() => {}
                    _ => drop(signals::send_to(child.pidfd.as_fd(), signal)),
                }
            }
        }
        if let Some(terminal) = &mut terminal {
            // What the process wrote last may still be on its way.
            while terminal.has_output() && terminal.output() {}
        }
        Ok(status.unwrap_or(255))
    }
}

/// Makes a process's terminal ready to lie behind ours, before the process runs: it has our size, and only ours turns a new line
/// into a return and a new line.
pub(crate) fn prepare(console: BorrowedFd<'_>) -> Result<(), Failure> {
    let step = || "prepare the terminal";
    let mut inner = rustix::termios::tcgetattr(console).step(step)?;
    inner.output_modes.remove(OutputModes::ONLCR);
    rustix::termios::tcsetattr(console, OptionalActions::Now, &inner).step(step)?;
    take_over_size(console);
    Ok(())
}

fn take_over_size(console: BorrowedFd<'_>) {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin());
    if let Ok(size) = size.or_else(|_| rustix::termios::tcgetwinsize(rustix::stdio::stdout())) {
        let _ = rustix::termios::tcsetwinsize(console, size);
    }
}

/// Reaps every child that has ended; returns the exit status of `pid` if it was among them.
fn bury(pid: i32) -> Option<u8> {
    let mut status = None;
    while let Ok(Some((ended, how))) = rustix::process::wait(WaitOptions::NOHANG) {
        if Some(ended) == Pid::from_raw(pid) {
            status = Some(exit_status(how));
        }
    }
    status
}

fn exit_status(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255);
    u8::try_from(code).unwrap_or(255)
}

/// Our terminal joined to the process's.
struct Terminal {
    console: OwnedFd,
    before: Option<Termios>,
    reads_input: bool,
}

impl Terminal {
    fn join(console: OwnedFd) -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = if rustix::termios::isatty(stdin) { Some(rustix::termios::tcgetattr(stdin)?) } else { None };
        let terminal = Self { console, before, reads_input: true };
        if let Some(before) = &terminal.before {
            let mut raw = before.clone();
            raw.make_raw();
            raw.output_modes.insert(OutputModes::OPOST | OutputModes::ONLCR);
            rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw)?;
        }
        Ok(terminal)
    }

    fn resize(&self) {
        take_over_size(self.console.as_fd());
    }

    /// Moves what was typed to the process.
    fn input(&mut self) {
        let mut buffer = [0; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) | Err(_) => {
                // The end of our input is the end of file character of theirs.
                self.reads_input = false;
                let _ = write_all(self.console.as_fd(), &[4]);
            }
            Ok(count) => drop(write_all(self.console.as_fd(), &buffer[..count])),
        }
    }

    /// Moves what the process wrote to our output; false when its side is closed.
    fn output(&mut self) -> bool {
        let mut buffer = [0; 16384];
        match rustix::io::read(&self.console, &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::IO) => false,
            Ok(count) => write_all(rustix::stdio::stdout(), &buffer[..count]).is_ok(),
            Err(_) => true,
        }
    }

    fn has_output(&self) -> bool {
        let none = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(&self.console, PollFlags::IN)];
        poll(&mut polled, Some(&none)).is_ok_and(|ready| ready > 0 && polled[0].revents().contains(PollFlags::IN))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(fd, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}
