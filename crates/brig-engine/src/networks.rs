//! The network of a container: which bridge, which address, which ports, and what its /etc says about it.
//!
//! ```text
//!   <root>/networks/bridge           the default bridge's subnet, chosen once so that no route of the machine covers it
//!   <root>/networks/leases/<address> -> <container id>
//!   <root>/containers/<id>/{hostname,hosts,resolv.conf}      bound over the container's /etc
//! ```

use crate::config::{Config, ContainerConfig, NetworkMode, PortRequest, Protocol};
use crate::error::{Error, Kind, Result};
use crate::{disk, record};
use brig_net::plan::{self, Bridge, Network, Port};
use brig_spec::id::ContainerId;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

/// Returns the default bridge; its subnet is chosen when there is none yet.
pub fn bridge(config: &Config) -> Result<Bridge> {
    let path = config.networks_dir().join("bridge");
    if let Ok(bytes) = fs::read(&path) {
        return serde_json::from_slice(&bytes).map_err(|error| {
            Error::internal("the record of the default bridge cannot be read")
                .because(error)
                .hint(format!("remove {} while no container runs: it is made anew", path.display()))
        });
    }
    let (network, prefix) = match config.subnet {
        Some(subnet) => subnet,
        None => free_subnet(&fs::read_to_string("/proc/net/route").unwrap_or_default())?,
    };
    let gateway = Ipv4Addr::from_bits(network.to_bits() + 1);
    let bridge = Bridge { name: config.bridge.clone(), gateway, prefix, gateway6: None, mtu: 1500, masquerade: true };
    disk::make_directory(&config.networks_dir())?;
    let bytes =
        serde_json::to_vec(&bridge).map_err(|e| Error::internal("cannot encode the bridge's record").because(e))?;
    // Of two that choose at once, the first one's choice stands.
    match brig_monitor::records::create(&path, &bytes, true) {
        Ok(()) => Ok(bridge),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => self::bridge(config),
        Err(error) => Err(Error::io("cannot write the default bridge's record", error)),
    }
}

/// Chooses a /16 that overlaps no route: the text is that of /proc/net/route, proc(5).
fn free_subnet(routes: &str) -> Result<(Ipv4Addr, u8)> {
    let mut taken: Vec<(u32, u32)> = Vec::new();
    for line in routes.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let field = |n: usize| fields.get(n).and_then(|f| u32::from_str_radix(f, 16).ok()).map(u32::swap_bytes);
        if let (Some(destination), Some(mask)) = (field(1), field(7))
            && mask != 0
        {
            taken.push((destination, mask));
        }
    }
    let candidates =
        (90..=127).map(|n| Ipv4Addr::new(10, n, 0, 0)).chain((16..=31).map(|n| Ipv4Addr::new(172, n, 0, 0)));
    let wide = u32::MAX << 16;
    for candidate in candidates {
        let bits = candidate.to_bits();
        if !taken.iter().any(|(destination, mask)| (bits ^ destination) & mask & wide == 0) {
            return Ok((candidate, 16));
        }
    }
    Err(Error::new(Kind::Unavailable, "no subnet is left for the default bridge")
        .reason("routes of this machine cover 10.90.0.0 to 10.127.0.0 and 172.16.0.0 to 172.31.0.0"))
}

/// Decides a container's attachment, and leases its address; none when it has no interface of its own.
pub fn attachment(
    config: &Config,
    container: &ContainerConfig,
    id: &ContainerId,
    before: Option<&Network>,
) -> Result<Option<Network>> {
    if container.network != NetworkMode::Bridge {
        return Ok(None);
    }
    let bridge = bridge(config)?;
    let wanted = before.map(|n| n.address).filter(|a| plan::contains(bridge.gateway, bridge.prefix, *a));
    let dir = config.networks_dir();
    let leased = brig_net::lease::lease(&dir, &bridge, id.as_str(), wanted)
        .or_else(|_| brig_net::lease::lease(&dir, &bridge, id.as_str(), None))
        .or_else(|_| {
            // The subnet may be full of what crashed containers hold.
            let alive = |id: &str| ContainerId::parse(id).is_ok_and(|id| record::exists_or_is_made(config, &id));
            brig_net::lease::sweep(&dir, alive)?;
            brig_net::lease::lease(&dir, &bridge, id.as_str(), None)
        });
    let address = leased.map_err(|error| {
        Error::new(Kind::Unavailable, format!("cannot lease an address on {}", bridge.name)).because(error)
    })?;
    let mut ports = Vec::new();
    for request in requests(container) {
        ports.push(port(&request, before)?);
    }
    Ok(Some(Network {
        container: id.as_str().to_owned(),
        interface: "eth0".to_owned(),
        host_interface: plan::host_interface(id.as_str()),
        address,
        address6: None,
        mac: plan::hardware_address(address),
        ports,
        bridge,
    }))
}

/// What is to be published: as asked, and with `-P` everything that the image exposes.
fn requests(container: &ContainerConfig) -> Vec<PortRequest> {
    let mut all = container.ports.clone();
    if container.publish_all {
        for text in &container.exposed {
            let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
            let Ok(container_port) = number.parse() else { continue };
            if !all.iter().any(|p| p.container_port == container_port && p.protocol == protocol) {
                all.push(PortRequest { host_ip: None, host_port: None, container_port, protocol });
            }
        }
    }
    all
}

fn port(request: &PortRequest, before: Option<&Network>) -> Result<Port> {
    let protocol = match request.protocol {
        Protocol::Tcp => plan::Protocol::Tcp,
        Protocol::Udp => plan::Protocol::Udp,
    };
    let host_port = match request.host_port {
        Some(port) if port != 0 => port,
        _ => {
            let same = |p: &&Port| p.container_port == request.container_port && p.protocol == protocol;
            match before.and_then(|n| n.ports.iter().find(same)) {
                Some(port) => port.host_port,
                None => free_port(request)?,
            }
        }
    };
    Ok(Port { host_address: request.host_ip, host_port, container_port: request.container_port, protocol })
}

/// Asks the kernel for a free port; the monitor binds it for good, and tells when another was faster.
fn free_port(request: &PortRequest) -> Result<u16> {
    let address = (request.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), 0);
    let port = match request.protocol {
        Protocol::Tcp => TcpListener::bind(address).and_then(|s| s.local_addr()),
        Protocol::Udp => UdpSocket::bind(address).and_then(|s| s.local_addr()),
    };
    port.map(|a| a.port()).map_err(|error| {
        Error::new(Kind::Unavailable, format!("cannot find a free port on {}", address.0)).because(error)
    })
}

/// Writes hostname, hosts and resolv.conf into a container's directory, and returns what is bound where.
pub fn write_etc(
    config: &Config,
    container: &ContainerConfig,
    dir: &Path,
    hostname: Option<&str>,
    network: Option<&Network>,
) -> Result<Vec<(PathBuf, &'static str)>> {
    let host_network = container.network == NetworkMode::Host;
    let name = hostname.map_or_else(|| machine_name().unwrap_or_else(|| "localhost".into()), str::to_owned);
    disk::write_plain(&dir.join("hostname"), &format!("{name}\n"))?;
    let base = if host_network { fs::read_to_string("/etc/hosts").ok() } else { None };
    disk::write_plain(&dir.join("hosts"), &hosts(config, container, base, &name, network)?)?;
    disk::write_plain(&dir.join("resolv.conf"), &resolv(container))?;
    Ok(vec![
        (dir.join("resolv.conf"), "/etc/resolv.conf"),
        (dir.join("hostname"), "/etc/hostname"),
        (dir.join("hosts"), "/etc/hosts"),
    ])
}

fn machine_name() -> Option<String> {
    Some(rustix::system::uname().nodename().to_str().ok()?.to_owned())
}

fn hosts(
    config: &Config,
    container: &ContainerConfig,
    base: Option<String>,
    name: &str,
    network: Option<&Network>,
) -> Result<String> {
    let mut text = base.unwrap_or_else(|| {
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
            .to_owned()
    });
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (host, address) in &container.extra_hosts {
        let address = if address == "host-gateway" {
            match (&container.network, network) {
                (_, Some(network)) => network.bridge.gateway.to_string(),
                (NetworkMode::Host, None) => "127.0.0.1".to_owned(),
                _ => bridge(config)?.gateway.to_string(),
            }
        } else {
            address.clone()
        };
        let _ = writeln!(text, "{address}\t{host}");
    }
    if let Some(network) = network {
        let domain = container.domainname.as_ref().map(|d| format!("{name}.{d} ")).unwrap_or_default();
        let _ = writeln!(text, "{}\t{domain}{name}", network.address);
    } else if container.network == NetworkMode::None {
        let _ = writeln!(text, "127.0.0.1\t{name}");
    }
    Ok(text)
}

fn resolv(container: &ContainerConfig) -> String {
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let text = if matches!(container.network, NetworkMode::Host) {
        host
    } else {
        let uplink = if host.contains("127.") || host.is_empty() {
            fs::read_to_string(brig_net::resolv::UPLINK_PATH).ok()
        } else {
            None
        };
        brig_net::resolv::container_resolv(&host, uplink.as_deref()).text
    };
    if container.dns.is_empty() && container.dns_search.is_empty() && container.dns_options.is_empty() {
        return text;
    }
    override_resolv(&text, container)
}

/// Puts what the user said in the place of the machine's lines of the same keyword.
fn override_resolv(text: &str, container: &ContainerConfig) -> String {
    let mut out = String::new();
    for server in &container.dns {
        let _ = writeln!(out, "nameserver {server}");
    }
    for line in text.lines() {
        let keep = match line.split_ascii_whitespace().next() {
            Some("nameserver") => container.dns.is_empty(),
            Some("search" | "domain") => container.dns_search.is_empty(),
            Some("options") => container.dns_options.is_empty(),
            _ => true,
        };
        if keep {
            let _ = writeln!(out, "{line}");
        }
    }
    // A single dot means: no search domain at all.
    if !container.dns_search.is_empty() && container.dns_search != ["."] {
        let _ = writeln!(out, "search {}", container.dns_search.join(" "));
    }
    if !container.dns_options.is_empty() {
        let _ = writeln!(out, "options {}", container.dns_options.join(" "));
    }
    out
}

/// Returns the addresses of containers that are gone.
pub fn sweep(config: &Config) -> Result<()> {
    let alive = |id: &str| ContainerId::parse(id).is_ok_and(|id| record::exists_or_is_made(config, &id));
    match brig_net::lease::sweep(&config.networks_dir(), alive) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::internal("cannot return addresses").because(error)),
    }
}

/// Removes the default bridge when no container holds an address on it; says whether it did.
pub fn prune(config: &Config) -> Result<bool> {
    let path = config.networks_dir().join("bridge");
    if !path.exists() {
        return Ok(false);
    }
    let dir = config.networks_dir();
    let failed = |error| Error::internal("cannot remove the default bridge").because(error);
    let alive = |id: &str| ContainerId::parse(id).is_ok_and(|id| record::exists_or_is_made(config, &id));
    brig_net::lease::sweep(&dir, alive).map_err(failed)?;
    if !brig_net::lease::list(&dir).map_err(failed)?.is_empty() {
        return Ok(false);
    }
    brig_net::remove_bridge(&bridge(config)?).map_err(failed)?;
    // With the last network the machine stops forwarding, if it did not before the first one.
    brig_net::restore_forwarding(&config.run.join("network")).map_err(failed)?;
    disk::remove_file(&path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::Scratch;

    #[test]
    fn the_subnet_avoids_the_machines_routes() {
        let header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        assert_eq!(free_subnet(header).unwrap().0, Ipv4Addr::new(10, 90, 0, 0));
        let default = format!("{header}eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n");
        assert_eq!(free_subnet(&default).unwrap().0, Ipv4Addr::new(10, 90, 0, 0));
        let taken = format!("{header}br0\t00005A0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n");
        assert_eq!(free_subnet(&taken).unwrap().0, Ipv4Addr::new(10, 91, 0, 0));
        let narrow = format!("{header}br0\t08015A0A\t00000000\t0001\t0\t0\t0\tF8FFFFFF\t0\t0\t0\n");
        assert_eq!(free_subnet(&narrow).unwrap().0, Ipv4Addr::new(10, 91, 0, 0));
        let vpn = format!("{header}tun0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n");
        assert_eq!(free_subnet(&vpn).unwrap().0, Ipv4Addr::new(172, 16, 0, 0));
    }

    #[test]
    fn an_address_stays_with_its_container() {
        let dir = Scratch::new();
        let config = Config { subnet: Some((Ipv4Addr::new(10, 99, 0, 0), 24)), ..Config::new(&dir.0, &dir.0) };
        let id = ContainerId::from_random([3; 32]);
        let container = ContainerConfig {
            ports: vec![PortRequest {
                host_ip: None,
                host_port: Some(8080),
                container_port: 80,
                protocol: Protocol::Tcp,
            }],
            ..ContainerConfig::default()
        };
        let first = attachment(&config, &container, &id, None).unwrap().unwrap();
        first.validate().unwrap();
        let again = attachment(&config, &container, &id, Some(&first)).unwrap().unwrap();
        assert_eq!(first, again);
        let other = attachment(&config, &container, &ContainerId::from_random([4; 32]), None).unwrap().unwrap();
        assert_ne!(first.address, other.address);
        let none = ContainerConfig { network: NetworkMode::None, ..container };
        assert!(attachment(&config, &none, &id, None).unwrap().is_none());
    }

    #[test]
    fn publish_all_takes_what_is_exposed_once() {
        let container = ContainerConfig {
            ports: vec![PortRequest { host_ip: None, host_port: Some(1), container_port: 80, protocol: Protocol::Tcp }],
            exposed: vec!["80/tcp".into(), "53/udp".into(), "nonsense".into()],
            publish_all: true,
            ..ContainerConfig::default()
        };
        let all = requests(&container);
        assert_eq!(all.len(), 2);
        assert_eq!((all[1].container_port, all[1].protocol), (53, Protocol::Udp));
    }

    #[test]
    fn a_users_name_servers_replace_the_machines() {
        let container = ContainerConfig {
            dns: vec!["9.9.9.9".parse().unwrap()],
            dns_search: vec![".".into()],
            ..ContainerConfig::default()
        };
        let text = override_resolv("nameserver 1.1.1.1\nsearch example.org\noptions ndots:1\n", &container);
        assert_eq!(text, "nameserver 9.9.9.9\noptions ndots:1\n");
    }

    #[test]
    fn hosts_knows_the_container_and_its_gateway() {
        let dir = Scratch::new();
        let config = Config { subnet: Some((Ipv4Addr::new(10, 99, 0, 0), 24)), ..Config::new(&dir.0, &dir.0) };
        let id = ContainerId::from_random([3; 32]);
        let container = ContainerConfig {
            extra_hosts: vec![("up".into(), "host-gateway".into()), ("db".into(), "10.0.0.9".into())],
            ..ContainerConfig::default()
        };
        let network = attachment(&config, &container, &id, None).unwrap();
        let text = hosts(&config, &container, None, "web", network.as_ref()).unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.contains("\n10.99.0.1\tup\n10.0.0.9\tdb\n"));
        assert!(text.ends_with(&format!("{}\tweb\n", network.unwrap().address)));
    }
}
