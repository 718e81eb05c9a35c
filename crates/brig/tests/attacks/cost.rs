//! What a container can cost the machine. Class 18.

use crate::perl;
use crate::support::{Engine, patiently, sh};
use std::time::{Duration, Instant};

/// A line of /proc/PID/status or smaps_rollup, in KiB.
fn kib(path: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse().ok()).unwrap()
}

#[test]
fn a_flood_of_output_costs_neither_memory_nor_disk() {
    let engine = Engine::new();
    let log = ["--log-opt", "max-size=1m", "--log-opt", "max-file=2"];
    engine.brig(&[&["run", "-d", "--name", "yes", "--network", "none"], &log[..], &["busybox", "yes"]].concat()).ok();
    let monitor = engine.inspect("yes", "{{.State.MonitorPid}}");
    let rollup = format!("/proc/{monitor}/smaps_rollup");
    // Readers that never read, of the container and of an exec.
    let mut stalled = vec![engine.spawn(&["attach", "--no-stdin", "yes"])];
    stalled.push(engine.spawn(&["exec", "yes", "yes"]));
    let flow = Instant::now();
    while flow.elapsed() < Duration::from_secs(2) {
        assert!(kib(&rollup, "Private_Dirty:") < 2048, "{}", std::fs::read_to_string(&rollup).unwrap());
        std::thread::sleep(Duration::from_millis(100));
    }
    for mut client in stalled {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    // Without a reader it flows again, into the log.
    std::thread::sleep(Duration::from_secs(1));
    let id = engine.inspect("yes", "{{.Id}}");
    let directory = engine.path(&format!("root/containers/{id}"));
    let logs: u64 = std::fs::read_dir(directory)
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("log"))
        .map(|e| e.metadata().unwrap().len())
        .sum();
    assert!((1 << 16..3 << 20).contains(&logs), "{logs}");
    assert!(kib(&rollup, "Private_Dirty:") < 2048);
}

#[test]
fn attaching_a_thousand_times_leaves_no_descriptor() {
    let engine = Engine::new();
    engine.idle("web", &["--network", "none"]);
    let monitor = engine.inspect("web", "{{.State.MonitorPid}}");
    let open = || std::fs::read_dir(format!("/proc/{monitor}/fd")).unwrap().count();
    let before = open();
    let id = engine.inspect("web", "{{.Id}}");
    let run_dir = engine.path(&format!("run/containers/{id}"));
    for n in 0..1000 {
        // Some greet and listen, some send garbage.
        let connection = brig_monitor::client::Connection::connect(&run_dir, u8::from(n % 2 == 0)).unwrap();
        if n % 3 == 0 {
            let _ = connection.send(brig_monitor::protocol::Kind::Exited, &[7; 100]);
        }
    }
    assert!(patiently(|| open() == before), "{} descriptors, {before} before", open());
    assert_eq!(engine.brig(&["exec", "web", "echo", "alive"]).ok(), "alive");
}

#[test]
fn a_monitor_that_stands_still_holds_up_nobody_who_only_looks() {
    let engine = Engine::new();
    engine.idle("web", &["--network", "none"]);
    let monitor = engine.inspect("web", "{{.State.MonitorPid}}");
    sh(&format!("kill -STOP {monitor}"));
    for look in [
        &["ps"][..],
        &["inspect", "web"],
        &["logs", "web"],
        &["top", "web"],
        &["exec", "web", "true"],
        &["diff", "web"],
        &["stats", "--no-stream"],
    ] {
        assert_eq!(engine.brig(look).status, 0, "{look:?}");
    }
    sh(&format!("kill -CONT {monitor}"));
}

#[test]
fn a_directory_deeper_than_any_path_is_removed() {
    let engine = Engine::new();
    let dig = r#"chdir "/tmp"; for (1 .. 5000) { mkdir "d"; chdir "d" or die } print "dug\n""#;
    assert_eq!(perl(&engine, &[], dig).ok(), "dug");
    assert_eq!(perl(&engine, &["-v", "/deep"], &dig.replace("/tmp", "/deep")).ok(), "dug");
}
