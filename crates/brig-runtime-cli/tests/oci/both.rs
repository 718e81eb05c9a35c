//! What every runtime does alike.

use crate::bundle::{Bundle, wait, wait_for_file};
use serde_json::json;

#[test]
fn a_container_lives_through_its_states() {
    let bundle = Bundle::new("echo started; exec sleep 1000");
    bundle.leave(&["create", "--pid-file", "pid", bundle.id()]);
    assert_eq!(bundle.state()["status"], "created");
    assert_eq!(std::fs::read_to_string(bundle.path("pid")).unwrap(), bundle.pid().to_string());
    assert_eq!(bundle.output(), "", "nothing runs before the start");
    assert!(bundle.call(&["create", bundle.id()]).failed().contains("exist"));
    bundle.call(&["start", bundle.id()]).ok();
    assert_eq!(bundle.state()["status"], "running");
    wait("the output", || bundle.output() == "started\n");
    assert!(bundle.call(&["start", bundle.id()]).failed().contains("running"));
    assert!(bundle.call(&["delete", bundle.id()]).failed().contains("not stopped"));
    let listed: serde_json::Value = serde_json::from_str(&bundle.call(&["list", "-f", "json"]).ok()).unwrap();
    assert_eq!((&listed[0]["id"], &listed[0]["status"]), (&json!(bundle.id()), &json!("running")));
    assert_eq!(bundle.call(&["list", "-q"]).ok(), format!("{}\n", bundle.id()));
    bundle.call(&["pause", bundle.id()]).ok();
    assert_eq!(bundle.state()["status"], "paused");
    assert!(bundle.exec("true").failed().contains("paused"));
    bundle.call(&["resume", bundle.id()]).ok();
    bundle.call(&["kill", bundle.id(), "KILL"]).ok();
    bundle.wait_for("stopped");
    assert!(bundle.call(&["kill", bundle.id(), "KILL"]).failed().contains("not running"));
    bundle.call(&["delete", bundle.id()]).ok();
    assert!(bundle.call(&["state", bundle.id()]).failed().contains("does not exist"));
    assert!(bundle.call(&["delete", bundle.id()]).failed().contains("does not exist"));
    bundle.call(&["delete", "--force", bundle.id()]).ok();
}

#[test]
fn the_exit_status_is_the_programs() {
    let mut bundle = Bundle::new("exit 7");
    assert_eq!(bundle.run().status, 7);
    bundle.config["process"]["args"] = json!(["sh", "-c", "kill -9 $$; sleep 5"]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
    bundle.config["mounts"][0] = json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind", "nosuid", "noexec", "nodev"]});
    bundle.config["linux"]["maskedPaths"] = json!([]);
    bundle.config["linux"]["readonlyPaths"] = json!([]);
    assert_eq!(bundle.run().status, 137);
    bundle.config["process"]["args"] = json!(["/nosuch"]);
    let words = bundle.run().failed();
    assert!(words.contains("no such file or directory"), "{words}");
    bundle.config["process"]["args"] = json!(["nosuch"]);
    let words = bundle.run().failed();
    assert!(words.contains("executable file not found in $PATH"), "{words}");
    bundle.config["process"]["args"] = json!(["/etc/passwd"]);
    let words = bundle.run().failed();
    assert!(words.contains("permission denied"), "{words}");
}

#[test]
fn an_exec_joins_everything() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.leave(&["run", "-d", bundle.id()]);
    let pid = bundle.pid();
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"] {
        let of_container = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let seen = bundle.call(&["exec", bundle.id(), "readlink", &format!("/proc/self/ns/{kind}")]).ok();
        assert_eq!(seen.trim(), of_container.to_str().unwrap(), "{kind}");
    }
    let said = bundle.call(&[
        "exec",
        "--user",
        "33:44",
        "-g",
        "55",
        "--cwd",
        "/tmp",
        "-e",
        "A=1",
        bundle.id(),
        "sh",
        "-c",
        "id; pwd; echo $A; exit 3",
    ]);
    assert_eq!(said.status, 3);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines[0].starts_with("uid=33(web) gid=44 groups=55"), "{said:?}");
    assert_eq!(lines[1..], ["/tmp", "1"]);
    for bad in ["+1", "4294967296", "4294967295", "-1", "1:", "root:root", "0:0:"] {
        let said = bundle.call(&["exec", "--user", bad, bundle.id(), "id"]);
        assert!(
            !said.stdout.contains("uid=0(root) gid=0(root)") || said.status == 0 && bad.starts_with('0'),
            "{bad}: {said:?}"
        );
    }
    std::fs::write(
        bundle.path("process.json"),
        json!({"args": ["sh", "-c", "echo $B"], "env": ["B=2", "PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}})
            .to_string(),
    )
    .unwrap();
    assert_eq!(bundle.call(&["exec", "--process", "process.json", bundle.id()]).ok(), "2\n");
    bundle.leave(&["exec", "-d", "--pid-file", "exec-pid", bundle.id(), "sleep", "999"]);
    let child: i32 = wait_for_file(&bundle.path("exec-pid")).parse().unwrap();
    let listed = bundle.call(&["ps", "-f", "json", bundle.id()]).ok();
    let mut listed: Vec<i32> = serde_json::from_str(&listed).unwrap();
    listed.sort_unstable();
    let mut all = vec![i32::try_from(pid).unwrap(), child];
    all.sort_unstable();
    assert_eq!(listed, all);
    let table = bundle.call(&["ps", bundle.id()]);
    // The table is the machine's own ps(1), which does not work on every kernel.
    if std::process::Command::new("ps").arg("-ef").output().unwrap().status.success() {
        assert!(table.ok().contains("sleep 999"));
    } else {
        table.failed();
    }
}

#[test]
fn hooks_run_in_order_and_one_that_fails_ends_it() {
    let mut bundle = Bundle::new("echo program >> /log");
    let log = bundle.rootfs("log");
    let note = |word: &str| {
        let script = format!("test -n \"$(cat | grep -o '\"id\":')\" && echo {word} >> {}", log.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 10}])
    };
    bundle.config["hooks"] = json!({
        "prestart": note("prestart"),
        "createRuntime": note("createRuntime"),
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo startContainer >> /log"]}],
        "poststart": note("poststart"),
        "poststop": note("poststop"),
    });
    bundle.run().ok();
    let text = std::fs::read_to_string(&log).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["prestart", "createRuntime"]);
    assert_eq!(lines.pop(), Some("poststop"));
    lines[2..].sort_unstable();
    assert_eq!(lines[2..], ["poststart", "program", "startContainer"]);
    std::fs::remove_file(&log).unwrap();
    for moment in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        bundle.config["hooks"] = json!({moment: [{"path": "/bin/true"}, {"path": "/bin/false"}]});
        let words = bundle.run().failed();
        assert!(words.contains("hook #1"), "{words}");
        assert!(!bundle.path("state").join(bundle.id()).exists(), "{moment}");
    }
}

#[test]
fn mounts_are_as_their_options_say() {
    let mut bundle = Bundle::new(
        "grep -E ' /(a|b|c|d|tmp) ' /proc/self/mounts; cat /a/f; echo x > /b/x; ls /c; stat -c %a /d; echo y > /a/y",
    );
    for name in ["source", "source2", "rootfs/c"] {
        std::fs::create_dir_all(bundle.path(name)).unwrap();
    }
    std::fs::write(bundle.path("source/f"), "file\n").unwrap();
    std::fs::write(bundle.rootfs("c/from-image"), "").unwrap();
    bundle.mount(
        json!({"destination": "/a", "type": "bind", "source": "source", "options": ["rbind", "ro", "nosuid", "nodev"]}),
    );
    bundle.mount(json!({"destination": "/b", "type": "bind", "source": bundle.path("source2"), "options": ["bind"]}));
    bundle.mount(json!({"destination": "/c", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]}));
    bundle.mount(json!({"destination": "/d", "type": "tmpfs", "source": "tmpfs", "options": ["mode=0751", "noexec"]}));
    let said = bundle.run();
    assert_ne!(said.status, 0, "/a is read-only");
    let line = |place: &str| said.stdout.lines().find(|l| l.contains(&format!(" {place} "))).unwrap().to_owned();
    assert!(line("/a").contains("ro,nosuid,nodev"), "{said:?}");
    assert!(line("/d").contains("noexec"), "{said:?}");
    assert!(said.stdout.contains("file\nfrom-image\n751\n"), "{said:?}");
    assert_eq!(std::fs::read_to_string(bundle.path("source2/x")).unwrap(), "x\n");
}

#[test]
fn what_is_mounted_around_the_cgroups_is_there_in_the_order_of_the_list() {
    let tmpfs = |to: &str| json!({"destination": to, "type": "tmpfs", "source": "tmpfs", "options": ["mode=0755"]});
    let mut bundle = Bundle::new("ls -A /sys/fs | wc -l");
    bundle.mount(tmpfs("/sys/fs"));
    assert_eq!(bundle.run().ok(), "0\n", "a later mount hides the cgroups");
    let mut bundle = Bundle::new("ls -A /sys/fs/cgroup | wc -l");
    bundle.mount(tmpfs("/sys/fs/cgroup"));
    assert_eq!(bundle.run().ok(), "0\n", "and so does one in their place");
    let mut bundle = Bundle::new("ls -A /sys/fs/cgroup | wc -l; grep -c ' /sys/fs/cgroup' /proc/mounts");
    bundle.config["mounts"].as_array_mut().unwrap().insert(1, tmpfs("/sys"));
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "sysfs");
    let said = bundle.run().ok();
    let counts: Vec<u32> = said.lines().map(|line| line.parse().unwrap()).collect();
    assert!(counts.len() == 2 && counts.iter().all(|count| *count > 0), "an earlier one lies below: {counts:?}");
}

#[test]
fn a_link_of_the_image_does_not_bring_a_mount_below_the_cgroups() {
    let mut bundle = Bundle::new("ls -A /sys | wc -l");
    std::os::unix::fs::symlink("/sys", bundle.rootfs("link")).unwrap();
    std::fs::create_dir(bundle.path("empty")).unwrap();
    bundle.mount(json!({"destination": "/link", "type": "bind", "source": "empty", "options": ["bind"]}));
    assert_eq!(bundle.run().ok(), "0\n");
    assert_eq!(std::fs::read_dir(bundle.path("empty")).unwrap().count(), 0, "nothing is made in what is bound");
}

#[test]
fn a_process_is_limited_as_asked() {
    let mut bundle = Bundle::new(
        "ulimit -n; ulimit -c; cat /proc/self/oom_score_adj; grep -E 'CapBnd|NoNewPrivs' /proc/self/status; umask",
    );
    bundle.config["process"]["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "soft": 123, "hard": 456},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}
    ]);
    bundle.config["process"]["oomScoreAdj"] = json!(321);
    bundle.config["process"]["user"]["umask"] = json!(0o27);
    let one = json!(["CAP_KILL"]);
    bundle.config["process"]["capabilities"] = json!({"bounding": one, "effective": one, "permitted": one});
    let said = bundle.run().ok();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        ["123", "0", "321", "CapBnd:\t0000000000000020", "NoNewPrivs:\t1", "0027"]
    );
}

#[test]
fn descriptors_are_passed_when_asked_for_and_not_otherwise() {
    let bundle = Bundle::new("cat <&3");
    std::fs::write(bundle.path("given"), "given\n").unwrap();
    let script = |options: &str| {
        let program = crate::bundle::runtime();
        let (program, state) = (program.display(), bundle.path("state"));
        format!("exec 3< given; {program} --root {} run {options} {}", state.display(), bundle.id())
    };
    let _ = bundle.command(&["--version"]).output();
    let sh =
        |line: &str| std::process::Command::new("sh").args(["-c", line]).current_dir(bundle.path("")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&sh(&script("--preserve-fds 1")).stdout), "given\n");
    assert!(!sh(&script("")).status.success());
}

#[test]
fn an_update_changes_the_limits_and_events_tell_of_use() {
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 20});
    bundle.leave(&["run", "-d", bundle.id()]);
    let stats = || -> serde_json::Value {
        serde_json::from_str(&bundle.call(&["events", "--stats", bundle.id()]).ok()).unwrap()
    };
    let told = stats();
    assert_eq!((&told["type"], &told["data"]["memory"]["usage"]["limit"]), (&json!("stats"), &json!(64 << 20)));
    assert_eq!(told["data"]["pids"], json!({"current": 1, "limit": 20}));
    bundle.call(&["update", "--memory", "33554432", "--pids-limit", "30", bundle.id()]).ok();
    let told = stats();
    assert_eq!(told["data"]["memory"]["usage"]["limit"], json!(32 << 20));
    assert_eq!(told["data"]["pids"]["limit"], json!(30));
}

/// As dockerd makes its containers' roots: each is a mount whose peers see what is mounted in it.
#[test]
fn a_root_that_is_a_shared_mount_is_cut_off() {
    for propagation in [None, Some("rprivate"), Some("rslave")] {
        let mut bundle = Bundle::new("mount -t tmpfs tmpfs /tmp && echo mounted");
        if let Some(word) = propagation {
            bundle.config["linux"]["rootfsPropagation"] = json!(word);
        }
        for set in ["bounding", "effective", "permitted"] {
            bundle.config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_ADMIN"));
        }
        bundle.command(&[]);
        let script = "mount --bind rootfs rootfs && mount --make-shared rootfs && \"$@\" && grep -c rootfs/tmp /proc/self/mountinfo; umount -l rootfs";
        let mut inside = std::process::Command::new("unshare");
        inside.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&bundle.program);
        inside.arg("--root").arg(bundle.path("state")).args(["run", bundle.id()]).current_dir(bundle.path(""));
        let output = inside.output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout);
        assert_eq!(words, "mounted\n0\n", "{propagation:?}: {output:?}");
    }
}

#[test]
fn without_pivot_root_the_container_has_its_proc_and_none_other() {
    let mut bundle =
        Bundle::new("readlink /proc/self/exe; ls /sys/class > /dev/null && grep -c ' - proc ' /proc/self/mountinfo");
    bundle.config["linux"]["maskedPaths"] = json!([]);
    bundle.config["linux"]["readonlyPaths"] = json!([]);
    assert_eq!(bundle.call(&["run", "--no-pivot", bundle.id()]).ok(), "/bin/busybox\n1\n");
}

#[test]
fn a_user_namespace_of_its_own_joins_what_the_machine_owns() {
    let mut holder = std::process::Command::new("unshare");
    holder.args(["--net", "--uts", "sh", "-c", "echo ready; exec sleep 1000"]).stdout(std::process::Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().unwrap()), &mut line).unwrap();
    let place = |kind: &str| format!("/proc/{}/ns/{kind}", holder.id());
    let mut bundle = Bundle::new("cat /proc/self/uid_map; readlink /proc/self/ns/net; readlink /proc/self/ns/uts")
        .with_user_namespace();
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "sysfs");
    for namespace in bundle.config["linux"]["namespaces"].as_array_mut().unwrap() {
        match namespace["type"].as_str() {
            Some("network") => namespace["path"] = json!(place("net")),
            Some("uts") => namespace["path"] = json!(place("uts")),
            _ => {}
        }
    }
    bundle.config.as_object_mut().unwrap().remove("hostname");
    let said = bundle.run();
    let named = |kind: &str| std::fs::read_link(place(kind)).unwrap().display().to_string();
    let wanted = ["0", "700000", "65536", &named("net"), &named("uts")].map(str::to_owned);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(said.stdout.split_whitespace().eq(wanted), "{said:?}");
}
