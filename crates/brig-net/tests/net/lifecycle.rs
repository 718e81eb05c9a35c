//! Beginnings and ends: idempotence, races, leftovers, errors.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use brig_net::plan::Protocol;
use brig_net::{Error, adopt, attach, detach, remove_bridge, restore_forwarding, withdraw};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::world::{HOST, OUTSIDE, Space, World, ask_tcp, on, sh, tcp, udp};

fn ruleset() -> String {
    sh("nft -j list ruleset")
}

#[test]
fn a_port_in_use_is_noticed_and_nothing_is_left() {
    let world = World::new();
    let occupied = TcpListener::bind("0.0.0.0:8080").unwrap();
    let space = Space::new();
    let error = attach(&World::plan(2, &[tcp(8080)]), space.0.as_fd(), world.state.path()).err().unwrap();
    assert_eq!(error.to_string(), "port 8080/tcp on 0.0.0.0 is already in use");
    assert!(matches!(error, Error::PortInUse { port: 8080, protocol: Protocol::Tcp, .. }));
    let socket = UdpSocket::bind("127.0.0.1:8053").unwrap();
    let error = attach(&World::plan(2, &[udp(8053)]), space.0.as_fd(), world.state.path()).err().unwrap();
    assert!(matches!(error, Error::PortInUse { port: 8053, protocol: Protocol::Udp, .. }), "{error}");
    assert_eq!(sh("ip -o link | grep -c brig || true"), "0\n");
    drop((occupied, socket));

    // A container's port is in use for others: for programs, and for other containers.
    let (_space, _attachment) = world.serve(&World::plan(2, &[tcp(8080), on(HOST, udp(8053))]));
    assert!(TcpListener::bind("0.0.0.0:8080").is_err() && TcpListener::bind("[::]:8080").is_err());
    assert!(TcpListener::bind("127.0.0.1:8080").is_err() && UdpSocket::bind((HOST, 8053)).is_err());
    let error = attach(&World::plan(3, &[tcp(8080)]), space.0.as_fd(), world.state.path()).err().unwrap();
    assert!(matches!(error, Error::PortInUse { .. }), "{error}");
    assert_eq!(world.outside.ask_tcp(HOST, 8080, "the first one still serves"), OUTSIDE);
}

#[test]
fn an_address_that_is_not_the_hosts_is_named() {
    let world = World::new();
    let space = Space::new();
    let plan = World::plan(2, &[on("203.0.113.1", tcp(80))]);
    let error = attach(&plan, space.0.as_fd(), world.state.path()).err().unwrap();
    assert_eq!(error.to_string(), "cannot bind port 80/tcp on 203.0.113.1");
}

#[test]
fn a_port_is_free_again_while_old_connections_linger() {
    let world = World::new();
    // The host's own server closes first: its side stays in TIME_WAIT on the port.
    let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
    let client = std::net::TcpStream::connect("127.0.0.1:8080").unwrap();
    let (server, _) = listener.accept().unwrap();
    drop((server, listener));
    drop(client);
    assert!(sh("ss -tan state time-wait").contains(":8080"));
    let (_space, _attachment) = world.serve(&World::plan(2, &[tcp(8080)]));
    assert!(TcpListener::bind("0.0.0.0:8080").is_err(), "reserved all the same");
    ask_tcp("127.0.0.1", 8080, "hello");
    sh("nft flush ruleset");
    assert!(!world.host.reaches_tcp("127.0.0.1", 8080), "what reserves a port accepts nothing");
}

#[test]
fn detach_leaves_nothing_and_may_be_repeated() {
    let world = World::new();
    let plan = World::plan(2, &[tcp(8080), udp(8053), on("127.0.0.1", tcp(9090))]);
    let idle = World::plan(9, &[]);
    let (_idle_space, _idle) = world.attach(&idle);
    let (links, rules) = (sh("ip -o link | wc -l"), ruleset());
    let (_space, attachment) = world.serve(&plan);
    assert_ne!(ruleset(), rules);
    // Whoever died did so without closing anything in order: detach knows the plan alone.
    for _ in 0..2 {
        detach(&plan).unwrap();
        assert_eq!((sh("ip -o link | wc -l"), ruleset()), (links.clone(), rules.clone()));
    }
    drop(attachment);
    TcpListener::bind("0.0.0.0:8080").unwrap();

    detach(&idle).unwrap();
    for _ in 0..2 {
        remove_bridge(&plan.bridge).unwrap();
        restore_forwarding(world.state.path()).unwrap();
    }
    assert_eq!(sh("nft list ruleset"), "");
    assert_eq!(sh("ip -o link | grep -c brig || true"), "0\n");
    assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward"), "0\n");
    assert_eq!(std::fs::read_dir(world.state.path()).unwrap().count(), 0);
    detach(&plan).unwrap();
}

#[test]
fn an_old_plan_does_not_take_a_new_containers_port() {
    let world = World::new();
    let old = World::plan(2, &[tcp(8080)]);
    // The first container's monitor dies: its socket is closed, its rules stay.
    let (_old_space, attachment) = world.serve(&old);
    drop(attachment);
    let (_new_space, _new) = world.serve(&World::plan(3, &[tcp(8080)]));
    let target = || sh("nft list map inet brig anywhere4");
    assert!(target().contains("10.88.0.3") && !target().contains("10.88.0.2"), "{}", target());
    detach(&old).unwrap();
    assert!(target().contains("10.88.0.3"), "{}", target());
    assert_eq!(world.outside.ask_tcp(HOST, 8080, "hello"), OUTSIDE);
}

#[test]
fn a_leftover_of_an_earlier_run_gives_way() {
    let world = World::new();
    let plan = World::plan(2, &[tcp(8080)]);
    let (_first, attachment) = world.serve(&plan);
    drop(attachment);
    let (_second, _attachment) = world.serve(&plan);
    assert_eq!(world.outside.ask_tcp(HOST, 8080, "hello"), OUTSIDE);
}

#[test]
fn a_new_monitor_adopts_after_the_rules_were_flushed() {
    let world = World::new();
    let plan = World::plan(2, &[tcp(8080)]);
    let (_space, attachment) = world.serve(&plan);
    drop(attachment);
    sh("nft flush ruleset");
    assert!(!world.outside.reaches_tcp(HOST, 8080));
    let _attachment = adopt(&plan, world.state.path()).unwrap();
    assert_eq!(world.outside.ask_tcp(HOST, 8080, "hello"), OUTSIDE);
    sh("nft flush ruleset");
    let (_other, _b) = world.attach(&World::plan(3, &[]));
    assert!(sh("nft list table inet brig").contains("brig0"), "the next start notices");
}

#[test]
fn a_failed_attach_undoes_itself() {
    let world = World::new();
    let (_idle_space, _idle) = world.attach(&World::plan(9, &[]));
    let (links, rules) = (sh("ip -o link | wc -l"), ruleset());
    let mut plan = World::plan(2, &[tcp(8080)]);
    // The name is taken inside the namespace.
    plan.interface = "lo".into();
    let space = Space::new();
    let error = attach(&plan, space.0.as_fd(), world.state.path()).err().unwrap();
    assert_eq!(error.to_string(), format!("cannot create veth pair `{}`", plan.host_interface));
    assert_eq!((sh("ip -o link | wc -l"), ruleset()), (links, rules));
    TcpListener::bind("0.0.0.0:8080").unwrap();
}

#[test]
fn a_flow_that_began_earlier_finds_the_container() {
    let world = World::new();
    // The path to the host is warm, and connections are tracked, before anything is published.
    let (_first, _attachment) = world.attach(&World::plan(9, &[]));
    let socket = world.outside.run(|| UdpSocket::bind("0.0.0.0:4000").unwrap());
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    socket.send_to(b"?", (HOST, 8053)).unwrap();
    let ask = || {
        let mut buffer = [0; 100];
        socket.send_to(b"!", (HOST, 8053)).unwrap();
        let (len, _) = socket.recv_from(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    for number in [2, 3] {
        let plan = World::plan(number, &[udp(8053)]);
        let (_space, _attachment) = world.serve(&plan);
        assert_eq!(ask(), format!("{OUTSIDE}\n!"));
        let flows = || sh("grep -c 'udp.*dport=8053' /proc/thread-self/net/nf_conntrack || true");
        assert_eq!(flows(), "1\n");
        detach(&plan).unwrap();
        assert_eq!(flows(), "0\n");
    }
}

#[test]
fn many_ports_go_through_bounded_buffers() {
    let world = World::new();
    let ports: Vec<_> = (20_000..20_600).map(tcp).collect();
    let plan = World::plan(2, &ports);
    let (_space, _attachment) = world.serve(&plan);
    for port in [20_000, 20_063, 20_064, 20_599] {
        assert_eq!(world.outside.ask_tcp(HOST, port, "hello"), OUTSIDE);
    }
    let published = || sh("nft list map inet brig anywhere4 | grep -o 'tcp \\.' | wc -l");
    assert_eq!(published(), "600\n");
    detach(&plan).unwrap();
    assert_eq!(published(), "0\n");
}

#[test]
fn a_withdrawn_pair_goes_with_its_namespace() {
    let world = World::new();
    let plan = World::plan(2, &[tcp(8080)]);
    let (space, attachment) = world.attach(&plan);
    let lingering = withdraw(&plan).unwrap();
    assert_eq!(sh("nft list map inet brig anywhere4 | grep -c tcp || true"), "0\n");
    // The next run does not wait for the kernel to have finished with this one.
    drop((space, attachment, lingering));
    let (space, attachment) = world.serve(&plan);
    assert_eq!(world.outside.ask_tcp(HOST, 8080, "hello"), OUTSIDE);
    let _lingering = withdraw(&plan).unwrap();
    drop((space, attachment));
}

#[test]
fn twenty_at_the_same_time() {
    let world = World::new();
    sh("iptables -P FORWARD DROP");
    let plans: Vec<_> = (0..20).map(|n| World::plan(2 + n, &[tcp(8000 + u16::from(n))])).collect();
    let attached: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = plans
            .iter()
            .map(|plan| {
                let world = &world;
                scope.spawn(move || {
                    let host = world.host.0.as_fd();
                    move_into_link_name_space(host, Some(LinkNameSpaceType::Network)).unwrap();
                    world.serve(plan)
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    for (n, (container, _)) in attached.iter().enumerate() {
        let port = 8000 + u16::try_from(n).unwrap();
        assert_eq!(world.outside.ask_tcp(HOST, port, "hello"), OUTSIDE);
        let neighbour = Ipv4Addr::new(10, 88, 0, 2 + u8::try_from((n + 1) % 20).unwrap());
        container.ask_tcp(&neighbour.to_string(), 81, "hello");
    }
    // One table, with each rule once; and one pair of rules in the foreign chain.
    assert_eq!(sh("iptables -S | grep -c brig0"), "2\n");
    assert_eq!(sh("nft list table inet brig | grep -cw drop"), "4\n");
    assert_eq!(sh("nft list table inet brig | grep -c 'dnat ip'"), "8\n");
    for plan in &plans {
        detach(plan).unwrap();
    }
    assert_eq!(sh("nft list map inet brig anywhere4 | grep -c elements || true"), "0\n");
    assert_eq!(sh("ip -o link show master brig0 | wc -l"), "0\n");
}

#[test]
fn the_doctor_sees_what_there_is() {
    let _world = World::new();
    let scratch = Space::new();
    let probe = brig_net::probe::probe(&scratch.0);
    probe.bridge.unwrap();
    probe.veth.unwrap();
    probe.nftables.unwrap();
    assert!(!probe.forwarding.unwrap());
    assert_eq!(probe.foreign_drops.unwrap(), []);
    assert_eq!(sh("nft list ruleset; ip -o link | grep -c probe || true"), "0\n");
}
