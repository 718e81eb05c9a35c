//! The relay, driven by a poll loop like the monitor's.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use brig_net::Attachment;
use brig_net::relay::PEER_IDLE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::world::{HOST6, World, on, tcp, udp};

/// A thread that serves an attachment's relay, as the monitor's loop does.
struct Loop {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Attachment>,
}

impl Loop {
    fn start(world: &World, mut attachment: Attachment) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let host = world.host.0.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            use std::os::fd::AsFd;
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(host.as_fd(), network).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                turn(&mut attachment, Duration::from_millis(50));
            }
            attachment
        });
        Self { stop, thread }
    }

    fn stop(self) -> Attachment {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn turn(attachment: &mut Attachment, most: Duration) {
    let relay = attachment.relay();
    let mut fds: Vec<PollFd<'_>> = relay.fds().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)).collect();
    let wait = relay.timeout(Instant::now()).map_or(most, |due| due.min(most));
    poll(&mut fds, Some(&Timespec::try_from(wait).unwrap())).unwrap();
    let events: Vec<(i32, PollFlags)> = fds
        .iter()
        .filter(|fd| !fd.revents().is_empty())
        .map(|fd| (rustix::fd::AsFd::as_fd(fd).as_raw_fd(), fd.revents()))
        .collect();
    drop(fds);
    for (fd, flags) in events {
        attachment.relay().ready(fd, flags);
    }
    attachment.relay().expire(Instant::now());
}

#[test]
fn the_host_reaches_ports_on_its_ipv6_loopback() {
    let world = World::new();
    let (_container, attachment) = world.serve(&World::plan(2, &[tcp(8080), udp(8053), on("::1", tcp(9090))]));
    let serving = Loop::start(&world, attachment);
    world.host.ask_tcp("::1", 8080, "hello");
    world.host.ask_tcp("::1", 9090, "hello");
    world.host.ask_udp("::1", 8053, "hello");
    world.host.ask_tcp("127.0.0.1", 8080, "hello");
    assert_eq!(world.outside.ask_tcp(HOST6, 8080, "published on every address"), "10.88.0.1");
    assert!(!world.outside.reaches_tcp(HOST6, 9090), "published on ::1 alone");
    let mut attachment = serving.stop();
    assert_eq!(attachment.relay().load(), (0, 1), "streams have ended, the UDP client is remembered");
    attachment.relay().expire(Instant::now() + PEER_IDLE);
    assert_eq!(attachment.relay().load(), (0, 0));
    assert_eq!(attachment.relay().timeout(Instant::now()), None);
}

#[test]
fn much_data_passes_both_ways_through_small_buffers() {
    let world = World::new();
    let (_container, attachment) = world.serve(&World::plan(2, &[on("::1", tcp(8080))]));
    let serving = Loop::start(&world, attachment);
    let len = 8 << 20;
    world.host.run(|| {
        let stream = TcpStream::connect("[::1]:8080").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let pattern: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
                (&stream).write_all(&pattern).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut answer = Vec::new();
            (&stream).read_to_end(&mut answer).unwrap();
            let echo = answer.split_off(answer.iter().position(|byte| *byte == b'\n').unwrap() + 1);
            assert_eq!(echo.len(), len);
            assert!(echo.iter().enumerate().all(|(n, byte)| usize::from(*byte) == n % 251));
        });
    });
    assert_eq!(serving.stop().relay().load(), (0, 0));
}

#[test]
fn a_refusal_inside_is_a_reset_outside_and_clients_that_vanish_are_forgotten() {
    let world = World::new();
    let (container, attachment) = world.attach(&World::plan(2, &[on("::1", tcp(8080))]));
    let serving = Loop::start(&world, attachment);
    let refused = world.host.run(|| TcpStream::connect("[::1]:8080").unwrap().read(&mut [0; 10]));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    container.serve_tcp(IpAddr::from(Ipv4Addr::UNSPECIFIED), 80);
    world.host.run(|| {
        let mut stream = TcpStream::connect("[::1]:8080").unwrap();
        stream.write_all(b"half a question").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
    });
    world.host.ask_tcp("::1", 8080, "the next one");
    let mut attachment = serving.stop();
    for _ in 0..100 {
        if attachment.relay().load() == (0, 0) {
            return;
        }
        turn(&mut attachment, Duration::from_millis(50));
    }
    panic!("streams are left: {:?}", attachment.relay().load());
}

#[test]
fn an_idle_relay_asks_for_its_listeners_alone() {
    let world = World::new();
    let (_container, mut attachment) = world.serve(&World::plan(2, &[tcp(8080), on("127.0.0.1", tcp(9090))]));
    assert_eq!(attachment.relay().fds().count(), 1, "127.0.0.1 is translated, [::] is relayed");
    assert_eq!(attachment.relay().timeout(Instant::now()), None);
    attachment.relay().ready(9999, PollFlags::IN);
}
