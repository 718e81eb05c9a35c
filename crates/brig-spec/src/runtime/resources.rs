//! What a container may use, and how much: the limits of its cgroup; config-linux.md, "Control groups".

use super::LinuxDeviceType;
use super::lenient::{is_zero, word_if_any, zero};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The limits, one group a controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxResources {
    /// Which device nodes it may use; the last rule that fits decides.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub devices: Vec<LinuxDeviceCgroup>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<LinuxMemory>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<LinuxCpu>,
    /// Processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<LinuxPids>,
    /// Disks.
    #[serde(rename = "blockIO", skip_serializing_if = "Option::is_none")]
    pub block_io: Option<LinuxBlockIo>,
    /// Huge pages, a limit a size.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub hugepage_limits: Vec<LinuxHugepageLimit>,
    /// Marks on packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<LinuxNetwork>,
    /// Adapters for remote memory, by their names.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub rdma: BTreeMap<String, LinuxRdma>,
    /// Files of a v2 cgroup with what is written into them.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub unified: BTreeMap<String, String>,
}

/// A rule about device nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxDeviceCgroup {
    /// Whether it allows.
    #[serde(deserialize_with = "zero")]
    pub allow: bool,
    /// The kind: `type`; none is all.
    #[serde(rename = "type", deserialize_with = "word_if_any", skip_serializing_if = "Option::is_none")]
    pub typ: Option<LinuxDeviceType>,
    /// The driver's number; none or a negative one is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// The device's number; none or a negative one is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Reading, writing, making nodes: letters of `rwm`.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub access: String,
}

/// Limits on memory, in bytes; -1 is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxMemory {
    /// How much it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// How much it is left with when memory is short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<i64>,
    /// How much it may have together with what is swapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<i64>,
    /// Memory of the kernel; no kernel since 5.4 keeps to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<i64>,
    /// Memory of TCP, on v1.
    #[serde(rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
    pub kernel_tcp: Option<i64>,
    /// How willingly pages are swapped, 0 to 100, on v1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swappiness: Option<u64>,
    /// Whether processes wait rather than being killed, on v1.
    #[serde(rename = "disableOOMKiller", skip_serializing_if = "Option::is_none")]
    pub disable_oom_killer: Option<bool>,
    /// Whether cgroups below are counted here, on v1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_hierarchy: Option<bool>,
    /// Whether a limit below what is in use is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_before_update: Option<bool>,
}

/// Limits on processors; times in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxCpu {
    /// The weight against others, 2 to 262144.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    /// How long it may run in a period; -1 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<i64>,
    /// How much unused time it may save up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// The period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
    /// The same for real time, on v1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_runtime: Option<i64>,
    /// The period for real time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_period: Option<u64>,
    /// The processors, a list such as `0-3,7`.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub cpus: String,
    /// The memory nodes.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub mems: String,
    /// 1 lets it run only when nothing else does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<i64>,
}

/// A limit on processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxPids {
    /// How many there may be; -1 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

/// Limits on disks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxBlockIo {
    /// The weight against others, 10 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// The same against cgroups below, on v1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_weight: Option<u16>,
    /// Weights for single disks.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub weight_device: Vec<LinuxWeightDevice>,
    /// Bytes read in a second.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub throttle_read_bps_device: Vec<LinuxThrottleDevice>,
    /// Bytes written in a second.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub throttle_write_bps_device: Vec<LinuxThrottleDevice>,
    /// Reads in a second.
    #[serde(rename = "throttleReadIOPSDevice", deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub throttle_read_iops_device: Vec<LinuxThrottleDevice>,
    /// Writes in a second.
    #[serde(rename = "throttleWriteIOPSDevice", deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub throttle_write_iops_device: Vec<LinuxThrottleDevice>,
}

/// The weight at one disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxWeightDevice {
    /// The disk's driver.
    #[serde(deserialize_with = "zero")]
    pub major: i64,
    /// Its number there.
    #[serde(deserialize_with = "zero")]
    pub minor: i64,
    /// The weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// The same against cgroups below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_weight: Option<u16>,
}

/// A rate at one disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxThrottleDevice {
    /// The disk's driver.
    #[serde(deserialize_with = "zero")]
    pub major: i64,
    /// Its number there.
    #[serde(deserialize_with = "zero")]
    pub minor: i64,
    /// How much in a second; 0 is no limit.
    #[serde(deserialize_with = "zero")]
    pub rate: u64,
}

/// A limit on huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxHugepageLimit {
    /// The size, such as `2MB`.
    #[serde(deserialize_with = "zero")]
    pub page_size: String,
    /// How many bytes of them.
    #[serde(deserialize_with = "zero")]
    pub limit: i64,
}

/// Marks on packets, on v1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxNetwork {
    /// The class: `classID`.
    #[serde(rename = "classID", skip_serializing_if = "Option::is_none")]
    pub class_id: Option<u32>,
    /// Priorities at interfaces.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub priorities: Vec<LinuxInterfacePriority>,
}

/// The priority at one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxInterfacePriority {
    /// The interface.
    #[serde(deserialize_with = "zero")]
    pub name: String,
    /// The priority.
    #[serde(deserialize_with = "zero")]
    pub priority: u32,
}

/// Limits at one adapter for remote memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxRdma {
    /// Handles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hca_handles: Option<u32>,
    /// Objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hca_objects: Option<u32>,
}
