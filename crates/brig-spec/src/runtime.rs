//! The runtime configuration, `config.json`: what an engine tells a runtime about a container; runtime-spec 1.3, for Linux.
//!
//! ```text
//! Spec ── Process ── User, LinuxCapabilities, PosixRlimit, Scheduler, ...      process.rs
//!      ├─ Root, Mount                                                          this file
//!      ├─ Hooks ── Hook                                                        hooks.rs
//!      └─ Linux ── LinuxNamespace, LinuxDevice, LinuxIntelRdt, ...             linux.rs
//!               ├─ LinuxResources ── LinuxMemory, LinuxCpu, ...                resources.rs
//!               └─ LinuxSeccomp ── LinuxSyscall ── LinuxSeccompArg             seccomp.rs
//! ```
//!
//! Read as the runtimes that everyone uses read it: what is missing or `null` has its zero value (an empty text is no text), and a
//! field that is not known is passed over. What is zero and means nothing is not written. Words by which code chooses are enums,
//! and an unknown one is an error that names its field; words that the kernel gets as numbers are texts, for the runtime to judge.

mod hooks;
mod lenient;
mod linux;
mod process;
mod resources;
mod seccomp;

pub use hooks::{Hook, Hooks};
pub use linux::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxIntelRdt, LinuxMemoryPolicy, LinuxNamespace,
    LinuxNamespaceType, LinuxNetDevice, LinuxPersonality, LinuxTimeOffset,
};
pub use process::{
    ConsoleSize, CpuAffinity, LinuxCapabilities, LinuxIoPriority, PosixRlimit, Process, Scheduler, User,
};
pub use resources::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxInterfacePriority, LinuxMemory, LinuxNetwork,
    LinuxPids, LinuxRdma, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice,
};
pub use seccomp::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArch, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

use lenient::{is_zero, zero};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The whole configuration of a container; config.md.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// The version of the specification that it follows: `ociVersion`.
    #[serde(rename = "ociVersion", deserialize_with = "zero")]
    pub version: String,
    /// The container's first process; a container can be created without, and never started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Box<Process>>,
    /// The root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// The host name in the container's uts namespace.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub hostname: String,
    /// The NIS domain name there.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub domainname: String,
    /// What is mounted in the root, in this order.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub mounts: Vec<Mount>,
    /// Programs that are run at moments of the container's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Anything that others want to find again.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Box<Linux>>,
}

/// The root file system of a container; config.md, "Root".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Root {
    /// The directory, absolute or relative to the bundle.
    #[serde(deserialize_with = "zero")]
    pub path: PathBuf,
    /// Whether the container cannot write to it.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub readonly: bool,
}

/// One mount in the root; config.md, "Mounts".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    /// The place in the root.
    #[serde(deserialize_with = "zero")]
    pub destination: PathBuf,
    /// The type of the file system: `type`.
    #[serde(rename = "type", deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub typ: String,
    /// A device, a name, or the path of what is bound.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub source: PathBuf,
    /// Options as mount(8) has them.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub options: Vec<String>,
    /// User ids of this mount's own, by which its files are shown.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// Group ids of this mount's own.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub gid_mappings: Vec<LinuxIdMapping>,
}

impl Spec {
    /// The namespaces that are made or joined.
    pub fn namespaces(&self) -> &[LinuxNamespace] {
        self.linux.as_ref().map(|linux| linux.namespaces.as_slice()).unwrap_or_default()
    }

    /// The namespace of one kind; none where the container shares the machine's.
    pub fn namespace(&self, typ: LinuxNamespaceType) -> Option<&LinuxNamespace> {
        self.namespaces().iter().find(|namespace| namespace.typ == typ)
    }
}

#[cfg(test)]
mod tests;
