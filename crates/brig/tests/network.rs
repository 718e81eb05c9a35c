//! Networks through the command line: addresses, the outside, published ports, names.
//!
//! Place: the machine itself, as root; each test has a host with an outside of its own.

#![allow(clippy::unwrap_used)]

mod support;

use support::world::{Echo, HOST, OUTSIDE, Outside, ask_udp, hear_tcp};
use support::{Engine, patiently};

/// A server inside that greets everybody on TCP port 80.
const SERVER: &str = "while :; do echo hello | nc -l -p 80; done";

fn serve(engine: &Engine, name: &str, flags: &[&str]) {
    engine.brig(&[&["run", "-d", "--name", name], flags, &["busybox", "sh", "-c", SERVER]].concat()).ok();
}

fn greets(to: &str, port: u16) -> bool {
    patiently(|| hear_tcp(to, port).as_deref() == Some("hello\n"))
}

#[test]
fn a_container_has_an_address_and_reaches_the_outside() {
    let engine = Engine::new();
    let outside = Outside::new();
    outside.serve(7);
    let script = format!("ip -o -4 addr show eth0 | awk '{{print $4}}'; ip route | head -1; nc {OUTSIDE} 7 </dev/null");
    let output = engine.sh(&[], &script).ok();
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].starts_with("10.") && lines[0].ends_with("/16"), "{output}");
    assert!(lines[1].starts_with("default via 10."), "{output}");
    assert_eq!(lines[2], format!("you are {HOST}"), "outgoing traffic has the host's address");
    // Addresses differ, and the record tells them.
    engine.idle("a1", &[]);
    engine.idle("a2", &[]);
    let address = |name| engine.inspect(name, "{{.NetworkSettings.IPAddress}}");
    let (one, two) = (address("a1"), address("a2"));
    assert_ne!(one, two);
    engine.brig(&["exec", "a1", "ping", "-c", "1", "-W", "5", "-q", &two]).ok();
    engine.brig(&["stop", "-t", "0", "a1"]).ok();
    assert_eq!(address("a1"), "");
    engine.brig(&["start", "a1"]).ok();
    assert_eq!(address("a1"), one, "an address stays with its container");
}

#[test]
fn published_ports_are_reached_from_everywhere() {
    let engine = Engine::new();
    let outside = Outside::new();
    serve(&engine, "web", &["-p", "8080:80", "-p", "5353:53/udp", "-p", "127.0.0.1:8081:80"]);
    assert!(outside.run(|| greets(HOST, 8080)), "from another host");
    for (address, port) in [("127.0.0.1", 8080), ("::1", 8080), (HOST, 8080), ("127.0.0.1", 8081)] {
        assert!(greets(address, port), "{address}:{port}");
    }
    assert!(outside.run(|| hear_tcp(HOST, 8081)).is_none(), "a port on loopback is on loopback");
    let echo = Echo::start(&engine.inspect("web", "{{.State.Pid}}"), 53);
    assert!(patiently(|| ask_udp("::1", 5353, "hi").as_deref() == Some("hi")));
    assert!(patiently(|| ask_udp("127.0.0.1", 5353, "hi").as_deref() == Some("hi")));
    assert!(patiently(|| outside.run(|| ask_udp(HOST, 5353, "hi")).as_deref() == Some("hi")));
    drop(echo);
    let address = engine.inspect("web", "{{.NetworkSettings.IPAddress}}");
    let inside = format!("nc {address} 80 </dev/null");
    assert!(patiently(|| engine.sh(&[], &inside).stdout == "hello\n"), "from container to container");
    let port = engine.brig(&["port", "web"]).ok();
    let expected = "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n53/udp -> 0.0.0.0:5353\n53/udp -> [::]:5353\n80/tcp -> \
                    127.0.0.1:8081";
    assert_eq!(port, expected);
    assert_eq!(engine.brig(&["port", "web", "53/udp"]).ok(), "0.0.0.0:5353\n[::]:5353");
    assert!(engine.brig(&["ps"]).ok().contains("0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, "));
    engine.brig(&["port", "web", "81"]).fails(1, "error: container `web` does not publish port 81/tcp\n");
    // They close when it ends.
    engine.brig(&["stop", "-t", "0", "web"]).ok();
    assert!(hear_tcp("127.0.0.1", 8080).is_none());
    engine.brig(&["start", "web"]).ok();
    assert!(greets("127.0.0.1", 8080));
}

#[test]
fn a_port_in_use_is_noticed() {
    let engine = Engine::new();
    serve(&engine, "old-web", &["-p", "8080:80"]);
    engine.brig(&["run", "--rm", "--name", "web", "-p", "8080:80", "busybox"]).fails(
        125,
        "error: cannot start container `web`\n  because: port 8080/tcp on 0.0.0.0 is already in use by container \
         `old-web`\nhint: stop it with `brig stop old-web`, or publish another port with `-p`\n",
    );
    let _listener = std::net::TcpListener::bind("127.0.0.1:9090").unwrap();
    engine.brig(&["run", "--rm", "--name", "web", "-p", "127.0.0.1:9090:80", "busybox"]).fails(
        125,
        "error: cannot start container `web`\n  because: port 9090/tcp on 127.0.0.1 is already in use\nhint: `ss -lntup` \
         names the program that listens there; or publish another port with `-p`\n",
    );
    assert!(patiently(|| engine.brig(&["ps", "-aq"]).ok().lines().count() == 1), "neither is left");
    // A port of the engine's own choice is a free one.
    serve(&engine, "any", &["-p", "80"]);
    let chosen = engine.brig(&["port", "any", "80"]).ok();
    let chosen: u16 = chosen.lines().next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    assert!(greets("127.0.0.1", chosen));
}

#[test]
fn none_host_and_anothers() {
    let engine = Engine::new();
    let links = "ls /sys/class/net | tr '\\n' ' '";
    assert_eq!(engine.sh(&["--network", "none"], links).ok(), "lo ");
    serve(&engine, "web", &["--hostname", "web"]);
    let script = "nc 127.0.0.1 80 </dev/null; hostname";
    let joined = ["--network", "container:web"];
    assert!(patiently(|| engine.sh(&joined, script).stdout.starts_with("hello\n")));
    // The host's network is this thread's, bridge and all.
    assert!(engine.sh(&["--network", "host"], links).ok().contains("brigx"));
    let addresses = "ip -o -4 addr show eth0 | awk '{print $4}'";
    let own = engine.brig(&["exec", "web", "sh", "-c", addresses]).ok();
    assert_eq!(engine.sh(&joined, addresses).ok(), own);
    engine.sh(&["--network", "container:moon"], "true");
    let missing = engine.brig(&["run", "--rm", "--name", "one", "--network", "container:moon", "busybox"]);
    missing.fails(
        125,
        "error: cannot start container `one`\n  because: no such container: moon\nhint: `brig ps -a` lists the containers \
         that there are\n",
    );
    engine
        .brig(&["run", "--rm", "--network", "moon", "busybox"])
        .fails(125, "error: no such network: moon\nhint: known are `bridge`, `none`, `host` and `container:NAME`\n");
}

#[test]
fn names_are_written_into_the_containers_files() {
    let engine = Engine::new();
    let flags = [
        "--hostname",
        "study",
        "--domainname",
        "example.org",
        "--add-host",
        "db:10.0.0.9",
        "--add-host",
        "gate:host-gateway",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.org",
        "--dns-option",
        "ndots:3",
    ];
    let hosts = engine.sh(&flags, "cat /etc/hosts").ok();
    assert!(hosts.starts_with("127.0.0.1\tlocalhost\n"), "{hosts}");
    assert!(hosts.contains("\n10.0.0.9\tdb\n") && hosts.contains("\tgate\n"), "{hosts}");
    assert!(hosts.lines().last().unwrap().ends_with("\tstudy.example.org study"), "{hosts}");
    let resolv = engine.sh(&flags, "cat /etc/resolv.conf").ok();
    assert_eq!(resolv.lines().next().unwrap(), "nameserver 192.0.2.53");
    assert!(resolv.contains("search example.org") && resolv.contains("options ndots:3"), "{resolv}");
    assert_eq!(engine.sh(&flags, "cat /etc/hostname; hostname").ok(), "study\nstudy");
    let id = engine.idle("web", &[]);
    assert_eq!(engine.brig(&["exec", "web", "hostname"]).ok(), id[..12]);
    let default = engine.brig(&["exec", "web", "cat", "/etc/hosts"]).ok();
    assert!(default.lines().last().unwrap().ends_with(&format!("\t{}", &id[..12])), "{default}");
}

#[test]
fn unprivileged_programs_use_low_ports_and_ping() {
    let engine = Engine::new();
    assert_eq!(engine.sh(&[], "cat /proc/sys/net/ipv4/ip_unprivileged_port_start").ok(), "0");
    assert_eq!(engine.sh(&[], "cat /proc/sys/net/ipv4/ping_group_range").ok().split_whitespace().next(), Some("0"));
}

#[test]
fn two_engines_live_side_by_side() {
    let (engine, other) = (Engine::new(), Engine::beside());
    other.import();
    serve(&engine, "web", &["-p", "8080:80"]);
    serve(&other, "web", &["-p", "8081:80"]);
    assert!(greets("127.0.0.1", 8080) && greets("127.0.0.1", 8081));
    let bridge = |engine: &Engine| engine.inspect("web", "{{.NetworkSettings.Bridge}} {{.NetworkSettings.Gateway}}");
    let (one, two) = (bridge(&engine), bridge(&other));
    assert!(one.split(' ').all(|word| two.split(' ').all(|other| word != other)), "{one} {two}");
    assert_eq!(engine.brig(&["ps", "-q"]).ok().lines().count(), 1);
    other.clear();
    assert!(greets("127.0.0.1", 8080), "one's end is not the other's");
}
