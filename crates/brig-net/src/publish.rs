//! The sockets of published ports: bound before anything else, so that "port in use" is noticed.
//!
//! Address translation takes packets before any socket sees them, so a port that is only translated could be bound by
//! anybody and go dead. Each published port is therefore bound, too:
//!
//! ```text
//!   IPv4, IPv6 by translation    bound, not listening: what comes past the firewall is refused
//!   ::, ::1 (no translation)     bound and listening: handed to the relay
//! ```

use std::net::{IpAddr, SocketAddr};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, bind, listen, shutdown, socket_with, sockopt};

use crate::error::{Error, Result};
use crate::plan::{Network, Port, Protocol};
use crate::relay::{Relay, Service};

const BACKLOG: i32 = 128;

/// Binds the plan's ports: the sockets that only reserve, and the relay that serves the others.
pub(crate) fn bind_ports(plan: &Network) -> Result<(Vec<OwnedFd>, Relay)> {
    let mut reserved = Vec::with_capacity(plan.ports.len());
    let mut services = Vec::new();
    for port in &plan.ports {
        if let Some(address) = port.host_address4() {
            reserved.push(reserve(IpAddr::V4(address), port)?);
        }
        let Some(address) = port.host_address6() else { continue };
        let translated = plan.address6.is_some() && !address.is_unspecified() && !address.is_loopback();
        if translated {
            reserved.push(reserve(IpAddr::V6(address), port)?);
            continue;
        }
        match serve(IpAddr::V6(address), port) {
            Ok(fd) => {
                let target = SocketAddr::from((plan.address, port.container_port));
                services.push(Service::new(fd, port.protocol, target));
            }
            // A machine without IPv6 has nothing to publish there, unless it was asked for by address.
            Err(Error::Bind { source: Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL, .. })
                if port.host_address.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    Ok((reserved, Relay::new(services)))
}

fn failed(address: IpAddr, port: &Port, errno: Errno) -> Error {
    let (port, protocol) = (port.host_port, port.protocol);
    match errno {
        Errno::ADDRINUSE => Error::PortInUse { address, port, protocol },
        source => Error::Bind { address, port, protocol, source },
    }
}

/// Holds a port without accepting anything on it.
fn reserve(address: IpAddr, port: &Port) -> Result<OwnedFd> {
    match reserve_alone(address, port) {
        Err(Errno::ADDRINUSE) if port.protocol == Protocol::Tcp => reserve_beside_old_connections(address, port),
        other => other,
    }
    .map_err(|errno| failed(address, port, errno))
}

fn reserve_alone(address: IpAddr, port: &Port) -> std::result::Result<OwnedFd, Errno> {
    let fd = open(address, port.protocol)?;
    if port.protocol == Protocol::Udp {
        // Nobody reads it: strays must not pile up.
        sockopt::set_socket_recv_buffer_size(&fd, 0)?;
    }
    bind(&fd, &SocketAddr::new(address, port.host_port))?;
    Ok(fd)
}

/// Holds a TCP port on which former connections are still in TIME_WAIT.
///
/// SO_REUSEADDR lets the bind pass, but would let others pass as well. Listening takes the port for us alone (it fails
/// if anybody has it), and stopping to listen leaves it bound.
fn reserve_beside_old_connections(address: IpAddr, port: &Port) -> std::result::Result<OwnedFd, Errno> {
    let fd = open(address, port.protocol)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    bind(&fd, &SocketAddr::new(address, port.host_port))?;
    listen(&fd, 0)?;
    shutdown(&fd, Shutdown::Read)?;
    sockopt::set_socket_reuseaddr(&fd, false)?;
    Ok(fd)
}

/// Opens a port that the relay will serve.
fn serve(address: IpAddr, port: &Port) -> Result<OwnedFd> {
    let bound = || {
        let fd = open(address, port.protocol)?;
        if port.protocol == Protocol::Tcp {
            sockopt::set_socket_reuseaddr(&fd, true)?;
        }
        bind(&fd, &SocketAddr::new(address, port.host_port))?;
        if port.protocol == Protocol::Tcp {
            listen(&fd, BACKLOG)?;
        }
        Ok(fd)
    };
    bound().map_err(|errno| failed(address, port, errno))
}

fn open(address: IpAddr, protocol: Protocol) -> std::result::Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let fd = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    Ok(fd)
}
