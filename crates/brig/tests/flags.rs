//! Every flag of `run` has an effect that can be seen: inside the container, in its cgroup, or in its record.
//!
//! Place: the machine itself, as root, with its hybrid cgroup layout.

#![allow(clippy::unwrap_used)]

mod support;

use support::Engine;

/// Runs a script with these flags, without a network.
#[track_caller]
fn sees(engine: &Engine, flags: &[&str], script: &str, wanted: &str) {
    let output = engine.sh(&[flags, &["--network", "none"]].concat(), script);
    assert_eq!(
        (output.status, output.stdout.trim_end(), output.stderr.as_str()),
        (0, wanted, ""),
        "{flags:?} {script}"
    );
}

#[test]
fn environment_user_and_place() {
    let engine = Engine::new();
    std::fs::write(engine.path("env"), "# a comment\nC=three\nD=with blanks\n").unwrap();
    std::fs::write(engine.path("labels"), "tier=front\n").unwrap();
    sees(
        &engine,
        &["-e", "A=1", "--env-file", &engine.text("env"), "-e", "C=own"],
        "echo $A,$C,$D",
        "1,own,with blanks",
    );
    sees(&engine, &["-w", "/made/on/the/way"], "pwd", "/made/on/the/way");
    sees(&engine, &["-u", "33:44", "--group-add", "55"], "id -u; id -G", "33\n44 55");
    sees(&engine, &["-u", "nobody"], "id -un; id -gn; echo $HOME", "nobody\nnogroup\n/");
    sees(&engine, &["--hostname", "study"], "hostname; cat /etc/hostname", "study\nstudy");
    sees(&engine, &["--domainname", "example.org"], "cat /proc/sys/kernel/domainname", "example.org");
    let entry = ["run", "--rm", "--network", "none", "--entrypoint", "echo", "busybox", "a", "b"];
    assert_eq!(engine.brig(&entry).ok(), "a b");
    let labels = ["create", "--name", "web", "-l", "a=b", "--label-file", "labels", "busybox"];
    engine.brig(&labels).ok();
    let format = "{{.Config.Labels.a}} {{.Config.Labels.tier}}";
    assert_eq!(engine.inspect("web", format), "b front");
    engine.brig(&["create", "--cidfile", "cid", "busybox"]).ok();
    assert_eq!(std::fs::read_to_string(engine.path("cid")).unwrap().len(), 64);
    assert_eq!(engine.brig(&["create", "--cidfile", "cid", "busybox"]).status, 125);
}

#[test]
fn limits_are_in_the_cgroup() {
    let engine = Engine::new();
    let flags = [
        "-m",
        "64m",
        "--memory-swap",
        "96m",
        "--memory-reservation",
        "32m",
        "--cpus",
        "1.5",
        "-c",
        "512",
        "--cpuset-cpus",
        "0",
        "--cpuset-mems",
        "0",
        "--pids-limit",
        "77",
        "--network",
        "none",
    ];
    engine.idle("web", &flags);
    let mib = |n: u64| (n << 20).to_string();
    assert_eq!(engine.cgroup("web", &["memory.limit_in_bytes", "memory.max"]), mib(64));
    assert_eq!(engine.cgroup("web", &["memory.memsw.limit_in_bytes"]), mib(96));
    assert_eq!(engine.cgroup("web", &["memory.soft_limit_in_bytes", "memory.low"]), mib(32));
    assert_eq!(engine.cgroup("web", &["cpu.cfs_quota_us"]), "150000");
    assert_eq!(engine.cgroup("web", &["cpu.cfs_period_us"]), "100000");
    assert_eq!(engine.cgroup("web", &["cpu.shares"]), "512");
    assert_eq!(engine.cgroup("web", &["cpuset.cpus"]), "0");
    assert_eq!(engine.cgroup("web", &["cpuset.mems"]), "0");
    assert_eq!(engine.cgroup("web", &["pids.max"]), "77");
    let quota = ["--cpu-period", "50000", "--cpu-quota", "25000", "--network", "none"];
    engine.idle("quota", &quota);
    assert_eq!(engine.cgroup("quota", &["cpu.cfs_quota_us"]), "25000");
    assert_eq!(engine.cgroup("quota", &["cpu.cfs_period_us"]), "50000");
    // The bound binds: of 100 children some cannot be made.
    let many = "for i in $(seq 100); do sleep 5 & done; echo made";
    let output = engine.sh(&["--pids-limit", "20", "--network", "none"], many);
    assert!(output.stderr.contains("fork"), "{output:?}");
}

/// A whole disk of the machine, which no loop device is needed for.
fn disk() -> Option<(String, String)> {
    let disks = std::fs::read_dir("/sys/block").unwrap().flatten();
    let mut real = disks.filter(|d| d.path().join("device").exists() && d.file_name() != "sr0");
    let name = real.next()?.file_name().into_string().unwrap();
    let number = std::fs::read_to_string(format!("/sys/block/{name}/dev")).unwrap().trim().to_owned();
    Some((format!("/dev/{name}"), number))
}

#[test]
fn block_devices_are_throttled() {
    let engine = Engine::new();
    let (path, number) = disk().expect("the machine has a disk");
    let of = |rate: &str| format!("{path}:{rate}");
    let (bytes, operations) = (of("1mb"), of("100"));
    let flags = [
        "--device-read-bps",
        &bytes,
        "--device-write-bps",
        &bytes,
        "--device-read-iops",
        &operations,
        "--device-write-iops",
        &operations,
        "--network",
        "none",
    ];
    engine.idle("web", &flags);
    for (file, value) in [
        ("blkio.throttle.read_bps_device", "1048576"),
        ("blkio.throttle.write_bps_device", "1048576"),
        ("blkio.throttle.read_iops_device", "100"),
        ("blkio.throttle.write_iops_device", "100"),
    ] {
        assert_eq!(engine.cgroup("web", &[file]), format!("{number} {value}"), "{file}");
    }
    let weight = engine.brig(&["run", "-d", "--name", "heavy", "--blkio-weight", "300", "busybox", "sleep", "1000"]);
    assert_eq!(weight.status, 0, "{weight:?}");
    assert_eq!(engine.inspect("heavy", "{{.HostConfig.BlkioWeight}}"), "300");
    let known = ["blkio.weight", "blkio.bfq.weight"];
    let root = std::path::Path::new("/sys/fs/cgroup/blkio/brig");
    if known.iter().any(|file| root.join(file).exists()) {
        assert_eq!(engine.cgroup("heavy", &known).trim_start_matches("default "), "300");
    } else {
        assert!(weight.stderr.contains("warning: "), "what the kernel has not is said: {weight:?}");
    }
}

#[test]
fn resource_limits_memory_and_scores() {
    let engine = Engine::new();
    let script = "ulimit -n; ulimit -Hn; ulimit -c";
    sees(&engine, &["--ulimit", "nofile=1024:2048", "--ulimit", "core=0"], script, "1024\n2048\n0");
    sees(&engine, &["--shm-size", "8m"], "df -k /dev/shm | tail -1 | awk '{print $2}'", "8192");
    sees(&engine, &[], "df -k /dev/shm | tail -1 | awk '{print $2}'", "65536");
    sees(&engine, &["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500");
}

/// The effective capabilities, as the kernel writes them.
const CAPABILITIES: &str = "grep CapEff /proc/self/status | awk '{print $2}'";

#[test]
fn capabilities_and_privileges() {
    let engine = Engine::new();
    sees(&engine, &[], CAPABILITIES, "00000000a80425fb"); // Docker's fourteen
    sees(&engine, &["--cap-drop", "ALL"], CAPABILITIES, "0000000000000000");
    sees(&engine, &["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], CAPABILITIES, "0000000000001000");
    sees(&engine, &["--cap-add", "cap_sys_admin"], CAPABILITIES, "00000000a82425fb");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|l| l.strip_prefix("CapEff:\t")).unwrap().to_owned();
    sees(&engine, &["--privileged"], CAPABILITIES, &own);
    sees(
        &engine,
        &["--privileged"],
        "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status ",
        "NoNewPrivs:\t0\nSeccomp:\t0",
    );
    sees(&engine, &[], "mount -t tmpfs x /tmp 2>/dev/null || echo denied", "denied");
    sees(&engine, &["--privileged"], "mount -t tmpfs x /tmp && echo done", "done");
}

#[test]
fn seccomp_and_no_new_privileges() {
    let engine = Engine::new();
    let mode = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | awk '{print $2}' | tr '\\n' ' '";
    sees(&engine, &[], mode, "0 2");
    sees(&engine, &["--security-opt", "seccomp=unconfined"], mode, "0 0");
    sees(&engine, &["--security-opt", "no-new-privileges"], mode, "1 2");
    // The default profile denies new user namespaces.
    sees(&engine, &[], "unshare -U true 2>/dev/null || echo denied", "denied");
    sees(
        &engine,
        &["--security-opt", "seccomp=unconfined", "--cap-add", "SYS_ADMIN"],
        "unshare -U true && echo made",
        "made",
    );
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#;
    std::fs::write(engine.path("profile.json"), profile).unwrap();
    let option = format!("seccomp={}", engine.text("profile.json"));
    sees(
        &engine,
        &["--security-opt", &option],
        "mkdir /x 2>/dev/null || echo denied; touch /y && echo made",
        "denied\nmade",
    );
    std::fs::write(engine.path("profile.json"), "{").unwrap();
    let bad = engine.sh(&["--security-opt", &option], "true");
    assert!(bad.status == 125 && bad.stderr.starts_with("error: "), "{bad:?}");
}

#[test]
fn proc_and_sys_are_masked() {
    let engine = Engine::new();
    sees(
        &engine,
        &[],
        "cat /proc/keys 2>/dev/null | wc -c; ls /sys/firmware | wc -l; ls /proc/acpi 2>/dev/null | wc -l",
        "0\n0\n0",
    );
    sees(&engine, &[], "(echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo read-only", "read-only");
    sees(&engine, &[], "(echo b > /proc/sysrq-trigger) 2>/dev/null || echo read-only", "read-only");
    sees(&engine, &[], "touch /sys/x 2>/dev/null || echo read-only", "read-only");
    let open = ["--security-opt", "systempaths=unconfined"];
    sees(&engine, &open, "(echo 64 > /proc/sys/kernel/ngroups_max) 2>&1 | grep -c Read-only || true", "0");
    // Nothing but the three streams, and the directory that ls opens, is open.
    sees(&engine, &[], "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3");
}

#[test]
fn devices() {
    let engine = Engine::new();
    let names =
        "ls /dev | grep -vE '^(console|core|fd|full|mqueue|null|ptmx|pts|random|shm|std|tty|urandom|zero)' | wc -l";
    sees(&engine, &[], names, "0");
    sees(&engine, &["--device", "/dev/fuse:/dev/own:r"], "stat -c %F /dev/own", "character special file");
    let open = "(: < /dev/own) && echo read; (: > /dev/own) 2>/dev/null || echo no write";
    sees(&engine, &["--device", "/dev/fuse:/dev/own:r"], open, "read\nno write");
    let node = "mknod /tmp/fuse c 10 229 && (: < /tmp/fuse) 2>/dev/null && echo opened || echo denied";
    sees(&engine, &[], node, "denied");
    sees(&engine, &["--device-cgroup-rule", "c 10:229 rwm"], node, "opened");
}

#[test]
fn kernel_settings_and_namespaces() {
    let engine = Engine::new();
    sees(&engine, &["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward", "1");
    sees(&engine, &["--sysctl", "kernel.shmmax=123456"], "cat /proc/sys/kernel/shmmax", "123456");
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    for (flag, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--cgroupns", "cgroup")] {
        let script = format!("readlink /proc/self/ns/{kind}");
        sees(&engine, &[flag, "host"], &script, &own(kind));
        assert_ne!(engine.sh(&["--network", "none"], &script).ok(), own(kind), "{flag}");
    }
    engine.idle("web", &["--ipc", "shareable", "--network", "none"]);
    let inside = |kind: &str| engine.brig(&["exec", "web", "readlink", &format!("/proc/self/ns/{kind}")]).ok();
    sees(&engine, &["--pid", "container:web"], "readlink /proc/self/ns/pid", &inside("pid"));
    sees(&engine, &["--pid", "container:web"], "cat /proc/1/cmdline | tr '\\0' ' '", "sleep 1000");
    sees(&engine, &["--ipc", "container:web"], "readlink /proc/self/ns/ipc", &inside("ipc"));
    sees(&engine, &[], "ps > /ps; wc -l < /ps; tr '\\0' ' ' < /proc/1/cmdline | cut -c1-5", "3\nsh -c");
    sees(
        &engine,
        &["--time", "boottime=864000"],
        "test $(cut -d. -f1 /proc/uptime) -gt 864000 && echo shifted",
        "shifted",
    );
    let user = engine.sh(&["--userns", "auto", "--network", "none"], "readlink /proc/self/ns/user").ok();
    assert_ne!(user, own("user"));
}

#[test]
fn the_platform_of_an_image() {
    let engine = Engine::new();
    let other = engine.brig(&["run", "--rm", "--pull", "never", "--platform", "linux/s390x", "busybox", "true"]);
    assert!(other.status == 125 && other.stderr.starts_with("error: "), "{other:?}");
    engine.brig(&["run", "--rm", "--platform", "linux/amd64", "--network", "none", "busybox", "true"]).ok();
}
