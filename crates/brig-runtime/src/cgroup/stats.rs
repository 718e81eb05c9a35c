//! What a container has used, read from its cgroup on either version. A file that is missing counts as nothing.

use super::{Cgroup, file};
use std::path::Path;

/// Block I/O of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// The device's number.
    pub major: u32,
    /// The device's minor number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_ops: u64,
    /// Write operations.
    pub write_ops: u64,
}

/// A container's usage at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time, in nanoseconds.
    pub cpu_ns: u64,
    /// CPU time in user mode, in nanoseconds.
    pub cpu_user_ns: u64,
    /// CPU time in the kernel, in nanoseconds.
    pub cpu_system_ns: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Time spent waiting for the next period, in nanoseconds.
    pub throttled_ns: u64,
    /// Memory charged, in bytes, page cache included.
    pub memory_bytes: u64,
    /// The part that can be given up at any moment (inactive file pages), in bytes: `docker stats` leaves it out.
    pub memory_inactive_file_bytes: u64,
    /// The limit in bytes, none when there is none.
    pub memory_limit_bytes: Option<u64>,
    /// The most memory ever charged, in bytes, where the kernel counts it.
    pub memory_peak_bytes: Option<u64>,
    /// Swap used, in bytes.
    pub swap_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Their limit, none when there is none.
    pub pids_limit: Option<u64>,
    /// Block I/O of each device.
    pub io: Vec<DeviceIo>,
}

pub(super) fn value(path: &Path) -> Option<u64> {
    file::read_if_there(path)?.trim().parse().ok()
}

/// Reads a file of `key value` lines.
pub(super) fn keyed(path: &Path) -> Vec<(String, u64)> {
    let text = file::read_if_there(path).unwrap_or_default();
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .filter_map(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)))
        .collect()
}

fn find(pairs: &[(String, u64)], key: &str) -> u64 {
    pairs.iter().find(|(k, _)| k == key).map_or(0, |(_, v)| *v)
}

/// A limit of v1 that is not set reads as a number near 2^63.
fn limit(value: u64) -> Option<u64> {
    (value < 1 << 62).then_some(value)
}

pub(super) fn read(cgroup: &Cgroup) -> Stats {
    let mut stats = Stats::default();
    let place = |controller: &str| cgroup.controller(controller);
    if let Some((at, unified)) = place("cpuacct").or_else(|| place("cpu")) {
        if unified {
            let pairs = keyed(&at.join("cpu.stat"));
            stats.cpu_ns = find(&pairs, "usage_usec") * 1000;
            stats.cpu_user_ns = find(&pairs, "user_usec") * 1000;
            stats.cpu_system_ns = find(&pairs, "system_usec") * 1000;
            stats.throttled_periods = find(&pairs, "nr_throttled");
            stats.throttled_ns = find(&pairs, "throttled_usec") * 1000;
        } else {
            stats.cpu_ns = value(&at.join("cpuacct.usage")).unwrap_or(0);
            stats.cpu_user_ns = value(&at.join("cpuacct.usage_user")).unwrap_or(0);
            stats.cpu_system_ns = value(&at.join("cpuacct.usage_sys")).unwrap_or(0);
        }
    }
    if let Some((at, false)) = place("cpu") {
        let pairs = keyed(&at.join("cpu.stat"));
        stats.throttled_periods = find(&pairs, "nr_throttled");
        stats.throttled_ns = find(&pairs, "throttled_time");
    }
    if let Some((at, unified)) = place("memory") {
        let pairs = keyed(&at.join("memory.stat"));
        if unified {
            stats.memory_bytes = value(&at.join("memory.current")).unwrap_or(0);
            stats.memory_inactive_file_bytes = find(&pairs, "inactive_file");
            stats.memory_limit_bytes = value(&at.join("memory.max"));
            stats.memory_peak_bytes = value(&at.join("memory.peak"));
            stats.swap_bytes = value(&at.join("memory.swap.current")).unwrap_or(0);
        } else {
            stats.memory_bytes = value(&at.join("memory.usage_in_bytes")).unwrap_or(0);
            stats.memory_inactive_file_bytes = find(&pairs, "total_inactive_file");
            stats.memory_limit_bytes = value(&at.join("memory.limit_in_bytes")).and_then(limit);
            stats.memory_peak_bytes = value(&at.join("memory.max_usage_in_bytes"));
            stats.swap_bytes = find(&pairs, "total_swap");
        }
    }
    if let Some((at, _)) = place("pids") {
        stats.pids = value(&at.join("pids.current")).unwrap_or(0);
        stats.pids_limit = value(&at.join("pids.max"));
    }
    if let Some((at, true)) = place("io") {
        stats.io = io_of_v2(&file::read_if_there(&at.join("io.stat")).unwrap_or_default());
    } else if let Some((at, false)) = place("blkio") {
        let file = |name: &str| file::read_if_there(&at.join(name)).unwrap_or_default();
        stats.io =
            io_of_v1(&file("blkio.throttle.io_service_bytes_recursive"), &file("blkio.throttle.io_serviced_recursive"));
    }
    stats
}

pub(super) fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn entry(list: &mut Vec<DeviceIo>, (major, minor): (u32, u32)) -> &mut DeviceIo {
    let at = list.iter().position(|d| (d.major, d.minor) == (major, minor)).unwrap_or_else(|| {
        list.push(DeviceIo { major, minor, ..DeviceIo::default() });
        list.len() - 1
    });
    &mut list[at]
}

fn io_of_v2(text: &str) -> Vec<DeviceIo> {
    let mut list = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(number) = words.next().and_then(device) else { continue };
        let io = entry(&mut list, number);
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => io.read_bytes = value,
                "wbytes" => io.write_bytes = value,
                "rios" => io.read_ops = value,
                "wios" => io.write_ops = value,
                _ => {}
            }
        }
    }
    list
}

fn io_of_v1(bytes: &str, operations: &str) -> Vec<DeviceIo> {
    let mut list = Vec::new();
    for (text, counts_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(number), Some(kind), Some(value)) = (words.next().and_then(device), words.next(), words.next())
            else {
                continue;
            };
            let value = value.parse().unwrap_or(0);
            let io = entry(&mut list, number);
            match (kind, counts_bytes) {
                ("Read", true) => io.read_bytes = value,
                ("Write", true) => io.write_bytes = value,
                ("Read", false) => io.read_ops = value,
                ("Write", false) => io.write_ops = value,
                _ => {}
            }
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_io_counters_are_read() {
        let want = DeviceIo { major: 8, minor: 16, read_bytes: 4096, write_bytes: 8192, read_ops: 1, write_ops: 2 };
        assert_eq!(io_of_v2("8:16 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n"), [want]);
        let bytes = "8:16 Read 4096\n8:16 Write 8192\n8:16 Sync 1\nTotal 12288\n";
        let operations = "8:16 Read 1\n8:16 Write 2\nTotal 3\n";
        assert_eq!(io_of_v1(bytes, operations), [want]);
    }

    #[test]
    fn an_unset_limit_of_v1_is_none() {
        assert_eq!(limit(9_223_372_036_854_771_712), None);
        assert_eq!(limit(1 << 30), Some(1 << 30));
    }
}
