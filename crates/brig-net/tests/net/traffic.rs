//! What must get through, and whom the other side sees.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use brig_net::usage::usage;
use brig_net::{attach, detach, loopback_up};

use crate::world::{
    HOST, HOST6, OUTSIDE, OUTSIDE6, Space, World, ask_tcp, ask_udp, frames_are_not_filtered, on, sh, tcp, udp,
};

#[test]
fn a_container_reaches_the_outside_under_the_hosts_address() {
    let world = World::new();
    let (container, _attachment) = world.attach(&World::plan(2, &[]));
    world.outside.serve_tcp(Ipv4Addr::UNSPECIFIED, 7);
    world.outside.serve_udp(Ipv4Addr::UNSPECIFIED, 7);
    assert_eq!(container.ask_tcp(OUTSIDE, 7, "hello"), HOST);
    assert_eq!(container.ask_udp(OUTSIDE, 7, "hello"), HOST);
}

#[test]
fn without_masquerade_the_outside_sees_the_container() {
    let world = World::new();
    let mut plan = World::plan(2, &[]);
    plan.bridge.masquerade = false;
    let (container, _attachment) = world.attach(&plan);
    world.outside.sh(&format!("ip route add 10.88.0.0/16 via {HOST}"));
    world.outside.serve_tcp(Ipv4Addr::UNSPECIFIED, 7);
    assert_eq!(container.ask_tcp(OUTSIDE, 7, "hello"), "10.88.0.2");
}

#[test]
fn the_outside_reaches_published_ports_and_is_seen_as_itself() {
    let world = World::new();
    let (_container, attachment) = world.serve(&World::plan(2, &[tcp(8080), udp(8053), on(HOST, tcp(9090))]));
    assert_eq!(attachment.reserved(), 3);
    assert_eq!(world.outside.ask_tcp(HOST, 8080, "hello"), OUTSIDE);
    assert_eq!(world.outside.ask_tcp(HOST, 9090, "hello"), OUTSIDE);
    assert_eq!(world.outside.ask_udp(HOST, 8053, "hello"), OUTSIDE);
    assert!(!world.outside.reaches_tcp(HOST, 8053), "udp is published there, not tcp");
}

#[test]
fn the_host_reaches_published_ports_on_all_of_its_addresses() {
    let world = World::new();
    let (_container, _attachment) = world.serve(&World::plan(2, &[tcp(8080), udp(8053), on("127.0.0.1", tcp(9090))]));
    for (address, seen) in [("127.0.0.1", "10.88.0.1"), (HOST, HOST), ("10.88.0.1", "10.88.0.1")] {
        assert_eq!(ask_tcp(address, 8080, "hello"), seen);
        ask_udp(address, 8053, "hello");
    }
    ask_tcp("127.0.0.1", 9090, "hello");
    ask_tcp("10.88.0.2", 81, "the host needs no publishing");
    assert!(!world.host.reaches_tcp(HOST, 9090), "published on 127.0.0.1 alone");
    assert!(!world.outside.reaches_tcp(HOST, 9090), "published on 127.0.0.1 alone");
}

#[test]
fn containers_reach_one_another_and_published_ports_of_their_own_bridge() {
    containers_reach_one_another(&World::new());
}

#[test]
fn the_same_where_frames_are_not_filtered() {
    let world = World::new();
    frames_are_not_filtered();
    containers_reach_one_another(&world);
}

fn containers_reach_one_another(world: &World) {
    let (one, _a) = world.serve(&World::plan(2, &[tcp(8080)]));
    let (two, _b) = world.attach(&World::plan(3, &[]));
    assert_eq!(two.ask_tcp("10.88.0.2", 81, "direct"), "10.88.0.3");
    for address in [HOST, "10.88.0.1"] {
        assert_eq!(two.ask_tcp(address, 8080, "by the host's address"), "10.88.0.1");
        one.ask_tcp(address, 8080, "itself, by the host's address");
    }
    // A service elsewhere on the same port is not mistaken for the published one.
    world.outside.serve_tcp(Ipv4Addr::UNSPECIFIED, 8080);
    assert_eq!(two.ask_tcp(OUTSIDE, 8080, "outside"), HOST);
}

#[test]
fn bridges_are_kept_apart() {
    let world = World::new();
    let (_one, _a) = world.serve(&World::plan(2, &[tcp(8080)]));
    let mut other = World::plan(3, &[]);
    other.bridge.name = "brig1".into();
    other.bridge.gateway = Ipv4Addr::new(10, 89, 0, 1);
    other.address = Ipv4Addr::new(10, 89, 0, 3);
    let (two, _b) = world.attach(&other);
    assert!(!two.reaches_tcp("10.88.0.2", 80));
    assert_eq!(two.ask_tcp(HOST, 8080, "published"), "10.89.0.3");
}

#[test]
fn ipv6_is_attached_published_and_masqueraded() {
    let world = World::new();
    let plan = World::plan6(2, &[tcp(8080), on(HOST6, udp(8053))]);
    let (container, attachment) = world.attach(&plan);
    container.serve_tcp(Ipv6Addr::UNSPECIFIED, 80);
    container.serve_udp(Ipv6Addr::UNSPECIFIED, 80);
    world.outside.serve_tcp(Ipv6Addr::UNSPECIFIED, 7);
    assert_eq!(container.ask_tcp(OUTSIDE6, 7, "hello"), HOST6);
    assert_eq!(world.outside.ask_tcp(HOST6, 8080, "hello"), OUTSIDE6);
    assert_eq!(world.outside.ask_udp(HOST6, 8053, "hello"), OUTSIDE6);
    assert_eq!(sh("cat /proc/sys/net/ipv6/conf/brig0/accept_ra"), "0\n");
    assert_eq!(container.sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra"), "0\n");
    world.outside.sh(&format!("ip -6 route add fd00:88::/64 via {HOST6}"));
    container.serve_tcp(Ipv6Addr::UNSPECIFIED, 81);
    let IpAddr::V6(inside) = plan.address6.unwrap().into() else { unreachable!() };
    assert!(!world.outside.reaches_tcp(&inside.to_string(), 81), "not published");
    drop(attachment);
}

#[test]
fn a_namespace_of_another_user_namespace_is_attached_too() {
    let world = World::new();
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", "echo ready; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    let netns = Space(std::fs::File::open(format!("/proc/{}/ns/net", child.id())).unwrap().into());
    let attachment = attach(&World::plan(2, &[tcp(8080)]), netns.0.as_fd(), world.state.path());
    // The end of its input lets it go, whatever came of that.
    drop(child.stdin.take());
    child.wait().unwrap();
    let _attachment = attachment.unwrap();
    netns.serve_tcp(Ipv4Addr::UNSPECIFIED, 80);
    assert_eq!(world.outside.ask_tcp(HOST, 8080, "hello"), OUTSIDE);
}

#[test]
fn a_bridge_that_lost_its_address_is_mended() {
    let world = World::new();
    let (_one, _a) = world.attach(&World::plan(2, &[]));
    sh("ip address flush dev brig0");
    let (two, _b) = world.attach(&World::plan(3, &[]));
    world.outside.serve_tcp(Ipv4Addr::UNSPECIFIED, 7);
    assert_eq!(two.ask_tcp(OUTSIDE, 7, "hello"), HOST);
}

#[test]
fn counters_are_the_containers() {
    let world = World::new();
    let plan = World::plan(2, &[]);
    let (container, _attachment) = world.attach(&plan);
    world.outside.serve_udp(Ipv4Addr::UNSPECIFIED, 7);
    container.ask_udp(OUTSIDE, 7, &"x".repeat(1000));
    let found = usage(&plan).unwrap();
    assert!(found.sent.bytes >= 1000 && found.received.bytes >= 1000 && found.sent.packets >= 1, "{found:?}");
    // Nobody listens there: what comes back is a short error for each at most.
    container.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..10 {
            socket.send_to(&[0; 1400], (OUTSIDE, 9)).unwrap();
        }
    });
    let after = usage(&plan).unwrap();
    let sent = after.sent.bytes - found.sent.bytes;
    let received = after.received.bytes - found.received.bytes;
    assert!(sent >= 14_000 && received < 10_000, "{found:?} {after:?}");
    detach(&plan).unwrap();
    assert!(usage(&plan).is_err());
}

#[test]
fn loopback_alone_for_network_none() {
    let space = Space::new();
    loopback_up(space.0.as_fd()).unwrap();
    space.serve_tcp(Ipv4Addr::LOCALHOST, 80);
    assert_eq!(space.ask_tcp("127.0.0.1", 80, "hello"), "127.0.0.1");
    assert_eq!(space.sh("ip -o link | wc -l"), "1\n");
}
