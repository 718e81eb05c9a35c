//! What is set up inside the container's network namespace: its loopback, its addresses, its default routes.
//!
//! By sockets that give the namespace back when they are closed, and never by netlink, whose sockets hold it for a grace
//! period of the kernel longer (see [`brig_sys::interface`]): the veth pair of a container that ends soon would stay.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use brig_sys::interface;
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;

use crate::error::{Error, Result};
use crate::plan::Network;
use crate::{namespace, sysctl};

/// Configures the container's end of the pair as the plan says. The calling thread steps into `netns` and back.
pub(crate) fn configure(plan: &Network, netns: BorrowedFd<'_>) -> Result<()> {
    let name = plan.interface.as_str();
    let failed = |operation| move |error| told(operation, name, &error);
    let (socket, socket6) = namespace::inside(netns, || {
        let key = |setting: &str| format!("ipv6/conf/{name}/{setting}");
        let socket6 = if plan.address6.is_some() {
            sysctl::set_if_present(&key("accept_ra"), "0")?;
            // The addresses are ours to give, so they are usable at once.
            sysctl::set_if_present(&key("accept_dad"), "0")?;
            sysctl::set_if_present("ipv6/conf/all/accept_dad", "0")?;
            Some(interface::socket6().map_err(failed("open an IPv6 socket for"))?)
        } else {
            sysctl::set_if_present(&key("disable_ipv6"), "1")?;
            None
        };
        Ok((interface::socket4().map_err(failed("open a socket for"))?, socket6))
    })?;
    let socket = socket.as_fd();
    interface::up(socket, "lo").map_err(failed("bring up loopback beside"))?;
    interface::set_address4(socket, name, plan.address, plan.bridge.prefix).map_err(failed("give an address to"))?;
    let index = |errno| Error::kernel("look up interface", name, errno);
    let six = match (&socket6, plan.address6, plan.bridge.gateway6) {
        (Some(socket6), Some(address), Some(gateway)) => {
            Some((socket6.as_fd(), name_to_index(socket6, name).map_err(index)?, address, gateway))
        }
        _ => None,
    };
    if let Some((socket6, index, address, gateway)) = six {
        let given = interface::set_address6(socket6, index, address, gateway.prefix);
        given.map_err(failed("give an IPv6 address to"))?;
    }
    interface::up(socket, name).map_err(failed("bring up"))?;
    if let Some((socket6, index, _, gateway)) = six {
        let set = interface::set_default_route6(socket6, index, gateway.address);
        set.map_err(failed("set the IPv6 default route by"))?;
    }
    interface::set_default_route4(socket, name, plan.bridge.gateway).map_err(failed("set the default route by"))
}

/// Brings the loopback interface of a network namespace up: all that `--network none` needs.
///
/// The calling thread steps into the namespace and back.
pub fn loopback_up(netns: BorrowedFd<'_>) -> Result<()> {
    namespace::inside(netns, || interface::loopback_up().map_err(|error| told("bring up", "lo", &error)))
}

fn told(operation: &'static str, name: &str, error: &io::Error) -> Error {
    Error::kernel(operation, name, Errno::from_io_error(error).unwrap_or(Errno::IO))
}
