//! Everything that the kernel counts about a container, named and shaped as `events --stats` prints it.
//!
//! Reading it costs some forty files on v1: what is shown every second reads [`super::Stats`] instead. What the kernel does
//! not have is left at nothing, and left out of the text where the format leaves it out.

mod read;

pub(super) use read::read;

use crate::rdt;
use serde::Serialize;
use std::collections::BTreeMap;

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes references
fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The numbers of one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Metrics {
    /// CPU time.
    pub cpu: Cpu,
    /// CPUs and memory nodes; v1 only.
    pub cpuset: Cpuset,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block I/O.
    pub blkio: BlockIo,
    /// Huge pages by their size, such as `2MB`.
    pub hugetlb: BTreeMap<String, HugePages>,
    /// The container's share of caches and memory bandwidth; whoever prints this fills it in.
    pub intel_rdt: rdt::Stats,
    /// The machine's ends of the container's interfaces; whoever prints this fills it in, by [`NetworkInterface::read`].
    pub network_interfaces: Option<Vec<NetworkInterface>>,
    /// RDMA devices, which the format does not print.
    #[serde(skip)]
    pub rdma: Rdma,
}

/// CPU time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// What was used.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: CpuUsage,
    /// What was held back.
    #[serde(skip_serializing_if = "is_default")]
    pub throttling: Throttling,
    /// How long was waited for a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// CPU time that was used, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    /// All of it.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// All of it, by CPU; v1 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel, by CPU; v1 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// In user mode, by CPU; v1 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
}

/// What the CPU quota held back.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that went by with something to run.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Those in which the quota was used up.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// Time spent waiting for the next period, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Pressure stall information; Documentation/accounting/psi.rst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// While at least one task was stalled.
    #[serde(skip_serializing_if = "is_default")]
    pub some: PressureShare,
    /// While all were.
    #[serde(skip_serializing_if = "is_default")]
    pub full: PressureShare,
}

/// Shares of the time, in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PressureShare {
    /// Of the last ten seconds.
    pub avg10: f64,
    /// Of the last minute.
    pub avg60: f64,
    /// Of the last five minutes.
    pub avg300: f64,
    /// All of it, in microseconds.
    pub total: u64,
}

/// What the cpuset controller of v1 has set; cpuset(7).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpuset {
    /// The CPUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// Whether they are this cgroup's alone.
    pub cpu_exclusive: u64,
    /// The memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// Whether the kernel's own memory for it stays on its nodes.
    pub mem_hardwall: u64,
    /// Whether the nodes are this cgroup's alone.
    pub mem_exclusive: u64,
    /// Whether pages follow when the nodes change.
    pub memory_migrate: u64,
    /// Whether the page cache is spread over the nodes.
    pub memory_spread_page: u64,
    /// Whether the kernel's slabs are.
    pub memory_spread_slab: u64,
    /// How hard memory is reclaimed.
    pub memory_pressure: u64,
    /// Whether the scheduler balances between the CPUs.
    pub sched_load_balance: u64,
    /// How far it looks for an idle CPU; -1 is as the system does.
    pub sched_relax_domain_level: i64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Page cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Memory.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: MemoryEntry,
    /// Memory and swap together.
    #[serde(skip_serializing_if = "is_default")]
    pub swap: MemoryEntry,
    /// The kernel's own for it; v1 only.
    #[serde(skip_serializing_if = "is_default")]
    pub kernel: MemoryEntry,
    /// Buffers of TCP; v1 only.
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_default")]
    pub kernel_tcp: MemoryEntry,
    /// All of `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// How long was waited for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct MemoryEntry {
    /// The limit; none is a number that no memory reaches.
    pub limit: u64,
    /// What is in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that ever was.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pids {
    /// How many there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// How many there may be; 0 is any number.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block I/O: a list of numbers by device and operation for each thing counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockIo {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlockIoEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlockIoEntry>,
    /// Operations that wait.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlockIoEntry>,
    /// Time that the device took, in nanoseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlockIoEntry>,
    /// Time spent waiting for the device, in nanoseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlockIoEntry>,
    /// Operations that became part of others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlockIoEntry>,
    /// Time that the device was this cgroup's, in milliseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlockIoEntry>,
    /// Sectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlockIoEntry>,
    /// How long was waited for I/O.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One number of one device.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BlockIoEntry {
    /// The device's number.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// The device's minor number.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// The operation, such as `Read`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The number.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct HugePages {
    /// What is in use, or reserved where the kernel counts that.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that ever was; v1 only.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

/// RDMA devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rdma {
    /// Limits.
    pub limit: Vec<RdmaDevice>,
    /// What is in use.
    pub current: Vec<RdmaDevice>,
}

/// One RDMA device.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RdmaDevice {
    /// Its name.
    pub device: String,
    /// Handles; no limit is the largest number.
    pub hca_handles: u32,
    /// Objects; no limit is the largest number.
    pub hca_objects: u32,
}

/// The machine's end of an interface pair, counted from the container's side: what it sends, the machine's end receives.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkInterface {
    /// The interface's name on the machine.
    pub name: String,
    /// Bytes that the container received.
    pub rx_bytes: u64,
    /// Packets that it received.
    pub rx_packets: u64,
    /// Errors in that direction.
    pub rx_errors: u64,
    /// Packets dropped in that direction.
    pub rx_dropped: u64,
    /// Bytes that the container sent.
    pub tx_bytes: u64,
    /// Packets that it sent.
    pub tx_packets: u64,
    /// Errors in that direction.
    pub tx_errors: u64,
    /// Packets dropped in that direction.
    pub tx_dropped: u64,
}
