//! The use cases: attach a namespace to a bridge, adopt an attachment, take it down, remove a bridge.

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::netlink::Socket;
use crate::plan::{Bridge, Network};
use crate::relay::Relay;
use crate::{bridge, conntrack, firewall, foreign, inside, link, publish, sysctl};

/// What must stay open as long as the container runs: the sockets of its published ports.
pub struct Attachment {
    reserved: Vec<OwnedFd>,
    relay: Relay,
}

impl Attachment {
    /// Gives the relay that the holder's poll loop has to serve; it may have nothing to do.
    pub fn relay(&mut self) -> &mut Relay {
        &mut self.relay
    }

    /// Counts the sockets that do nothing but hold their port.
    pub fn reserved(&self) -> usize {
        self.reserved.len()
    }
}

/// Attaches a network namespace as the plan says, and undoes all of it when a step fails.
///
/// `state` is a directory where the former value of a changed setting is recorded (see [`restore_forwarding`]).
/// The calling thread steps into `netns` and back.
pub fn attach(plan: &Network, netns: BorrowedFd<'_>, state: &Path) -> Result<Attachment> {
    plan.validate()?;
    let (reserved, relay) = publish::bind_ports(plan)?;
    if let Err(error) = connect(plan, netns, state) {
        // The first error is the one to tell; what cannot be undone now is undone by `detach` later.
        let _ = detach(plan);
        return Err(error);
    }
    Ok(Attachment { reserved, relay })
}

fn connect(plan: &Network, netns: BorrowedFd<'_>, state: &Path) -> Result<()> {
    let mut route = open_route()?;
    let mut netfilter = open_netfilter()?;
    let index = bridge::ensure(&mut route, &mut netfilter, &plan.bridge)?;
    sysctl::ensure_forwarding(&plan.bridge, state)?;
    create_pair(&mut route, plan, index, netns)?;
    open_firewall(&mut netfilter, plan)?;
    inside::configure(plan, netns)
}

/// Takes over the attachment of a container that runs already: its ports are bound and its rules made sure of.
///
/// For a monitor that replaces one that died, and after somebody flushed the firewall.
pub fn adopt(plan: &Network, state: &Path) -> Result<Attachment> {
    plan.validate()?;
    let (reserved, relay) = publish::bind_ports(plan)?;
    let mut netfilter = open_netfilter()?;
    bridge::ensure(&mut open_route()?, &mut netfilter, &plan.bridge)?;
    sysctl::ensure_forwarding(&plan.bridge, state)?;
    open_firewall(&mut netfilter, plan)?;
    Ok(Attachment { reserved, relay })
}

/// Takes an attachment down by its plan alone; what is gone already is fine, and so is a second call.
///
/// Close the [`Attachment`] after this, not before: its sockets keep others off the ports until the rules are gone.
/// Deleting a link waits for the kernel's grace periods, 10 to 40 ms; where the namespace is about to die anyway,
/// [`withdraw`] is enough.
pub fn detach(plan: &Network) -> Result<()> {
    // Closing this socket right after deleting elements would wait for their grace period; the link's covers it.
    let mut netfilter = open_netfilter()?;
    let unpublished = unpublish(&mut netfilter, plan);
    let deleted = delete_pair(&mut open_route()?, plan);
    unpublished.and(deleted)
}

/// Takes the published ports back and leaves the veth pair to the kernel, which deletes it with the namespace.
///
/// For the one who knows that the last process of the namespace has ended and that no descriptor or mount holds it.
/// The pair is gone a moment after the namespace: at once, unless a process of the container used netlink, whose sockets
/// hold the namespace for some 15 to 30 ms after they were closed. A later [`detach`] or [`attach`] of the same plan is
/// safe at any moment.
pub fn withdraw(plan: &Network) -> Result<Lingering> {
    if plan.ports.is_empty() {
        return Ok(Lingering { _netfilter: None });
    }
    let mut netfilter = open_netfilter()?;
    unpublish(&mut netfilter, plan)?;
    Ok(Lingering { _netfilter: Some(netfilter) })
}

/// A socket that is better closed late: soon after [`withdraw`], dropping this waits for the kernel, some 7 ms.
#[must_use = "dropped at once, it waits for the kernel"]
pub struct Lingering {
    _netfilter: Option<Socket>,
}

fn unpublish(netfilter: &mut Socket, plan: &Network) -> Result<()> {
    firewall::unpublish(netfilter, plan)?;
    conntrack::forget_own(netfilter, plan)
}

/// Removes a bridge with its rules, here and in foreign tables; the table `inet brig` goes with the last bridge.
pub fn remove_bridge(plan: &Bridge) -> Result<()> {
    let mut netfilter = open_netfilter()?;
    bridge::delete(&mut open_route()?, plan)?;
    firewall::forget(&mut netfilter, plan)?;
    foreign::remove(&mut netfilter, Some(&plan.name))
}

/// Puts back the forwarding settings that `attach` changed and recorded in `state`; for when the last network goes.
pub fn restore_forwarding(state: &Path) -> Result<()> {
    sysctl::restore_forwarding(state)
}

pub(crate) fn open_route() -> Result<Socket> {
    Socket::route().map_err(|errno| Error::kernel("open socket", "rtnetlink", errno))
}

pub(crate) fn open_netfilter() -> Result<Socket> {
    Socket::netfilter().map_err(|errno| Error::kernel("open socket", "nfnetlink", errno))
}

fn open_firewall(netfilter: &mut Socket, plan: &Network) -> Result<()> {
    if !plan.ports.is_empty() {
        firewall::publish(netfilter, plan)?;
        conntrack::forget_others(netfilter, plan)?;
    } else if !firewall::stands(netfilter, &plan.bridge)? {
        firewall::ensure(netfilter, &plan.bridge)?;
    }
    if plan.ports.iter().any(crate::plan::Port::on_loopback4) {
        bridge::allow_loopback(&plan.bridge)?;
    }
    foreign::accept(netfilter, &plan.bridge)
}

/// Creates the veth pair; a leftover of the same name gives way. `bridge` 0: on no bridge.
pub(crate) fn create_pair(route: &mut Socket, plan: &Network, bridge: u32, netns: BorrowedFd<'_>) -> Result<()> {
    let failed = |errno| Error::kernel("create veth pair", &plan.host_interface, errno);
    let hairpin = bridge != 0 && !plan.ports.is_empty() && bridge::filters_frames();
    let create = |route: &mut Socket| {
        let mut batch = route.batch();
        link::create_veth(&mut batch, plan, bridge, netns);
        if hairpin {
            link::hairpin(&mut batch, &plan.host_interface);
        }
        route.expect(&batch)
    };
    match create(route) {
        Err(Errno::EXIST) => {
            // Left by an earlier run of the same container.
            delete_pair(route, plan)?;
            create(route).map_err(failed)
        }
        other => other.map_err(failed),
    }
}

fn delete_pair(route: &mut Socket, plan: &Network) -> Result<()> {
    let mut batch = route.batch();
    link::delete(&mut batch, &plan.host_interface);
    match route.expect(&batch) {
        Ok(()) | Err(Errno::NODEV) => Ok(()),
        Err(errno) => Err(Error::kernel("delete link", &plan.host_interface, errno)),
    }
}
