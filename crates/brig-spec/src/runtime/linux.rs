//! What only Linux has: namespaces, ids, devices, paths that are hidden, shares of the processor's caches; config-linux.md.

use super::lenient::{is_zero, words, zero};
use super::{LinuxResources, LinuxSeccomp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The settings of Linux.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux {
    /// User ids of the user namespace.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// Group ids of the user namespace.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub gid_mappings: Vec<LinuxIdMapping>,
    /// Kernel settings, `net.ipv4.ip_forward` each.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub sysctl: BTreeMap<String, String>,
    /// What it may use, and how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<LinuxResources>,
    /// The cgroup; absolute below the hierarchies, relative to the caller's own, or `slice:prefix:name` for systemd.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub cgroups_path: PathBuf,
    /// The namespaces that are made or joined.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub namespaces: Vec<LinuxNamespace>,
    /// Device nodes beside the usual ones.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub devices: Vec<LinuxDevice>,
    /// Interfaces of the machine that move into the network namespace, by their names there.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub net_devices: BTreeMap<String, LinuxNetDevice>,
    /// The filter of system calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<LinuxSeccomp>,
    /// How mounts in the root travel to and from the machine: `slave`, `shared`, `private`, `unbindable`.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub rootfs_propagation: String,
    /// Paths that are hidden.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub masked_paths: Vec<String>,
    /// Paths that cannot be written to.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub readonly_paths: Vec<String>,
    /// The SELinux label of mounts.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub mount_label: String,
    /// Shares of the processor's caches and of the way to the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<LinuxIntelRdt>,
    /// On which memory nodes pages are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<LinuxMemoryPolicy>,
    /// Which system it takes itself to run on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<LinuxPersonality>,
    /// By how much clocks differ in the time namespace: `monotonic`, `boottime`.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub time_offsets: BTreeMap<String, LinuxTimeOffset>,
}

/// A range of ids, and what they mean on the machine; user_namespaces(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxIdMapping {
    /// The first id in the container.
    #[serde(rename = "containerID", deserialize_with = "zero")]
    pub container_id: u32,
    /// The first id on the machine.
    #[serde(rename = "hostID", deserialize_with = "zero")]
    pub host_id: u32,
    /// How many there are.
    #[serde(deserialize_with = "zero")]
    pub size: u32,
}

/// A namespace that is made or joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxNamespace {
    /// Its kind: `type`.
    #[serde(rename = "type")]
    pub typ: LinuxNamespaceType,
    /// The file of the one that is joined; empty for a new one.
    #[serde(default, deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub path: PathBuf,
}

impl LinuxNamespace {
    /// The file of the namespace that is joined; none for a new one.
    pub fn joined(&self) -> Option<&Path> {
        Some(self.path.as_path()).filter(|path| !path.as_os_str().is_empty())
    }
}

/// The kinds of namespaces; namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinuxNamespaceType {
    /// Process ids.
    Pid,
    /// Interfaces, addresses, ports.
    Network,
    /// Mounts.
    Mount,
    /// Message queues, semaphores, shared memory.
    Ipc,
    /// The host name.
    Uts,
    /// User and group ids, capabilities.
    User,
    /// The root of the cgroups that are seen.
    Cgroup,
    /// Clocks.
    Time,
}

words! { LinuxNamespaceType, "linux.namespaces[].type",
    "pid" => Pid, "network" => Network, "mount" => Mount, "ipc" => Ipc,
    "uts" => Uts, "user" => User, "cgroup" => Cgroup, "time" => Time,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxDevice {
    /// Its path in the container.
    #[serde(default, deserialize_with = "zero")]
    pub path: PathBuf,
    /// Its kind: `type`.
    #[serde(rename = "type")]
    pub typ: LinuxDeviceType,
    /// The driver's number.
    #[serde(default, deserialize_with = "zero")]
    pub major: i64,
    /// The device's number at its driver.
    #[serde(default, deserialize_with = "zero")]
    pub minor: i64,
    /// Permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// The owner in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The group there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// The kinds of device nodes; mknod(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinuxDeviceType {
    /// Block and character devices, in rules.
    A,
    /// A block device.
    B,
    /// A character device.
    C,
    /// A character device without buffer, as all are.
    U,
    /// A FIFO.
    P,
}

words! { LinuxDeviceType, "a device's type", "a" => A, "b" => B, "c" => C, "u" => U, "p" => P }

/// An interface that moves into the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxNetDevice {
    /// Its name there; empty keeps it.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub name: String,
}

/// Shares of the processor's caches; config-linux.md, "IntelRdt".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxIntelRdt {
    /// The class of service; empty for one of the container's own.
    #[serde(rename = "closID", deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub clos_id: String,
    /// Lines for the file `schemata`.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub schemata: Vec<String>,
    /// A line about caches.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub l3_cache_schema: String,
    /// A line about the way to the memory.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub mem_bw_schema: String,
    /// Whether the container is counted in a group of its own.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub enable_monitoring: bool,
}

/// On which memory nodes pages are taken; set_mempolicy(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxMemoryPolicy {
    /// The mode, such as `MPOL_BIND`.
    #[serde(deserialize_with = "zero")]
    pub mode: String,
    /// The nodes, a list such as `0-1,3`.
    #[serde(deserialize_with = "zero")]
    pub nodes: String,
    /// Flags, such as `MPOL_F_STATIC_NODES`.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub flags: Vec<String>,
}

/// Which system a program takes itself to run on; personality(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxPersonality {
    /// `LINUX` or `LINUX32`.
    #[serde(deserialize_with = "zero")]
    pub domain: String,
    /// None is defined.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub flags: Vec<String>,
}

/// By how much a clock differs; time_namespaces(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxTimeOffset {
    /// Seconds.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub secs: i64,
    /// Nanoseconds beside them.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub nanosecs: u32,
}
