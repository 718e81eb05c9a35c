//! `checkpoint` and `restore` with the real criu.
//!
//! Place: a machine whose kernel and criu know each other, as root: `tools/criu-tests`. There `BRIG_TEST_PLACE=criu` is set,
//! `CRIU` names the program, and every test does its work. Elsewhere each of these tests asserts instead that the program
//! says what it lacks and leaves the container as it is.

#![allow(clippy::unwrap_used)] // helpers of tests may panic, as tests do

#[path = "checkpoint/attacks.rs"]
mod attacks;
#[path = "checkpoint/bundle.rs"]
mod bundle;
#[path = "checkpoint/machine.rs"]
mod machine;
#[path = "checkpoint/options.rs"]
mod options;

use bundle::{Bundle, criu};
use std::io::Read;

/// Says whether this is the place of these tests. Elsewhere a container cannot be written down, and goes on.
fn here() -> bool {
    if criu().is_some() {
        return true;
    }
    let bundle = Bundle::new();
    let mut ends = bundle.run();
    bundle.call(&["--criu", "/no/criu", "checkpoint", &bundle.name]).fails("checkpoints need the program criu");
    assert_eq!((ends.ask("a"), &bundle.state()["status"]), ("1:a".into(), &"running".into()));
    false
}

#[test]
fn a_container_goes_on_where_it_was() {
    if !here() {
        return;
    }
    let bundle = Bundle::new();
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    for round in 0..2 {
        bundle.checkpoint();
        assert!(bundle.remains().is_empty(), "{:?}", bundle.remains());
        bundle.call(&["state", &bundle.name]).fails("does not exist");
        ends = bundle.restore();
        assert_eq!(ends.ask("b"), format!("{}:b", round * 2 + 2));
        let state = bundle.state();
        assert_eq!((&state["status"], &state["id"]), (&"running".into(), &bundle.name.clone().into()));
        assert_eq!(bundle.call(&["exec", &bundle.name, "echo", "inside"]).ok(), "inside\n");
        bundle.call(&["pause", &bundle.name]).ok();
        assert_eq!(bundle.state()["status"], "paused");
        bundle.call(&["resume", &bundle.name]).ok();
        assert_eq!(ends.ask("c"), format!("{}:c", round * 2 + 3));
    }
    bundle.call(&["kill", &bundle.name, "KILL"]).ok();
    // Its end closes the pipe.
    ends.output.read_to_string(&mut String::new()).unwrap();
    bundle.call(&["delete", "-f", &bundle.name]).ok();
    assert!(bundle.remains().is_empty(), "{:?}", bundle.remains());
}

#[test]
fn a_container_may_be_left_running() {
    if !here() {
        return;
    }
    let bundle = Bundle::new();
    let mut ends = bundle.run();
    bundle.call(&["checkpoint", "--leave-running", "--image-path", "images", &bundle.name]).ok();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.call(&["restore", "-d", "--image-path", "images", &bundle.name]).fails("already exists");
    assert_eq!(ends.ask("b"), "2:b");
}

#[test]
fn what_was_executed_in_it_is_restored_too() {
    if !here() {
        return;
    }
    let bundle = Bundle::new();
    let _ends = bundle.run();
    let script = "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!";
    let pid = bundle.call(&["exec", &bundle.name, "sh", "-c", script]).ok();
    bundle.checkpoint();
    let _ends = bundle.restore();
    let found = bundle.call(&["exec", &bundle.name, "cat", &format!("/proc/{}/cmdline", pid.trim())]).ok();
    assert_eq!(found, "sleep\x001000\0");
}

#[test]
fn in_the_foreground_the_exit_status_is_the_containers() {
    if !here() {
        return;
    }
    let bundle = Bundle::new();
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.checkpoint();
    let (mut ends, mut restore) = bundle.piped_child(&["restore", "--image-path", "images", &bundle.name]);
    assert_eq!(ends.ask("b"), "2:b");
    assert_eq!(bundle.state()["status"], "running");
    drop(ends.input);
    assert_eq!(restore.wait().unwrap().code(), Some(7));
    assert!(bundle.remains().is_empty(), "{:?}", bundle.remains());
}

#[test]
fn a_paused_container_is_restored() {
    if !here() {
        return;
    }
    let bundle = Bundle::new();
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.call(&["pause", &bundle.name]).ok();
    bundle.checkpoint();
    assert!(bundle.remains().is_empty(), "{:?}", bundle.remains());
    let mut ends = bundle.restore();
    assert_eq!(ends.ask("b"), "2:b");
}

#[test]
fn a_terminal_is_handed_to_its_socket_again() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.spec["process"]["terminal"] = true.into();
    let listener = bundle.console();
    bundle.call(&["run", "-d", "--console-socket", "console", &bundle.name]).ok();
    let mut console = machine::receive(&listener);
    assert_eq!(machine::ask(&mut console, "a"), "1:a");
    bundle.checkpoint();
    drop(console);
    let words = ["restore", "-d", "--image-path", "images", "--console-socket", "console", "--pid-file", "pid"];
    bundle.call(&[&words[..], &[&bundle.name]].concat()).ok();
    let mut console = machine::receive(&listener);
    assert_eq!(machine::ask(&mut console, "b"), "2:b");
    assert_eq!(std::fs::read_to_string(bundle.path("pid")).unwrap(), bundle.pid().to_string());
    bundle.call(&["restore", "-d", "--image-path", "images", "other"]).fails("console socket");
}

#[test]
fn without_images_nothing_is_left_behind() {
    if !here() {
        return;
    }
    let bundle = Bundle::new();
    bundle.call(&["restore", "-d", "--image-path", "none", &bundle.name]).fails("No such file");
    assert!(bundle.remains().is_empty(), "{:?}", bundle.remains());
    std::fs::create_dir(bundle.path("empty")).unwrap();
    let done = bundle.call(&["restore", "-d", "--image-path", "empty", &bundle.name]);
    assert!(done.stderr.contains("inventory.img") && done.stderr.contains("restore.log"), "{}", done.stderr);
    done.fails("criu failed");
    assert!(bundle.remains().is_empty(), "{:?}", bundle.remains());
}
