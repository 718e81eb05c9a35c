//! Killed at every step: the command line, the monitor, the container. Afterwards the truth is told, and all of it removed.
//!
//! Place: the machine itself, as root, with strace.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Stdio;
use support::{Engine, collect, patiently, sh};

/// What follows a fault: every command answers, the state is one that can be, and the container goes wholly.
#[track_caller]
fn the_truth_is_told_and_all_goes(engine: &Engine, name: &str, point: &str) {
    let list = engine.brig(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
    assert_eq!((list.status, list.stderr.as_str()), (0, ""), "{point}");
    if let Some(state) = list.stdout.lines().find_map(|l| l.strip_prefix(&format!("{name} "))) {
        assert!(["created", "running", "stopping", "exited"].contains(&state), "{point}: {state}");
        // A start that was under way goes on meanwhile: state and process as one answer tells them.
        let told = engine.brig(&["inspect", "-f", "{{.State.Status}} {{.State.Pid}}", name]).stdout;
        if let Some((state, pid)) = told.trim_end().split_once(' ') {
            assert_eq!(state == "running", pid != "0", "{point}");
            if state == "running" && Path::new(&format!("/proc/{pid}/root")).exists() {
                let exec = engine.brig(&["exec", name, "echo", "hi"]);
                assert!(exec.stdout == "hi\n" || exec.stderr.contains("not running"), "{point}: {exec:?}");
            }
        }
    }
    let removed = engine.brig(&["rm", "-f", "-v", name]);
    assert_eq!((removed.status, removed.stderr.as_str()), (0, ""), "{point}");
    let mut left = Vec::new();
    let clean = patiently(|| {
        left = engine.remains();
        left.retain(|l| !(l.starts_with("link ") && l.contains(": brigx")));
        left.is_empty()
    });
    assert!(clean, "{point}: {left:#?}");
    // The name is free again.
    engine.sh(&["--name", name], "true").ok();
}

/// Kills `brig` and, with `-f`, whichever process of it comes first to its nth call; returns the points that were reached.
fn kill_at_calls(follow: bool, calls: &[&str], counts: &[u32]) -> usize {
    let engine = Engine::new();
    let mut tried = 0;
    for call in calls {
        for count in counts {
            let inject = format!("inject={call}:signal=KILL:when={count}");
            let trace = format!("trace={call}");
            let log = engine.text("strace");
            let mut words = vec!["-qq", "-o", &log, "-e", &trace, "-e", &inject];
            if follow {
                words.insert(0, "-f");
            }
            let program = env!("CARGO_BIN_EXE_brig");
            // strace stays until all that it follows has ended.
            let seconds = if follow { "0.2" } else { "1000" };
            let run = ["run", "-d", "--name", "web", "-v", "/data", "-p", "8080:80", "busybox", "sleep", seconds];
            words.push(program);
            words.extend(run);
            let mut command = engine.prepare(Path::new("/usr/bin/strace"), &words);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let output = collect(child, &words);
            let killed = std::fs::read_to_string(engine.path("strace")).unwrap().contains("killed by SIGKILL");
            tried += usize::from(killed);
            the_truth_is_told_and_all_goes(&engine, "web", &format!("{call} {count}: {output:?}"));
        }
    }
    tried
}

#[test]
fn the_command_line_killed_at_its_calls() {
    let tried = kill_at_calls(
        false,
        &[
            "openat",
            "mkdirat,mkdir",
            "renameat,renameat2,rename",
            "flock",
            "symlinkat,symlink",
            "sendmsg,sendto",
            "recvmsg,recvfrom",
            "write",
        ],
        &[1, 2, 3, 4, 5, 7, 9],
    );
    println!("{tried} points tried");
    assert!(tried >= 15, "{tried} points reached");
}

#[test]
fn the_monitor_and_the_child_killed_at_their_calls() {
    let calls =
        ["openat2", "move_mount", "clone3", "mount_setattr", "sendmsg", "recvmsg", "fsconfig", "unlink", "renameat"];
    let tried = kill_at_calls(true, &calls, &[1, 3, 4, 9]);
    println!("{tried} points tried");
    assert!(tried >= 15, "{tried} points reached");
}

#[test]
fn monitor_container_and_command_line_killed_while_it_runs() {
    let engine = Engine::new();
    let mut points = 0;
    for victim in ["monitor", "container", "both"] {
        for delay in [0, 5, 20, 100, 400] {
            let name = format!("{victim}-{delay}");
            engine.idle(&name, &["-p", "8080:80", "-v", "/data"]);
            std::thread::sleep(std::time::Duration::from_millis(delay));
            let pids = engine.inspect(&name, "{{.State.MonitorPid}} {{.State.Pid}}");
            let (monitor, container) = pids.split_once(' ').unwrap();
            let line = match victim {
                "monitor" => format!("kill -9 {monitor}"),
                "container" => format!("kill -9 {container}"),
                _ => format!("kill -9 {monitor} {container}"),
            };
            sh(&line);
            match victim {
                // The container goes on, and the next commands reach it again.
                "monitor" => {
                    assert_eq!(engine.inspect(&name, "{{.State.Status}}"), "running");
                    assert_eq!(engine.brig(&["exec", &name, "echo", "hi"]).ok(), "hi");
                    if delay == 20 {
                        engine.brig(&["stop", "-t", "0", &name]).ok();
                        let state = engine.inspect(&name, "{{.State.Status}} {{.State.ExitCodeKnown}}");
                        assert!(state.starts_with("exited"), "{state}");
                    }
                }
                "container" => {
                    engine.until(&name, "{{.State.Status}} {{.State.ExitCode}}", "exited 137");
                }
                // Nobody can know any more how it ended, and nobody claims to.
                _ => {
                    engine.until(&name, "{{.State.Status}} {{.State.ExitCodeKnown}}", "exited false");
                    assert!(engine.brig(&["ps", "-a"]).ok().contains("Exited (unknown)"));
                    engine.brig(&["start", &name]).ok();
                    assert_eq!(engine.inspect(&name, "{{.State.Status}}"), "running", "and it can be started again");
                }
            }
            points += 1;
            the_truth_is_told_and_all_goes(&engine, &name, &name);
        }
    }
    println!("{points} points tried");
}

#[test]
fn a_killed_foreground_session_leaves_the_container_to_itself() {
    let engine = Engine::new();
    let mut points = 0;
    for delay in [0, 2, 4, 6, 8, 10, 12, 15, 20, 25, 30, 40, 60, 100] {
        let mut child = engine.spawn(&["run", "--rm", "--name", "web", "busybox", "sh", "-c", "echo up; sleep 1000"]);
        std::thread::sleep(std::time::Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        points += 1;
        the_truth_is_told_and_all_goes(&engine, "web", &format!("after {delay} ms"));
    }
    println!("{points} points tried");
}

#[test]
fn a_stop_and_a_removal_killed_on_the_way() {
    let engine = Engine::new();
    let mut points = 0;
    for command in ["stop", "rm"] {
        for delay in [0, 1, 2, 3, 4, 6, 8, 12, 20] {
            engine.idle("web", &["-v", "/data", "-p", "8080:80"]);
            let flags: &[&str] =
                if command == "stop" { &["stop", "-t", "0", "web"] } else { &["rm", "-f", "-v", "web"] };
            let mut child = engine.spawn(flags);
            std::thread::sleep(std::time::Duration::from_millis(delay));
            child.kill().unwrap();
            child.wait().unwrap();
            // A container that was killed is not over at once.
            patiently(|| {
                let state = engine.brig(&["inspect", "-f", "{{.State.Status}}", "web"]);
                state.status != 0 || state.stdout != "stopping\n"
            });
            points += 1;
            the_truth_is_told_and_all_goes(&engine, "web", &format!("{command} after {delay} ms"));
        }
    }
    println!("{points} points tried");
}

#[test]
fn a_monitor_that_is_stopped_is_named() {
    let engine = Engine::new();
    engine.idle("web", &["--stop-signal", "KILL"]);
    let monitor = engine.inspect("web", "{{.State.MonitorPid}}");
    let refused = |verb: &str, name: &str| {
        format!(
            "error: cannot {verb} container `{name}`\n  because: its monitor, process {monitor}, is stopped by a signal or a \
             debugger\nhint: let it go on with `kill -CONT {monitor}`, then try again\n"
        )
    };
    let halt = |monitor: &str| {
        sh(&format!("kill -STOP {monitor}"));
        let stat = || std::fs::read_to_string(format!("/proc/{monitor}/stat")).unwrap();
        assert!(patiently(|| stat().rsplit(')').next().unwrap().starts_with(" T")));
    };
    halt(&monitor);
    engine.brig(&["stop", "web"]).fails(1, &refused("stop", "web"));
    engine.brig(&["rm", "-f", "web"]).fails(1, &refused("remove", "web"));
    assert_eq!(engine.inspect("web", "{{.State.Status}}"), "running", "nothing was done to it");
    // Stopped on the way: its container has ended, and it cannot tell.
    let pid = engine.inspect("web", "{{.State.Pid}}");
    sh(&format!("kill -9 {pid}"));
    engine.brig(&["stop", "web"]).fails(1, &refused("stop", "web"));
    engine.brig(&["rm", "-f", "web"]).fails(1, &refused("remove", "web"));
    sh(&format!("kill -CONT {monitor}"));
    engine.until("web", "{{.State.Status}} {{.State.ExitCode}}", "exited 137");
    engine.idle("late", &["--stop-timeout", "1000"]);
    let monitor = engine.inspect("late", "{{.State.MonitorPid}}");
    let stopping = engine.spawn(&["stop", "late"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    halt(&monitor);
    let output = collect(stopping, &["stop"]);
    assert!(output.status == 1 && output.stderr.contains(&format!("process {monitor}, is stopped")), "{output:?}");
    sh(&format!("kill -CONT {monitor}"));
    engine.brig(&["stop", "-t", "0", "late"]).ok();
}

#[test]
fn twenty_at_once() {
    let engine = Engine::new();
    let children: Vec<_> = (0..20)
        .map(|number| {
            engine.spawn(&["run", "--rm", "busybox", "sh", "-c", &format!("echo {number}; ip -o -4 addr show eth0")])
        })
        .collect();
    let mut addresses = std::collections::BTreeSet::new();
    for (number, child) in children.into_iter().enumerate() {
        let text = collect(child, &["run"]).ok();
        assert_eq!(text.lines().next(), Some(number.to_string().as_str()));
        addresses.insert(text.split_whitespace().find(|w| w.starts_with("10.")).unwrap().to_owned());
    }
    // One name, many takers: exactly one gets it.
    let children: Vec<_> = (0..8).map(|_| engine.spawn(&["create", "--name", "web", "busybox"])).collect();
    let statuses: Vec<i32> = children.into_iter().map(|child| collect(child, &["create"]).status).collect();
    assert_eq!(statuses.iter().filter(|s| **s == 0).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|s| [0, 125].contains(s)), "{statuses:?}");
    // One container, many starters and removers: no one waits for ever, and it is gone at the end.
    let children: Vec<_> =
        (0..4).flat_map(|_| [engine.spawn(&["start", "web"]), engine.spawn(&["rm", "-f", "web"])]).collect();
    for child in children {
        collect(child, &["start or rm"]);
    }
    assert_eq!(engine.brig(&["ps", "-aq"]).ok(), "");
}
