//! `features`: prints what this program can do, as JSON; runtime specification, features.md.

use super::{Command, say};
use crate::arguments::{Ends, Parsed};
use crate::failure::Failure;
use crate::global::Global;
use brig_runtime::attributes;
use serde_json::json;

pub(crate) const COMMAND: Command = Command {
    name: "features",
    operands: "",
    about: "print what this program can do",
    options: &[],
    ends: Ends::Never,
    enters: false,
    run,
};

const MOUNT_OPTIONS: [&str; 57] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
];
const MORE_MOUNT_OPTIONS: [&str; 5] = ["suid", "symfollow", "sync", "tmpcopyup", "unbindable"];

#[allow(clippy::unnecessary_wraps)] // the form of all commands
fn run(_global: &Global, _parsed: &Parsed) -> Result<u8, Failure> {
    let mount_options: Vec<&str> = MOUNT_OPTIONS.into_iter().chain(MORE_MOUNT_OPTIONS).collect();
    let capabilities: Vec<String> = (0..64).filter_map(brig_runtime::capabilities::name).collect();
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": crate::SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mount_options,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
                    "SCMP_CMP_NE"
                ],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
                "knownFlags": FLAGS,
                "supportedFlags": FLAGS
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true},
            "memoryPolicy": {
                "modes": attributes::MEMORY_MODES.map(|(name, _)| name),
                "flags": attributes::MEMORY_FLAGS.map(|(name, _)| name)
            },
            "netDevices": {"enabled": true},
            "mountExtensions": {"idmap": {"enabled": true}}
        },
        "annotations": {
            "io.brig.version": env!("CARGO_PKG_VERSION"),
            "io.brig.checkpoint.enabled": "true"
        },
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property.", "org.criu.config"]
    });
    say(serde_json::to_string_pretty(&features).unwrap_or_default() + "\n")
}

const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
