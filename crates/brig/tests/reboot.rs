//! After a reboot: what is told before, what `brig system start` starts, and what stays down.
//!
//! Place: the machine itself, as root. A reboot is what it leaves: no process of the engine, no bridge, no run directory; or,
//! where that lies on a disk, one whose records are those of another boot.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Engine, patiently, sh};

/// Ends everything of the engine by the pids that it recorded, and takes what a reboot takes.
fn reboot(engine: &Engine, names: &[&str], keep_run: bool) {
    let mut pids = Vec::new();
    for name in names {
        let told = engine.inspect(name, "{{.State.MonitorPid}} {{.State.Pid}}");
        pids.extend(told.split(' ').filter(|pid| *pid != "0").map(str::to_owned));
    }
    sh(&format!("kill -9 {}", pids.join(" ")));
    let gone = || pids.iter().all(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_err());
    assert!(patiently(gone));
    sh("for link in $(ip -o link | grep -o 'brigx[0-9a-f]*' | sort -u); do ip link del $link; done");
    if keep_run {
        for id in engine.names("run/containers") {
            let state = engine.path(&format!("run/containers/{id}/state"));
            let Ok(text) = std::fs::read_to_string(&state) else { continue };
            let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
            if !text.contains(boot.trim()) {
                continue;
            }
            // The pids are those of processes that run now, started at the very same tick: this test's own.
            let me = std::fs::read_to_string("/proc/self/stat").unwrap();
            let start = me.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
            let mine = format!("{{\"pid\":{},\"start\":{start}}}", std::process::id());
            let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
            record["init"] = serde_json::from_str(&mine).unwrap();
            record["monitor"] = record["init"].clone();
            record["boot"] = "00000000-0000-4000-8000-000000000000".into();
            std::fs::write(&state, record.to_string()).unwrap();
        }
    } else {
        // No mount outlives the machine.
        engine.brig(&["image", "unmount", "--all"]).ok();
        std::fs::remove_dir_all(engine.path("run")).unwrap();
    }
}

fn states(engine: &Engine) -> Vec<String> {
    let told = engine.brig(&["ps", "-a", "--format", "{{.Names}} {{.State}} {{.Status}}"]).ok();
    let mut lines: Vec<String> = told.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn what_was_running_is_started_again(keep_run: bool) {
    let engine = Engine::new();
    engine.idle("db", &["--restart", "always", "-p", "18080:80", "-v", "data:/data"]);
    // It joins another's network, and is older by name only: it waits for the one it joins.
    engine.idle("app", &["--restart", "unless-stopped", "--network", "container:db"]);
    engine.idle("plain", &[]);
    engine.idle("failing", &["--restart", "on-failure"]);
    engine.idle("told", &["--restart", "unless-stopped"]);
    engine.brig(&["stop", "-t", "0", "told"]).ok();
    engine.idle("killed", &["--restart", "always"]);
    engine.brig(&["kill", "killed"]).ok();
    engine.until("killed", "{{.State.Status}}", "exited");
    engine.idle("again", &["--restart", "unless-stopped"]);
    engine.brig(&["stop", "-t", "0", "again"]).ok();
    engine.brig(&["start", "again"]).ok();
    engine.brig(&["create", "--restart", "always", "--name", "made", "busybox", "sleep", "1000"]).ok();
    engine.brig(&["run", "-d", "--rm", "--name", "thrown", "busybox", "sleep", "1000"]).ok();
    engine.idle("late", &["--restart", "always"]);
    assert_eq!(engine.brig(&["system", "start"]).ok(), "", "what runs is left alone");
    let code = engine.inspect("told", "{{.State.ExitCode}}");

    reboot(&engine, &["db", "app", "plain", "failing", "again", "thrown", "late"], keep_run);

    // 1. The truth, before anything is started.
    let unknown = |name: &str| format!("{name} exited Exited (unknown)");
    let told = states(&engine);
    for name in ["again", "app", "db", "failing", "late", "plain"] {
        assert!(told.contains(&unknown(name)), "{name}: {told:#?}");
    }
    assert!(told.contains(&"made created Created".to_owned()), "{told:#?}");
    assert!(told.iter().any(|l| l.starts_with(&format!("told exited Exited ({code})"))), "{told:#?}");
    assert!(told.iter().any(|l| l.starts_with("killed exited Exited (137)")), "{told:#?}");
    assert!(!told.iter().any(|l| l.starts_with("thrown ")), "{told:#?}");
    assert_eq!(engine.inspect("db", "{{.State.Pid}} {{.State.ExitCodeKnown}}"), "0 false");
    // 2. A person may decide before the start.
    engine.brig(&["stop", "late"]).ok();

    // 3. What was running and has a policy is started, in an order that works.
    let started = engine.brig(&["system", "start"]).ok();
    let mut names: Vec<&str> = started.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["again", "app", "db"]);
    for name in names {
        assert_eq!(engine.inspect(name, "{{.State.Status}}"), "running");
        assert_eq!(engine.brig(&["exec", name, "echo", "hi"]).ok(), "hi");
    }
    assert_eq!(engine.brig(&["port", "db"]).ok().lines().next(), Some("80/tcp -> 0.0.0.0:18080"));
    for name in ["plain", "failing", "told", "killed", "late"] {
        assert_eq!(engine.inspect(name, "{{.State.Status}}"), "exited", "{name}");
    }
    assert_eq!(engine.brig(&["system", "start"]).ok(), "");
    // 4. A start by hand puts it under its policy again.
    engine.brig(&["start", "late"]).ok();
    engine.brig(&["kill", "-s", "INT", "late"]);
    reboot(&engine, &["db", "app", "again", "late"], keep_run);
    let started = engine.brig(&["system", "start"]).ok();
    assert!(started.lines().any(|l| l == "late"), "{started}");
}

#[test]
fn what_was_running_is_started_again_without_its_run_directory() {
    what_was_running_is_started_again(false);
}

#[test]
fn what_was_running_is_started_again_with_the_records_of_another_boot() {
    what_was_running_is_started_again(true);
}

#[test]
fn what_cannot_be_started_is_told_and_holds_up_no_other() {
    let engine = Engine::new();
    engine.idle("one", &["--restart", "always"]);
    let bound = engine.path("bound");
    std::fs::create_dir(&bound).unwrap();
    let mount = format!("type=bind,src={},dst=/b", bound.display());
    engine.idle("two", &["--restart", "always", "--mount", &mount]);
    engine.idle("three", &["--restart", "always"]);
    reboot(&engine, &["one", "two", "three"], false);
    std::fs::remove_dir(&bound).unwrap();
    let output = engine.brig(&["system", "start"]);
    assert_eq!((output.status, output.stdout.as_str()), (1, "one\nthree\n"));
    assert!(
        output.stderr.starts_with("error: cannot start container `two`\n  because: cannot bind"),
        "{}",
        output.stderr
    );
}

#[test]
fn an_earlier_end_is_not_told_about_a_later_run() {
    let engine = Engine::new();
    engine.brig(&[
        "run",
        "--name",
        "web",
        "busybox",
        "sh",
        "-c",
        "[ -e /again ] && exec sleep 1000; touch /again; exit 3",
    ]);
    assert_eq!(engine.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    engine.brig(&["start", "web"]).ok();
    reboot(&engine, &["web"], false);
    assert_eq!(states(&engine), ["web exited Exited (unknown)"]);
}

#[test]
fn a_restart_that_cannot_start_is_told_as_an_end_with_its_reason() {
    let engine = Engine::new();
    // The program takes itself away, and a policy wants it back.
    let make = ["create", "--name", "web", "--restart", "always", "--entrypoint", "/bin/starter", "busybox"];
    engine.brig(&make).ok();
    let starter = engine.path("starter");
    std::fs::write(&starter, "#!/bin/sh\nrm /bin/starter\nexit 5\n").unwrap();
    sh(&format!("chmod 755 {}", starter.display()));
    engine.brig(&["cp", starter.to_str().unwrap(), "web:/bin/starter"]).ok();
    engine.brig(&["start", "web"]).ok();
    engine.until("web", "{{.State.Status}} {{.State.ExitCode}}", "exited 127");
    let error = engine.inspect("web", "{{.State.Error}}");
    assert!(error.contains("/bin/starter"), "{error}");
    assert_eq!(engine.inspect("web", "{{.RestartCount}}"), "1");
    assert_ne!(engine.inspect("web", "{{.State.StartedAt}}"), "0001-01-01T00:00:00Z");
    let told = engine.brig(&["ps", "-a", "--no-trunc", "--format", "{{.Status}}"]).ok();
    assert!(told.starts_with("Exited (127) ") && told.ends_with(&format!(": {error}")), "{told}");
    // So is a start by hand.
    let output = engine.brig(&["start", "web"]);
    assert!(output.status == 1 && output.stderr.contains("/bin/starter"), "{}", output.stderr);
    assert_eq!(engine.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 127");
    // One that never ran was only made.
    let output = engine.brig(&["run", "--name", "never", "busybox", "/no/such"]);
    assert_eq!(output.status, 127);
    assert_eq!(engine.inspect("never", "{{.State.Status}} {{.State.ExitCode}}"), "created 127");
}

#[test]
fn a_policy_holds_over_the_loss_of_a_monitor() {
    let engine = Engine::new();
    engine.idle("web", &["--restart", "always"]);
    let monitor = engine.inspect("web", "{{.State.MonitorPid}}");
    sh(&format!("kill -9 {monitor}"));
    assert_eq!(engine.brig(&["exec", "web", "true"]).ok(), "");
    // A command that needs the monitor makes a new one adopt the container.
    let mut waiting = engine.spawn(&["wait", "web"]);
    engine.until("web", "{{.State.Status}}", "running");
    assert!(patiently(|| !["0", monitor.as_str()].contains(&engine.inspect("web", "{{.State.MonitorPid}}").as_str())));
    let pid = engine.inspect("web", "{{.State.Pid}}");
    sh(&format!("kill -9 {pid}"));
    assert!(patiently(|| {
        let now = engine.inspect("web", "{{.State.Status}} {{.State.Pid}} {{.RestartCount}}");
        now.starts_with("running ") && !now.contains(&pid) && now.ends_with(" 1")
    }));
    engine.brig(&["stop", "-t", "0", "web"]).ok();
    waiting.wait().unwrap();
    assert_eq!(engine.inspect("web", "{{.State.Status}}"), "exited");
}

#[test]
fn what_was_done_otherwise_is_told() {
    let engine = Engine::new();
    // More than any process may ask for: fs.nr_open is the bound, setrlimit(2).
    let most: u64 = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
    let limit = format!("nofile={}:{}", most, most + 1);
    let output = engine.brig(&["run", "--rm", "--ulimit", &limit, "busybox", "true"]);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stderr.starts_with("warning: ") && output.stderr.lines().count() == 1, "{}", output.stderr);
    let output = engine.brig(&["run", "-d", "--name", "web", "--ulimit", &limit, "busybox", "sleep", "1000"]);
    assert!(output.status == 0 && output.stderr.starts_with("warning: "), "{}", output.stderr);
    engine.brig(&["stop", "-t", "0", "web"]).ok();
    let output = engine.brig(&["start", "web"]);
    assert!(output.status == 0 && output.stderr.starts_with("warning: "), "{}", output.stderr);
}

#[test]
fn a_unit_for_the_boot_is_printed() {
    let engine = Engine::bare();
    let text = engine.brig(&["system", "unit"]).ok();
    let line = format!(
        "ExecStart={} --root {} --run {} system start",
        env!("CARGO_BIN_EXE_brig"),
        engine.text("root"),
        engine.text("run")
    );
    assert!(text.lines().any(|l| l == line), "{text}");
}
