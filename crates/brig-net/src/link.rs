//! Links and addresses: the rtnetlink messages, one function each. See rtnetlink(7).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::message::{ACK, Batch, CREATE, EXCL, Message, find, native_u32, string};
use crate::netlink::Socket;
use crate::plan::Network;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
pub(crate) const LINK_STATS64: u16 = 23;
const LINK_NAMESPACE_FD: u16 = 28;
const LINK_EXT_MASK: u16 = 29;
const LINK_TX_QUEUES: u16 = 31;
const LINK_RX_QUEUES: u16 = 32;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const BRIDGE_PORT_HAIRPIN: u16 = 4;
const VETH_PEER: u16 = 1;
const SKIP_STATISTICS: u32 = 1 << 3;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const UP: u32 = 1;
const NO_DAD: u8 = 0x02;

/// The length of the fixed header of link messages (struct ifinfomsg).
pub(crate) const LINK_HEADER_LEN: usize = 16;
/// The index of the loopback interface in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// What is asked of a link most often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The interface's index.
    pub(crate) index: u32,
    /// Whether it is administratively up.
    pub(crate) up: bool,
    /// The kind: `bridge`, `veth`; empty for hardware.
    pub(crate) kind: String,
}

/// The header of a message that takes a link up or down.
pub(crate) fn change(index: u32, up: bool) -> [u8; LINK_HEADER_LEN] {
    let mut bytes = header(index, UP);
    bytes[8..12].copy_from_slice(&(if up { UP } else { 0 }).to_ne_bytes());
    bytes
}

/// The header of a message about a link: the flags that it sets, and no others.
pub(crate) fn header(index: u32, flags: u32) -> [u8; LINK_HEADER_LEN] {
    let mut bytes = [0; LINK_HEADER_LEN];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// Looks a link up by name; `None` when there is none.
pub(crate) fn by_name(socket: &mut Socket, name: &str) -> Result<Option<Link>, Errno> {
    let mut batch = socket.batch();
    batch.message(GET_LINK, ACK, &header(0, 0), |batch| {
        batch.text(LINK_NAME, name);
        batch.number(LINK_EXT_MASK, SKIP_STATISTICS);
    });
    let mut link = None;
    let refusals = socket.exchange(&batch, |_, found| link = parse(&found))?;
    match refusals.first() {
        Some(refusal) if refusal.errno == Errno::NODEV => Ok(None),
        Some(refusal) => Err(refusal.errno),
        None => Ok(link),
    }
}

fn parse(found: &Message<'_>) -> Option<Link> {
    let index = native_u32(found.payload.get(4..)?)?;
    let flags = native_u32(found.payload.get(8..)?)?;
    let info = found.attributes(LINK_HEADER_LEN).find(|(kind, _)| *kind == LINK_INFO).map(|(_, value)| value);
    let kind = info.and_then(|info| find(info, INFO_KIND)).map(string).unwrap_or_default().to_owned();
    Some(Link { index, up: flags & UP != 0, kind })
}

/// Asks for a link's counters and hands the raw statistics to `each`.
pub(crate) fn statistics(socket: &mut Socket, name: &str, mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
    let mut batch = socket.batch();
    batch.message(GET_LINK, ACK, &header(0, 0), |batch| batch.text(LINK_NAME, name));
    let refusals = socket.exchange(&batch, |_, found| {
        if let Some((_, value)) = found.attributes(LINK_HEADER_LEN).find(|(kind, _)| *kind == LINK_STATS64) {
            each(value);
        }
    })?;
    refusals.first().map_or(Ok(()), |refusal| Err(refusal.errno))
}

/// Creates a bridge, down, with a hardware address of its own so that it does not take that of its lowest port.
pub(crate) fn create_bridge(batch: &mut Batch, name: &str, mac: [u8; 6], mtu: u32) {
    batch.message(NEW_LINK, ACK | CREATE | EXCL, &header(0, 0), |batch| {
        batch.text(LINK_NAME, name);
        batch.attribute(LINK_ADDRESS, &mac);
        batch.number(LINK_MTU, mtu);
        batch.nest(LINK_INFO, |batch| batch.text(INFO_KIND, "bridge"));
    });
}

/// Creates a veth pair at one stroke: the host's end up and on the bridge, its peer in the namespace.
///
/// One queue each: a veth pair has no hardware to feed, and the default is one a processor.
pub(crate) fn create_veth(batch: &mut Batch, plan: &Network, bridge: u32, netns: BorrowedFd<'_>) {
    let namespace = netns.as_raw_fd().cast_unsigned();
    batch.message(NEW_LINK, ACK | CREATE | EXCL, &header(0, UP), |batch| {
        batch.text(LINK_NAME, &plan.host_interface);
        batch.number(LINK_MTU, plan.bridge.mtu);
        if bridge != 0 {
            batch.number(LINK_MASTER, bridge);
        }
        batch.number(LINK_TX_QUEUES, 1);
        batch.number(LINK_RX_QUEUES, 1);
        batch.nest(LINK_INFO, |batch| {
            batch.text(INFO_KIND, "veth");
            batch.nest(INFO_DATA, |batch| {
                batch.nest(VETH_PEER, |batch| {
                    batch.raw(&header(0, 0));
                    batch.text(LINK_NAME, &plan.interface);
                    batch.attribute(LINK_ADDRESS, &plan.mac);
                    batch.number(LINK_MTU, plan.bridge.mtu);
                    batch.number(LINK_TX_QUEUES, 1);
                    batch.number(LINK_RX_QUEUES, 1);
                    batch.number(LINK_NAMESPACE_FD, namespace);
                });
            });
        });
    });
}

/// Lets the bridge send a frame back through the port that it came by.
pub(crate) fn hairpin(batch: &mut Batch, name: &str) {
    batch.message(NEW_LINK, ACK, &header(0, 0), |batch| {
        batch.text(LINK_NAME, name);
        batch.nest(LINK_INFO, |batch| {
            batch.text(INFO_SLAVE_KIND, "bridge");
            batch.nest(INFO_SLAVE_DATA, |batch| batch.attribute(BRIDGE_PORT_HAIRPIN, &[1]));
        });
    });
}

/// Deletes the link of that name; its veth peer goes with it.
pub(crate) fn delete(batch: &mut Batch, name: &str) {
    batch.message(DELETE_LINK, ACK, &header(0, 0), |batch| batch.text(LINK_NAME, name));
}

/// Brings a link up.
pub(crate) fn up(batch: &mut Batch, index: u32, flags: u16) {
    batch.message(SET_LINK, flags, &header(index, UP), |_| {});
}

/// Gives a link an IPv4 address.
pub(crate) fn address4(batch: &mut Batch, index: u32, address: Ipv4Addr, prefix: u8, flags: u16) {
    let broadcast = Ipv4Addr::from_bits(address.to_bits() | !crate::plan::mask(prefix));
    batch.message(NEW_ADDRESS, flags | CREATE | EXCL, &address_header(AF_INET, prefix, 0, index), |batch| {
        batch.attribute(2, &address.octets());
        batch.attribute(1, &address.octets());
        batch.attribute(4, &broadcast.octets());
    });
}

/// Gives a link an IPv6 address, usable at once (no duplicate address detection).
pub(crate) fn address6(batch: &mut Batch, index: u32, address: Ipv6Addr, prefix: u8, flags: u16) {
    batch.message(NEW_ADDRESS, flags | CREATE | EXCL, &address_header(AF_INET6, prefix, NO_DAD, index), |batch| {
        batch.attribute(2, &address.octets());
        batch.attribute(1, &address.octets());
    });
}

fn address_header(family: u8, prefix: u8, flags: u8, index: u32) -> [u8; 8] {
    let [a, b, c, d] = index.to_ne_bytes();
    [family, prefix, flags, 0, a, b, c, d]
}
