//! The life of containers through the command line: run, create, start, stop, logs, exec and the others.
//!
//! Place: the machine itself, as root.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Engine, collect, patiently};

#[test]
fn exit_statuses_are_the_programs_own_or_dockers() {
    let engine = Engine::new();
    for (script, status) in [("exit 0", 0), ("exit 3", 3), ("exit 255", 255)] {
        assert_eq!(engine.sh(&[], script).status, status, "{script}");
    }
    // A signal that the first process of a pid namespace does not handle is ignored; its child dies of it.
    assert_eq!(engine.sh(&["--init"], "kill -TERM $$").status, 143);
    assert_eq!(engine.sh(&["--init"], "kill -9 $$").status, 137);
    engine.brig(&["run", "--rm", "--name", "web", "busybox", "nosuch"]).fails(
        127,
        "error: cannot start container `web`\n  because: cannot execute `nosuch`\n    because: it is in no directory of the \
         PATH /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nhint: is the command spelled as it is inside \
         the image? an image may have no shell at all\n",
    );
    engine.brig(&["run", "--rm", "--name", "web", "busybox", "/etc/passwd"]).fails(
        126,
        "error: cannot start container `web`\n  because: cannot execute `/etc/passwd`\n    because: it is not executable \
         (no x permission)\nhint: the file must be executable, and made for this machine's processor\n",
    );
    let init = engine.brig(&["run", "--rm", "--init", "busybox", "nosuch"]);
    init.fails(127, "error: cannot execute `nosuch`\n  because: it is in no directory of the PATH\n");
}

#[test]
fn streams_are_separate_and_input_ends() {
    let engine = Engine::new();
    let output = engine.sh(&[], "echo out; echo err >&2");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    let run = ["run", "--rm", "-i", "busybox", "cat"];
    assert_eq!(engine.brig_with(&run, b"hi\n").ok(), "hi");
    // Without -i there is no input.
    assert_eq!(engine.brig_with(&["run", "--rm", "busybox", "cat"], b"hi\n").ok(), "");
    // A megabyte goes in and out whole.
    let big = b"0123456789abcde\n".repeat(65536);
    let output = engine.brig_with(&run, &big);
    assert_eq!((output.status, output.stdout.len()), (0, big.len()));
    assert!(output.stdout.as_bytes() == big, "every byte in its place");
}

#[test]
fn a_reader_that_goes_away_ends_nothing_but_the_output() {
    let engine = Engine::new();
    let line = format!("{} run --rm busybox sh -c 'yes | head -100000; exit 5' | head -1", env!("CARGO_BIN_EXE_brig"));
    let mut command = engine.prepare(std::path::Path::new("/bin/sh"), &["-c", &line]);
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let output = collect(child, &["run | head -1"]);
    assert_eq!(output.ok(), "y");
}

#[test]
fn rm_leaves_nothing_while_the_engine_lives_on() {
    let engine = Engine::new();
    engine.sh(&["--name", "web", "-v", "/data"], "echo x > /data/x; echo y > /y").ok();
    assert!(patiently(|| engine.remains().iter().all(|l| l.starts_with("link ") && l.contains(": brigx"))));
    assert_eq!(engine.brig(&["ps", "-a", "-q"]).ok(), "");
    assert_eq!(engine.brig(&["volume", "ls", "-q"]).ok(), "");
    // The name is free at once.
    engine.sh(&["--name", "web"], "true").ok();
    engine.brig(&["run", "-d", "--rm", "--name", "web", "busybox", "true"]).ok();
    assert!(patiently(|| engine.brig(&["ps", "-aq"]).ok().is_empty()));
}

#[test]
fn the_listing_tells_what_is() {
    let engine = Engine::new();
    let id = engine.idle("web", &["-l", "tier=front"]);
    assert_eq!(id.len(), 64);
    engine.brig(&["create", "--name", "made", "busybox", "true"]).ok();
    engine.brig(&["run", "--name", "done", "busybox", "sh", "-c", "exit 3"]).fails(3, "");
    let table = |flags: &[&str]| {
        let mut all = vec!["ps"];
        all.extend(flags);
        engine.brig(&[all.as_slice(), &["--format", "{{.Names}} {{.State}} {{.Image}} {{.Command}}"]].concat()).ok()
    };
    assert_eq!(table(&[]), r#"web running busybox "sleep 1000""#);
    let all = "done exited busybox \"sh -c exit 3\"\nmade created busybox \"true\"\nweb running busybox \"sleep 1000\"";
    assert_eq!(table(&["-a"]), all);
    assert_eq!(table(&["--filter", "label=tier=front"]), r#"web running busybox "sleep 1000""#);
    assert_eq!(table(&["--filter", "status=exited"]), r#"done exited busybox "sh -c exit 3""#);
    assert_eq!(table(&["--filter", "exited=3"]), r#"done exited busybox "sh -c exit 3""#);
    assert_eq!(engine.brig(&["ps", "-q", "--no-trunc"]).ok(), id);
    assert_eq!(engine.brig(&["ps", "-q"]).ok(), id[..12]);
    let text = engine.brig(&["ps", "-a"]).ok();
    assert!(text.starts_with("CONTAINER ID   IMAGE     COMMAND"), "{text}");
    assert!(text.contains("Exited (3) ") && text.contains("Created") && text.contains("Up "), "{text}");
    engine.brig(&["ps", "--filter", "moon=1"]).fails(1, engine.brig(&["ps", "--filter", "moon=1"]).stderr.as_str());
    assert_eq!(engine.brig(&["ps", "--filter", "moon=1"]).status, 1);
}

#[test]
fn created_started_stopped_killed_removed() {
    let engine = Engine::new();
    let id = engine.brig(&[
        "create",
        "--name",
        "web",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 7' TERM; while :; do sleep 0.1; done",
    ]);
    let id = id.ok();
    assert_eq!(engine.inspect("web", "{{.State.Status}}"), "created");
    assert_eq!(engine.brig(&["start", "web"]).ok(), "web");
    assert_eq!(engine.brig(&["start", "web"]).ok(), "web", "started already is as good");
    engine.until("web", "{{.State.Status}}", "running");
    engine.brig(&["rm", "web"]).fails(
        1,
        "error: cannot remove container `web`\n  because: it is running\nhint: stop it first with `brig stop web`, or use \
         `brig rm -f`\n",
    );
    // The shell needs a moment until its trap stands; a stop before it would be a kill.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(engine.brig(&["stop", &id[..12]]).ok(), id[..12]);
    assert_eq!(engine.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    engine.brig(&["stop", "web"]).ok();
    assert_eq!(engine.brig(&["wait", "web"]).ok(), "7");
    // Again: what it has written stays from start to start.
    engine.brig(&["start", "web"]).ok();
    engine.brig(&["exec", "web", "touch", "/mark"]).ok();
    engine.brig(&["kill", "web"]).ok();
    assert_eq!(engine.brig(&["wait", "web"]).ok(), "137");
    engine.brig(&["start", "web"]).ok();
    assert_eq!(engine.brig(&["exec", "web", "ls", "/mark"]).ok(), "/mark");
    std::thread::sleep(std::time::Duration::from_millis(500));
    engine.brig(&["kill", "-s", "TERM", "web"]).ok();
    assert_eq!(engine.brig(&["wait", "web"]).ok(), "7");
    engine.brig(&["kill", "web"]).fails(1, engine.brig(&["kill", "web"]).stderr.as_str());
    assert!(engine.brig(&["kill", "web"]).stderr.starts_with("error: cannot "));
    assert_eq!(engine.brig(&["rm", "web"]).ok(), "web");
    engine
        .brig(&["rm", "web"])
        .fails(1, "error: no such container: web\nhint: `brig ps -a` lists the containers that there are\n");
    engine.brig(&["rm", "-f", "web"]).ok();
}

#[test]
fn stop_asks_with_the_signal_and_kills_after_the_time() {
    let engine = Engine::new();
    let script = "trap 'echo usr1; exit 0' USR1; trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let start = |name: &str, flags: &[&str]| {
        engine.brig(&[&["run", "-d", "--name", name], flags, &["busybox", "sh", "-c", script]].concat()).ok();
        assert!(patiently(|| engine.brig(&["logs", name]).ok() == "ready"));
    };
    start("a1", &["--stop-signal", "USR1"]);
    engine.brig(&["stop", "a1"]).ok();
    assert_eq!(engine.brig(&["logs", "a1"]).ok(), "ready\nusr1");
    start("a2", &["--stop-timeout", "1"]);
    engine.brig(&["stop", "a2"]).ok();
    assert_eq!(engine.inspect("a2", "{{.State.ExitCode}}"), "137");
    start("a3", &[]);
    engine.brig(&["stop", "-t", "0", "a3"]).ok();
    assert_eq!(engine.inspect("a3", "{{.State.ExitCode}}"), "137");
    start("a4", &[]);
    engine.brig(&["restart", "-t", "0", "a4"]).ok();
    assert_eq!(engine.inspect("a4", "{{.State.Status}}"), "running");
    assert!(patiently(|| engine.brig(&["logs", "a4"]).ok() == "ready\nready"));
}

#[test]
fn logs_survive_the_starter() {
    let engine = Engine::new();
    let script = "for i in 1 2 3; do echo out $i; done; echo err >&2; sleep 1.2; echo late; exec sleep 1000";
    engine.brig(&["run", "-d", "--name", "web", "busybox", "sh", "-c", script]).ok();
    let follow = engine.spawn(&["logs", "-f", "web"]);
    assert!(patiently(|| engine.brig(&["logs", "web"]).stdout.contains("late")));
    let output = engine.brig(&["logs", "web"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out 1\nout 2\nout 3\nlate\n", "err\n"));
    assert_eq!(engine.brig(&["logs", "--tail", "1", "web"]).ok(), "late");
    assert_eq!(engine.brig(&["logs", "-n", "0", "web"]).ok(), "");
    let times = engine.brig(&["logs", "-t", "web"]).stdout;
    let late = times.lines().find(|l| l.ends_with(" late")).unwrap();
    let time = late.split(' ').next().unwrap();
    assert!(time.len() == 30 && time.ends_with('Z') && time.starts_with("20"), "{late}");
    assert_eq!(engine.brig(&["logs", "--since", time, "web"]).ok(), "late");
    let before = engine.brig(&["logs", "--until", time, "web"]);
    assert!(before.stdout.starts_with("out 1\nout 2\nout 3\n") && before.stderr == "err\n", "{before:?}");
    assert_eq!(engine.brig(&["logs", "--since", "10m", "--tail", "1", "web"]).ok(), "late");
    engine
        .brig(&["logs", "--since", "moon", "web"])
        .fails(1, "error: `moon` is not a time\nhint: write `10m`, `2026-11-22T01:02:03Z` or seconds since 1970\n");
    engine.brig(&["kill", "web"]).ok();
    // Who follows sees everything, and ends with the container.
    let output = collect(follow, &["logs", "-f"]);
    assert_eq!((output.status, output.stdout.as_str()), (0, "out 1\nout 2\nout 3\nlate\n"));
    assert_eq!(output.stderr, "err\n");
}

#[test]
fn logs_are_bounded() {
    let engine = Engine::new();
    let flags = ["--log-opt", "max-size=64k", "--log-opt", "max-file=2"];
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    engine.brig(&[&["run", "--name", "web"], flags.as_slice(), &["busybox", "sh", "-c", script]].concat());
    let id = engine.inspect("web", "{{.Id}}");
    let size = |name: &String| engine.path(&format!("root/containers/{id}/{name}")).metadata().unwrap().len();
    let names = engine.names(&format!("root/containers/{id}"));
    let logs: Vec<&String> = names.iter().filter(|n| n.starts_with("log")).collect();
    assert_eq!(logs.len(), 2, "{names:?}");
    assert!(logs.iter().all(|n| size(n) <= 66 * 1024), "{:?}", logs.iter().map(|n| size(n)).collect::<Vec<_>>());
    assert!(engine.brig(&["logs", "web"]).ok().ends_with("line 19998\nline 19999"));
    engine.brig(&["run", "-d", "--name", "none", "--log-driver", "none", "busybox", "echo", "x"]).ok();
    engine.brig(&["wait", "none"]).ok();
    let none = engine.brig(&["logs", "none"]);
    assert!(none.status == 1 && none.stderr.starts_with("error: "), "{none:?}");
}

#[test]
fn commands_run_inside() {
    let engine = Engine::new();
    engine.idle("web", &["-e", "A=1", "-w", "/tmp", "--hostname", "study"]);
    let exec = |arguments: &[&str]| engine.brig(&[&["exec"], arguments].concat());
    assert_eq!(exec(&["web", "sh", "-c", "echo $A $B $(pwd) $(hostname) $(id -u)"]).ok(), "1 /tmp study 0");
    let flags = ["-e", "B=2", "-w", "/etc", "-u", "65534:65534", "web"];
    let script = ["sh", "-c", "echo $A $B $(pwd) $(id -u) $(id -g)"];
    assert_eq!(exec(&[flags.as_slice(), &script].concat()).ok(), "1 2 /etc 65534 65534");
    assert_eq!(exec(&["-u", "nobody", "web", "whoami"]).ok(), "nobody");
    assert_eq!(exec(&["web", "sh", "-c", "exit 9"]).status, 9);
    assert_eq!(exec(&["web", "nosuch"]).status, 127);
    assert_eq!(exec(&["web", "/etc/passwd"]).status, 126);
    let output = engine.brig_with(&["exec", "-i", "web", "cat"], b"hi");
    assert_eq!(output.ok(), "hi");
    assert_eq!(exec(&["web", "cat", "/proc/1/cmdline"]).ok(), "sleep\x001000\0");
    exec(&["-d", "web", "sh", "-c", "echo x > /tmp/x"]).ok();
    assert!(patiently(|| exec(&["web", "cat", "/tmp/x"]).stdout == "x\n"));
    exec(&["moon", "true"])
        .fails(125, "error: no such container: moon\nhint: `brig ps -a` lists the containers that there are\n");
    engine.brig(&["stop", "-t", "0", "web"]).ok();
    let stopped = exec(&["web", "true"]);
    assert_eq!(stopped.status, 125);
    assert!(
        stopped.stderr.contains("because: it is not running") || stopped.stderr.contains("is not running"),
        "{stopped:?}"
    );
}

#[test]
fn pause_top_stats_update_rename() {
    let engine = Engine::new();
    engine.idle("web", &["-m", "64m"]);
    assert_eq!(engine.brig(&["pause", "web"]).ok(), "web");
    assert_eq!(engine.inspect("web", "{{.State.Status}} {{.State.Paused}}"), "paused true");
    assert!(engine.brig(&["ps"]).ok().contains("(Paused)"));
    let exec = engine.brig(&["exec", "web", "true"]);
    assert!(exec.status == 125 && exec.stderr.contains("paused"), "{exec:?}");
    assert_eq!(engine.brig(&["unpause", "web"]).ok(), "web");
    engine.brig(&["exec", "web", "true"]).ok();
    let top = engine.brig(&["top", "web"]).ok();
    assert!(top.lines().count() == 2 && top.ends_with("sleep 1000"), "{top}");
    let format = "{{.Name}} {{.PIDs}} {{.MemUsage}}";
    let stats = engine.brig(&["stats", "--no-stream", "--format", format]).ok();
    assert!(stats.starts_with("web 1 ") && stats.ends_with("/ 64MiB"), "{stats}");
    engine.brig(&["update", "-m", "96m", "--memory-swap", "96m", "--pids-limit", "50", "--cpus", "0.5", "web"]).ok();
    assert_eq!(engine.cgroup("web", &["memory.limit_in_bytes", "memory.max"]), (96 << 20).to_string());
    assert_eq!(engine.cgroup("web", &["pids.max"]), "50");
    assert_eq!(engine.inspect("web", "{{.HostConfig.Memory}}"), (96 << 20).to_string());
    engine.brig(&["rename", "web", "site"]).ok();
    assert_eq!(engine.inspect("site", "{{.Name}} {{.State.Status}}"), "/site running");
    assert_eq!(engine.brig(&["inspect", "web"]).status, 1);
    engine.brig(&["create", "--name", "web", "busybox"]).ok();
    engine.brig(&["rename", "site", "web"]).fails(1, engine.brig(&["rename", "site", "web"]).stderr.as_str());
    assert!(engine.brig(&["rename", "site", "web"]).stderr.contains("`web` is in use"));
    // A paused container is stopped and removed all the same.
    engine.brig(&["pause", "site"]).ok();
    engine.brig(&["stop", "-t", "1", "site"]).ok();
    engine.brig(&["start", "site"]).ok();
    engine.brig(&["pause", "site"]).ok();
    engine.brig(&["rm", "-f", "site"]).ok();
}

#[test]
fn a_running_throwaway_container_is_renamed_and_its_old_name_is_free() {
    let engine = Engine::new();
    engine.idle("old", &["--rm"]);
    engine.brig(&["rename", "old", "new"]).ok();
    engine.idle("old", &[]);
    let other = engine.inspect("old", "{{.Id}}");
    engine.brig(&["stop", "-t", "0", "new"]).ok();
    assert_eq!(engine.brig(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "old");
    assert_eq!(engine.inspect("old", "{{.Id}}"), other, "the end of one does not take the other's name");
    assert_eq!(engine.names("root/containers/.names"), ["old"]);
    engine.idle("new", &["--rm"]);
}

#[test]
fn the_oom_killer_is_named() {
    let engine = Engine::new();
    let run = engine.brig(&["run", "-m", "16m", "--name", "fat", "busybox", "tail", "/dev/zero"]);
    run.fails(137, "warning: a process of container `fat` was ended by the OOM killer: its memory limit was reached\n");
    assert_eq!(engine.inspect("fat", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
    assert!(engine.brig(&["ps", "-a"]).ok().contains("(OOM killed)"));
    assert_eq!(engine.inspect("fat", "{{.HostConfig.Memory}}"), (16 << 20).to_string());
}

#[test]
fn containers_are_started_again_as_their_policy_says() {
    let engine = Engine::new();
    let count = "echo x >> /count; exit 3";
    engine.brig(&["run", "-d", "--restart", "on-failure:2", "--name", "twice", "busybox", "sh", "-c", count]).ok();
    engine.until("twice", "{{.State.Status}} {{.RestartCount}}", "exited 2");
    engine.brig(&["cp", "twice:/count", "count"]).ok();
    assert_eq!(std::fs::read_to_string(engine.path("count")).unwrap(), "x\n".repeat(3));
    let script = "echo up; sleep 0.2; exit 0";
    engine.brig(&["run", "-d", "--restart", "always", "--name", "ever", "busybox", "sh", "-c", script]).ok();
    assert!(patiently(|| engine.brig(&["logs", "ever"]).ok().lines().count() >= 3));
    engine.brig(&["stop", "-t", "0", "ever"]).ok();
    assert_eq!(engine.inspect("ever", "{{.State.Status}}"), "exited");
    let lines = engine.brig(&["logs", "ever"]).ok().lines().count();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(engine.brig(&["logs", "ever"]).ok().lines().count(), lines, "stopped stays stopped");
    engine
        .brig(&["run", "--rm", "--restart", "always", "busybox", "true"])
        .fails(125, engine.brig(&["run", "--rm", "--restart", "always", "busybox", "true"]).stderr.as_str());
}

#[test]
fn init_buries_orphans_and_passes_signals_on() {
    let engine = Engine::new();
    let script = "for i in 1 2 3 4 5; do (sleep 0.1 &) ; done; sleep 0.8; ps -o stat,comm | grep -c '^Z' || true";
    assert_eq!(engine.sh(&["--init"], script).ok(), "0");
    let script = "trap 'echo got; exit 4' TERM; echo ready; while :; do sleep 0.1; done";
    engine.brig(&["run", "-d", "--init", "--name", "web", "busybox", "sh", "-c", script]).ok();
    assert!(patiently(|| engine.brig(&["logs", "web"]).ok() == "ready"));
    engine.brig(&["stop", "web"]).ok();
    assert_eq!(engine.brig(&["logs", "web"]).ok(), "ready\ngot");
    assert_eq!(engine.inspect("web", "{{.State.ExitCode}}"), "4");
}

#[test]
fn attach_sees_output_gives_input_and_gets_the_status() {
    let engine = Engine::new();
    engine.brig(&["run", "-d", "-i", "--name", "web", "busybox", "sh", "-c", "read x; echo got $x; exit 6"]).ok();
    let attached = engine.brig_with(&["attach", "web"], b"hello\n");
    assert_eq!((attached.status, attached.stdout.as_str()), (6, "got hello\n"), "{attached:?}");
    let gone = engine.brig(&["attach", "web"]);
    assert!(gone.status == 1 && gone.stderr.starts_with("error: container `web` is not running"), "{gone:?}");
    engine.brig(&["create", "-i", "--name", "again", "busybox", "sh", "-c", "read x; echo got $x; exit 6"]).ok();
    let started = engine.brig_with(&["start", "-ai", "again"], b"hello\n");
    assert_eq!((started.status, started.stdout.as_str()), (6, "got hello\n"), "{started:?}");
}

#[test]
fn a_signal_to_run_goes_to_the_container() {
    let engine = Engine::new();
    let script = "trap 'echo got; exit 8' TERM; echo ready; while :; do sleep 0.1; done";
    let child = engine.spawn(&["run", "--rm", "--name", "web", "busybox", "sh", "-c", script]);
    assert!(patiently(|| engine.brig(&["logs", "web"]).stdout == "ready\n"));
    support::sh(&format!("kill -TERM {}", child.id()));
    let output = collect(child, &["run"]);
    assert_eq!((output.status, output.stdout.as_str()), (8, "ready\ngot\n"), "{output:?}");
}

#[test]
fn files_go_in_and_out_and_changes_are_told() {
    let engine = Engine::new();
    std::fs::create_dir_all(engine.path("in/sub")).unwrap();
    std::fs::write(engine.path("in/sub/file"), "one").unwrap();
    for running in [false, true] {
        let name = if running { "runs" } else { "made" };
        engine.brig(&["create", "--name", name, "busybox", "sleep", "1000"]).ok();
        if running {
            engine.brig(&["start", name]).ok();
        }
        engine.brig(&["cp", "in/sub", &format!("{name}:/tmp/")]).ok();
        engine.brig(&["cp", "in/sub/file", &format!("{name}:/etc/passwd")]).ok();
        engine.brig(&["cp", &format!("{name}:/tmp/sub/file"), &format!("out-{name}")]).ok();
        assert_eq!(std::fs::read_to_string(engine.path(&format!("out-{name}"))).unwrap(), "one");
        let diff = engine.brig(&["diff", name]).ok();
        for line in ["C /tmp", "A /tmp/sub", "A /tmp/sub/file", "C /etc", "C /etc/passwd"] {
            assert!(diff.lines().any(|l| l == line), "{name}: no `{line}` in\n{diff}");
        }
        let missing = engine.brig(&["cp", &format!("{name}:/nosuch"), "out"]);
        assert!(missing.status == 1 && missing.stderr.starts_with("error: cannot copy"), "{missing:?}");
    }
    engine.brig(&["exec", "runs", "rm", "-r", "/root"]).ok();
    assert!(engine.brig(&["diff", "runs"]).ok().lines().any(|l| l == "D /root"));
    // A link out of the container leads nowhere but inside.
    engine.brig(&["exec", "runs", "ln", "-s", "/etc/hostname", "/tmp/link"]).ok();
    engine.brig(&["cp", "-L", "runs:/tmp/link", "link"]).ok();
    let inside = std::fs::read_to_string(engine.path("link")).unwrap();
    assert_ne!(inside, std::fs::read_to_string("/etc/hostname").unwrap());
}

/// Runs a shell line in which `$brig` is the program.
#[track_caller]
fn line(engine: &Engine, line: &str) -> String {
    let mut command = engine.prepare(std::path::Path::new("bash"), &["-eo", "pipefail", "-c", line]);
    command.env("brig", env!("CARGO_BIN_EXE_brig"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn archives_go_in_and_out_on_the_stream() {
    let engine = Engine::new();
    line(&engine, "mkdir -p in/sub && echo one > in/sub/file && ln -s file in/sub/link && chmod 4750 in/sub/file");
    for (name, flags) in
        [("made", &[][..]), ("runs", &[]), ("mapped", &["--userns=auto"]), ("asleep", &["--userns=auto"])]
    {
        let volume = format!("{name}-data:/data");
        let more = ["--name", name, "--network", "none", "-v", &volume, "busybox", "sleep", "1000"];
        engine.brig(&[&["create"], flags, &more].concat()).ok();
        if ["runs", "mapped"].contains(&name) {
            engine.brig(&["start", name]).ok();
        }
        for place in ["/tmp", "/data"] {
            line(&engine, &format!("tar -c --owner=7 --group=8 -C in . | $brig cp - {name}:{place}"));
            line(&engine, &format!("tar -cz -C in sub | $brig cp - {name}:{place}/sub"));
            let told = line(&engine, &format!("$brig cp {name}:{place}/sub - | tar -tv --numeric-owner"));
            let entries: Vec<&str> = told.lines().collect();
            assert_eq!(entries.len(), 6, "{told}");
            let is = |mode: &str, owner: &str, end: &str| {
                let fits = |l: &&str| l.starts_with(mode) && l.contains(owner) && l.ends_with(end);
                assert!(entries.iter().any(fits), "{name}: no `{mode} {owner} {end}` in\n{told}");
            };
            is("drwxr-xr-x", " 7/8 ", " sub/");
            is("-rwsr-x---", " 7/8 ", " sub/file");
            is("lrwxrwxrwx", " 7/8 ", " sub/link -> file");
            is("-rwsr-x---", " 0/0 ", " sub/sub/file");
            assert_eq!(line(&engine, &format!("$brig cp {name}:{place}/sub/file - | tar -xO")), "one\n");
            let content = line(&engine, &format!("$brig cp {name}:{place}/sub/. - | tar -t"));
            assert!(content.lines().any(|l| l == "./file") && !content.contains("./sub/sub/"), "{content}");
            let linked = line(&engine, &format!("$brig cp -L {name}:{place}/sub/link - | tar -xO"));
            assert_eq!(linked, "one\n");
        }
        if name == "mapped" {
            assert_eq!(engine.brig(&["exec", name, "stat", "-c", "%u:%g", "/tmp/sub/file"]).ok(), "7:8");
        }
    }
    for name in ["ro", "ro-mapped"] {
        let flags: &[&str] = if name == "ro" { &[] } else { &["--userns=auto"] };
        let more = ["--name", name, "--network", "none", "-v", "runs-data:/data:ro", "busybox", "sleep", "1000"];
        engine.brig(&[&["create"], flags, &more].concat()).ok();
        for _ in 0..2 {
            for source in ["-", "in/sub/file"] {
                let output = engine.brig_with(&["cp", source, &format!("{name}:/data")], b"");
                // An empty archive writes nothing: the kernel has nothing to say against it in a running container.
                assert!(
                    source == "-" || output.status == 1 && output.stderr.to_lowercase().contains("read-only"),
                    "{output:?}"
                );
            }
            engine.brig(&["start", name]).ok();
        }
    }
    // From one into another.
    line(&engine, "$brig cp runs:/tmp/sub - | $brig cp - made:/root");
    assert_eq!(line(&engine, "$brig cp made:/root/sub/sub/file - | tar -xO"), "one\n");
    // What the kernel shows is left out of a whole root, and nothing of it is changed.
    let whole = line(&engine, "$brig cp runs:/ - | tar -t");
    assert!(whole.lines().any(|l| l == "./bin/busybox") && !whole.contains("./proc/1/"), "{whole}");
    assert!(whole.lines().any(|l| l == "./data/sub/file"), "{whole}");
    let nowhere = engine.brig_with(&["cp", "-", "runs:/nosuch"], b"");
    assert!(
        nowhere.status == 1 && nowhere.stderr.starts_with("error: cannot copy the archive to /nosuch of"),
        "{nowhere:?}"
    );
    let file = engine.brig_with(&["cp", "-", "runs:/tmp/sub/file"], b"");
    assert!(file.status == 1 && file.stderr.contains("hint: an archive is put into a directory"), "{file:?}");
    let noise = engine.brig_with(&["cp", "-", "runs:/tmp"], &[b'x'; 1024]);
    assert!(noise.status == 1 && noise.stderr.contains("because: the tar header at byte 0"), "{noise:?}");
    for ends in [["-", "-"], ["-", "file"], ["file", "-"]] {
        let output = engine.brig_with(&["cp", ends[0], ends[1]], b"");
        assert!(output.status == 1 && output.stderr.contains("neither end of the copy is a container"), "{output:?}");
    }
}

#[test]
fn prune_removes_what_does_not_run() {
    let engine = Engine::new();
    engine.idle("web", &[]);
    engine.brig(&["create", "--name", "made", "busybox"]).ok();
    engine.brig(&["run", "--name", "done", "busybox", "true"]).ok();
    engine.brig(&["prune"]).fails(
        1,
        "error: cannot ask whether to remove containers that do not run, unused images and an unused bridge\n  because: \
         standard input is not a terminal\nhint: add `--force`\n",
    );
    let pruned = engine.brig(&["container", "prune", "-f"]).ok();
    assert_eq!(pruned.lines().filter(|l| l.starts_with("Deleted container: ")).count(), 2, "{pruned}");
    assert_eq!(engine.brig(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "web");
}

#[test]
fn version_info_and_doctor_answer() {
    let engine = Engine::bare();
    assert!(engine.brig(&["version"]).ok().contains(env!("CARGO_PKG_VERSION")));
    let info = engine.brig(&["info"]);
    assert_eq!(info.status, 0, "{info:?}");
    for word in ["cgroup", "overlay", "seccomp", "nftables"] {
        assert!(info.stdout.to_lowercase().contains(word), "{}", info.stdout);
    }
    let doctor = engine.brig(&["doctor"]);
    assert!(doctor.stdout.to_lowercase().contains("cgroup"), "{doctor:?}");
}
