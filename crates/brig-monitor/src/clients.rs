//! One client of a monitor, as the poll loop sees it.

use crate::packets;
use crate::protocol::Kind;
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a client that takes nothing is waited for when the container has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    /// The flags of its `Hello`.
    pub flags: u8,
    /// Whether it is gone.
    pub closed: bool,
    /// Whether it holds the container (`hold.rs`).
    pub holds: bool,
    // Packets that it had no room for. While there are any no more output is read, so it is one, or what was left in
    // the pipes at the end.
    unsent: VecDeque<(Kind, Vec<u8>)>,
}

impl Client {
    /// Takes over a connected socket whose `Hello` has not come yet.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, flags: 0, closed: false, holds: false, unsent: VecDeque::new() }
    }

    /// Takes the `Hello` that a spawner sent before this process began.
    pub fn greet(&mut self) {
        let mut buffer = vec![0; crate::protocol::PAYLOAD_MAX + 1];
        if let Some((Some(Kind::Hello), payload)) = self.receive(&mut buffer) {
            self.flags = payload.first().copied().unwrap_or(0);
        }
    }

    /// Whether a flag of its `Hello` is set.
    pub fn wants(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Puts a packet in line.
    pub fn push(&mut self, kind: Kind, payload: &[u8]) {
        if self.unsent.is_empty() {
            // The usual case goes without a copy.
            match packets::send(self.socket.as_fd(), kind, payload, false) {
                Ok(()) => return,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
        self.unsent.push_back((kind, payload.to_vec()));
    }

    /// Sends what is in line as far as there is room; with `patient`, waits a bounded time for room.
    pub fn flush(&mut self, patient: bool) {
        let deadline = Instant::now() + PATIENCE;
        while let Some((kind, payload)) = self.unsent.front() {
            match packets::send(self.socket.as_fd(), *kind, payload, false) {
                Ok(()) => drop(self.unsent.pop_front()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if !patient || Instant::now() > deadline {
                        return;
                    }
                    let timeout = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
                    let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&timeout));
                }
                Err(_) => {
                    self.unsent.clear();
                    self.closed = true;
                }
            }
        }
    }

    /// Tells why nothing runs: exit status, then what failed and because of what, one a line.
    pub fn tell_failure(&mut self, error: &brig_runtime::Error) {
        let mut payload = vec![error.kind as u8];
        payload.extend(format!("{error}\n{}", crate::chain::one_line(&error.source)).bytes());
        payload.truncate(crate::protocol::PAYLOAD_MAX);
        self.push(Kind::Failed, &payload);
        self.flush(true);
    }

    /// Takes one packet, if one is there; notes when the client is gone.
    pub fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> Option<(Option<Kind>, &'b [u8])> {
        match packets::receive(self.socket.as_fd(), buffer, false) {
            Ok(Some(packet)) => Some(packet),
            Ok(None) => {
                self.closed = true;
                None
            }
            Err(error) => {
                self.closed |= error.kind() != std::io::ErrorKind::WouldBlock;
                None
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
