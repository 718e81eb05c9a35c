//! Limits of a container: cgroup resources, rlimits, restart policy.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Limits by cgroup; none: no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory in bytes.
    pub memory: Option<i64>,
    /// Memory below which the kernel reclaims less, in bytes.
    pub memory_reservation: Option<i64>,
    /// Memory plus swap in bytes, -1 for no bound; none: twice the memory.
    pub memory_swap: Option<i64>,
    /// The tendency to swap, 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// Whether the OOM killer is off (cgroup v1 only).
    pub oom_kill_disable: bool,
    /// CPUs in billionths: 1.5 CPUs are 1,500,000,000.
    pub nano_cpus: Option<u64>,
    /// The relative weight, 2 to 262144 with 1024 as the usual.
    pub cpu_shares: Option<u64>,
    /// The period of the quota in microseconds.
    pub cpu_period: Option<u64>,
    /// The quota in microseconds a period.
    pub cpu_quota: Option<i64>,
    /// The CPUs to run on, `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// The memory nodes to allocate from.
    pub cpuset_mems: Option<String>,
    /// The most processes and threads; 0 or less: no bound.
    pub pids: Option<i64>,
    /// The relative weight of block I/O, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Weights of single devices.
    pub blkio_weight_device: Vec<Throttle>,
    /// Bytes read a second.
    pub read_bps: Vec<Throttle>,
    /// Bytes written a second.
    pub write_bps: Vec<Throttle>,
    /// Read operations a second.
    pub read_iops: Vec<Throttle>,
    /// Write operations a second.
    pub write_iops: Vec<Throttle>,
}

impl Resources {
    /// Takes over every limit that `change` names; the others stay.
    pub fn update(&mut self, change: &Self) {
        fn take<T: Clone>(to: &mut Option<T>, from: Option<&T>) {
            if let Some(value) = from {
                *to = Some(value.clone());
            }
        }
        take(&mut self.memory, change.memory.as_ref());
        take(&mut self.memory_reservation, change.memory_reservation.as_ref());
        take(&mut self.memory_swap, change.memory_swap.as_ref());
        take(&mut self.memory_swappiness, change.memory_swappiness.as_ref());
        take(&mut self.nano_cpus, change.nano_cpus.as_ref());
        take(&mut self.cpu_shares, change.cpu_shares.as_ref());
        take(&mut self.cpu_period, change.cpu_period.as_ref());
        take(&mut self.cpu_quota, change.cpu_quota.as_ref());
        take(&mut self.cpuset_cpus, change.cpuset_cpus.as_ref());
        take(&mut self.cpuset_mems, change.cpuset_mems.as_ref());
        take(&mut self.pids, change.pids.as_ref());
        take(&mut self.blkio_weight, change.blkio_weight.as_ref());
        // Quota and CPU count are two words for one limit: the newer word replaces the older.
        if change.nano_cpus.is_some() {
            (self.cpu_quota, self.cpu_period) = (None, None);
        } else if change.cpu_quota.is_some() {
            self.nano_cpus = None;
        }
    }
}

/// A limit of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// The device's node on the machine.
    pub path: PathBuf,
    /// Bytes or operations a second, or a weight.
    pub rate: u64,
}

/// One limit of setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// The name without `RLIMIT_`, in small letters: `nofile`.
    pub name: String,
    /// The soft limit; `u64::MAX`: none.
    pub soft: u64,
    /// The hard limit; `u64::MAX`: none.
    pub hard: u64,
}

impl Ulimit {
    /// The names that setrlimit(2) knows.
    pub const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
}

/// When a container is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Whenever it ends, unless a person stopped it.
    Always,
    /// The same: what sets the two apart in Docker is a stopped container after a reboot, and here that one stays down.
    UnlessStopped,
    /// When it ends with a status other than 0, at most this many times (0: without bound).
    OnFailure(u32),
}

impl RestartPolicy {
    /// The name as Docker spells it, without the count.
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
            Self::OnFailure(_) => "on-failure",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_changes_what_it_names() {
        let mut now = Resources { memory: Some(10), cpu_quota: Some(5), cpu_period: Some(10), ..Resources::default() };
        now.update(&Resources { nano_cpus: Some(7), pids: Some(3), ..Resources::default() });
        assert_eq!((now.memory, now.pids, now.nano_cpus, now.cpu_quota), (Some(10), Some(3), Some(7), None));
    }
}
