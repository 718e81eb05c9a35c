//! Beside other programs' firewalls. `iptables` here is the nftables one, as on Debian.

use std::net::Ipv4Addr;

use brig_net::{ForeignDrop, foreign_forward_drops, remove_bridge, remove_foreign_accepts};

use crate::world::{HOST, OUTSIDE, World, sh, tcp};

fn both_ways_work(world: &World, number: u8, port: u16) {
    let (container, _attachment) = world.serve(&World::plan(number, &[tcp(port)]));
    world.outside.serve_tcp(Ipv4Addr::UNSPECIFIED, port + 1);
    assert_eq!(world.outside.ask_tcp(HOST, port, "in"), OUTSIDE);
    assert_eq!(container.ask_tcp(OUTSIDE, port + 1, "out"), HOST);
    world.outside.sh("ip route replace 10.88.0.0/16 via 198.51.100.1");
    assert!(!world.outside.reaches_tcp(&format!("10.88.0.{number}"), 81), "unpublished");
}

#[test]
fn docker_drops_what_it_does_not_know_and_keeps_a_chain_for_us() {
    let world = World::new();
    sh("iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; \
        iptables -A FORWARD -j DOCKER-USER");
    let drops = foreign_forward_drops().unwrap();
    let expected = ForeignDrop {
        family: "ip",
        table: "filter".into(),
        chain: "FORWARD".into(),
        door: "DOCKER-USER".into(),
        legacy: false,
    };
    assert_eq!(drops, [expected]);
    both_ways_work(&world, 2, 8080);
    both_ways_work(&world, 3, 9080);
    let listed = sh("iptables -S");
    let tag = "-m comment --comment \"brig: brig0\" -j ACCEPT";
    let door = format!("-A DOCKER-USER -i brig0 {tag}\n-A DOCKER-USER -o brig0 {tag}\n-A DOCKER-USER -j RETURN");
    assert!(listed.contains(&door), "once, at the head, and readable for iptables: {listed}");
    remove_foreign_accepts().unwrap();
    assert!(!sh("iptables -S").contains("brig0"));
    assert!(sh("iptables -S").contains("-A DOCKER-USER -j RETURN"));
}

#[test]
fn a_plain_policy_of_drop_gets_a_door_at_its_head() {
    let world = World::new();
    both_ways_work(&world, 2, 8080);
    // The firewall comes after us.
    sh("iptables -P FORWARD DROP; iptables -A FORWARD -j DROP; \
        nft 'add table inet strict'; \
        nft 'add chain inet strict forward_all { type filter hook forward priority 10; policy drop; }'");
    assert!(!world.outside.reaches_tcp(HOST, 8080));
    both_ways_work(&world, 3, 9080);
    assert_eq!(sh("nft list chain inet strict forward_all | grep -c 'comment \"brig: brig0\"'"), "2\n");
    remove_bridge(&World::bridge()).unwrap();
    assert_eq!(sh("nft list ruleset | grep -c brig || true"), "0\n");
}

#[test]
fn iptables_legacy_is_reported() {
    let _world = World::new();
    sh("iptables-legacy -P FORWARD DROP");
    let drops = foreign_forward_drops().unwrap();
    assert!(drops.iter().any(|found| found.legacy && found.chain == "FORWARD"), "{drops:?}");
}

#[test]
fn the_table_reads_as_it_is_drawn() {
    let world = World::new();
    let (_container, _attachment) = world.attach(&World::plan(2, &[tcp(8080)]));
    let listed = sh("nft list table inet brig");
    for line in [
        "iifname != \"lo\" ip daddr 127.0.0.0/8 drop",
        "iifname != \"lo\" ip saddr 127.0.0.0/8 drop",
        "fib saddr . iif oif 0 drop",
        "type nat hook prerouting priority dstnat; policy accept;",
        "type filter hook forward priority filter; policy accept;",
        "oifname @bridges ct state established,related accept",
        "oifname @bridges ct status dnat accept",
        "oifname @bridges drop",
        "iifname @masqueraded oifname != @bridges masquerade",
        "elements = { \"brig0\" }",
        "elements = { tcp . 8080 comment \"020202020202\" : 10.88.0.2 . 80 }",
    ] {
        assert!(listed.contains(line), "no `{line}` in {listed}");
    }
}
