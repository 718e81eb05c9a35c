//! Talking to containers: terminals, input, signals, execs, attaching, monitors that die.

#![allow(clippy::unwrap_used)] // helpers of tests may panic, as tests do

mod support;

use brig_monitor::client::{Connection, Event, Exited};
use brig_monitor::plan::{ExecPlan, FORMAT, Restart};
use brig_monitor::protocol::{HELLO_OUTPUT, HELLO_STDIN, HELLO_WAIT, Kind};
use brig_monitor::spawn::{Job, spawn};
use brig_monitor::state::{Exit, State};
use serde_json::json;
use std::os::fd::AsFd;
use support::{Output, Scratch, collect, program};

/// Reads until the output holds `text`, at most ten seconds long.
fn wait_for(connection: &mut Connection, text: &str) -> String {
    let mut seen = String::new();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !seen.contains(text) {
        assert!(std::time::Instant::now() < end, "`{text}` did not come: {seen}");
        let timeout = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
        let fd = connection.as_fd().try_clone_to_owned().unwrap();
        if rustix::event::poll(&mut [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)], Some(&timeout))
            .unwrap()
            == 0
        {
            continue;
        }
        match connection.receive().unwrap() {
            Some(Event::Stdout(bytes) | Event::Stderr(bytes)) => seen.push_str(&String::from_utf8_lossy(bytes)),
            Some(Event::Started(_)) => seen.push_str("<started>"),
            Some(other) => panic!("{other:?} after {seen}"),
            None => panic!("the monitor is gone after {seen}"),
        }
    }
    seen
}

fn exec(scratch: &Scratch, process: serde_json::Value, stdin: bool, flags: u8) -> Connection {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let exec_id = format!("e{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let exec_dir = scratch.path("r/exec").join(&exec_id);
    std::fs::create_dir_all(&exec_dir).unwrap();
    let plan = ExecPlan {
        format: FORMAT,
        exec_id,
        id: scratch.id.clone(),
        run_dir: scratch.path("r"),
        exec_dir: exec_dir.clone(),
        process: serde_json::from_value(process).unwrap(),
        stdin,
        container_dir: scratch.path("c"),
        keep: false,
    };
    std::fs::write(exec_dir.join("plan"), serde_json::to_vec(&plan).unwrap()).unwrap();
    spawn(&program(), Job::Exec, &exec_dir, flags).unwrap()
}

fn process(args: &[&str]) -> serde_json::Value {
    json!({"user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/tmp", "noNewPrivileges": true})
}

#[test]
fn a_terminal_has_a_size_and_the_interrupt_key() {
    let scratch = Scratch::new();
    // A shell may miss a signal that comes right before it waits for a line; between short sleeps it misses none.
    let script = "trap 'echo caught; exit 3' INT; stty size; read line; stty size; while :; do sleep 0.1; done";
    let mut spec = scratch.spec(&["sh", "-c", script]);
    spec["process"]["terminal"] = true.into();
    spec["process"]["consoleSize"] = json!({"height": 33, "width": 111});
    let plan = scratch.plan(spec);
    let mut connection = scratch.start(&plan, HELLO_OUTPUT | HELLO_STDIN);
    wait_for(&mut connection, "33 111");
    connection.resize(44, 122).unwrap();
    connection.send(Kind::Stdin, b"\n").unwrap();
    wait_for(&mut connection, "44 122");
    connection.send(Kind::Stdin, b"\x03").unwrap();
    let output = collect(&mut connection);
    assert!(output.stdout.contains("caught"), "{output:?}");
    assert_eq!(output.exited, Some(Exited { status: Some(3), oom_killed: false }));
}

#[test]
fn the_terminal_is_the_console_and_belongs_to_the_user() {
    let scratch = Scratch::new();
    let mut spec =
        scratch.spec(&["sh", "-c", "echo hello > /dev/console; echo again > /dev/tty; ls -l /dev/console | head -1"]);
    spec["process"]["terminal"] = true.into();
    spec["process"]["user"] = json!({"uid": 33, "gid": 33});
    spec["process"]["args"] =
        json!(["sh", "-c", "echo hello > /dev/console; echo again > /dev/tty; exec ls -ln /dev/console"]);
    let output = scratch.run(&scratch.plan(spec));
    assert!(output.stdout.contains("hello") && output.stdout.contains("again"), "{output:?}");
    assert!(output.stdout.contains(" 33 "), "{output:?}");
}

#[test]
fn input_reaches_the_end_and_output_of_a_closed_reader_does_not_stick() {
    let scratch = Scratch::new();
    let mut plan = scratch.plan(scratch.spec(&["wc", "-c"]));
    plan.stdin = true;
    let mut connection = scratch.start(&plan, HELLO_OUTPUT | HELLO_STDIN);
    for _ in 0..100 {
        connection.send(Kind::Stdin, &vec![b'x'; 32 * 1024]).unwrap();
    }
    connection.send(Kind::StdinEnd, &[]).unwrap();
    assert_eq!(collect(&mut connection).stdout.trim(), (100 * 32 * 1024).to_string());
}

#[test]
fn a_client_may_leave_and_another_come() {
    let scratch = Scratch::new();
    let mut plan = scratch.plan(scratch.spec(&["cat"]));
    plan.stdin = true;
    let mut first = scratch.start(&plan, HELLO_OUTPUT | HELLO_STDIN);
    first.send(Kind::Stdin, b"one\n").unwrap();
    wait_for(&mut first, "one");
    drop(first);
    let mut second = Connection::connect(&scratch.path("r"), HELLO_OUTPUT | HELLO_STDIN).unwrap();
    second.send(Kind::Stdin, b"two\n").unwrap();
    wait_for(&mut second, "two");
    let mut watcher = Connection::connect(&scratch.path("r"), HELLO_OUTPUT).unwrap();
    // Its greeting is taken before what comes next, since the monitor serves clients in turn.
    watcher.send(Kind::Stdin, b"not allowed\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    second.send(Kind::Stdin, b"three\n").unwrap();
    assert!(!wait_for(&mut watcher, "three").contains("not allowed"));
    second.send(Kind::StdinEnd, &[]).unwrap();
    assert_eq!(collect(&mut second).exited, Some(Exited { status: Some(0), oom_killed: false }));
    assert_eq!(collect(&mut watcher).exited, Some(Exited { status: Some(0), oom_killed: false }));
}

#[test]
fn an_exec_joins_everything_and_its_end_is_its_own() {
    let scratch = Scratch::new();
    let mut main = scratch.start(&scratch.plan(scratch.spec(&["sleep", "1000"])), HELLO_OUTPUT);
    wait_for(&mut main, "<started>");
    let script = "hostname; readlink /proc/self/cwd; cat /proc/self/cgroup | wc -l; ls /proc | grep -c '^[0-9]'; id -u; echo e >&2; exit 9";
    let output = collect(&mut exec(&scratch, process(&["sh", "-c", script]), false, HELLO_OUTPUT));
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[..2], ["study", "/tmp"], "{output:?}");
    assert_eq!((lines[4], output.stderr.as_str()), ("0", "e\n"));
    assert_eq!(output.exited.unwrap().status, Some(9));
    for name in ["ns/pid", "ns/net", "ns/mnt", "ns/uts", "ns/ipc", "ns/cgroup"] {
        let path = format!("/proc/1/{name}");
        let own = format!("/proc/self/{name}");
        // To look at another process's namespaces one needs no fewer capabilities than it has.
        let mut reader = process(&["sh", "-c", &format!("readlink {path}; readlink {own}")]);
        reader["capabilities"] = scratch.spec(&[])["process"]["capabilities"].clone();
        let both = collect(&mut exec(&scratch, reader, false, HELLO_OUTPUT));
        let lines: Vec<&str> = both.stdout.lines().collect();
        assert!(lines.len() == 2 && lines[0] == lines[1], "{name}: {both:?}");
    }
    let missing = collect(&mut exec(&scratch, process(&["none"]), false, HELLO_OUTPUT));
    assert_eq!(missing.failed.unwrap().0, 127);
    assert_eq!(std::fs::read_dir(scratch.path("r/exec")).unwrap().count(), 0);
    main.send(Kind::Signal, &[9]).unwrap();
    assert_eq!(collect(&mut main).exited.unwrap().status, Some(137));
}

#[test]
fn an_exec_has_a_terminal_and_input_of_its_own() {
    let scratch = Scratch::new();
    let mut main = scratch.start(&scratch.plan(scratch.spec(&["sleep", "1000"])), HELLO_OUTPUT);
    wait_for(&mut main, "<started>");
    let mut p = process(&["sh", "-c", "stty size; read x; echo got $x"]);
    p["terminal"] = true.into();
    p["consoleSize"] = json!({"height": 12, "width": 34});
    let mut connection = exec(&scratch, p, true, HELLO_OUTPUT | HELLO_STDIN);
    wait_for(&mut connection, "12 34");
    connection.send(Kind::Stdin, b"word\n").unwrap();
    assert!(collect(&mut connection).stdout.contains("got word"));
    let mut connection = exec(&scratch, process(&["wc", "-c"]), true, HELLO_OUTPUT | HELLO_STDIN);
    connection.send(Kind::Stdin, b"12345").unwrap();
    connection.send(Kind::StdinEnd, &[]).unwrap();
    assert_eq!(collect(&mut connection).stdout.trim(), "5");
    main.send(Kind::Signal, &[9]).unwrap();
    collect(&mut main);
}

#[test]
fn the_file_of_an_exec_cannot_be_written_from_inside() {
    // The attack of CVE-2019-5736: a process inside opens /proc/PID/exe of whoever enters, and waits until it may write.
    let scratch = Scratch::new();
    let mut spec = scratch.spec(&[
        "sh",
        "-c",
        "echo ready; while :; do for p in /proc/[0-9]*; do echo x >> $p/exe && echo WRITTEN $p; done 2>/dev/null; done",
    ]);
    spec["process"]["capabilities"] = json!({
        "bounding": ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"], "effective": ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"], "permitted": ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]
    });
    // The image's own busybox must not be what is written.
    let before = std::fs::metadata(program()).unwrap();
    let plan = scratch.plan(spec);
    let mut main = scratch.start(&plan, HELLO_OUTPUT);
    wait_for(&mut main, "ready");
    for _ in 0..50 {
        collect(&mut exec(&scratch, process(&["/proc/self/exe"]), false, HELLO_OUTPUT));
    }
    let after = std::fs::metadata(program()).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((before.len(), before.mtime_nsec()), (after.len(), after.mtime_nsec()));
    main.send(Kind::Signal, &[9]).unwrap();
    collect(&mut main);
}

#[test]
fn a_container_survives_its_monitor_and_is_taken_over() {
    let scratch = Scratch::new();
    let mut plan =
        scratch.plan(scratch.spec(&["sh", "-c", "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.05; done"]));
    plan.stdin = true;
    let mut main = scratch.start(&plan, HELLO_OUTPUT);
    wait_for(&mut main, "line 2");
    let state = State::read(&scratch.path("r")).unwrap();
    let monitor = rustix::process::Pid::from_raw(state.monitor.pid).unwrap();
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
    collect(&mut main);
    assert!(state.is_running(), "the container died with its monitor");
    assert!(!brig_monitor::run::is_monitored(&scratch.path("r")));
    let mut adopted = spawn(&program(), Job::Adopt, &scratch.path("c"), HELLO_OUTPUT).unwrap();
    wait_for(&mut adopted, "line");
    assert!(brig_monitor::run::is_monitored(&scratch.path("r")));
    // A second one is turned away.
    let refused = collect(&mut spawn(&program(), Job::Adopt, &scratch.path("c"), 0).unwrap());
    assert!(refused.failed.unwrap().1.contains("another monitor"));
    let init = rustix::process::Pid::from_raw(state.init.unwrap().pid).unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
    let output = collect(&mut adopted);
    assert_eq!(output.exited, Some(Exited { status: None, oom_killed: false }), "an unknown status is not made up");
    assert_eq!(Exit::read(&scratch.path("c")).unwrap().code, None);
    assert!(std::fs::read_to_string(scratch.path("c/log")).unwrap().contains("the monitor was lost"));
    assert!(scratch.cgroups().is_empty());
}

#[test]
fn a_container_is_held_for_as_long_as_somebody_holds_it() {
    let scratch = Scratch::new();
    let plan = scratch.plan(scratch.spec(&["sleep", "1000"]));
    let mut main = scratch.start(&plan, 0);
    wait_for(&mut main, "<started>");
    assert_eq!(State::read(&scratch.path("r")).unwrap().speaks, brig_monitor::protocol::VERSION);
    let cgroup = brig_runtime::cgroup::Cgroup::open(plan.cgroup().unwrap()).unwrap();
    let connect = || Connection::connect(&scratch.path("r"), HELLO_WAIT).unwrap();
    let becomes = |frozen: bool| {
        for _ in 0..1000 {
            if cgroup.is_frozen() == frozen {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("frozen is not {frozen}");
    };
    // Let go by word, and by going; of two the last one counts.
    let (mut first, mut second) = (connect(), connect());
    assert!(first.pause(true).unwrap() && cgroup.is_frozen());
    assert!(first.pause(false).unwrap() && !cgroup.is_frozen());
    assert!(first.pause(true).unwrap() && first.pause(true).unwrap() && second.pause(true).unwrap());
    drop(first);
    assert!(second.pause(true).unwrap() && cgroup.is_frozen());
    drop(second);
    becomes(false);
    // Paused by somebody else: not held, and not let go.
    cgroup.freeze().unwrap();
    let mut third = connect();
    assert!(!third.pause(true).unwrap());
    assert!(third.pause(false).unwrap() && cgroup.is_frozen());
    drop(third);
    cgroup.thaw().unwrap();
    // A person who pauses it meanwhile has it stay so.
    let mut fourth = connect();
    assert!(fourth.pause(true).unwrap());
    assert!(brig_monitor::hold::keep(&scratch.path("r")) && !brig_monitor::hold::keep(&scratch.path("r")));
    assert!(fourth.pause(false).unwrap() && cgroup.is_frozen());
    cgroup.thaw().unwrap();
    // Whoever takes over from a lost monitor ends what that one held.
    assert!(fourth.pause(true).unwrap());
    let monitor = State::read(&scratch.path("r")).unwrap().monitor.pid;
    let monitor = rustix::process::Pid::from_raw(monitor).unwrap();
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
    assert!(fourth.pause(true).is_err() && cgroup.is_frozen());
    collect(&mut main);
    let mut adopted = spawn(&program(), Job::Adopt, &scratch.path("c"), 0).unwrap();
    wait_for(&mut adopted, "<started>");
    assert!(!cgroup.is_frozen());
    adopted.send(Kind::Signal, &[9]).unwrap();
    collect(&mut adopted);
    let left: Vec<_> = std::fs::read_dir(scratch.path("r")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("held")), "{left:?}");
}

#[test]
fn a_restart_policy_starts_it_again_and_a_stop_ends_that() {
    let scratch = Scratch::new();
    let mut plan = scratch.plan(scratch.spec(&["sh", "-c", "echo run >> /tmp/runs; exit 1"]));
    plan.restart = Restart::OnFailure(2);
    let output = scratch.run(&plan);
    assert_eq!(output.exited.unwrap().status, Some(1));
    assert_eq!(std::fs::read_to_string(scratch.path("c/upper/tmp/runs")).unwrap().lines().count(), 3);

    let scratch = Scratch::new();
    let mut plan = scratch.plan(scratch.spec(&["sh", "-c", "echo up; sleep 1000"]));
    plan.restart = Restart::Always;
    let mut main = scratch.start(&plan, HELLO_OUTPUT);
    wait_for(&mut main, "up");
    main.send(Kind::Signal, &[9]).unwrap();
    wait_for(&mut main, "up");
    main.send(Kind::Stopping, &[]).unwrap();
    main.send(Kind::Signal, &[9]).unwrap();
    assert_eq!(collect(&mut main).exited.unwrap().status, Some(137));
    assert!(Exit::read(&scratch.path("c")).unwrap().stopped);
}

#[test]
fn removal_takes_all_of_it() {
    let scratch = Scratch::new();
    let mut plan = scratch.plan(scratch.spec(&["true"]));
    plan.remove = true;
    plan.undo.push(brig_monitor::plan::Undo::Directory(scratch.path("c")));
    assert_eq!(
        scratch.run(&plan),
        Output { exited: Some(Exited { status: Some(0), oom_killed: false }), ..Output::default() }
    );
    assert!(!scratch.path("c").exists() && !scratch.path("r").exists());
    assert!(scratch.cgroups().is_empty());
}
