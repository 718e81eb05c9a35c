//! Attacks from inside a container and by hostile bundles, one a test, with the numbers of those that have worked elsewhere. Each
//! passes when the attack fails.

use crate::bundle::{Bundle, runtime, wait_for_file};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::process::Command;

/// All capabilities: what an attacker has in a container that was trusted too much.
fn trust(bundle: &mut Bundle) {
    let all = json!([
        "CAP_SYS_ADMIN",
        "CAP_SYS_PTRACE",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
        "CAP_CHOWN",
        "CAP_KILL",
        "CAP_SYS_CHROOT",
        "CAP_MKNOD"
    ]);
    bundle.config["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    bundle.config["process"]["noNewPrivileges"] = json!(false);
}

/// CVE-2019-5736: whoever enters the container is caught at /proc/PID/exe, and its file overwritten when it has gone.
#[test]
fn the_programs_own_file_is_out_of_reach() {
    let mut bundle = Bundle::new(
        "while :; do for p in /proc/[0-9]*; do case $(readlink $p/exe) in */busybox | '') ;; *) \
         if exec 9< $p/exe; then touch /caught; ( sleep 0.02; echo overwritten > /proc/self/fd/9; echo overwritten >> /proc/self/fd/9 ) 2> /dev/null; fi;; \
         esac; done; done 2> /dev/null",
    );
    trust(&mut bundle);
    // A copy, so that nothing but it is at stake.
    bundle.program = bundle.path("runtime");
    std::fs::copy(runtime(), &bundle.program).unwrap();
    let before = std::fs::read(&bundle.program).unwrap();
    std::fs::write(bundle.rootfs("bin/evil"), "#!/proc/self/exe\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(bundle.rootfs("bin/evil"), std::fs::Permissions::from_mode(0o755)).unwrap();
    bundle.leave(&["run", "-d", bundle.id()]);
    for _ in 0..40 {
        let _ = bundle.call(&["exec", bundle.id(), "/bin/evil"]);
        let _ = bundle.call(&["exec", bundle.id(), "true"]);
    }
    bundle.call(&["delete", "--force", bundle.id()]).ok();
    assert!(std::fs::read(&bundle.program).unwrap() == before, "the program was overwritten");
}

/// CVE-2024-21626 and its kin: a descriptor or a working directory that leads out.
#[test]
fn inherited_descriptors_lead_nowhere() {
    let mut bundle = Bundle::new("ls /proc/self/fd; ls -d /proc/1/cwd/etc/hostname-of-the-machine");
    let marker = bundle.path("etc");
    std::fs::create_dir(&marker).unwrap();
    std::fs::write(marker.join("hostname-of-the-machine"), "").unwrap();
    let outside = bundle.path("");
    let call = |bundle: &Bundle, words: &str| {
        let _ = bundle.command(&["--version"]).output();
        let opened: Vec<String> = (3..10).map(|n| format!("exec {n}< {};", outside.display())).collect();
        let opened = opened.join(" ");
        let state = bundle.path("state");
        let line = format!("{opened} {} --root {} {words}", bundle.program.display(), state.display());
        let output = Command::new("sh").args(["-c", &line]).current_dir(&outside).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (_, said) = call(&bundle, &format!("run {}", bundle.id()));
    let numbers: Vec<&str> = said.lines().filter(|line| line.parse::<u32>().is_ok()).collect();
    assert!(numbers.len() <= 4, "0, 1, 2 and that of ls: {said}");
    assert!(!said.contains("hostname-of-the-machine"), "{said}");
    for number in 3..16 {
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        bundle.config["process"]["args"] = json!(["sh", "-c", "ls -d ./etc/hostname-of-the-machine ../../../../*"]);
        let (_, said) = call(&bundle, &format!("run {}", bundle.id()));
        assert!(!said.contains("hostname-of-the-machine"), "descriptor {number}: {said}");
    }
    bundle.config["process"]["cwd"] = json!("/");
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.leave(&["run", "-d", bundle.id()]);
    for number in 3..16 {
        let (_, said) = call(
            &bundle,
            &format!("exec --cwd /proc/self/fd/{number} {} ls -d ./etc/hostname-of-the-machine", bundle.id()),
        );
        assert!(!said.contains("hostname-of-the-machine"), "descriptor {number}: {said}");
    }
    let (_, said) = call(&bundle, &format!("exec {} ls /proc/self/fd", bundle.id()));
    assert!(said.lines().count() <= 4, "{said}");
}

/// CVE-2021-30465: the place of a mount becomes a link while the mount is being made.
#[test]
fn a_link_that_appears_under_a_mount_leads_nowhere() {
    let mut bundle = Bundle::new("true");
    let volume = bundle.path("volume");
    let target = bundle.path("target");
    for path in [&volume, &target, &volume.join("place"), &bundle.path("source")] {
        std::fs::create_dir(path).unwrap();
    }
    bundle.mount(json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"]}));
    bundle.mount(json!({"destination": "/volume/place/inner", "type": "tmpfs", "source": "tmpfs"}));
    bundle.mount(json!({"destination": "/volume/place/bind", "type": "bind", "source": "source", "options": ["bind"]}));
    symlink(&target, volume.join("link")).unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let racer = std::thread::spawn({
        let (stop, volume) = (stop.clone(), volume.clone());
        move || {
            let mut swaps = 0u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                let _ = renameat_with(CWD, volume.join("place"), CWD, volume.join("link"), RenameFlags::EXCHANGE);
                swaps += 1;
            }
            swaps
        }
    });
    for _ in 0..60 {
        let _ = bundle.run();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let swaps = racer.join().unwrap();
    assert!(swaps > 1000, "{swaps} swaps");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0, "something was made outside of the container");
}

/// CVE-2024-45310, CVE-2019-16884: directories and mounts through links of the image.
#[test]
fn links_of_the_image_end_inside() {
    let mut bundle = Bundle::new("ls -d /outside-of-all/deep /etc/made");
    let outside = bundle.path("outside-of-all");
    symlink(&outside, bundle.rootfs("dangling")).unwrap();
    symlink("../../../../../../../etc/made", bundle.rootfs("climbing")).unwrap();
    let inner = bundle.rootfs(outside.strip_prefix("/").unwrap().to_str().unwrap()).join("deep");
    bundle.mount(json!({"destination": "/dangling/deep", "type": "tmpfs", "source": "tmpfs"}));
    bundle.mount(json!({"destination": "/climbing", "type": "tmpfs", "source": "tmpfs"}));
    let _ = bundle.run();
    assert!(!outside.exists() && !std::path::Path::new("/etc/made").exists());
    assert!(inner.exists(), "made where the link leads inside");
}

/// CVE-2025-31133, CVE-2025-52565: what masks and terminals are made with is a link of the image.
#[test]
fn devices_of_the_image_are_not_trusted() {
    let mut bundle = Bundle::new("stat -c %F:%t:%T /dev/null /dev/zero; wc -c < /etc/secret; echo x > /dev/null");
    bundle.config["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    bundle.config["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
    bundle.config["linux"]["maskedPaths"] = json!(["/etc/secret"]);
    std::fs::write(bundle.rootfs("etc/secret"), "secret").unwrap();
    symlink("/proc/sysrq-trigger", bundle.rootfs("dev/null")).unwrap();
    std::fs::write(bundle.rootfs("dev/zero"), "a file").unwrap();
    let said = bundle.run();
    if said.status == 0 {
        let lines: Vec<&str> = said.stdout.lines().collect();
        assert_eq!(lines, ["character special file:1:3", "character special file:1:5", "0"]);
    }
    // A terminal over a link.
    let mut bundle = Bundle::new("echo to the console > /dev/console");
    bundle.config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/dev");
    std::fs::create_dir(bundle.rootfs("dev/pts")).unwrap();
    std::fs::create_dir(bundle.rootfs("dev/shm")).unwrap();
    std::fs::create_dir(bundle.rootfs("dev/mqueue")).unwrap();
    bundle.config["process"]["terminal"] = json!(true);
    std::fs::write(bundle.rootfs("etc/precious"), "precious").unwrap();
    symlink("/etc/precious", bundle.rootfs("dev/console")).unwrap();
    let _ = bundle.run();
    assert_eq!(std::fs::read_to_string(bundle.rootfs("etc/precious")).unwrap(), "precious");
}

/// CVE-2019-19921, CVE-2023-27561: /proc is a link, or not the kernel's.
#[test]
fn a_proc_that_is_none_is_refused() {
    let bundle = Bundle::new("true");
    std::fs::remove_dir(bundle.rootfs("proc")).unwrap();
    symlink("/tmp", bundle.rootfs("proc")).unwrap();
    let words = bundle.run().failed();
    assert!(words.contains("must be mounted on ordinary directory"), "{words}");
    // CVE-2019-16884: a bind over a part of /proc, under which settings and labels would be written.
    let mut bundle = Bundle::new("true");
    std::fs::create_dir(bundle.path("fake")).unwrap();
    for destination in ["/proc/sys", "/proc/self/attr", "/proc/1"] {
        let mut config = bundle.config.clone();
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": destination, "type": "bind", "source": "fake", "options": ["bind"]}));
        let kept = std::mem::replace(&mut bundle.config, config);
        let words = bundle.run().failed();
        assert!(words.contains("inside /proc"), "{destination}: {words}");
        bundle.config = kept;
    }
}

/// CVE-2025-52881: settings are written through the kernel's own files, or not at all.
#[test]
fn settings_do_not_go_into_files_of_the_image() {
    let mut bundle = Bundle::new("true");
    let fake = bundle.path("fake/sys/net/ipv4/ip_forward");
    std::fs::create_dir_all(fake.parent().unwrap()).unwrap();
    std::fs::write(&fake, "untouched").unwrap();
    bundle.config["mounts"][0] = json!({"destination": "/proc", "type": "bind", "source": "fake", "options": ["bind"]});
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    let _ = bundle.run();
    assert_eq!(std::fs::read_to_string(&fake).unwrap(), "untouched");
}

/// CVE-2022-0811: a setting that is none of the container's, in every spelling.
#[test]
fn settings_of_the_machine_are_refused() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let mut bundle = Bundle::new("true");
    for key in [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "kernel.shm_rmid_forced+kernel.core_pattern",
        "net.ipv4.conf/../../../kernel.core_pattern",
        "net/../kernel/core_pattern",
        "kernel.shmmax=1\nkernel.core_pattern",
        "fs.mqueue./../../kernel/core_pattern",
    ] {
        bundle.config["linux"]["sysctl"] = json!({key: "|/evil"});
        bundle.run().failed();
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern, "{key}");
    }
}

/// CVE-2022-24769, CVE-2022-29162, CVE-2022-2995: capabilities that are inherited, groups that were not asked for.
#[test]
fn nothing_is_inherited_that_was_not_given() {
    let script = "grep -E '^(CapInh|CapAmb|Groups)' /proc/self/status";
    let mut bundle = Bundle::new(script);
    bundle.config["process"]["user"] = json!({"uid": 33, "gid": 33});
    let none = "Groups:\t \nCapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    assert_eq!(bundle.run().ok().replace("Groups:\t\n", "Groups:\t \n"), none);
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.leave(&["run", "-d", bundle.id()]);
    let said = bundle.call(&["exec", "--cap", "CAP_SYS_CHROOT", bundle.id(), "sh", "-c", script]).ok();
    assert_eq!(said.replace("Groups:\t\n", "Groups:\t \n"), none);
}

/// CVE-2022-0492: the release agent of cgroup v1, as root of the container and as root of a user namespace inside.
#[test]
fn the_release_agent_is_out_of_reach() {
    let agents = |places: &[std::path::PathBuf]| -> Vec<String> {
        places.iter().filter_map(|root| std::fs::read_to_string(root.join("release_agent")).ok()).collect()
    };
    let places = crate::bundle::cgroups();
    let before = agents(&places);
    let bundle = Bundle::new(
        "for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/release_agent; do echo /evil > $f; done 2> /dev/null; \
         mkdir -p /tmp/c; mount -t cgroup -o memory cgroup /tmp/c && echo /evil > /tmp/c/release_agent && echo reached; true",
    );
    let said = bundle.run().ok();
    assert!(!said.contains("reached"), "{said}");
    assert_eq!(agents(&places), before);
}

/// CVE-2024-0132, CVE-2025-23266: the image's environment in a hook of the machine.
#[test]
fn hooks_know_nothing_of_the_containers_environment() {
    let mut bundle = Bundle::new("true");
    bundle.config["process"]["env"] = json!(["PATH=/bin", "LD_PRELOAD=./evil.so", "ENV=/evil", "BASH_ENV=/evil"]);
    let log = bundle.path("environment");
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("/usr/bin/env >> {}; echo end >> {}", log.display(), log.display())], "env": ["PATH=/usr/bin:/bin"]}]);
    bundle.config["hooks"] = json!({"prestart": hook, "createRuntime": hook, "createContainer": hook});
    bundle.run().ok();
    let text = wait_for_file(&log);
    assert_eq!(text.matches("end\n").count(), 3, "{text}");
    assert!(!text.contains("LD_PRELOAD") && !text.contains("ENV="), "{text}");
}

/// A configuration that is too large, too deep or not one at all.
#[test]
fn hostile_configurations_are_errors() {
    let bundle = Bundle::new("true");
    let try_text = |text: &[u8]| {
        let mut command = bundle.command(&["run", bundle.id()]);
        std::fs::write(bundle.path("config.json"), text).unwrap();
        let output = command.output().unwrap();
        assert!(!output.status.success());
        assert!(output.stderr.len() < 4096, "{} bytes of error", output.stderr.len());
        assert!(!bundle.path("state").join(bundle.id()).exists());
    };
    try_text(b"");
    try_text(b"[]");
    try_text(b"{\"ociVersion\": \"1.0.0\"}");
    try_text("[".repeat(100_000).as_bytes());
    try_text(&vec![b' '; 17 << 20]);
    let mut config: Value = bundle.config.clone();
    config["process"]["user"]["uid"] = json!(4_294_967_296u64);
    try_text(config.to_string().as_bytes());
    config["process"]["user"]["uid"] = json!(-1);
    try_text(config.to_string().as_bytes());
    let fifo = bundle.path("config.json");
    std::fs::remove_file(&fifo).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    let mut command = Command::new(&bundle.program);
    command.arg("--root").arg(bundle.path("state")).args(["run", bundle.id()]).current_dir(bundle.path(""));
    assert!(!command.output().unwrap().status.success(), "a FIFO is not waited for");
    std::fs::remove_file(&fifo).unwrap();
}

/// A keyring that the caller has in its session would be in reach of whatever it starts inside.
#[test]
fn the_callers_keys_are_out_of_reach() {
    if !std::path::Path::new("/proc/keys").exists() {
        // A kernel without keyrings has none to take.
        return;
    }
    brig_sys::keyring::join_session(c"brig-test-callers").unwrap();
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.config["linux"]["maskedPaths"] = json!([]);
    bundle.leave(&["run", "-d", bundle.id()]);
    // A user who is not root sees what it possesses, and nothing of root's.
    let seen = bundle.call(&["exec", "--user", "33", bundle.id(), "cat", "/proc/keys"]).ok();
    assert!(seen.contains(&format!("_ses.{}", bundle.id())) && !seen.contains("brig-test-callers"), "{seen}");
}
