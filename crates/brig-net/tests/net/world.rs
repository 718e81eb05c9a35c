//! The stage of the tests: namespaces, plans, and little servers and clients inside them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use brig_net::plan::{Bridge, Gateway6, Network, Port, Protocol, address6, hardware_address, host_interface};
use brig_net::{Attachment, attach};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use tempfile::TempDir;

pub const OUTSIDE: &str = "198.51.100.2";
pub const HOST: &str = "198.51.100.1";
pub const OUTSIDE6: &str = "2001:db8:1::2";
pub const HOST6: &str = "2001:db8:1::1";

/// Long enough for anything that works, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a packet that must not come is waited for.
const ABSENCE: Duration = Duration::from_millis(400);

/// A network namespace.
pub struct Space(pub OwnedFd);

#[expect(deprecated, reason = "the safe face of unshare; only NEWNET is asked for, which concerns this thread alone")]
fn leave_network() {
    rustix::thread::unshare(UnshareFlags::NEWNET).expect("the tests need root");
}

fn this_space() -> Space {
    Space(std::fs::File::open("/proc/thread-self/ns/net").unwrap().into())
}

impl Space {
    /// Makes a namespace that lives as long as the value.
    pub fn new() -> Self {
        std::thread::spawn(|| {
            leave_network();
            this_space()
        })
        .join()
        .unwrap()
    }

    /// Runs something inside, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    pub fn sh(&self, line: &str) -> String {
        self.run(|| sh(line))
    }

    /// Serves TCP: tells each client its own address, then echoes.
    pub fn serve_tcp(&self, address: impl Into<IpAddr>, port: u16) {
        let address = SocketAddr::new(address.into(), port);
        let listener = self.run(|| TcpListener::bind(address).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let peer = stream.peer_addr().unwrap().ip();
                    let mut reader = stream.try_clone().unwrap();
                    // The client may be gone at any moment.
                    let _ = writeln!(stream, "{peer}");
                    let _ = std::io::copy(&mut reader, &mut stream);
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                });
            }
        });
    }

    /// Serves UDP: answers each datagram with the sender's address and the datagram.
    pub fn serve_udp(&self, address: impl Into<IpAddr>, port: u16) {
        let address = SocketAddr::new(address.into(), port);
        let socket = self.run(|| UdpSocket::bind(address).unwrap());
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            loop {
                let (len, peer) = socket.recv_from(&mut buffer).unwrap();
                let answer = [format!("{}\n", peer.ip()).as_bytes(), &buffer[..len]].concat();
                socket.send_to(&answer, peer).unwrap();
            }
        });
    }

    /// Connects, sends `text`, and gives the address that the server saw; panics unless the echo is right.
    pub fn ask_tcp(&self, to: &str, port: u16, text: &str) -> String {
        self.run(|| ask_tcp(to, port, text))
    }

    pub fn ask_udp(&self, to: &str, port: u16, text: &str) -> String {
        self.run(|| ask_udp(to, port, text))
    }

    /// Tells whether a TCP connection comes about.
    pub fn reaches_tcp(&self, to: &str, port: u16) -> bool {
        let address = SocketAddr::new(to.parse().unwrap(), port);
        self.run(|| TcpStream::connect_timeout(&address, ABSENCE).is_ok())
    }

    pub fn reaches_udp(&self, to: &str, port: u16) -> bool {
        let address = SocketAddr::new(to.parse().unwrap(), port);
        self.run(|| {
            let socket = client_socket(address);
            socket.set_read_timeout(Some(ABSENCE)).unwrap();
            socket.send(b"?").is_ok() && socket.recv(&mut [0; 100]).is_ok()
        })
    }
}

fn client_socket(address: SocketAddr) -> UdpSocket {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    let _ = socket.connect(address);
    socket
}

pub fn ask_tcp(to: &str, port: u16, text: &str) -> String {
    let address = SocketAddr::new(to.parse().unwrap(), port);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|e| panic!("{address}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("{address}: {e}"));
    let (peer, echo) = answer.split_once('\n').unwrap_or_else(|| panic!("{address}: no answer"));
    assert_eq!(echo, text);
    peer.to_owned()
}

pub fn ask_udp(to: &str, port: u16, text: &str) -> String {
    let address = SocketAddr::new(to.parse().unwrap(), port);
    let socket = client_socket(address);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(text.as_bytes()).unwrap();
    let mut buffer = vec![0; 65536];
    let len = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{address}: {e}"));
    let answer = String::from_utf8(buffer[..len].to_vec()).unwrap();
    let (peer, echo) = answer.split_once('\n').unwrap();
    assert_eq!(echo, text);
    peer.to_owned()
}

/// Runs a shell line in the calling thread's namespace and gives its output; panics when it fails.
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A host with an uplink, and an outside behind it. The test's own thread is on the host.
pub struct World {
    pub host: Space,
    pub outside: Space,
    pub state: TempDir,
    home: Space,
}

impl World {
    pub fn new() -> Self {
        let home = this_space();
        leave_network();
        let (host, outside) = (this_space(), Space::new());
        sh("ip link set lo up");
        sh(&format!("ip link add up0 type veth peer name out0 && ip link set out0 netns {}", outside.path()));
        sh(&format!(
            "ip address add {HOST}/24 dev up0 && ip address add {HOST6}/64 dev up0 nodad && ip link set up0 up"
        ));
        outside.sh(&format!(
            "ip link set lo up && ip address add {OUTSIDE}/24 dev out0 && ip address add {OUTSIDE6}/64 dev out0 nodad \
             && ip link set out0 up"
        ));
        Self { host, outside, state: TempDir::new().unwrap(), home }
    }

    pub fn bridge() -> Bridge {
        Bridge {
            name: "brig0".into(),
            gateway: Ipv4Addr::new(10, 88, 0, 1),
            prefix: 16,
            gateway6: None,
            mtu: 1500,
            masquerade: true,
        }
    }

    /// Plans a container with the address 10.88.0.`number`.
    pub fn plan(number: u8, ports: &[Port]) -> Network {
        let container = format!("{number:02x}").repeat(32);
        let address = Ipv4Addr::new(10, 88, 0, number);
        Network {
            host_interface: host_interface(&container),
            container,
            bridge: Self::bridge(),
            interface: "eth0".into(),
            address,
            address6: None,
            mac: hardware_address(address),
            ports: ports.to_vec(),
        }
    }

    pub fn plan6(number: u8, ports: &[Port]) -> Network {
        let gateway6 = Gateway6 { address: "fd00:88::1".parse().unwrap(), prefix: 64 };
        let mut plan = Self::plan(number, ports);
        plan.bridge.gateway6 = Some(gateway6);
        plan.address6 = Some(address6(gateway6, plan.address));
        plan
    }

    pub fn attach(&self, plan: &Network) -> (Space, Attachment) {
        let space = Space::new();
        let attachment = attach(plan, space.0.as_fd(), self.state.path()).unwrap_or_else(|error| panic!("{error:?}"));
        (space, attachment)
    }

    /// Attaches a container that serves TCP and UDP on port 80, and UDP and TCP on the unpublished 81.
    pub fn serve(&self, plan: &Network) -> (Space, Attachment) {
        let (space, attachment) = self.attach(plan);
        for port in [80, 81] {
            space.serve_tcp(Ipv4Addr::UNSPECIFIED, port);
            space.serve_udp(Ipv4Addr::UNSPECIFIED, port);
        }
        (space, attachment)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = move_into_link_name_space(self.home.0.as_fd(), Some(LinkNameSpaceType::Network));
    }
}

pub fn tcp(host_port: u16) -> Port {
    Port { host_address: None, host_port, container_port: 80, protocol: Protocol::Tcp }
}

pub fn udp(host_port: u16) -> Port {
    Port { protocol: Protocol::Udp, ..tcp(host_port) }
}

pub fn on(address: &str, port: Port) -> Port {
    Port { host_address: Some(address.parse().unwrap()), ..port }
}

/// Makes the host one without br_netfilter, as most are before Docker is installed.
pub fn frames_are_not_filtered() {
    sh("for key in /proc/sys/net/bridge/bridge-nf-call-*; do test ! -e $key || echo 0 > $key; done");
}
