//! What brig-runtime does beyond the common ground, or in its own words.

use crate::bundle::Bundle;
use serde_json::{Value, json};

#[test]
fn errors_go_to_the_log_in_the_form_that_was_asked_for() {
    let mut bundle = Bundle::new("true");
    bundle.config["process"]["args"] = json!(["nosuch"]);
    let said = bundle.call(&["--log", "log.json", "--log-format", "json", "run", bundle.id()]);
    let line = std::fs::read_to_string(bundle.path("log.json")).unwrap();
    let told: Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert_eq!(told["level"], "error");
    let text = told["msg"].as_str().unwrap();
    assert!(text.contains("run failed") && text.contains("executable file not found in $PATH"), "{text}");
    assert_eq!(said.stderr.trim_end(), text, "people read it too");
}

#[test]
fn a_kill_at_any_moment_of_a_start_leaves_what_delete_takes_away() {
    // The maker is killed after a growing number of milliseconds, from before it does anything to after it is done.
    let bundle = Bundle::new("exec sleep 1000");
    let mut points = 0;
    for step in 0..12u64 {
        let mut child =
            bundle.command(&["run", "-d", bundle.id()]).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(step * 1500));
        let _ = child.kill();
        child.wait().unwrap();
        bundle.call(&["delete", "--force", bundle.id()]).ok();
        assert!(!bundle.path("state").join(bundle.id()).exists());
        points += 1;
    }
    println!("killed at {points} points");
    bundle.leave(&["run", "-d", bundle.id()]);
    assert_eq!(bundle.state()["status"], "running");
}

#[test]
fn a_waiting_container_can_be_ended_and_asked_any_number_of_times() {
    let bundle = Bundle::new("true");
    bundle.leave(&["create", bundle.id()]);
    for _ in 0..20 {
        assert_eq!(bundle.state()["status"], "created");
    }
    bundle.call(&["kill", bundle.id(), "TERM"]).ok();
    bundle.wait_for("stopped");
    assert!(bundle.call(&["start", bundle.id()]).failed().contains("stopped"));
}

#[test]
fn of_many_starts_at_once_one_wins() {
    let bundle = Bundle::new("echo once; exec sleep 1000");
    bundle.leave(&["create", bundle.id()]);
    let starters: Vec<_> = (0..8)
        .map(|_| {
            let quiet = || std::process::Stdio::null();
            bundle.command(&["start", bundle.id()]).stdout(quiet()).stderr(quiet()).spawn().unwrap()
        })
        .collect();
    let won = starters.into_iter().filter_map(|mut s| s.wait().ok()).filter(std::process::ExitStatus::success).count();
    assert_eq!(won, 1);
    crate::bundle::wait("the output", || bundle.output() == "once\n");
}

#[test]
fn features_and_the_new_configuration_are_json_that_tells_the_truth() {
    let mut bundle = Bundle::new("true");
    let features: Value = serde_json::from_str(&bundle.call(&["features"]).ok()).unwrap();
    assert_eq!(features["ociVersionMax"], "1.3.0");
    assert!(features["linux"]["capabilities"].as_array().unwrap().len() >= 41);
    std::fs::remove_file(bundle.path("config.json")).unwrap();
    let mut spec = std::process::Command::new(crate::bundle::runtime());
    assert!(spec.arg("spec").current_dir(bundle.path("")).status().unwrap().success());
    let text = std::fs::read_to_string(bundle.path("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["echo", "hello"]);
    config["process"]["env"] = json!(["PATH=/bin"]);
    config["linux"]["cgroupsPath"] = bundle.config["linux"]["cgroupsPath"].clone();
    bundle.config = config;
    assert_eq!(bundle.run().ok(), "hello\n");
    for (option, words) in [("--nonsense", "not defined"), ("--bundle=/nonexistent", "/nonexistent")] {
        let said = bundle.call(&["run", option, bundle.id()]).failed();
        assert!(said.contains(words), "{said}");
    }
    for bad in ["../x", "a/b", ".", "a b"] {
        assert!(bundle.call(&["run", bad]).failed().contains("ID format"), "{bad}");
    }
}

#[test]
fn a_user_namespace_sees_id_mapped_binds_as_its_own() {
    let mut bundle = Bundle::new("cat /proc/self/uid_map; stat -c %u /plain/f /mapped/f; echo more >> /mapped/f")
        .with_user_namespace();
    std::fs::create_dir(bundle.path("source")).unwrap();
    std::fs::write(bundle.path("source/f"), "file\n").unwrap();
    bundle.mount(json!({"destination": "/plain", "type": "bind", "source": "source", "options": ["rbind"]}));
    bundle.mount(json!({"destination": "/mapped", "type": "bind", "source": "source", "options": ["rbind", "ridmap"]}));
    let said = bundle.run().ok();
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "700000", "65536", "65534", "0"]);
    let file = bundle.path("source/f");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "file\nmore\n");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&file).unwrap().uid(), 0);
}

#[test]
fn a_part_of_the_root_is_shown_under_other_ids_whatever_comes_before_it() {
    for first in [true, false] {
        let mut bundle = Bundle::new("stat -c %u:%g /shown/file; grep -c cgroup /proc/mounts");
        std::fs::create_dir(bundle.rootfs("data")).unwrap();
        std::fs::write(bundle.rootfs("data/file"), "").unwrap();
        let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        let shown = json!({
            "destination": "/shown", "type": "bind", "source": bundle.rootfs("data"), "options": ["bind"],
            "uidMappings": map, "gidMappings": map,
        });
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "cgroup");
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}));
        mounts.insert(if first { 1 } else { mounts.len() }, shown);
        let said = bundle.run().ok();
        let mut lines = said.lines();
        assert_eq!(lines.next(), Some("1000:1000"), "{first}: {said}");
        assert_ne!(lines.next(), Some("0"), "{first}: {said}");
    }
}

#[test]
fn masks_and_read_only_paths_hold_for_the_cgroups_too() {
    let view = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid"]});
    let writes = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/made && echo made; done; true";
    let mut bundle = Bundle::new(writes);
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
    bundle.mount(view.clone());
    bundle.config["linux"]["readonlyPaths"] = json!(["/sys"]);
    assert_eq!(bundle.run().ok(), "");
    let mut bundle = Bundle::new("ls /cg | wc -l");
    std::os::unix::fs::symlink("/sys/fs/cgroup", bundle.rootfs("cg")).unwrap();
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
    bundle.mount(view);
    bundle.config["linux"]["maskedPaths"] = json!(["/cg"]);
    assert_eq!(bundle.run().ok(), "0\n");
}

#[test]
fn options_that_name_files_mean_those_beside_the_bundle() {
    let mut bundle = Bundle::new("ls /ov");
    for directory in ["one", "two"] {
        std::fs::create_dir(bundle.path(directory)).unwrap();
        std::fs::write(bundle.path(directory).join(format!("file-{directory}")), "").unwrap();
        std::fs::create_dir_all(bundle.rootfs("ov").join(directory)).unwrap();
        std::fs::write(bundle.rootfs("ov").join(directory).join("wrong"), "").unwrap();
    }
    bundle.mount(json!({
        "destination": "/ov", "type": "overlay", "source": "overlay", "options": ["lowerdir=one:two"],
    }));
    assert_eq!(bundle.run().ok(), "file-one\nfile-two\n");
}

#[test]
fn nobody_who_reads_is_an_error_and_no_crash() {
    let bundle = Bundle::new("true");
    let words = [vec!["--version"], vec!["features"], vec!["--help"], vec!["state", "--help"]];
    for words in words {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = bundle.command(&words).stdout(writer).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {errors}");
        assert!(errors.contains("cannot write to standard output"), "{words:?}: {errors}");
    }
}

#[test]
fn a_user_without_privileges_runs_containers_and_enters_them() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let bundle = Bundle::new("true");
    let (user, place) = (1500, bundle.path(""));
    std::fs::copy(crate::bundle::runtime(), bundle.path("runtime")).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(std::process::Command::new("chown").args(["-Rh", "1500:1500"]).arg(&place).status().unwrap().success());
    let call = |words: &[&str]| {
        let mut command = std::process::Command::new(bundle.path("runtime"));
        command.arg("--root").arg(bundle.path("users-state")).args(words).current_dir(&place).uid(user).gid(user);
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    assert_eq!(call(&["spec", "--rootless"]), (Some(0), String::new()));
    let path = bundle.path("config.json");
    let configure = |script: &str| {
        let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["process"]["env"] = json!(["PATH=/bin"]);
        std::fs::write(&path, config.to_string()).unwrap();
    };
    configure("id -u; cat /proc/self/uid_map; test -c /dev/null && echo device; hostname");
    let (status, said) = call(&["run", "users"]);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!((status, words), (Some(0), vec!["0", "0", "1500", "1", "device", "brig"]));
    configure("exec sleep 1000 > /dev/null 2>&1");
    let (status, said) = call(&["run", "-d", "users"]);
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = call(&["exec", "users", "sh", "-c", "hostname; exit 4"]);
    assert_eq!((status, said.as_str()), (Some(4), "brig\n"));
    assert_eq!(call(&["delete", "--force", "users"]).0, Some(0));
    assert_eq!(call(&["list", "-q"]), (Some(0), String::new()));
}

/// With a range of ids of its own, as newuidmap(1) grants it: the container's other users are real ones.
#[test]
fn a_user_with_a_range_of_ids_has_more_than_root_inside() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let bundle =
        Bundle::new("id -u; cat /proc/self/uid_map; touch /tmp/web; chown 33:33 /tmp/web; stat -c %u:%g /tmp/web");
    let (place, mut config) = (bundle.path(""), bundle.config.clone());
    std::fs::copy(crate::bundle::runtime(), bundle.path("runtime")).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("busybox", bundle.rootfs("bin/chown")).unwrap();
    let maps = json!([
        {"containerID": 0, "hostID": 1500, "size": 1}, {"containerID": 1, "hostID": 300_000, "size": 1000}
    ]);
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    config["linux"]["uidMappings"] = maps.clone();
    config["linux"]["gidMappings"] = maps;
    config["linux"].as_object_mut().unwrap().remove("resources");
    config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    std::fs::write(bundle.path("config.json"), config.to_string()).unwrap();
    std::fs::write(bundle.path("passwd"), "root:x:0:0::/root:/bin/sh\nkim:x:1500:1500::/tmp:/bin/sh\n").unwrap();
    std::fs::write(bundle.path("ids"), "kim:300000:1000\n").unwrap();
    assert!(std::process::Command::new("chown").args(["-Rh", "1500:1500"]).arg(&place).status().unwrap().success());
    // The user and the range exist in a mount namespace of the test's own.
    let script = "mount --bind passwd /etc/passwd && mount --bind ids /etc/subuid && mount --bind ids /etc/subgid
        exec setpriv --reuid 1500 --regid 1500 --clear-groups ./runtime --root state run ranges";
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).current_dir(&place).stdin(std::process::Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "1500", "1", "1", "300000", "1000", "33:33"], "{output:?}");
    let owner = std::fs::metadata(bundle.rootfs("tmp/web")).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (300_032, 300_032));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// The C library hides two signals from programs; a caller in another language may ignore them all the same.
#[test]
fn no_signal_of_the_callers_stays_ignored() {
    const ALL: u64 = 1 << 31 | 1 << 32 | 1 << 33 | 1 << 63;
    // The first three are those that C libraries hide; the last as a control: it has always been reset.
    for signal in [32, 33, 34, 64] {
        brig_sys::signals::ignore(signal);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        u64::from_str_radix(line, 16).unwrap() & ALL
    };
    assert_eq!(ignored(&status), ALL, "{status}");
    let bundle = Bundle::new("cat /proc/self/status; exec sleep 1000");
    bundle.leave(&["run", "-d", bundle.id()]);
    crate::bundle::wait("its output", || bundle.output().contains("SigIgn:\t") && bundle.output().ends_with('\n'));
    assert_eq!(ignored(&bundle.output()), 0, "{}", bundle.output());
    let said = bundle.exec("cat /proc/self/status").ok();
    assert_eq!(ignored(&said), 0, "{said}");
}

/// A descriptor that is opened later must not become the standard output, where a message would go into a container's pipe.
#[test]
fn without_standard_descriptors_it_has_those_of_dev_null() {
    let bundle = Bundle::new("echo into nothing; for n in 0 1 2; do readlink /proc/$$/fd/$n; done > /tmp/ends");
    let _ = bundle.command(&["--version"]).output();
    let (program, state) = (bundle.program.display(), bundle.path("state"));
    let line = format!("exec {program} --root {} run {} 0<&- 1>&- 2>&-", state.display(), bundle.id());
    let status = std::process::Command::new("sh").args(["-c", &line]).current_dir(bundle.path("")).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let ends = std::fs::read_to_string(bundle.rootfs("tmp/ends")).unwrap();
    assert_eq!(ends, "/dev/null\n/tmp/ends\n/dev/null\n");
}

/// While the limits are written the container's process makes its mounts, and may stumble over what is taken away again.
#[test]
fn a_limit_that_is_refused_is_what_the_error_names() {
    let mut bundle = Bundle::new("true");
    let cgroups = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]});
    bundle.mount(cgroups);
    bundle.config["linux"]["resources"]["cpu"] = json!({"quota": 1});
    for round in 0..30 {
        let said = bundle.run().failed();
        assert!(said.contains("write `1") && said.contains("/cpu."), "round {round}: {said}");
    }
}

/// What fails after the process has said that it is ready is told all the same, to whoever starts it.
#[test]
fn a_process_that_may_not_drop_capabilities_says_so() {
    let bundle = Bundle::new("exec sleep 1000");
    let without = |words: &[&str]| {
        let command = bundle.command(words);
        let mut outer = std::process::Command::new("setpriv");
        outer.args(["--bounding-set=-setpcap", "--"]).arg(command.get_program()).args(command.get_args());
        outer.current_dir(bundle.path("")).stdin(std::process::Stdio::null()).output().unwrap()
    };
    let told = |output: std::process::Output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("drop CAP_"), "{said}");
    };
    for _ in 0..10 {
        told(without(&["run", bundle.id()]));
    }
    let created = std::process::Command::new("setpriv")
        .args(["--bounding-set=-setpcap", "--"])
        .arg(&bundle.program)
        .arg("--root")
        .arg(bundle.path("state"))
        .args(["create", bundle.id()])
        .current_dir(bundle.path(""))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(created.success());
    assert_eq!(bundle.state()["status"], "created");
    assert!(bundle.call(&["start", bundle.id()]).failed().contains("drop CAP_"));
    bundle.call(&["delete", "--force", bundle.id()]).ok();
    bundle.leave(&["run", "-d", bundle.id()]);
    for _ in 0..10 {
        told(without(&["exec", bundle.id(), "true"]));
    }
}

/// The first real-time signals are those that C libraries keep for themselves.
#[test]
fn every_real_time_signal_is_passed_on() {
    for signal in [34, 35, 64] {
        let bundle = Bundle::new(&format!("trap 'exit 7' {signal}; echo ready; while :; do sleep 0.05; done"));
        let file = std::fs::File::create(bundle.path("output")).unwrap();
        let mut runtime = bundle.command(&["run", bundle.id()]).stdout(file).spawn().unwrap();
        crate::bundle::wait("it to be ready", || bundle.output() == "ready\n");
        brig_sys::signals::send(runtime.id().cast_signed(), signal).unwrap();
        assert_eq!(runtime.wait().unwrap().code(), Some(7), "{signal}");
    }
}
