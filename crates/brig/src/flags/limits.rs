//! Limits by cgroup, as `run`, `create` and `update` take them.

use super::values::{cpus, signed_bytes, throttle};
use brig_engine::Result;
use brig_engine::config::Resources;
use clap::Args;

/// Limits by cgroup, which `update` takes too.
#[derive(Debug, Default, Args)]
pub struct LimitFlags {
    /// Memory, such as `512m`
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Memory plus swap; -1 for no bound
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Memory that is kept when others need some
    #[arg(long, value_name = "BYTES")]
    pub memory_reservation: Option<String>,
    /// The tendency to swap, 0 to 100
    #[arg(long, value_name = "N")]
    pub memory_swappiness: Option<u64>,
    /// CPUs, such as `1.5`
    #[arg(long, value_name = "N")]
    pub cpus: Option<String>,
    /// Relative weight, 1024 is usual
    #[arg(short, long, value_name = "N")]
    pub cpu_shares: Option<u64>,
    /// Period of the quota, in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<u64>,
    /// Quota a period, in microseconds
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// CPUs to run on, such as `0-2,4`
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to allocate from
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// The most processes and threads; -1 for no bound
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// Weight of one device
    #[arg(long, value_name = "DEVICE:N")]
    pub blkio_weight_device: Vec<String>,
    /// Bytes read a second
    #[arg(long, value_name = "DEVICE:BYTES")]
    pub device_read_bps: Vec<String>,
    /// Bytes written a second
    #[arg(long, value_name = "DEVICE:BYTES")]
    pub device_write_bps: Vec<String>,
    /// Read operations a second
    #[arg(long, value_name = "DEVICE:N")]
    pub device_read_iops: Vec<String>,
    /// Write operations a second
    #[arg(long, value_name = "DEVICE:N")]
    pub device_write_iops: Vec<String>,
}

impl LimitFlags {
    /// Interprets the limits.
    pub fn resources(&self) -> Result<Resources> {
        let positive = |name: &str, text: &Option<String>| -> Result<Option<i64>> {
            text.as_deref().map(|t| signed_bytes(name, t)).transpose()
        };
        let all = |name: &str, list: &[String], sized: bool| -> Result<Vec<_>> {
            list.iter().map(|t| throttle(name, t, sized)).collect()
        };
        Ok(Resources {
            memory: positive("--memory", &self.memory)?,
            memory_reservation: positive("--memory-reservation", &self.memory_reservation)?,
            memory_swap: positive("--memory-swap", &self.memory_swap)?,
            memory_swappiness: self.memory_swappiness,
            oom_kill_disable: false,
            nano_cpus: self.cpus.as_deref().map(cpus).transpose()?,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids: self.pids_limit,
            blkio_weight: self.blkio_weight,
            blkio_weight_device: all("--blkio-weight-device", &self.blkio_weight_device, false)?,
            read_bps: all("--device-read-bps", &self.device_read_bps, true)?,
            write_bps: all("--device-write-bps", &self.device_write_bps, true)?,
            read_iops: all("--device-read-iops", &self.device_read_iops, false)?,
            write_iops: all("--device-write-iops", &self.device_write_iops, false)?,
        })
    }
}
