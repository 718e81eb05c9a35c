//! The network plan: everything that attach and detach need to know, as plain data.
//!
//! The engine decides and writes it into the container's plan; the monitor executes it. It carries no descriptor and
//! no index, so that it stays true after a crash or a reboot.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The longest name of a network interface, in bytes (IFNAMSIZ less the final NUL).
pub const INTERFACE_NAME_MAX: usize = 15;

/// One container's attachment to one bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The container's id, 64 hexadecimal digits; here only a tag.
    pub container: String,
    /// The bridge it is attached to, created when absent.
    pub bridge: Bridge,
    /// The name of the interface inside the container, `eth0` as a rule.
    pub interface: String,
    /// The name of the host's end of the veth pair, see [`host_interface`].
    pub host_interface: String,
    /// The container's address; the prefix length is the bridge's.
    pub address: Ipv4Addr,
    /// The container's IPv6 address; the prefix length is that of the bridge's `gateway6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<Ipv6Addr>,
    /// The hardware address of the interface inside the container, see [`hardware_address`].
    pub mac: [u8; 6],
    /// The published ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
}

/// A bridge and the subnet behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// The interface's name, at most 15 bytes.
    pub name: String,
    /// The host's own address on the bridge: the containers' gateway.
    pub gateway: Ipv4Addr,
    /// The prefix length of the subnet, in bits.
    pub prefix: u8,
    /// The gateway of an IPv6 subnet (a ULA), if the bridge has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Gateway6>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Whether packets that leave the bridge for elsewhere get the host's address.
    pub masquerade: bool,
}

/// The host's own IPv6 address on a bridge, with the prefix length of its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway6 {
    /// The address.
    pub address: Ipv6Addr,
    /// The prefix length, in bits.
    pub prefix: u8,
}

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The host's address to listen on; absent: every one, IPv4 and IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_address: Option<IpAddr>,
    /// The port on the host; never 0 in a plan that is attached.
    pub host_port: u16,
    /// The port in the container.
    pub container_port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// A transport protocol whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
}

impl Protocol {
    /// Gives the protocol's number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl Port {
    /// Tells whether the port is to be reached at an IPv4 address, and at which (unspecified: at all).
    pub fn host_address4(&self) -> Option<Ipv4Addr> {
        match self.host_address {
            None => Some(Ipv4Addr::UNSPECIFIED),
            Some(IpAddr::V4(address)) => Some(address),
            Some(IpAddr::V6(_)) => None,
        }
    }

    /// Tells whether the port is to be reached at an IPv6 address, and at which (unspecified: at all).
    pub fn host_address6(&self) -> Option<Ipv6Addr> {
        match self.host_address {
            None => Some(Ipv6Addr::UNSPECIFIED),
            Some(IpAddr::V6(address)) => Some(address),
            Some(IpAddr::V4(_)) => None,
        }
    }

    /// Tells whether connections to 127.0.0.0/8 are to reach the container.
    pub fn on_loopback4(&self) -> bool {
        self.host_address4().is_some_and(|address| address.is_unspecified() || address.is_loopback())
    }
}

impl Network {
    /// Checks what the kernel would otherwise misread: names, prefixes, ports.
    pub fn validate(&self) -> Result<()> {
        interface_name("bridge name", &self.bridge.name)?;
        interface_name("interface", &self.interface)?;
        interface_name("host interface", &self.host_interface)?;
        let bad = |field, value: String| Err(Error::Plan { field, value });
        if !(1..=30).contains(&self.bridge.prefix) {
            return bad("prefix", self.bridge.prefix.to_string());
        }
        if !contains(self.bridge.gateway, self.bridge.prefix, self.address) || self.address == self.bridge.gateway {
            return bad("address", self.address.to_string());
        }
        if let Some(gateway6) = self.bridge.gateway6
            && !(1..=126).contains(&gateway6.prefix)
        {
            return bad("IPv6 prefix", gateway6.prefix.to_string());
        }
        match self.address6 {
            Some(address) if self.bridge.gateway6.is_none() => bad("IPv6 address", address.to_string()),
            _ => match self.ports.iter().find(|port| port.host_port == 0 || port.container_port == 0) {
                Some(port) => bad("port", format!("{}:{}", port.host_port, port.container_port)),
                None => Ok(()),
            },
        }
    }
}

fn interface_name(field: &'static str, name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'%';
    let named = !name.is_empty() && name.len() <= INTERFACE_NAME_MAX && name != "." && name != "..";
    if named && name.bytes().all(plain) { Ok(()) } else { Err(Error::Plan { field, value: name.to_owned() }) }
}

/// Tells whether `address` lies in the subnet of `gateway`/`prefix`.
pub fn contains(gateway: Ipv4Addr, prefix: u8, address: Ipv4Addr) -> bool {
    let mask = mask(prefix);
    gateway.to_bits() & mask == address.to_bits() & mask
}

/// Gives the network mask of a prefix length in bits.
pub(crate) fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// Derives the hardware address of a container's interface from its address: stable, locally administered, unicast.
pub fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x62, a, b, c, d]
}

/// Derives the name of the host's end of the veth pair from the container's id.
pub fn host_interface(container: &str) -> String {
    let digits: String = container.chars().filter(char::is_ascii_alphanumeric).take(10).collect();
    format!("brig-{digits}")
}

/// Derives a container's IPv6 address: the subnet of `gateway6` with the IPv4 address in its last 32 bits.
pub fn address6(gateway6: Gateway6, address: Ipv4Addr) -> Ipv6Addr {
    let host_bits = 128 - u32::from(gateway6.prefix.min(128));
    let host_mask = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
    Ipv6Addr::from_bits((gateway6.address.to_bits() & !host_mask) | (u128::from(address.to_bits()) & host_mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_names_and_addresses() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(host_interface(&id), "brig-0123456789");
        assert!(host_interface(&id).len() <= INTERFACE_NAME_MAX);
        assert_eq!(hardware_address(Ipv4Addr::new(10, 88, 0, 5)), [2, 0x62, 10, 88, 0, 5]);
        let gateway6 = Gateway6 { address: "fd00:88::1".parse().unwrap(), prefix: 64 };
        assert_eq!(address6(gateway6, Ipv4Addr::new(10, 88, 0, 5)), "fd00:88::a58:5".parse::<Ipv6Addr>().unwrap());
        assert!(contains(Ipv4Addr::new(10, 88, 0, 1), 16, Ipv4Addr::new(10, 88, 255, 3)));
        assert!(!contains(Ipv4Addr::new(10, 88, 0, 1), 16, Ipv4Addr::new(10, 89, 0, 3)));
    }

    #[test]
    fn validation_names_the_field() {
        let good = Network {
            container: "ab".repeat(32),
            bridge: Bridge {
                name: "brig0".into(),
                gateway: Ipv4Addr::new(10, 88, 0, 1),
                prefix: 16,
                gateway6: None,
                mtu: 1500,
                masquerade: true,
            },
            interface: "eth0".into(),
            host_interface: "brig-abababab".into(),
            address: Ipv4Addr::new(10, 88, 0, 2),
            address6: None,
            mac: [2, 0, 0, 0, 0, 1],
            ports: vec![],
        };
        good.validate().unwrap();
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), good);
        let spoil = |change: fn(&mut Network)| {
            let mut plan = good.clone();
            change(&mut plan);
            plan.validate().unwrap_err().to_string()
        };
        assert_eq!(spoil(|p| p.interface = "a/b".into()), "invalid interface `a/b` in the network plan");
        assert!(spoil(|p| p.host_interface = "x".repeat(16)).contains("host interface"));
        assert!(spoil(|p| p.bridge.name = "..".into()).contains("bridge name"));
        assert!(spoil(|p| p.bridge.prefix = 31).contains("prefix"));
        assert!(spoil(|p| p.address = p.bridge.gateway).contains("address"));
        assert!(spoil(|p| p.address6 = Some(Ipv6Addr::LOCALHOST)).contains("IPv6 address"));
        assert!(
            spoil(|p| p.ports.push(Port {
                host_address: None,
                host_port: 0,
                container_port: 1,
                protocol: Protocol::Tcp
            }))
            .contains("port")
        );
    }
}
