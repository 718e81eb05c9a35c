//! The other end of a monitor's socket: for the engine and the command line.

use crate::packets;
use crate::protocol::{EXITED_OOM, EXITED_UNKNOWN, Kind, PAUSED_ALREADY, PAUSED_DONE, PAYLOAD_MAX, SOCKET_FILE};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// A connection to a monitor.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    buffer: Vec<u8>,
    warnings: Vec<String>,
}

/// More warnings than this are not kept.
const WARNINGS_MAX: usize = 100;

/// How long a monitor may take to freeze or to thaw its container; it gives up itself after two seconds.
const PAUSE_WAIT: Duration = Duration::from_secs(10);

/// What a monitor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bytes of standard output, or of the terminal.
    Stdout(&'a [u8]),
    /// Bytes of standard error.
    Stderr(&'a [u8]),
    /// The program runs, with this pid on the machine.
    Started(i32),
    /// It could not be started: the exit status (125, 126, 127) and why, in lines of `what` and `because`.
    Failed(u8, String),
    /// It has ended.
    Exited(Exited),
}

/// How a container or an exec ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exited {
    /// The exit status, none when it can no longer be known.
    pub status: Option<u8>,
    /// Whether the OOM killer ended a process of the container.
    pub oom_killed: bool,
}

impl Connection {
    /// Takes over a socket, such as one end of the pair that a monitor was spawned with.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, buffer: vec![0; PAYLOAD_MAX + 1], warnings: Vec::new() }
    }

    /// Connects to the monitor that serves a run directory. Errors: `ENOENT` or `ECONNREFUSED` when none does.
    ///
    /// The socket is named through its directory's descriptor, since a unix address holds no more than 107 bytes.
    pub fn connect(run_dir: &Path, flags: u8) -> io::Result<Self> {
        let directory = rustix::fs::open(run_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET_FILE}", directory.as_raw_fd()))?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &address)?;
        let connection = Self::new(socket);
        connection.send(Kind::Hello, &[flags])?;
        Ok(connection)
    }

    /// Sends a packet of at most [`PAYLOAD_MAX`] bytes; waits while the monitor has no room for it.
    pub fn send(&self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        packets::send(self.socket.as_fd(), kind, payload, true)
    }

    /// Tells the monitor the size of the client's terminal.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let [r0, r1] = rows.to_le_bytes();
        let [c0, c1] = columns.to_le_bytes();
        self.send(Kind::Resize, &[r0, r1, c0, c1])
    }

    /// Holds the container still for as long as this connection lives, or lets it go on; false if it stood still already. The
    /// monitor must speak [`crate::protocol::VERSION_PAUSE`]. Errors: what the monitor says, its end, `ETIMEDOUT`.
    pub fn pause(&mut self, hold: bool) -> io::Result<bool> {
        self.send(Kind::Pause, &[u8::from(hold)])?;
        let end = Instant::now() + PAUSE_WAIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let wait = rustix::time::Timespec::try_from(left).map_err(io::Error::other)?;
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            if rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&wait)))? == 0 {
                return Err(rustix::io::Errno::TIMEDOUT.into());
            }
            let Some((kind, payload)) = packets::receive(self.socket.as_fd(), &mut self.buffer, true)? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            match (kind, payload) {
                (Some(Kind::Paused), [PAUSED_DONE, ..]) => return Ok(true),
                (Some(Kind::Paused), [PAUSED_ALREADY, ..]) => return Ok(false),
                (Some(Kind::Paused), [_, text @ ..]) => {
                    return Err(io::Error::other(String::from_utf8_lossy(text).into_owned()));
                }
                (Some(Kind::Exited), _) => return Err(io::Error::other("it has ended")),
                _ => {}
            }
        }
    }

    /// Takes the warnings that came with the events up to now: what was done otherwise than asked, a line each.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Waits for the next event; none when the monitor is gone.
    pub fn receive(&mut self) -> io::Result<Option<Event<'_>>> {
        loop {
            // The buffer is lent out with the event, so an unknown packet is looked at before.
            let Some((kind, length)) =
                packets::receive(self.socket.as_fd(), &mut self.buffer, true)?.map(|(k, p)| (k, p.len()))
            else {
                return Ok(None);
            };
            let payload = 1..=length;
            match kind {
                Some(Kind::Stdout) => return Ok(Some(Event::Stdout(&self.buffer[payload]))),
                Some(Kind::Stderr) => return Ok(Some(Event::Stderr(&self.buffer[payload]))),
                Some(Kind::Started) => {
                    let pid = self.buffer.get(1..5).and_then(|b| b.try_into().ok()).map_or(0, i32::from_le_bytes);
                    return Ok(Some(Event::Started(pid)));
                }
                Some(Kind::Warning) if self.warnings.len() < WARNINGS_MAX => {
                    self.warnings.push(String::from_utf8_lossy(&self.buffer[payload]).into_owned());
                }
                Some(Kind::Failed) => {
                    let text = String::from_utf8_lossy(self.buffer.get(2..=length).unwrap_or_default()).into_owned();
                    return Ok(Some(Event::Failed(self.buffer[1], text)));
                }
                Some(Kind::Exited) => {
                    let (status, flags) = (self.buffer[1], self.buffer[2]);
                    let status = (flags & EXITED_UNKNOWN == 0).then_some(status);
                    return Ok(Some(Event::Exited(Exited { status, oom_killed: flags & EXITED_OOM != 0 })));
                }
                _ => {}
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
