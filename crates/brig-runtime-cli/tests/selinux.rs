//! SELinux labels under a real policy, enforced: processes, mounts, and labels that the policy does not know.
//!
//! Places: a machine with SELinux and the policy of `tools/selinux-policy.cil`, and the same before any policy is loaded:
//! `tools/selinux-tests` runs both, with `BRIG_TEST_PLACE` saying which. On a machine without SELinux, the third place, a label is
//! refused.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[allow(dead_code)] // each test file uses a part
#[path = "oci/bundle.rs"]
mod bundle;

use bundle::{Bundle, wait};
use serde_json::json;
use std::path::Path;

const LABEL: &str = "system_u:system_r:container_t:s0:c1,c2";
const MOUNT_LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    WithPolicy,
    WithoutPolicy,
    WithoutSelinux,
}

fn place() -> Place {
    match std::env::var("BRIG_TEST_PLACE").as_deref() {
        Ok("selinux") => Place::WithPolicy,
        Ok("selinux-without-policy") => Place::WithoutPolicy,
        _ => Place::WithoutSelinux,
    }
}

fn labelled(script: &str) -> Bundle {
    let mut bundle = Bundle::new(script);
    bundle.config["process"]["selinuxLabel"] = json!(LABEL);
    bundle.config["linux"]["mountLabel"] = json!(MOUNT_LABEL);
    bundle
}

/// What the file system says that the label of a file is.
fn label_of(path: impl AsRef<Path>) -> String {
    let mut bytes = [0; 256];
    let count = rustix::fs::getxattr(path.as_ref(), "security.selinux", &mut bytes[..]).unwrap();
    String::from_utf8_lossy(&bytes[..count]).trim_end_matches('\0').to_owned()
}

fn set_label(path: impl AsRef<Path>, label: &str) {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(path.as_ref(), "security.selinux", label.as_bytes(), flags).unwrap();
}

/// Nothing is left of a container that could not be made; its cgroup and its mounts are looked for when the bundle goes.
#[track_caller]
fn refused(bundle: &Bundle, words: &[&str]) {
    for command in ["create", "run"] {
        let told = bundle.call(&[command, bundle.id()]).failed();
        for word in words {
            assert!(told.contains(word), "{word}: {told}");
        }
        assert_eq!(told.trim_end().lines().count(), 1, "{told}");
        assert!(!bundle.path("state").join(bundle.id()).exists(), "{told}");
    }
}

#[test]
fn a_label_that_means_nothing_is_not_taken_for_set() {
    let words = "selinux label is specified in config, but selinux is disabled or not supported";
    let none = "SELinux has no policy loaded";
    let mut bundle = labelled("echo ran; exec sleep 1000");
    match place() {
        Place::WithoutSelinux => {
            refused(&bundle, &[words]);
            bundle.config["process"]["selinuxLabel"] = json!("");
            refused(&bundle, &[words, MOUNT_LABEL]);
            bundle.config["linux"]["mountLabel"] = json!("");
            bundle.leave(&["run", "-d", bundle.id()]);
            let told = bundle.call(&["exec", "--process-label", LABEL, bundle.id(), "true"]).failed();
            assert!(told.contains(words) && told.contains(LABEL), "{told}");
        }
        Place::WithoutPolicy => {
            bundle.leave(&["run", "-d", bundle.id()]);
            wait("its output", || bundle.output().contains("ran\n"));
            let told = bundle.output();
            assert!(told.contains(none) && told.contains(LABEL) && told.contains(MOUNT_LABEL), "{told}");
            let said = bundle.call(&["exec", "--process-label", "nonsense", bundle.id(), "echo", "inside"]);
            assert!(said.stderr.contains(none) && said.stderr.contains("`nonsense`"), "{said:?}");
            assert_eq!(said.ok(), "inside\n");
        }
        Place::WithPolicy => {
            bundle.leave(&["run", "-d", bundle.id()]);
            wait("its output", || bundle.output() == "ran\n");
        }
    }
}

#[test]
fn processes_have_the_label_that_was_asked_for() {
    if place() != Place::WithPolicy {
        return;
    }
    let own = std::fs::read_to_string("/proc/self/attr/current").unwrap();
    assert!(own.contains(":kernel_t:"), "{own}");
    let inside = "cat /proc/self/attr/current";
    for (no_new_privileges, users) in [(true, false), (false, false), (true, true)] {
        let mut bundle = labelled(
            "cat /proc/self/attr/current; cat /proc/self/attr/exec /proc/self/attr/keycreate; exec sleep 1000",
        );
        if users {
            bundle = bundle.with_user_namespace();
        }
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.leave(&["create", bundle.id()]);
        bundle.call(&["start", bundle.id()]).ok();
        wait(&format!("its label, it is {}", bundle.output()), || bundle.output().trim_end_matches('\0') == LABEL);
        let seen = std::fs::read_to_string(format!("/proc/{}/attr/current", bundle.pid())).unwrap();
        assert_eq!(seen.trim_end_matches('\0'), LABEL);
        assert_eq!(bundle.exec(inside).ok().trim_end_matches('\0'), LABEL);
        let other = "system_u:system_r:container_t:s0:c4";
        let said = bundle.call(&["exec", "--process-label", other, bundle.id(), "cat", "/proc/self/attr/current"]);
        assert_eq!(said.ok().trim_end_matches('\0'), other);
        let told = bundle.call(&["exec", "--process-label", "system_u:system_r:nosuch_t:s0", bundle.id(), "true"]);
        let told = told.failed();
        assert!(told.contains("nosuch_t") && told.contains("knows no such label"), "{told}");
        assert_eq!(bundle.state()["status"], "running");
    }
    // Without one there is none, and a hook of the machine has the machine's whatever the container's is.
    let mut bundle = Bundle::new(inside);
    assert!(bundle.run().ok().contains(":kernel_t:"));
    bundle.config["process"]["selinuxLabel"] = json!(LABEL);
    let file = bundle.path("hook");
    let script = format!("cat /proc/self/attr/current > {}", file.display());
    bundle.config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    bundle.run().ok();
    assert!(std::fs::read_to_string(file).unwrap().contains(":kernel_t:"));
}

#[test]
fn the_policy_holds_inside() {
    if place() != Place::WithPolicy {
        return;
    }
    let mut bundle = labelled("cat /etc/open /etc/closed");
    std::fs::write(bundle.rootfs("etc/open"), "open\n").unwrap();
    std::fs::write(bundle.rootfs("etc/closed"), "closed\n").unwrap();
    set_label(bundle.rootfs("etc/open"), "system_u:object_r:container_file_t:s0");
    set_label(bundle.rootfs("etc/closed"), "system_u:object_r:closed_t:s0");
    let said = bundle.run();
    assert_eq!(said.stdout, "open\n", "{said:?}");
    assert!(said.stderr.contains("Permission denied"), "{said:?}");
    bundle.config["process"]["selinuxLabel"] = json!("");
    assert_eq!(bundle.run().ok(), "open\nclosed\n");
}

#[test]
fn what_is_mounted_has_the_label_of_mounts() {
    if place() != Place::WithPolicy {
        return;
    }
    for users in [false, true] {
        let mut bundle = labelled("touch /dev/shm/made; exec sleep 1000");
        for name in ["lower", "upper", "source"] {
            std::fs::create_dir(bundle.path(name)).unwrap();
        }
        std::fs::write(bundle.path("lower/file"), "").unwrap();
        std::fs::write(bundle.path("source/file"), "").unwrap();
        let of_source = label_of(bundle.path("source/file"));
        // Without an upper one: the test's own directory may lie on an overlay.
        let layers = format!("lowerdir={}:{}", bundle.path("upper").display(), bundle.path("lower").display());
        bundle.mount(json!({"destination": "/layers", "type": "overlay", "source": "overlay", "options": [layers]}));
        bundle.mount(
            json!({"destination": "/bound", "type": "bind", "source": bundle.path("source"), "options": ["bind"]}),
        );
        bundle.mount(json!({"destination": "/own", "type": "tmpfs", "source": "tmpfs", "options": ["context=system_u:object_r:container_file_t:s0:c5"]}));
        if users {
            bundle = bundle.with_user_namespace();
        }
        bundle.leave(&["create", bundle.id()]);
        bundle.call(&["start", bundle.id()]).ok();
        let root = format!("/proc/{}/root", bundle.pid());
        let at = |path: &str| label_of(format!("{root}{path}"));
        wait("the file", || Path::new(&format!("{root}/dev/shm/made")).exists());
        for path in ["/dev", "/dev/shm", "/dev/shm/made", "/dev/pts", "/layers/file", "/sys/firmware"] {
            assert_eq!(at(path), MOUNT_LABEL, "{path}, users: {users}");
        }
        assert_eq!(at("/own"), "system_u:object_r:container_file_t:s0:c5");
        assert_eq!(at("/bound/file"), of_source, "what is the machine's keeps its label");
        assert_ne!(at("/proc"), MOUNT_LABEL);
        // This one was made with the ipc namespace, by the machine: a user namespace has no say.
        assert_eq!(at("/dev/mqueue") == MOUNT_LABEL, !users);
        let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", bundle.pid())).unwrap();
        let shown = |place: &str| table.lines().any(|line| line.contains(place) && line.contains(MOUNT_LABEL));
        assert!(shown(" /dev/shm ") && shown(" /layers "), "{table}");
    }
}

#[test]
fn a_label_that_no_policy_has_leaves_nothing() {
    if place() != Place::WithPolicy {
        return;
    }
    for label in
        ["nonsense", "system_u:system_r:nosuch_t:s0", "system_u:system_r:container_t:s7", "a:b:c:d:e", "kernel\n"]
    {
        let mut bundle = labelled("true");
        bundle.config["process"]["selinuxLabel"] = json!(label);
        refused(&bundle, &["knows no such label"]);
        let mut bundle = labelled("true");
        bundle.config["linux"]["mountLabel"] = json!(label);
        refused(&bundle, &["security label"]);
    }
}
