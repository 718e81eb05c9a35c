//! The life of containers. None here has a network, so that the machine's own stays as it is.

use crate::sandbox::{Sandbox, text};
use std::time::Duration;

const NONE: [&str; 3] = ["run", "--network", "none"];

fn run<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    NONE.iter().copied().chain(arguments.iter().copied()).collect()
}

#[test]
fn exit_statuses_are_the_programs_or_dockers() {
    let brig = Sandbox::new();
    for (command, status) in [
        (&["--rm", "bb", "true"][..], 0),
        (&["--rm", "bb", "sh", "-c", "exit 7"], 7),
        (&["--rm", "bb", "sh", "-c", "sleep 9 & kill -9 $!; wait $!"], 137),
        (&["--rm", "bb", "no-such-command"], 127),
        (&["--rm", "bb", "/etc/passwd"], 126),
        (&["--rm", "--no-such-flag", "bb"], 125),
        (&["--rm", "--pull", "never", "no-such-image", "true"], 125),
    ] {
        assert_eq!(brig.try_run(&run(command)).status.code(), Some(status), "{command:?}");
    }
    brig.nothing_left();
}

#[test]
fn input_and_output_go_through_whole() {
    let brig = Sandbox::new();
    let data = (0..40_000).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
    let output = brig.with_input(&run(&["--rm", "-i", "bb", "cat"]), data.as_bytes());
    assert!(output.status.success() && output.stdout == data.as_bytes());
    let output = brig.try_run(&run(&["--rm", "bb", "sh", "-c", "echo out; echo err >&2"]));
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n".into(), "err\n".into()));
    brig.nothing_left();
}

#[test]
fn a_container_has_a_world_of_its_own() {
    let brig = Sandbox::new();
    let script = "echo $$; hostname; ps > /ps; wc -l < /ps; ls /proc/self/fd | wc -l; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status";
    let out = brig.run(&run(&["--rm", "--hostname", "study", "bb", "sh", "-c", script]));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "1");
    assert_eq!(lines[1], "study");
    assert_eq!(lines[2], "3", "a heading, the shell and ps");
    assert_eq!(lines[3], "4", "three streams, and the one by which ls reads the directory");
    assert_eq!(lines[4], "CapEff:\t00000000a80425fb");
    assert_eq!(lines[5], "Seccomp:\t2");
    brig.nothing_left();
}

#[test]
fn a_container_is_started_looked_at_and_removed() {
    let brig = Sandbox::new();
    let id = brig.run(&run(&["-d", "--name", "web", "-l", "a=b", "bb", "sleep", "1000"]));
    assert_eq!(id.trim().len(), 64);
    assert_eq!(brig.run(&["ps", "-q", "--no-trunc"]), id);
    assert_eq!(brig.run(&["ps", "--format", "{{.Names}} {{.State}} {{.Image}}"]), "web running bb\n");
    assert_eq!(brig.run(&["ps", "-q", "--filter", "label=a=c"]), "");
    assert_eq!(brig.run(&["exec", "web", "cat", "/proc/1/comm"]), "sleep\n");
    assert_eq!(brig.try_run(&["exec", "web", "sh", "-c", "exit 9"]).status.code(), Some(9));
    assert!(brig.run(&["top", "web"]).contains("sleep 1000"));
    brig.run(&["pause", "web"]);
    assert_eq!(brig.run(&["inspect", "-f", "{{.State.Status}}", "web"]), "paused\n");
    assert_eq!(brig.try_run(&["exec", "web", "true"]).status.code(), Some(125));
    brig.run(&["unpause", "web"]);
    let error = brig.fails(&["rm", "web"]);
    assert!(error.contains("because: it is running") && error.contains("hint:"), "{error}");
    let error = brig.fails(&run(&["-d", "--name", "web", "bb", "true"]));
    assert!(error.starts_with("error: the name `web` is in use by container"), "{error}");
    brig.run(&["rename", "web", "shop"]);
    brig.run(&["stop", "-t", "0", "shop"]);
    assert_eq!(brig.run(&["inspect", "-f", "{{.State.ExitCode}}", "shop"]), "137\n");
    assert_eq!(brig.run(&["ps", "-q"]), "");
    brig.run(&["start", "shop"]);
    assert_eq!(brig.run(&["rm", "-f", "shop"]), "shop\n");
    brig.nothing_left();
}

#[test]
fn logs_survive_their_starter() {
    let brig = Sandbox::new();
    brig.run(&run(&["-d", "--name", "log", "bb", "sh", "-c", "seq 1 5; echo err >&2; printf end"]));
    assert_eq!(brig.run(&["wait", "log"]), "0\n");
    let output = brig.try_run(&["logs", "log"]);
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("1\n2\n3\n4\n5\nend".into(), "err\n".into()));
    assert_eq!(text(&brig.try_run(&["logs", "--tail", "1", "log"]).stdout), "end");
    let line = text(&brig.try_run(&["logs", "-t", "log"]).stdout);
    assert!(line.lines().all(|l| l.as_bytes()[10] == b'T' && l[..30].ends_with('Z')), "{line}");
    assert_eq!(text(&brig.try_run(&["logs", "-f", "log"]).stdout), "1\n2\n3\n4\n5\nend");
    brig.run(&["rm", "log"]);
    brig.nothing_left();
}

#[test]
fn volumes_live_on_and_anonymous_ones_do_not() {
    let brig = Sandbox::new();
    brig.run(&run(&["--rm", "-v", "data:/data", "bb", "sh", "-c", "echo kept > /data/f"]));
    assert_eq!(brig.run(&run(&["--rm", "-v", "data:/data:ro", "bb", "cat", "/data/f"])), "kept\n");
    assert_eq!(brig.run(&["volume", "ls", "-q"]), "data\n");
    brig.run(&run(&["--rm", "-v", "/anonymous", "bb", "touch", "/anonymous/f"]));
    assert_eq!(brig.run(&["volume", "ls", "-q"]), "data\n");
    // The image's files come first, once.
    assert_eq!(brig.run(&run(&["--rm", "-v", "copy:/etc", "bb", "cat", "/etc/group"])), "root:x:0:\n");
    brig.run(&["volume", "rm", "data", "copy"]);
    brig.nothing_left();
}

#[test]
fn users_come_from_the_images_own_files() {
    let brig = Sandbox::new();
    for (flags, identity) in [
        (&["-u", "www"][..], "33 33 /var/www"),
        (&["-u", "www:root"], "33 0 /var/www"),
        (&["-u", "1234"], "1234 0 /"),
        (&["-u", "1234:5"], "1234 5 /"),
        (&[], "0 0 /root"),
        (&["-e", "HOME=/x"], "0 0 /x"),
    ] {
        let script = ["bb", "sh", "-c", "echo $(id -u) $(id -g) $HOME"];
        let all: Vec<&str> = ["--rm"].iter().chain(flags).chain(&script).copied().collect();
        assert_eq!(brig.run(&run(&all)).trim(), identity, "{flags:?}");
    }
    assert_eq!(brig.try_run(&run(&["--rm", "-u", "nobody-here", "bb", "true"])).status.code(), Some(125));
    brig.nothing_left();
}

#[test]
fn root_inside_is_nobody_outside() {
    let brig = Sandbox::new();
    brig.run(&run(&["-d", "--name", "box", "--userns", "auto", "bb", "sleep", "1000"]));
    let map = brig.run(&["exec", "box", "cat", "/proc/self/uid_map"]);
    let fields: Vec<u64> = map.split_ascii_whitespace().map(|f| f.parse().unwrap()).collect();
    assert_eq!((fields[0], fields[2]), (0, 65_536));
    assert!(fields[1] >= 1 << 30);
    brig.run(&["exec", "box", "touch", "/made"]);
    assert_eq!(brig.run(&["exec", "box", "stat", "-c", "%u", "/made"]).trim(), "0");
    let pid = brig.run(&["inspect", "-f", "{{.State.Pid}}", "box"]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    assert!(status.contains(&format!("Uid:\t{}", fields[1])));
    brig.run(&["rm", "-f", "box"]);
    brig.nothing_left();
}

#[test]
fn limits_bind() {
    let brig = Sandbox::new();
    let output = brig.try_run(&run(&[
        "--name",
        "fat",
        "-m",
        "16m",
        "bb",
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=64M",
        "count=1",
    ]));
    assert_eq!(output.status.code(), Some(137));
    assert!(text(&output.stderr).contains("OOM killer"), "{output:?}");
    assert_eq!(brig.run(&["inspect", "-f", "{{.State.OOMKilled}}", "fat"]), "true\n");
    assert!(brig.run(&["ps", "-a"]).contains("(OOM killed)"));
    brig.run(&["rm", "fat"]);
    let output = brig.try_run(&run(&[
        "--rm",
        "--pids-limit",
        "3",
        "bb",
        "sh",
        "-c",
        "sleep 1 & sleep 1 & sleep 1 & sleep 1 & wait",
    ]));
    assert!(text(&output.stderr).contains("can't fork"), "{output:?}");
    assert_eq!(
        brig.run(&run(&["--rm", "--ulimit", "nofile=77:88", "bb", "sh", "-c", "ulimit -n; ulimit -Hn"])),
        "77\n88\n"
    );
    brig.nothing_left();
}

#[test]
fn a_killed_monitor_leaves_a_state_that_is_told_and_removed() {
    let brig = Sandbox::new();
    brig.run(&run(&["-d", "--name", "web", "bb", "sleep", "1000"]));
    let monitor = brig.run(&["inspect", "-f", "{{.State.MonitorPid}}", "web"]);
    Sandbox::kill(monitor.trim().parse().unwrap());
    assert_eq!(brig.run(&["ps", "--format", "{{.State}}"]), "running\n");
    assert_eq!(brig.run(&["exec", "web", "echo", "alive"]), "alive\n");
    let init = brig.run(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    Sandbox::kill(init.trim().parse().unwrap());
    Sandbox::until(Duration::from_secs(10), || brig.run(&["ps", "-q"]).is_empty());
    // Nobody saw it end: its status is unknown, or that of its adopter.
    let status = brig.run(&["ps", "-a", "--format", "{{.Status}}"]);
    assert!(status.starts_with("Exited (unknown)") || status.starts_with("Exited (137)"), "{status}");
    brig.run(&["rm", "web"]);
    brig.nothing_left();
}

#[test]
fn an_unreadable_record_is_told_and_hides_nothing() {
    let brig = Sandbox::new();
    let bad = brig.run(&["create", "--network", "none", "bb", "true"]);
    brig.run(&["create", "--network", "none", "--name", "good", "bb", "true"]);
    std::fs::write(brig.root().join("containers").join(bad.trim()).join("record"), "garbage").unwrap();
    let output = brig.try_run(&["ps", "-a", "--format", "{{.Names}}"]);
    assert_eq!((text(&output.stdout), output.status.code()), ("good\n".into(), Some(1)));
    assert!(text(&output.stderr).starts_with("error: the record of container"));
    brig.run(&["rm", "-f", &bad.trim()[..12]]);
    brig.run(&["rm", "good"]);
    brig.nothing_left();
}

#[test]
fn a_start_that_is_killed_at_any_moment_leaves_a_truth_that_can_be_removed() {
    let brig = Sandbox::new();
    let mut points = 0;
    for delay_us in (0..20_000).step_by(800) {
        let mut command = brig.command(&run(&["-d", "bb", "sleep", "1000"]));
        let mut child =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(delay_us));
        let _ = child.kill();
        child.wait().unwrap();
        points += 1;
    }
    // What a monitor has begun it finishes; everything else is as it was when its maker died.
    Sandbox::until(Duration::from_secs(20), || {
        let states = brig.run(&["ps", "-a", "--format", "{{.State}}"]);
        states.lines().all(|s| matches!(s, "running" | "created"))
    });
    for id in brig.run(&["ps", "-aq"]).lines() {
        brig.run(&["rm", "-f", id]);
    }
    brig.run(&["container", "prune", "-f"]);
    brig.nothing_left();
    println!("killed at {points} points");
}
