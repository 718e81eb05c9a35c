//! User and time namespaces, id-mapped layers, devices, limits, and the file system attacks of a hostile image.

#![allow(clippy::unwrap_used)] // helpers of tests may panic, as tests do

mod support;

use brig_monitor::overlay::{Form, Overlay, Upper, mount_as};
use brig_monitor::plan::CopyUp;
use serde_json::json;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use support::Scratch;

fn with_userns(scratch: &Scratch, args: &[&str]) -> serde_json::Value {
    let mut spec = scratch.spec(args);
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65_536}]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
    spec
}

#[test]
fn root_in_a_user_namespace_is_not_root_outside() {
    let scratch = Scratch::new();
    std::os::unix::fs::chown(scratch.path("lower/etc/passwd"), Some(0), Some(0)).unwrap();
    let script = "cat /proc/self/uid_map; id -u; ls -ln /etc/passwd; touch /tmp/made; sleep 0.2; echo x > /dev/null && echo null; ls /sys/fs/cgroup | wc -l";
    let spec = with_userns(&scratch, &["sh", "-c", script]);
    std::os::unix::fs::chown(scratch.path("c/upper"), Some(200_000), Some(200_000)).unwrap();
    let output = scratch.run(&scratch.plan(spec));
    assert_eq!(output.failed, None);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines[0].split_whitespace().eq(["0", "200000", "65536"]), "{output:?}");
    assert_eq!(lines[1], "0");
    assert!(
        lines[2].split_whitespace().nth(2) == Some("0"),
        "the layer's files are shown under the container's ids: {output:?}"
    );
    assert!(output.stdout.contains("null"), "{output:?}");
    assert_eq!(std::fs::metadata(scratch.path("c/upper/tmp/made")).unwrap().uid(), 200_000);
}

#[test]
fn the_process_of_a_user_namespace_has_another_id_on_the_machine() {
    let scratch = Scratch::new();
    let plan = scratch.plan(with_userns(&scratch, &["sleep", "1000"]));
    let mut connection = scratch.start(&plan, brig_monitor::protocol::HELLO_OUTPUT);
    let Some(brig_monitor::client::Event::Started(pid)) = connection.receive().unwrap() else {
        panic!("it did not start")
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t200000\t200000"), "{status}");
    connection.send(brig_monitor::protocol::Kind::Signal, &[9]).unwrap();
    support::collect(&mut connection);
}

#[test]
fn a_time_namespace_has_its_offsets() {
    let scratch = Scratch::new();
    let mut spec = scratch.spec(&["cat", "/proc/uptime"]);
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 1_000_000}});
    let output = scratch.run(&scratch.plan(spec));
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        // A kernel built without them: the start says what it lacks.
        assert!(output.failed.unwrap().1.contains("make the time namespace"));
        return;
    }
    let inside: f64 =
        output.stdout.split(' ').next().unwrap_or_default().parse().unwrap_or_else(|_| panic!("{output:?}"));
    assert!(inside > 1_000_000.0, "{inside}");
}

#[test]
fn an_empty_volume_takes_what_the_image_has_and_a_full_one_keeps_its_own() {
    for mapped in [false, true] {
        let scratch = Scratch::new();
        std::fs::create_dir_all(scratch.path("lower/data/deep")).unwrap();
        std::fs::write(scratch.path("lower/data/deep/file"), "of the image").unwrap();
        std::fs::create_dir_all(scratch.path("volume")).unwrap();
        let volume = scratch.path("volume");
        let args = ["sh", "-c", "cat /data/deep/file; echo more > /data/more"];
        let mut spec = if mapped { with_userns(&scratch, &args) } else { scratch.spec(&args) };
        let options = if mapped { json!(["rbind", "idmap"]) } else { json!(["rbind"]) };
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/data", "type": "bind", "source": volume, "options": options}));
        let mut plan = scratch.plan(spec);
        plan.copy_up = vec![CopyUp { destination: "/data".into(), volume: volume.clone() }];
        assert_eq!(scratch.run(&plan).stdout, "of the image");
        assert_eq!(std::fs::read_to_string(volume.join("more")).unwrap(), "more\n");
        assert_eq!(std::fs::metadata(volume.join("deep/file")).unwrap().uid(), 0);
        std::fs::write(volume.join("deep/file"), "of the volume").unwrap();
        assert_eq!(scratch.run(&plan).stdout, "of the volume");
    }
}

#[test]
fn links_of_a_hostile_image_lead_nowhere() {
    // Each row replaces something that a runtime touches by a link to the machine (CVE-2021-30465, 2025-31133, 2025-52565).
    for (name, target) in [
        ("proc", "/tmp/brig-outside"),
        ("sys", "../../../../tmp/brig-outside"),
        ("etc/passwd", "/proc/sysrq-trigger"),
        ("dev", "/proc/sys/kernel"),
        ("tmp", "/proc/self/root/tmp"),
    ] {
        let scratch = Scratch::new();
        let place = scratch.path("lower").join(name);
        let _ = std::fs::remove_file(&place);
        let _ = std::fs::remove_dir_all(&place);
        symlink(target, &place).unwrap();
        let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let output = scratch.sh("echo ran");
        // It may run inside the root, or refuse; the machine stays as it was.
        assert!(output.stdout == "ran\n" || output.failed.is_some(), "{name}: {output:?}");
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
        assert!(!std::path::Path::new("/tmp/brig-outside").exists(), "{name} was made outside");
        assert!(!std::path::Path::new("/proc/sys/kernel/null").exists());
    }
}

#[test]
fn device_nodes_of_the_image_are_not_taken_for_devices() {
    let scratch = Scratch::new();
    let mut spec = scratch.spec(&["sh", "-c", "echo x > /dev/null && ls -l /dev/null"]);
    // Without a tmpfs on /dev, the image's own nodes are there.
    spec["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    symlink("/etc/passwd", scratch.path("lower/dev/null")).unwrap();
    let output = scratch.run(&scratch.plan(spec));
    assert!(output.stdout.starts_with("crw-rw-rw-"), "{output:?}");
    assert!(std::fs::read_to_string(scratch.path("lower/etc/passwd")).unwrap().starts_with("root:"));
}

#[test]
fn devices_that_were_not_granted_stay_closed() {
    let scratch = Scratch::new();
    let mut spec = scratch.spec(&["sh", "-c", "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg"]);
    symlink("busybox", scratch.path("lower/bin/mknod")).unwrap();
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] = json!(["CAP_MKNOD", "CAP_SYSLOG", "CAP_SYS_ADMIN"]);
    }
    let output = scratch.run(&scratch.plan(spec));
    assert!(output.stderr.contains("Operation not permitted"), "{output:?}");
    assert_ne!(output.exited.unwrap().status, Some(0));
}

#[test]
fn limits_are_in_the_cgroup_and_hold() {
    let scratch = Scratch::new();
    let mut spec = scratch.spec(&["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo done"]);
    spec["linux"]["resources"]["pids"]["limit"] = 4.into();
    let output = scratch.run(&scratch.plan(spec));
    assert!(output.stderr.contains("can't fork"), "{output:?}");
}

#[test]
fn a_limit_that_this_machine_cannot_grant_is_lowered_and_told() {
    let scratch = Scratch::new();
    let mut spec = scratch.spec(&["sh", "-c", "ulimit -n"]);
    spec["process"]["rlimits"] =
        json!([{"type": "RLIMIT_NOFILE", "soft": 10_000_000_000u64, "hard": 10_000_000_000u64}]);
    let output = scratch.run(&scratch.plan(spec));
    assert!(output.failed.is_none(), "{output:?}");
    assert!(std::fs::read_to_string(scratch.path("c/log")).unwrap().contains("was lowered"));
}

#[test]
fn release_agent_and_sysctls_of_the_machine_are_out_of_reach() {
    let scratch = Scratch::new();
    let output = scratch.sh("for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/release_agent; do echo /bin/sh > $f; done; echo x > /proc/sys/kernel/core_pattern; echo end");
    assert!(output.stderr.contains("core_pattern") && output.stdout == "end\n", "{output:?}");
    let mut spec = scratch.spec(&["true"]);
    spec["linux"]["sysctl"] = json!({"kernel.core_pattern": "|/bin/x"});
    assert!(scratch.run(&scratch.plan(spec)).failed.unwrap().1.contains("whole machine"));
}

/// A hundred and twenty layers, each with a file of its own and one that all have.
fn many_layers(scratch: &Scratch) -> Vec<std::path::PathBuf> {
    let make = |n: u32| {
        let layer = scratch.path("layers").join(format!("{n:064}"));
        std::fs::create_dir_all(&layer).unwrap();
        std::fs::write(layer.join(format!("file{n}")), n.to_string()).unwrap();
        std::fs::write(layer.join("same"), n.to_string()).unwrap();
        layer
    };
    (0..120).map(make).collect()
}

#[test]
fn a_container_of_120_layers_starts_on_every_kernel() {
    for mapped in [false, true] {
        let scratch = Scratch::new();
        let args = ["cat", "/same", "/file119", "/file0"];
        let mut plan = scratch.plan(if mapped { with_userns(&scratch, &args) } else { scratch.spec(&args) });
        if let brig_monitor::plan::Rootfs::Overlay { lowers, .. } = &mut plan.rootfs {
            lowers.splice(0..0, many_layers(&scratch));
        }
        let output = scratch.run(&plan);
        assert_eq!((output.stdout.as_str(), output.failed), ("01190", None), "mapped: {mapped}");
    }
}

#[test]
fn each_form_of_overlay_that_this_kernel_has_mounts_120_layers() {
    let scratch = Scratch::new();
    let lowers = many_layers(&scratch);
    let (upper, work) = (scratch.path("c/upper"), scratch.path("c/work"));
    let overlay = Overlay { lowers: &lowers, upper: Upper::Directories(&upper, &work), throwaway: false };
    // The third form needs a single-threaded caller; the container above uses it where the kernel has no other.
    for form in [Form::Descriptors, Form::Paths] {
        match mount_as(form, &overlay, None) {
            Ok(mount) => {
                let fd =
                    rustix::fs::openat(mount.as_fd(), "file119", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())
                        .unwrap();
                assert_eq!(std::io::read_to_string(std::fs::File::from(fd)).unwrap(), "119", "{form:?}");
            }
            Err(error) => assert!(matches!(error.raw_os_error(), Some(22 | 95)), "{form:?}: {error}"),
        }
    }
}

#[test]
fn changes_may_go_to_memory_and_be_gone() {
    let scratch = Scratch::new();
    let mut plan = scratch.plan(scratch.spec(&["sh", "-c", "cat /tmp/made; echo text > /tmp/made; cat /tmp/made"]));
    if let brig_monitor::plan::Rootfs::Overlay { upper, work, volatile, .. } = &mut plan.rootfs {
        (*upper, *work, *volatile) = (None, None, true);
    }
    for _ in 0..2 {
        assert_eq!(scratch.run(&plan).stdout, "text\n");
    }
}

#[test]
fn parts_of_a_root_are_overlays_of_their_own() {
    for mapped in [false, true] {
        let scratch = Scratch::new();
        std::fs::create_dir_all(scratch.path("lower/part")).unwrap();
        for directory in ["other", "c/part-upper", "c/part-work"] {
            std::fs::create_dir_all(scratch.path(directory)).unwrap();
        }
        std::fs::write(scratch.path("other/file"), "of the part\n").unwrap();
        let args = ["sh", "-c", "cat /part/file; echo new > /part/file; cat /part/file"];
        let spec = if mapped { with_userns(&scratch, &args) } else { scratch.spec(&args) };
        let mut plan = scratch.plan(spec);
        if let brig_monitor::plan::Rootfs::Overlay { submounts, .. } = &mut plan.rootfs {
            submounts.push(brig_monitor::plan::SubOverlay {
                destination: "/part".into(),
                lower: scratch.path("other"),
                upper: scratch.path("c/part-upper"),
                work: scratch.path("c/part-work"),
            });
        }
        assert_eq!(scratch.run(&plan).stdout, "of the part\nnew\n");
        assert_eq!(std::fs::read_to_string(scratch.path("other/file")).unwrap(), "of the part\n");
    }
}

#[test]
fn a_throwaway_layer_is_mounted_as_often_as_it_is_wanted() {
    let scratch = Scratch::new();
    let mut plan = scratch.plan(scratch.spec(&[
        "sh",
        "-c",
        "cat /tmp/count; echo x >> /tmp/count; grep -c volatile /proc/mounts",
    ]));
    plan.remove = true;
    plan.undo.retain(|step| !matches!(step, brig_monitor::plan::Undo::Directory(_)));
    assert_eq!(scratch.run(&plan).stdout, "1\n");
    assert_eq!(scratch.run(&plan).stdout, "x\n1\n");
}
