//! A world around an engine: an uplink, a host behind it, and little clients and servers there.

use super::{leave_network, sh, this_network};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub const OUTSIDE: &str = "198.51.100.2";
pub const HOST: &str = "198.51.100.1";

const PATIENCE: Duration = Duration::from_secs(10);
/// How long something that must not come is waited for.
const ABSENCE: Duration = Duration::from_millis(400);

/// A network namespace outside the machine, at the other end of a wire to the calling thread's.
pub struct Outside(OwnedFd);

impl Outside {
    pub fn new() -> Self {
        let space = std::thread::spawn(|| {
            leave_network();
            this_network()
        });
        let outside = Self(space.join().unwrap());
        let path = format!("/proc/{}/fd/{}", std::process::id(), outside.0.as_raw_fd());
        sh(&format!("ip link add up0 type veth peer name out0 && ip link set out0 netns {path}"));
        sh(&format!("ip address add {HOST}/24 dev up0 && ip link set up0 up && ip route add default via {OUTSIDE}"));
        outside
            .run(|| sh(&format!("ip link set lo up && ip address add {OUTSIDE}/24 dev out0 && ip link set out0 up")));
        outside
    }

    /// Runs something there, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// Serves TCP: tells each client the address that it seems to have.
    pub fn serve(&self, port: u16) {
        let listener = self.run(|| TcpListener::bind((OUTSIDE, port)).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mut stream, peer) = (&stream, stream.peer_addr().unwrap().ip());
                let _ = writeln!(stream, "you are {peer}");
            }
        });
    }
}

/// A server that echoes datagrams inside a container's network, while the value lives.
pub struct Echo(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Echo {
    pub fn start(pid: &str, port: u16) -> Self {
        let network = File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let serve = move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((count, peer)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..count], peer);
                }
            }
        };
        Self(stop, Some(std::thread::spawn(serve)))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(JoinHandle::join);
    }
}

/// Connects and reads all that is said; none when no connection comes about.
pub fn hear_tcp(to: &str, port: u16) -> Option<String> {
    let address = SocketAddr::new(to.parse::<IpAddr>().unwrap(), port);
    let mut stream = TcpStream::connect_timeout(&address, ABSENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Sends a datagram and hears the answer.
pub fn ask_udp(to: &str, port: u16, text: &str) -> Option<String> {
    let address = SocketAddr::new(to.parse::<IpAddr>().unwrap(), port);
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(address).ok()?;
    socket.set_read_timeout(Some(ABSENCE)).unwrap();
    socket.send(text.as_bytes()).ok()?;
    let mut buffer = [0; 2048];
    let count = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
}
