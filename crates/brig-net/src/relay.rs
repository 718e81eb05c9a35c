//! A relay for published ports that address translation cannot serve: `::1`, and `::` while the container has no IPv6.
//!
//! It is a state machine for somebody else's poll loop and never waits itself:
//!
//! ```text
//!   loop {  fds() + the owner's own -> poll(timeout())  ->  ready(fd, events) for each, then expire(now)  }
//!
//!   client --- listening socket (host) --- accept ---> stream: client socket <=> container socket
//!   client --- bound datagram socket  --- datagram --> peer:   client address <-> connected container socket
//! ```
//!
//! Descriptors come and go with every call, so the list is taken anew for each poll. A stale event does no harm.
//! Streams and peers are bounded; an idle one holds no buffer, and an idle relay none at all.

mod datagram;
mod stream;

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fd::OwnedFd;

use crate::plan::Protocol;
use datagram::Peer;
use stream::Stream;

/// The most TCP connections that are relayed at the same time; others wait in the listening socket's queue.
pub const STREAMS_MAX: usize = 256;
/// The most UDP clients that are remembered; a new one takes the place of the one silent for longest.
pub const PEERS_MAX: usize = 128;
/// How long a silent UDP client is remembered.
pub const PEER_IDLE: Duration = Duration::from_secs(60);
/// How long no connection is accepted after accepting failed for want of resources.
const PAUSE: Duration = Duration::from_millis(200);

/// One published port: the bound socket, and the container's address behind it.
pub struct Service {
    fd: OwnedFd,
    protocol: Protocol,
    target: SocketAddr,
}

impl Service {
    /// Takes a bound, non-blocking socket (TCP: listening) whose clients are to reach `target`.
    pub fn new(fd: OwnedFd, protocol: Protocol, target: SocketAddr) -> Self {
        Self { fd, protocol, target }
    }
}

/// The relay of one container.
pub struct Relay {
    services: Vec<Service>,
    streams: Vec<Stream>,
    peers: Vec<Peer>,
    scratch: Vec<u8>,
    paused_until: Option<Instant>,
}

impl Relay {
    /// Makes a relay for some published ports; with none it does nothing.
    pub fn new(services: Vec<Service>) -> Self {
        Self { services, streams: Vec::new(), peers: Vec::new(), scratch: Vec::new(), paused_until: None }
    }

    /// Lists what to poll, and for which events.
    pub fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let accepting = self.streams.len() < STREAMS_MAX && self.paused_until.is_none();
        let services = self.services.iter().filter_map(move |service| {
            let wanted = service.protocol == Protocol::Udp || accepting;
            wanted.then(|| (service.fd.as_fd(), PollFlags::IN))
        });
        let streams = self.streams.iter().flat_map(Stream::fds);
        let peers = self.peers.iter().map(|peer| (peer.fd.as_fd(), PollFlags::IN));
        services.chain(streams).chain(peers)
    }

    /// Does what the events of one descriptor allow; a descriptor that is not the relay's is ignored.
    pub fn ready(&mut self, fd: RawFd, events: PollFlags) {
        if let Some(place) = self.services.iter().position(|service| service.fd.as_raw_fd() == fd) {
            match self.services[place].protocol {
                Protocol::Tcp => self.accept(place),
                Protocol::Udp => datagram::forward(&self.services[place], place, &mut self.peers, &mut self.scratch),
            }
        } else if let Some(place) = self.streams.iter().position(|stream| stream.owns(fd)) {
            if !self.streams[place].progress(fd, events, &mut self.scratch) {
                self.streams.swap_remove(place);
                self.streams.shrink_to(8);
            }
        } else if let Some(peer) = self.peers.iter_mut().find(|peer| peer.fd.as_raw_fd() == fd) {
            let service = &self.services[peer.service];
            peer.answer(service, &mut self.scratch);
        }
        self.release_scratch();
    }

    /// Tells how long a poll may wait before [`expire`](Self::expire) has something to do; `None`: for ever.
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        let peers = self.peers.iter().map(|peer| peer.last + PEER_IDLE);
        peers.chain(self.paused_until).min().map(|due| due.saturating_duration_since(now))
    }

    /// Forgets the clients that have been silent for too long.
    pub fn expire(&mut self, now: Instant) {
        self.peers.retain(|peer| now.saturating_duration_since(peer.last) < PEER_IDLE);
        self.paused_until = self.paused_until.filter(|due| *due > now);
        self.release_scratch();
    }

    /// Counts the TCP connections and the UDP clients that are being served.
    pub fn load(&self) -> (usize, usize) {
        (self.streams.len(), self.peers.len())
    }

    fn accept(&mut self, place: usize) {
        let service = &self.services[place];
        while self.streams.len() < STREAMS_MAX {
            match stream::accept(&service.fd, service.target) {
                stream::Accepted::Stream(stream) => self.streams.push(stream),
                stream::Accepted::Refused => {}
                stream::Accepted::Nothing => return,
                stream::Accepted::Exhausted => {
                    self.paused_until = Some(Instant::now() + PAUSE);
                    return;
                }
            }
        }
    }

    fn release_scratch(&mut self) {
        if self.streams.is_empty() && self.peers.is_empty() {
            self.scratch = Vec::new();
        }
    }
}
