//! Images that anybody may have written: what decides about mounts, namespaces, cgroup and identity is the configuration
//! (CVE-2024-8676, CVE-2026-53492).
//!
//! An image of a laxer container is restored with a stricter configuration: it is refused before a single instruction of it
//! has run, and nothing is left behind.

use super::bundle::Bundle;
use super::here;
use serde_json::{Value, json};
use std::os::fd::AsRawFd;

/// Makes a checkpoint of a container as `lax` changes it, and restores it with the configuration as it was.
#[track_caller]
fn refused(lax: impl FnOnce(&mut Bundle), why: &str) {
    let mut bundle = Bundle::new();
    let strict = bundle.spec.clone();
    lax(&mut bundle);
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.checkpoint();
    let lax = std::mem::replace(&mut bundle.spec, strict);
    bundle.refuses(why);
    // With its own configuration it is a good image: it was refused for what it is.
    bundle.spec = lax;
    assert_eq!(bundle.restore().ask("b"), "2:b");
}

/// Says whether this place's criu is 3.19 or newer.
fn keeps_no_new_privs() -> bool {
    let output = std::process::Command::new(super::criu().unwrap()).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (3, 19)
}

fn push(list: &mut Value, value: Value) {
    list.as_array_mut().unwrap().push(value);
}

#[test]
fn more_capabilities_than_the_configuration_grants() {
    if !here() {
        return;
    }
    let lax = |bundle: &mut Bundle| {
        for set in ["bounding", "effective", "permitted"] {
            push(&mut bundle.spec["process"]["capabilities"][set], "CAP_NET_ADMIN".into());
        }
    };
    refused(lax, "has capabilities that the configuration does not grant");
}

#[test]
fn new_privileges() {
    if !here() {
        return;
    }
    if keeps_no_new_privs() {
        refused(|bundle| bundle.spec["process"]["noNewPrivileges"] = false.into(), "may gain new privileges");
        return;
    }
    // An older criu loses it for everybody, and that is said.
    let bundle = Bundle::new();
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.checkpoint();
    assert_eq!(bundle.restore().ask("b"), "2:b");
    let log = std::fs::read_to_string(bundle.path("log")).unwrap();
    assert!(log.contains("does not restore no_new_privs"), "{log}");
}

#[test]
fn another_user() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.checkpoint();
    bundle.spec["process"]["user"]["uid"] = 33.into();
    bundle.refuses("the configuration says 33");
}

#[test]
fn the_machines_namespaces_and_others() {
    if !here() {
        return;
    }
    let lax = |bundle: &mut Bundle| push(&mut bundle.spec["linux"]["namespaces"], json!({"type": "cgroup"}));
    refused(lax, "another cgroup namespace");
    let lax = |bundle: &mut Bundle| drop(bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().remove(2));
    refused(lax, "another ipc namespace");
}

#[test]
fn the_machines_mounts() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.checkpoint();
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "mount");
    bundle.refuses("no mount namespace of its own");
}

#[test]
fn mounts_of_the_images_own() {
    if !here() {
        return;
    }
    let tmpfs = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"});
    refused(|bundle| push(&mut bundle.spec["mounts"], tmpfs), "a mount on /tmp (tmpfs)");
}

#[test]
fn a_bind_of_what_the_configuration_does_not_have() {
    if !here() {
        return;
    }
    let lax = |bundle: &mut Bundle| bundle.mount("/tmp", "/etc".as_ref(), &["bind"]);
    refused(lax, "criu failed");
}

#[test]
fn fewer_restrictions_than_the_configuration_has() {
    if !here() {
        return;
    }
    refused(|bundle| bundle.spec["linux"]["maskedPaths"] = json!([]), "which the configuration hides");
    refused(|bundle| bundle.spec["linux"]["readonlyPaths"] = json!([]), "which the configuration makes read-only");
    refused(|bundle| bundle.spec["mounts"][3]["options"] = json!(["nosuid", "nodev"]), "is not noexec");
}

#[test]
fn a_root_that_the_configuration_makes_read_only() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.spec["root"]["readonly"] = false.into();
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.checkpoint();
    bundle.spec["root"]["readonly"] = true.into();
    let (_ends, mut restore) = bundle.piped_child(&["restore", "-d", "--image-path", "images", &bundle.name.clone()]);
    if restore.wait().unwrap().success() {
        // An older criu has its mount from ours, whatever the images say.
        bundle.call(&["exec", &bundle.name, "touch", "/etc/x"]).fails("Read-only file system");
        return;
    }
    let log = std::fs::read_to_string(bundle.path("log")).unwrap();
    assert!(log.contains("may write to its root file system"), "{log}");
    assert!(bundle.remains().is_empty(), "{:?}", bundle.remains());
}

#[test]
fn a_bind_that_the_configuration_makes_read_only() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    std::fs::create_dir(bundle.path("data")).unwrap();
    bundle.mount("/tmp", &bundle.path("data"), &["bind", "rw"]);
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.checkpoint();
    let last = bundle.spec["mounts"].as_array().unwrap().len() - 1;
    bundle.spec["mounts"][last]["options"] = json!(["bind", "ro"]);
    bundle.refuses("a mount on /tmp that is not ro");
}

#[test]
fn a_doctored_list_of_descriptors() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.spec["process"]["args"] = json!(["sleep", "1000"]);
    bundle.run();
    bundle.checkpoint();
    let list = bundle.path("images/descriptors.json");
    let real = std::fs::read_to_string(&list).unwrap();
    assert_eq!(real.matches("pipe:[").count(), 3, "{real}");
    let words = ["restore", "-d", "--image-path", "images", &bundle.name];
    let many = format!("[{}]", vec!["\"pipe:[1]\""; 1000].join(","));
    let huge = format!("[{}]", vec!["\"/etc/shadow\""; 1 << 20].join(","));
    let odd = ["{\"0\":\"pipe:[1]\"}", "[", "[[\"pipe:[1]\"]]", "[0,1,2]"];
    for text in odd.into_iter().chain([many.as_str(), huge.as_str()]) {
        std::fs::write(&list, text).unwrap();
        bundle.call(&words).fails("descriptors.json");
        assert!(bundle.remains().is_empty(), "{:?}", bundle.remains());
    }
    // Files and namespaces are none of what it may choose; without its pipes the container gets others that lead nowhere.
    for text in ["[\"/etc/shadow\",\"/dev/sda\",\"/proc/1/root\"]", "[\"extRootNetNS\",\"file[1:2]\",\"socket:[1]\"]"] {
        std::fs::write(&list, text).unwrap();
        bundle.call(&words).ok();
        for number in 0..3 {
            let target = std::fs::read_link(format!("/proc/{}/fd/{number}", bundle.pid())).unwrap();
            assert!(target.to_str().unwrap().starts_with("pipe:["), "{target:?}");
        }
        bundle.call(&["delete", "-f", &bundle.name]).ok();
    }
    // A link to a file of the machine is no list, and its real one is.
    std::fs::remove_file(&list).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &list).unwrap();
    bundle.call(&words).ok();
    bundle.call(&["delete", "-f", &bundle.name]).ok();
    std::fs::remove_file(&list).unwrap();
    std::fs::write(&list, real).unwrap();
    let ends = bundle.restore();
    let pipe = std::fs::read_link(format!("/proc/{}/fd/0", bundle.pid())).unwrap();
    let ours = std::fs::read_link(format!("/proc/self/fd/{}", ends.input.as_raw_fd())).unwrap();
    assert_eq!(pipe, ours);
}
