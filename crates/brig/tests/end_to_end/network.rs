//! Containers with a network, in a network namespace of the test's own: the thread steps into it, and its children with it.

use crate::sandbox::{Sandbox, text};

/// Goes into a new network namespace whose loopback is up.
fn own_network() {
    brig_sys::clone::unshare(brig_sys::clone::flags::NEWNET).unwrap();
    let netns = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    brig_net::loopback_up(std::os::fd::AsFd::as_fd(&netns)).unwrap();
}

#[test]
fn containers_reach_one_another_and_are_reached() {
    own_network();
    let brig = Sandbox::new();
    brig.run(&[
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "127.0.0.1:18080:80",
        "bb",
        "sh",
        "-c",
        "while true; do echo hello | nc -l -p 80; done",
    ]);
    let address = brig.run(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
    let address = address.trim();
    let out = brig.run(&["run", "--rm", "bb", "ping", "-c", "1", "-W", "5", address]);
    assert!(out.contains("0% packet loss"), "{out}");
    Sandbox::until(std::time::Duration::from_secs(20), || {
        std::net::TcpStream::connect("127.0.0.1:18080")
            .and_then(|mut stream| {
                let mut text = String::new();
                stream.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
                std::io::Read::read_to_string(&mut stream, &mut text).map(|_| text)
            })
            .is_ok_and(|text| text == "hello\n")
    });
    assert_eq!(brig.run(&["port", "web", "80"]), "127.0.0.1:18080\n");
    assert!(brig.run(&["exec", "web", "cat", "/etc/hosts"]).contains(address));
    let error = brig.fails(&["run", "--rm", "-p", "127.0.0.1:18080:80", "bb", "true"]);
    assert!(error.starts_with("error: cannot start container"), "{error}");
    let shared = brig.run(&["run", "--rm", "--network", "container:web", "bb", "ip", "addr"]);
    assert!(shared.contains(address), "{shared}");
    brig.run(&["rm", "-f", "web"]);
    let pruned = brig.run(&["network", "prune", "-f"]);
    assert!(pruned.starts_with("Deleted network: brigx"), "{pruned}");
    brig.nothing_left();
}

#[test]
fn no_such_network_is_told() {
    let brig = Sandbox::new();
    let output = brig.try_run(&["run", "--rm", "--network", "moon", "bb", "true"]);
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(
        text(&output.stderr),
        "error: no such network: moon\nhint: known are `bridge`, `none`, `host` and `container:NAME`\n"
    );
}
