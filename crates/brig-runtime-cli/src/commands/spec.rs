//! `spec`: writes a configuration to begin with.

use super::Command;
use crate::arguments::{Ends, Opt, Parsed, flag, value};
use crate::container::CONFIG_FILE;
use crate::failure::{Failure, Step};
use crate::global::Global;
use brig_runtime::cgroup::Layout;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

const OPTIONS: [Opt; 2] = [
    value("bundle", 'b', "the bundle's directory (default: the present one)"),
    flag("rootless", '\0', "a configuration for a user who is not root"),
];

pub(crate) const COMMAND: Command = Command {
    name: "spec",
    operands: "",
    about: "write a new config.json",
    options: &OPTIONS,
    ends: Ends::Never,
    enters: false,
    run,
};

fn run(_global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let path = Path::new(parsed.filled("bundle").unwrap_or(".")).join(CONFIG_FILE);
    let mut spec = default();
    if parsed.has("rootless") {
        make_rootless(&mut spec);
    }
    // On v1 callers find a container's cgroup by its path as they see it, and so should the container.
    let layout = Layout::detect().step(|| "find the cgroup hierarchies")?;
    if layout.is_pure_v2()
        && let Some(list) = spec["linux"]["namespaces"].as_array_mut()
    {
        list.push(json!({"type": "cgroup"}));
    }
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(&spec, &mut serializer)
        .map_err(|error| Failure::step("write the configuration", &error))?;
    text.push(b'\n');
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    if file.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::AlreadyExists) {
        return Err(Failure::new(format!("File {CONFIG_FILE} exists. Remove it first")));
    }
    file.and_then(|mut file| file.write_all(&text)).step(|| format!("write {}", path.display()))?;
    Ok(0)
}

/// A shell in namespaces of its own, with a read-only root and hardly a capability.
fn default() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        let mut mount = json!({"destination": destination, "type": kind, "source": source});
        if !options.is_empty() {
            mount["options"] = json!(options);
        }
        mount
    };
    let closed = ["nosuid", "noexec", "nodev"];
    let readonly = ["nosuid", "noexec", "nodev", "ro"];
    json!({
        "ociVersion": crate::SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "brig",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &closed),
            mount("/sys", "sysfs", "sysfs", &readonly),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces(&["pid", "network", "ipc", "uts", "mount"]),
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi", "/sys/devices/virtual/powercap"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn namespaces(kinds: &[&str]) -> Value {
    kinds.iter().map(|kind| json!({"type": kind})).collect()
}

/// What a user without privileges can have: the machine's network and its /sys, and a user namespace with their own id as root.
fn make_rootless(spec: &mut Value) {
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    let linux = &mut spec["linux"];
    linux["uidMappings"] = map(rustix::process::geteuid().as_raw());
    linux["gidMappings"] = map(rustix::process::getegid().as_raw());
    linux["namespaces"] = namespaces(&["pid", "ipc", "uts", "mount", "user"]);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        match mount["destination"].as_str() {
            Some("/sys") => {
                *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
            }
            Some("/dev/pts") => {
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|o| o != "gid=5");
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brig_spec::runtime::Spec;

    #[test]
    fn both_forms_are_configurations() {
        let mut value = default();
        let spec: Spec = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(spec.mounts.len(), 7);
        make_rootless(&mut value);
        let spec: Spec = serde_json::from_value(value).unwrap();
        assert!(spec.linux.as_ref().unwrap().resources.is_none());
    }
}
