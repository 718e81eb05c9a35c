//! Relayed UDP: each client has a connected socket to the container, so that answers find their way back.

use std::net::SocketAddr;
use std::time::Instant;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, recvfrom, send, sendto, socket_with,
};

use super::{PEERS_MAX, Service};

/// The longest datagram, in bytes.
const DATAGRAM_MAX: usize = 65_535;
/// How many datagrams one event may lead to.
const TURNS: usize = 32;

/// A client that has sent something.
pub(super) struct Peer {
    /// The place of the service that it talks to.
    pub(super) service: usize,
    /// The socket that stands for it towards the container.
    pub(super) fd: OwnedFd,
    /// When it was last heard of, from either side.
    pub(super) last: Instant,
    address: SocketAddr,
}

/// Takes datagrams from a service's socket to the container.
pub(super) fn forward(service: &Service, place: usize, peers: &mut Vec<Peer>, scratch: &mut Vec<u8>) {
    scratch.resize(DATAGRAM_MAX, 0);
    for _ in 0..TURNS {
        let (len, from) = match recvfrom(&service.fd, &mut scratch[..], RecvFlags::DONTWAIT) {
            Ok((len, _, Some(from))) => (len, from),
            Ok(_) | Err(Errno::INTR) => continue,
            Err(_) => return,
        };
        let Ok(address) = SocketAddr::try_from(from) else { continue };
        let now = Instant::now();
        let known = peers.iter().position(|peer| peer.service == place && peer.address == address);
        let known = known.or_else(|| {
            let fd = open(service.target).ok()?;
            make_room(peers);
            peers.push(Peer { service: place, fd, last: now, address });
            Some(peers.len() - 1)
        });
        // A datagram that cannot be passed on is lost, as datagrams are.
        if let Some(peer) = known.and_then(|known| peers.get_mut(known)) {
            peer.last = now;
            let _ = send(&peer.fd, &scratch[..len], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }
}

fn open(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    connect(&fd, &target)?;
    Ok(fd)
}

fn make_room(peers: &mut Vec<Peer>) {
    if peers.len() < PEERS_MAX {
        return;
    }
    let oldest = peers.iter().enumerate().min_by_key(|(_, peer)| peer.last).map(|(place, _)| place);
    if let Some(place) = oldest {
        peers.swap_remove(place);
    }
}

impl Peer {
    /// Takes the container's answers to the client.
    pub(super) fn answer(&mut self, service: &Service, scratch: &mut Vec<u8>) {
        scratch.resize(DATAGRAM_MAX, 0);
        for _ in 0..TURNS {
            match recv(&self.fd, &mut scratch[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) => {
                    self.last = Instant::now();
                    let _ = sendto(&service.fd, &scratch[..len], SendFlags::DONTWAIT, &self.address);
                }
                // "Connection refused" tells that nobody listens in the container; UDP has no way to say so.
                Err(Errno::INTR | Errno::CONNREFUSED) => {}
                Err(_) => return,
            }
        }
    }
}
