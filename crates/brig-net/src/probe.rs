//! The doctor's questions: what of the network this kernel and machine can do.
//!
//! Each question is tried for real in a network namespace made for it, so the machine's own network is not touched.

use rustix::fd::AsFd;

use crate::attach::{create_pair, open_netfilter, open_route};
use crate::error::Result;
use crate::foreign::{ForeignDrop, foreign_forward_drops};
use crate::plan::{Bridge, Network, hardware_address};
use crate::{bridge, firewall, namespace, sysctl};

/// The answers; each failure carries what the kernel said.
#[derive(Debug)]
pub struct Probe {
    /// Whether bridges can be made and configured.
    pub bridge: Result<()>,
    /// Whether veth pairs can be made across namespaces.
    pub veth: Result<()>,
    /// Whether the table `inet brig` with its rules can be loaded.
    pub nftables: Result<()>,
    /// Whether the machine forwards IPv4 packets already; `attach` turns it on.
    pub forwarding: Result<bool>,
    /// Other programs' chains that drop containers' traffic.
    pub foreign_drops: Result<Vec<ForeignDrop>>,
}

/// Tries everything out; `scratch_netns` is a fresh network namespace that nobody else uses.
///
/// The calling thread steps into it and back.
pub fn probe(scratch_netns: impl AsFd) -> Probe {
    let forwarding = sysctl::get("ipv4/ip_forward").map(|value| value != "0");
    let foreign_drops = foreign_forward_drops();
    let plan = plan();
    let fd = scratch_netns.as_fd();
    let bridge = namespace::inside(fd, || bridge::make(&mut open_route()?, &plan.bridge).map(drop));
    let veth = namespace::inside(fd, || create_pair(&mut open_route()?, &plan, 0, fd));
    let nftables = namespace::inside(fd, || firewall::ensure(&mut open_netfilter()?, &plan.bridge));
    Probe { bridge, veth, nftables, forwarding, foreign_drops }
}

fn plan() -> Network {
    let gateway = std::net::Ipv4Addr::new(192, 0, 2, 1);
    let address = std::net::Ipv4Addr::new(192, 0, 2, 2);
    Network {
        container: String::new(),
        bridge: Bridge { name: "probe0".to_owned(), gateway, prefix: 30, gateway6: None, mtu: 1500, masquerade: true },
        interface: "probe2".to_owned(),
        host_interface: "probe1".to_owned(),
        address,
        address6: None,
        mac: hardware_address(address),
        ports: Vec::new(),
    }
}
