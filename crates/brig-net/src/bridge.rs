//! The bridge: created by whoever comes first, complete once it is up.
//!
//! ```text
//!   create (down) -> addresses, settings -> firewall elements -> up
//! ```
//!
//! Up is the last step, so one look at the link (and one at the gateway's address, which an administrator may have
//! removed) tells whether anything is left to do. Each step before it is harmless when done twice: processes that start
//! at the same time need no lock.

use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use crate::error::{Error, Result};
use crate::firewall;
use crate::link::{self, Link};
use crate::message::ACK;
use crate::netlink::Socket;
use crate::plan::{Bridge, hardware_address};
use crate::sysctl;

/// Gives the index of the bridge, made whole first if need be.
pub(crate) fn ensure(route: &mut Socket, netfilter: &mut Socket, bridge: &Bridge) -> Result<u32> {
    if let Some(Link { index, up: true, .. }) = look(route, bridge)?
        && has_address(bridge)
    {
        return Ok(index);
    }
    let index = make(route, bridge)?;
    firewall::ensure(netfilter, bridge)?;
    let mut batch = route.batch();
    link::up(&mut batch, index, ACK);
    route.expect(&batch).map_err(|errno| Error::kernel("bring up bridge", &bridge.name, errno))?;
    Ok(index)
}

/// Tells whether the gateway's address is the host's, by the cheapest question: whether a socket may be bound to it.
fn has_address(bridge: &Bridge) -> bool {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    socket.and_then(|socket| bind(&socket, &SocketAddr::from((bridge.gateway, 0)))).is_ok()
}

/// Creates the bridge and configures it, but does not bring it up; what is there already is kept.
pub(crate) fn make(route: &mut Socket, bridge: &Bridge) -> Result<u32> {
    let Link { index, .. } = match look(route, bridge)? {
        Some(link) => link,
        None => create(route, bridge)?,
    };
    configure(route, bridge, index)?;
    Ok(index)
}

fn look(route: &mut Socket, bridge: &Bridge) -> Result<Option<Link>> {
    let found =
        link::by_name(route, &bridge.name).map_err(|errno| Error::kernel("look up bridge", &bridge.name, errno))?;
    match found {
        Some(link) if link.kind != "bridge" => Err(Error::kernel("use as a bridge", &bridge.name, Errno::EXIST)),
        other => Ok(other),
    }
}

fn create(route: &mut Socket, bridge: &Bridge) -> Result<Link> {
    let mut batch = route.batch();
    link::create_bridge(&mut batch, &bridge.name, hardware_address(bridge.gateway), bridge.mtu);
    match route.expect(&batch) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Error::kernel("create bridge", &bridge.name, errno)),
    }
    look(route, bridge)?.ok_or_else(|| Error::kernel("look up bridge", &bridge.name, Errno::NODEV))
}

fn configure(route: &mut Socket, bridge: &Bridge, index: u32) -> Result<()> {
    sysctl::set_if_present(&format!("ipv6/conf/{}/accept_ra", bridge.name), "0")?;
    let mut batch = route.batch();
    link::address4(&mut batch, index, bridge.gateway, bridge.prefix, ACK);
    let mut objects = vec![(IpAddr::V4(bridge.gateway), bridge.prefix)];
    if let Some(gateway6) = bridge.gateway6 {
        link::address6(&mut batch, index, gateway6.address, gateway6.prefix, ACK);
        objects.push((IpAddr::V6(gateway6.address), gateway6.prefix));
    }
    let refusals = route
        .exchange(&batch, |_, _| {})
        .map_err(|errno| Error::kernel("give an address to bridge", &bridge.name, errno))?;
    match refusals.into_iter().find(|refusal| refusal.errno != Errno::EXIST) {
        Some(refusal) => {
            let (address, prefix) = objects[refusal.index as usize];
            Err(Error::kernel("give the bridge the address", format!("{address}/{prefix}"), refusal.errno))
        }
        None => Ok(()),
    }
}

/// Lets connections to 127.0.0.0/8 leave through the bridge; only ever after the firewall guards it.
pub(crate) fn allow_loopback(bridge: &Bridge) -> Result<()> {
    let key = format!("ipv4/conf/{}/route_localnet", bridge.name);
    if sysctl::get(&key)? == "1" { Ok(()) } else { sysctl::set(&key, "1") }
}

/// Tells whether the kernel shows bridged frames to the IP firewall (br_netfilter, which Docker turns on).
///
/// Address translation then happens inside the bridge, and a container that calls its own published port by the host's
/// address is reached through the very port that the frame came by.
pub(crate) fn filters_frames() -> bool {
    sysctl::get("bridge/bridge-nf-call-iptables").is_ok_and(|value| value != "0")
}

/// Deletes the bridge; one that is gone already is fine.
pub(crate) fn delete(route: &mut Socket, bridge: &Bridge) -> Result<()> {
    let mut batch = route.batch();
    link::delete(&mut batch, &bridge.name);
    match route.expect(&batch) {
        Ok(()) | Err(Errno::NODEV) => Ok(()),
        Err(errno) => Err(Error::kernel("delete bridge", &bridge.name, errno)),
    }
}
