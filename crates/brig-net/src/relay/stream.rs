//! One relayed TCP connection: two sockets and a flow each way.
//!
//! ```text
//!   client  -- up -->  server        a flow ends when its reader has seen the end and its writer has passed it on;
//!   client <-- down -- server        the stream ends when both flows have, or at the first error
//! ```
//!
//! What cannot be written at once waits in the flow, and the flow reads no further until it is gone: the bound of the
//! buffer is the size of one read.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, connect, recv, send, shutdown,
    socket_with, sockopt,
};

const READ_LEN: usize = 16 * 1024;
/// How many reads one event may lead to, so that a busy stream does not starve the others.
const TURNS: usize = 8;

/// One direction of a stream.
#[derive(Default)]
struct Flow {
    pending: Vec<u8>,
    written: usize,
    read_ended: bool,
    passed_on: bool,
}

impl Flow {
    fn blocked(&self) -> bool {
        self.written < self.pending.len()
    }

    fn reads(&self) -> bool {
        !self.read_ended && !self.blocked()
    }

    /// Moves what can be moved without waiting.
    fn pump(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, scratch: &mut Vec<u8>) -> Result<(), Errno> {
        for _ in 0..TURNS {
            while self.blocked() {
                match send(to, &self.pending[self.written..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(len) => self.written += len,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            self.pending = Vec::new();
            self.written = 0;
            if self.read_ended {
                return self.pass_end_on(to);
            }
            if scratch.len() < READ_LEN {
                scratch.resize(READ_LEN, 0);
            }
            let len = match recv(from, &mut scratch[..READ_LEN], RecvFlags::DONTWAIT) {
                Ok((len, _)) => len,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            if len == 0 {
                self.read_ended = true;
                return self.pass_end_on(to);
            }
            let sent = match send(to, &scratch[..len], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => sent,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(errno) => return Err(errno),
            };
            if sent < len {
                self.pending = scratch[sent..len].to_vec();
                return Ok(());
            }
        }
        Ok(())
    }

    fn pass_end_on(&mut self, to: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.passed_on {
            return Ok(());
        }
        self.passed_on = true;
        shutdown(to, Shutdown::Write)
    }
}

/// A client's connection and the container's connection that belongs to it.
pub(super) struct Stream {
    client: OwnedFd,
    server: OwnedFd,
    connecting: bool,
    up: Flow,
    down: Flow,
}

/// What accepting a connection came to.
pub(super) enum Accepted {
    /// A new stream.
    Stream(Stream),
    /// A connection that went away, or whose container cannot be reached: it was closed.
    Refused,
    /// No connection waits.
    Nothing,
    /// The process or the machine has no descriptor or memory left.
    Exhausted,
}

/// Accepts one connection and begins to connect to the container.
pub(super) fn accept(listener: &OwnedFd, target: SocketAddr) -> Accepted {
    let client = match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(client) => client,
        Err(Errno::AGAIN) => return Accepted::Nothing,
        Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return Accepted::Exhausted,
        Err(_) => return Accepted::Refused,
    };
    let Ok((server, connecting)) = open_server(target) else {
        reset(&client);
        return Accepted::Refused;
    };
    for fd in [&client, &server] {
        // Best effort: an old connection is noticed later without it, and small writes are slower.
        let _ = sockopt::set_socket_keepalive(fd, true);
        let _ = sockopt::set_tcp_nodelay(fd, true);
    }
    Accepted::Stream(Stream { client, server, connecting, up: Flow::default(), down: Flow::default() })
}

fn open_server(target: SocketAddr) -> Result<(OwnedFd, bool), Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let server = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match connect(&server, &target) {
        Ok(()) => Ok((server, false)),
        Err(Errno::INPROGRESS) => Ok((server, true)),
        Err(errno) => Err(errno),
    }
}

/// Makes closing send a reset: the client shall see a refusal, not an empty answer.
fn reset(client: &OwnedFd) {
    let _ = sockopt::set_socket_linger(client, Some(Duration::ZERO));
}

impl Stream {
    /// Lists the sockets and what they wait for; one whose both directions are over is left out.
    pub(super) fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let flags = |reads: bool, writes: bool| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads);
            flags.set(PollFlags::OUT, writes);
            flags
        };
        let client = flags(!self.connecting && self.up.reads(), self.down.blocked());
        let server = flags(!self.connecting && self.down.reads(), self.connecting || self.up.blocked());
        let client_over = self.up.read_ended && self.down.passed_on;
        let server_over = self.down.read_ended && self.up.passed_on;
        [(&self.client, client, client_over), (&self.server, server, server_over)]
            .into_iter()
            .filter(|(_, _, over)| !over)
            .map(|(fd, flags, _)| (fd.as_fd(), flags))
    }

    /// Tells whether the descriptor is one of the two sockets.
    pub(super) fn owns(&self, fd: RawFd) -> bool {
        self.client.as_raw_fd() == fd || self.server.as_raw_fd() == fd
    }

    /// Moves what can be moved; false when the stream is over.
    pub(super) fn progress(&mut self, fd: RawFd, events: PollFlags, scratch: &mut Vec<u8>) -> bool {
        let of_server = fd == self.server.as_raw_fd();
        if self.connecting {
            if !of_server {
                // Before it is connected a client can only fail.
                return !events.intersects(PollFlags::ERR | PollFlags::HUP);
            }
            match sockopt::socket_error(&self.server) {
                Ok(Ok(())) if events.contains(PollFlags::OUT) => self.connecting = false,
                Ok(Ok(())) => return true,
                _ => {
                    reset(&self.client);
                    return false;
                }
            }
        }
        if events.contains(PollFlags::ERR) {
            reset(&self.client);
            return false;
        }
        let (client, server) = (self.client.as_fd(), self.server.as_fd());
        let moved = self.up.pump(client, server, scratch).and_then(|()| self.down.pump(server, client, scratch));
        moved.is_ok() && !(self.up.passed_on && self.down.passed_on)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Whatever turn the end is seen in, it must be passed on then: there is no further event.
    #[test]
    fn the_end_is_passed_on_in_the_last_turn_too() {
        for reads in TURNS - 2..=TURNS {
            let ((mut writer, from), (to, mut reader)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
            let text = vec![7; reads * READ_LEN];
            writer.write_all(&text).unwrap();
            drop(writer);
            let mut flow = Flow::default();
            let mut pumps = 0;
            while flow.reads() {
                flow.pump(from.as_fd(), to.as_fd(), &mut Vec::new()).unwrap();
                pumps += 1;
                assert!(pumps <= 2, "{reads} reads");
            }
            assert!(flow.passed_on, "{reads} reads");
            let mut answer = Vec::new();
            reader.set_nonblocking(true).unwrap();
            reader.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, text);
        }
    }

    #[test]
    fn a_reader_that_is_slow_holds_the_writer_up() {
        let ((mut writer, from), (to, mut reader)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        writer.set_nonblocking(true).unwrap();
        let (mut flow, mut scratch, mut written) = (Flow::default(), Vec::new(), 0);
        for _ in 0..200 {
            written += writer.write(&[7; 10_000]).unwrap_or(0);
            flow.pump(from.as_fd(), to.as_fd(), &mut scratch).unwrap();
        }
        assert!(flow.blocked() && !flow.reads() && flow.pending.len() <= READ_LEN);
        assert!(written < 2_000_000, "nobody read it, and it was taken all the same");
        drop(writer);
        let mut answer = Vec::new();
        reader.set_nonblocking(true).unwrap();
        for _ in 0..1000 {
            flow.pump(from.as_fd(), to.as_fd(), &mut scratch).unwrap();
            if reader.read_to_end(&mut answer).is_ok() {
                break;
            }
        }
        assert!(flow.passed_on);
        assert_eq!(answer.len(), written);
    }
}
