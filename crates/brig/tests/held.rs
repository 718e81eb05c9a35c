//! A pause that a verb needs for itself ends with its process, however that ends; a person's pause stays.
//!
//! Place: the machine itself, as root.

#![allow(clippy::unwrap_used)] // tests

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::process::Child;
use support::{Engine, collect, patiently};

/// A container with so much in its writable layer that a commit takes some time.
fn busy(engine: &Engine, name: &str) {
    engine.idle(name, &[]);
    engine.brig(&["exec", name, "sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=128 2> /dev/null"]).ok();
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

/// The pid of a container's monitor.
fn monitor(engine: &Engine, name: &str) -> i32 {
    let state = engine.path(&format!("run/containers/{}/state", engine.inspect(name, "{{.Id}}")));
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
    i32::try_from(state["monitor"]["pid"].as_i64().unwrap()).unwrap()
}

/// Begins a commit, and stops it in the middle: its container is held.
fn commit_halfway(engine: &Engine, name: &str) -> Child {
    let id = engine.inspect(name, "{{.Id}}");
    let held = engine.path(&format!("run/containers/{id}/held"));
    for _ in 0..50 {
        let mut commit = engine.spawn(&["commit", name, "made"]);
        while commit.try_wait().unwrap().is_none() {
            if held.exists() {
                signal(pid(&commit), Signal::STOP);
                if held.exists() && engine.inspect(name, "{{.State.Status}}") == "paused" {
                    return commit;
                }
                signal(pid(&commit), Signal::CONT);
            }
        }
        assert!(commit.wait().unwrap().success());
    }
    panic!("no commit was met while it held its container");
}

#[test]
fn a_killed_commit_lets_its_container_go() {
    let engine = Engine::new();
    busy(&engine, "busy");
    let mut commit = commit_halfway(&engine, "busy");
    signal(pid(&commit), Signal::KILL);
    commit.wait().unwrap();
    engine.until("busy", "{{.State.Status}}", "running");
    engine.brig(&["exec", "busy", "true"]).ok();
    let id = engine.inspect("busy", "{{.Id}}");
    let left = engine.names(&format!("run/containers/{id}"));
    assert!(!left.iter().any(|name| name.starts_with("held")), "{left:?}");
    // The next one has nothing to complain about.
    engine.brig(&["commit", "busy", "made"]).ok();
    engine.until("busy", "{{.State.Status}}", "running");
    engine.clear();
}

#[test]
fn a_commit_and_its_monitor_killed_leave_a_container_that_goes_on_with_the_next_monitor() {
    let engine = Engine::new();
    busy(&engine, "busy");
    let mut commit = commit_halfway(&engine, "busy");
    signal(monitor(&engine, "busy"), Signal::KILL);
    signal(pid(&commit), Signal::KILL);
    commit.wait().unwrap();
    let waiting = engine.spawn(&["wait", "busy"]);
    engine.until("busy", "{{.State.Status}}", "running");
    engine.brig(&["rm", "-f", "busy"]).ok();
    collect(waiting, &["wait"]);
    // Only the monitor killed: the commit itself lets go.
    busy(&engine, "other");
    let commit = commit_halfway(&engine, "other");
    signal(monitor(&engine, "other"), Signal::KILL);
    signal(pid(&commit), Signal::CONT);
    collect(commit, &["commit"]).ok();
    engine.until("other", "{{.State.Status}}", "running");
    engine.clear();
}

#[test]
fn a_persons_pause_is_a_persons() {
    let engine = Engine::new();
    busy(&engine, "busy");
    // Before: it stays.
    engine.brig(&["pause", "busy"]).ok();
    engine.brig(&["commit", "busy", "made"]).ok();
    assert_eq!(engine.inspect("busy", "{{.State.Status}}"), "paused");
    let refused = engine.brig(&["pause", "busy"]);
    assert_eq!(refused.status, 1, "{}", refused.stderr);
    engine.brig(&["unpause", "busy"]).ok();
    // Meanwhile: it stays when the commit ends, by itself or not.
    for killed in [false, true] {
        let mut commit = commit_halfway(&engine, "busy");
        engine.brig(&["pause", "busy"]).ok();
        signal(pid(&commit), if killed { Signal::KILL } else { Signal::CONT });
        assert_eq!(commit.wait().unwrap().success(), !killed);
        // The monitor has heard of it when it answers the next one.
        let next = engine.spawn(&["attach", "--no-stdin", "busy"]);
        assert_eq!(engine.inspect("busy", "{{.State.Status}}"), "paused");
        engine.brig(&["unpause", "busy"]).ok();
        assert!(patiently(|| engine.inspect("busy", "{{.State.Status}}") == "running"));
        signal(pid(&next), Signal::KILL);
        collect(next, &["attach"]);
    }
    // A person's word ends it too, and the commit's end is no second one.
    let commit = commit_halfway(&engine, "busy");
    engine.brig(&["unpause", "busy"]).ok();
    assert_eq!(engine.inspect("busy", "{{.State.Status}}"), "running");
    engine.brig(&["pause", "busy"]).ok();
    signal(pid(&commit), Signal::CONT);
    collect(commit, &["commit"]).ok();
    assert_eq!(engine.inspect("busy", "{{.State.Status}}"), "paused");
    engine.brig(&["unpause", "busy"]).ok();
    engine.clear();
}

#[test]
fn a_container_that_ends_while_it_is_held_starts_anew() {
    let engine = Engine::new();
    busy(&engine, "busy");
    let commit = commit_halfway(&engine, "busy");
    engine.brig(&["kill", "busy"]).ok();
    engine.until("busy", "{{.State.Status}}", "exited");
    signal(pid(&commit), Signal::CONT);
    collect(commit, &["commit"]).ok();
    engine.brig(&["start", "busy"]).ok();
    assert_eq!(engine.inspect("busy", "{{.State.Status}}"), "running");
    engine.clear();
}
