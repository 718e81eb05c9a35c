//! What must not get through.

use std::net::Ipv4Addr;

use crate::world::{HOST, OUTSIDE, World, ask_tcp, frames_are_not_filtered, on, sh, tcp};

#[test]
fn unpublished_ports_are_out_of_reach_from_outside() {
    let world = World::new();
    let (_container, _attachment) = world.serve(&World::plan(2, &[tcp(8080)]));
    world.outside.sh(&format!("ip route add 10.88.0.0/16 via {HOST}"));
    // The path is open: only the firewall stands between.
    assert_eq!(world.outside.ask_tcp(HOST, 8080, "published"), OUTSIDE);
    for port in [80, 81] {
        assert!(!world.outside.reaches_tcp("10.88.0.2", port), "tcp {port} by the container's own address");
        assert!(!world.outside.reaches_udp("10.88.0.2", port), "udp {port} by the container's own address");
    }
    sh("nft delete table inet brig");
    assert_eq!(world.outside.ask_tcp("10.88.0.2", 81, "without the table"), OUTSIDE);
}

/// CVE-2020-8558: with route_localnet, 127.0.0.1 is routed, and whoever sends there through the bridge would arrive.
#[test]
fn the_hosts_loopback_services_stay_out_of_reach() {
    loopback_stays_out_of_reach(&World::new());
}

#[test]
fn the_same_where_frames_are_not_filtered() {
    let world = World::new();
    frames_are_not_filtered();
    loopback_stays_out_of_reach(&world);
}

fn loopback_stays_out_of_reach(world: &World) {
    let (container, _attachment) = world.serve(&World::plan(2, &[on("127.0.0.1", tcp(8080))]));
    assert_eq!(sh("cat /proc/sys/net/ipv4/conf/brig0/route_localnet"), "1\n");
    world.host.serve_tcp(Ipv4Addr::LOCALHOST, 5555);
    world.host.serve_udp(Ipv4Addr::LOCALHOST, 5555);
    ask_tcp("127.0.0.1", 8080, "the way that is meant");
    let attack = |gateway: &str, device: &str| {
        format!(
            "ip link set lo down; ip address flush dev lo; ip rule del pref 0; \
             ip rule add pref 1000 table local; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; \
             ip route add 127.0.0.1/32 via {gateway} dev {device} table 100; ip rule add pref 10 to 127.0.0.1 table 100"
        )
    };
    container.sh(&attack("10.88.0.1", "eth0"));
    world.outside.sh(&attack(HOST, "out0"));
    for (name, space) in [("container", &container), ("outside", &world.outside)] {
        assert!(!space.reaches_tcp("127.0.0.1", 5555), "tcp from {name}");
        assert!(!space.reaches_udp("127.0.0.1", 5555), "udp from {name}");
        assert!(!space.reaches_tcp("127.0.0.1", 8080), "what is published on loopback, from {name}");
    }
    // The attack is real: without the guard it succeeds.
    sh("nft flush chain inet brig guard");
    assert!(container.reaches_tcp("127.0.0.1", 5555), "the attack must work where nothing guards");
}

#[test]
fn forged_sources_do_not_leave_the_bridge() {
    let world = World::new();
    let (container, _attachment) = world.attach(&World::plan(2, &[]));
    world.outside.sh("ip route add 203.0.113.0/24 via 198.51.100.1");
    sh("ip route add 203.0.113.0/24 dev brig0");
    sh("ip route del 203.0.113.0/24 dev brig0");
    container.sh("ip address add 203.0.113.9/32 dev eth0");
    let count = || sh("nft -n list chain inet brig guard | grep -c drop");
    assert_eq!(count(), "3\n");
    world.outside.sh("nft add table ip seen && nft 'add chain ip seen in { type filter hook input priority 0; }' \
                      && nft 'add rule ip seen in udp dport 9 counter'");
    let send = "python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
                s.bind((\"203.0.113.9\", 0)); s.sendto(b\"x\", (\"198.51.100.2\", 9))'";
    container.sh(send);
    container.sh("python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
                  s.sendto(b\"x\", (\"198.51.100.2\", 9))'");
    let seen = world.outside.sh("nft list chain ip seen in");
    assert!(seen.contains("packets 1 "), "{seen}");
}
