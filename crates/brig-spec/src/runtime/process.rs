//! A process of a container: the words of its command, who it is, what it may do; config.md, "Process".

use super::lenient::{is_zero, zero};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A process: a container's first, or one that exec starts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Process {
    /// Whether it gets a terminal.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub terminal: bool,
    /// The terminal's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Who it is.
    #[serde(deserialize_with = "zero")]
    pub user: User,
    /// The command and its arguments.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub args: Vec<String>,
    /// The environment, `NAME=value` each.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub env: Vec<String>,
    /// The working directory; empty is the root.
    #[serde(deserialize_with = "zero")]
    pub cwd: PathBuf,
    /// What it may do; none is nothing at all for whoever is not root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<LinuxCapabilities>,
    /// Its resource limits; getrlimit(2).
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub rlimits: Vec<PosixRlimit>,
    /// Whether execve(2) grants it no more than it has.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub no_new_privileges: bool,
    /// The AppArmor profile.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub apparmor_profile: String,
    /// How willingly it is killed when memory is short, -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// How it is scheduled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// The SELinux label.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub selinux_label: String,
    /// How its disk accesses are ranked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<LinuxIoPriority>,
    /// On which processors exec starts processes.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsoleSize {
    /// Lines.
    #[serde(deserialize_with = "zero")]
    pub height: u64,
    /// Columns.
    #[serde(deserialize_with = "zero")]
    pub width: u64,
}

/// The ids of a process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    /// The user id in the container.
    #[serde(deserialize_with = "zero")]
    pub uid: u32,
    /// The group id there.
    #[serde(deserialize_with = "zero")]
    pub gid: u32,
    /// The mask of file modes; umask(2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Further groups.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub additional_gids: Vec<u32>,
    /// The user by name; the specification has it for Windows, an engine of ours for the container's own list of users.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub username: String,
}

/// The five sets of capabilities(7), each by names such as `CAP_KILL`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxCapabilities {
    /// What execve(2) can grant at most.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub bounding: Vec<String>,
    /// What the kernel checks.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub effective: Vec<String>,
    /// What programs marked for it take over.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub inheritable: Vec<String>,
    /// What the process can make effective.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub permitted: Vec<String>,
    /// What programs take over unmarked.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub ambient: Vec<String>,
}

/// One resource limit; getrlimit(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PosixRlimit {
    /// Which: `type`, such as `RLIMIT_NOFILE`.
    #[serde(rename = "type", deserialize_with = "zero")]
    pub typ: String,
    /// The ceiling of the limit.
    #[serde(deserialize_with = "zero")]
    pub hard: u64,
    /// The limit.
    #[serde(deserialize_with = "zero")]
    pub soft: u64,
}

/// How a process is scheduled; sched_setattr(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// The policy, such as `SCHED_BATCH`.
    #[serde(deserialize_with = "zero")]
    pub policy: String,
    /// The nice value, -20 to 19.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub nice: i32,
    /// The priority of the policies of real time.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Flags, such as `SCHED_FLAG_RESET_ON_FORK`.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub flags: Vec<String>,
    /// Nanoseconds of work in a period, for `SCHED_DEADLINE`.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub runtime: u64,
    /// Nanoseconds until the work must be done.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub deadline: u64,
    /// Nanoseconds from period to period.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub period: u64,
}

/// How disk accesses are ranked; ioprio_set(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxIoPriority {
    /// The class, such as `IOPRIO_CLASS_BE`.
    #[serde(deserialize_with = "zero")]
    pub class: String,
    /// The rank in the class, 0 to 7, lower is sooner.
    #[serde(deserialize_with = "zero")]
    pub priority: i64,
}

/// On which processors a process that exec starts may run: lists such as `0-3,7`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    /// Before it enters the container's cgroup.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub initial: String,
    /// From then on: `final`.
    #[serde(rename = "final", deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub last: String,
}
