//! Reading the numbers of [`Metrics`] from the files of v1 and v2.

use super::{
    BlockIo, BlockIoEntry, Cpu, Cpuset, HugePages, Memory, MemoryEntry, Metrics, NetworkInterface, Pids, Pressure,
    PressureShare, Rdma, RdmaDevice,
};
use crate::cgroup::stats::{device, keyed, value};
use crate::cgroup::{Cgroup, file};
use std::io;
use std::path::Path;

/// Reads all of it.
pub(in crate::cgroup) fn read(cgroup: &Cgroup) -> Metrics {
    let mut metrics = Metrics::default();
    match cgroup.controller("cpuacct") {
        Some((at, true)) => metrics.cpu = cpu_of_v2(&at),
        Some((at, false)) => {
            let cpu = cgroup.controller("cpu").map(|(at, _)| at);
            metrics.cpu = cpu_of_v1(&at, cpu.as_deref());
        }
        None => {}
    }
    if let Some((at, false)) = cgroup.controller("cpuset") {
        metrics.cpuset = cpuset(&at);
    }
    match cgroup.controller("memory") {
        Some((at, true)) => metrics.memory = memory_of_v2(&at),
        Some((at, false)) => metrics.memory = memory_of_v1(&at),
        None => {}
    }
    if let Some((at, unified)) = cgroup.controller("pids") {
        let current = value(&at.join("pids.current"));
        let current = current.unwrap_or_else(|| if unified { count_processes(&at) } else { 0 });
        metrics.pids = Pids { current, limit: value(&at.join("pids.max")).unwrap_or(0) };
    }
    if let Some((at, _)) = cgroup.controller("io").filter(|(_, unified)| *unified) {
        metrics.blkio = block_io_of_v2(&at);
    } else if let Some((at, _)) = cgroup.controller("blkio") {
        metrics.blkio = block_io_of_v1(&at);
    }
    if let Some((at, unified)) = cgroup.controller("hugetlb") {
        for size in huge_page_sizes() {
            if let Some(pages) = huge_pages(&at, &size, unified) {
                metrics.hugetlb.insert(size, pages);
            }
        }
    }
    if let Some((at, _)) = cgroup.controller("rdma") {
        metrics.rdma = Rdma { limit: rdma(&at.join("rdma.max")), current: rdma(&at.join("rdma.current")) };
    }
    metrics
}

fn lines(path: &Path) -> String {
    file::read_if_there(path).unwrap_or_default()
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn cpu_of_v2(at: &Path) -> Cpu {
    let mut cpu = Cpu { psi: pressure(&at.join("cpu.pressure")), ..Cpu::default() };
    for (key, value) in keyed(&at.join("cpu.stat")) {
        match key.as_str() {
            "usage_usec" => cpu.usage.total = value * 1000,
            "user_usec" => cpu.usage.user = value * 1000,
            "system_usec" => cpu.usage.kernel = value * 1000,
            "nr_periods" => cpu.throttling.periods = value,
            "nr_throttled" => cpu.throttling.throttled_periods = value,
            "throttled_usec" => cpu.throttling.throttled_time = value * 1000,
            _ => {}
        }
    }
    cpu
}

fn cpu_of_v1(cpuacct: &Path, cpu: Option<&Path>) -> Cpu {
    let mut all = Cpu::default();
    all.usage.total = value(&cpuacct.join("cpuacct.usage")).unwrap_or(0);
    all.usage.user = value(&cpuacct.join("cpuacct.usage_user")).unwrap_or(0);
    all.usage.kernel = value(&cpuacct.join("cpuacct.usage_sys")).unwrap_or(0);
    all.usage.percpu = numbers(&lines(&cpuacct.join("cpuacct.usage_percpu")));
    for line in lines(&cpuacct.join("cpuacct.usage_all")).lines().skip(1) {
        if let [_, user, kernel, ..] = numbers(line)[..] {
            all.usage.percpu_user.push(user);
            all.usage.percpu_kernel.push(kernel);
        }
    }
    for (key, value) in cpu.map(|at| keyed(&at.join("cpu.stat"))).unwrap_or_default() {
        match key.as_str() {
            "nr_periods" => all.throttling.periods = value,
            "nr_throttled" => all.throttling.throttled_periods = value,
            "throttled_time" => all.throttling.throttled_time = value,
            _ => {}
        }
    }
    all
}

fn cpuset(at: &Path) -> Cpuset {
    let number = |file: &str| value(&at.join(format!("cpuset.{file}"))).unwrap_or(0);
    let list = |file: &str| list_of_ranges(&lines(&at.join(format!("cpuset.{file}"))));
    Cpuset {
        cpus: list("cpus"),
        cpu_exclusive: number("cpu_exclusive"),
        mems: list("mems"),
        mem_hardwall: number("mem_hardwall"),
        mem_exclusive: number("mem_exclusive"),
        memory_migrate: number("memory_migrate"),
        memory_spread_page: number("memory_spread_page"),
        memory_spread_slab: number("memory_spread_slab"),
        memory_pressure: number("memory_pressure"),
        sched_load_balance: number("sched_load_balance"),
        sched_relax_domain_level: lines(&at.join("cpuset.sched_relax_domain_level")).trim().parse().unwrap_or(0),
    }
}

/// Reads a list such as `0-2,7`.
fn list_of_ranges(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse().ok()?..=to.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

fn memory_of_v1(at: &Path) -> Memory {
    let entry = |name: &str| {
        let number = |file: &str| value(&at.join(format!("memory.{name}{file}"))).unwrap_or(0);
        MemoryEntry {
            limit: number("limit_in_bytes"),
            usage: number("usage_in_bytes"),
            max: number("max_usage_in_bytes"),
            failcnt: number("failcnt"),
        }
    };
    let raw: std::collections::BTreeMap<String, u64> = keyed(&at.join("memory.stat")).into_iter().collect();
    Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry(""),
        swap: entry("memsw."),
        kernel: entry("kmem."),
        kernel_tcp: entry("kmem.tcp."),
        raw,
        psi: None,
    }
}

fn memory_of_v2(at: &Path) -> Memory {
    // A limit that is not set reads `max`.
    let limit = |file: &str| value(&at.join(file)).unwrap_or(u64::MAX);
    let number = |file: &str| value(&at.join(file)).unwrap_or(0);
    let raw: std::collections::BTreeMap<String, u64> = keyed(&at.join("memory.stat")).into_iter().collect();
    if raw.is_empty() {
        return Memory::default();
    }
    let usage = MemoryEntry {
        limit: limit("memory.max"),
        usage: number("memory.current"),
        max: number("memory.peak"),
        failcnt: 0,
    };
    // v1 counts memory and swap together, and its form is the one that is printed.
    let swap = value(&at.join("memory.swap.current")).map(|swap| MemoryEntry {
        limit: limit("memory.swap.max").saturating_add(usage.limit),
        usage: swap + usage.usage,
        ..MemoryEntry::default()
    });
    Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap: swap.unwrap_or(MemoryEntry { usage: usage.usage, limit: usage.limit, ..MemoryEntry::default() }),
        raw,
        psi: pressure(&at.join("memory.pressure")),
        ..Memory::default()
    }
}

/// Without the controller the processes can still be counted, though not their threads.
fn count_processes(at: &Path) -> u64 {
    u64::try_from(lines(&at.join("cgroup.procs")).lines().count()).unwrap_or(0)
}

/// Reads pressure stall information; none where the kernel does not keep it.
fn pressure(path: &Path) -> Option<Pressure> {
    file::read_if_there(path).map(|text| parse_pressure(&text))
}

fn parse_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let share = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        *share = PressureShare::default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => share.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => share.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => share.avg300 = value.parse().unwrap_or(0.0),
                "total" => share.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    pressure
}

/// One file of v1: `8:0 Read 4096`, or without an operation `8:0 6792`.
fn entries(text: &str) -> Vec<BlockIoEntry> {
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (number, op, value) = match words[..] {
            [number, op, value] => (number, op, value),
            [number, value] => (number, "", value),
            _ => return None,
        };
        let (major, minor) = device(number)?;
        Some(BlockIoEntry { major: major.into(), minor: minor.into(), op: op.into(), value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// Reads from the one that counts: BFQ where it schedules, CFQ on old kernels, else what passes the throttles.
fn block_io_of_v1(at: &Path) -> BlockIo {
    let list = |file: &str| file::read_if_there(&at.join(file)).map(|text| entries(&text));
    for prefix in ["blkio.bfq.", "blkio."] {
        let list = |name: &str| list(&format!("{prefix}{name}_recursive")).unwrap_or_default();
        let bytes = list("io_service_bytes");
        if bytes.iter().any(|entry| entry.value != 0) {
            return BlockIo {
                io_service_bytes_recursive: bytes,
                io_serviced_recursive: list("io_serviced"),
                io_queued_recursive: list("io_queued"),
                io_service_time_recursive: list("io_service_time"),
                io_wait_time_recursive: list("io_wait_time"),
                io_merged_recursive: list("io_merged"),
                io_time_recursive: list("time"),
                sectors_recursive: list("sectors"),
                psi: None,
            };
        }
    }
    let either = |name: &str| {
        list(&format!("blkio.throttle.{name}_recursive")).or_else(|| list(&format!("blkio.throttle.{name}")))
    };
    BlockIo {
        io_service_bytes_recursive: either("io_service_bytes").unwrap_or_default(),
        io_serviced_recursive: either("io_serviced").unwrap_or_default(),
        ..BlockIo::default()
    }
}

fn block_io_of_v2(at: &Path) -> BlockIo {
    let mut io = parse_io_stat(&lines(&at.join("io.stat")));
    io.psi = pressure(&at.join("io.pressure"));
    io
}

fn parse_io_stat(text: &str) -> BlockIo {
    let mut io = BlockIo::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut io.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut io.io_service_bytes_recursive, "Write"),
                "rios" => (&mut io.io_serviced_recursive, "Read"),
                "wios" => (&mut io.io_serviced_recursive, "Write"),
                _ => continue,
            };
            let value = value.parse().unwrap_or(0);
            list.push(BlockIoEntry { major: major.into(), minor: minor.into(), op: op.into(), value });
        }
    }
    io
}

/// Lists the sizes of huge pages that the machine has, as the files of the controller spell them.
fn huge_page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<String> = entries.filter_map(|entry| size_name(entry.file_name().to_str()?)).collect();
    sizes.sort_unstable();
    sizes
}

/// `hugepages-2048kB` is `2MB`.
fn size_name(directory: &str) -> Option<String> {
    let kib: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        0x10_0000.. => format!("{}GB", kib >> 20),
        0x400.. => format!("{}MB", kib >> 10),
        _ => format!("{kib}KB"),
    })
}

fn huge_pages(at: &Path, size: &str, unified: bool) -> Option<HugePages> {
    let number = |file: &str| value(&at.join(format!("hugetlb.{size}.{file}")));
    if unified {
        let usage = number("rsvd.current").or_else(|| number("current"))?;
        let events = keyed(&at.join(format!("hugetlb.{size}.events")));
        let failcnt = events.into_iter().find(|(key, _)| key == "max").map_or(0, |(_, value)| value);
        return Some(HugePages { usage, max: 0, failcnt });
    }
    let kind = if number("rsvd.usage_in_bytes").is_some() { "rsvd." } else { "" };
    let number = |file: &str| number(&format!("{kind}{file}"));
    Some(HugePages {
        usage: number("usage_in_bytes")?,
        max: number("max_usage_in_bytes").unwrap_or(0),
        failcnt: number("failcnt").unwrap_or(0),
    })
}

fn rdma(path: &Path) -> Vec<RdmaDevice> {
    let text = lines(path);
    let device = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let mut device = RdmaDevice { device: words.next()?.to_owned(), ..RdmaDevice::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(u32::MAX);
            match key {
                "hca_handle" => device.hca_handles = value,
                "hca_object" => device.hca_objects = value,
                _ => {}
            }
        }
        Some(device)
    };
    text.lines().filter_map(device).collect()
}

impl NetworkInterface {
    /// Reads the counters of an interface of this network namespace. Errors: there is none of that name.
    pub fn read(name: &str) -> io::Result<Self> {
        crate::cgroup::plain_name(name)?;
        let base = Path::new("/sys/class/net").join(name).join("statistics");
        let number = |file: &str| -> io::Result<u64> {
            let text = file::read(&base.join(file))?;
            text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        };
        Ok(Self {
            name: name.to_owned(),
            rx_bytes: number("tx_bytes")?,
            rx_packets: number("tx_packets")?,
            rx_errors: number("tx_errors")?,
            rx_dropped: number("tx_dropped")?,
            tx_bytes: number("rx_bytes")?,
            tx_packets: number("rx_packets")?,
            tx_errors: number("rx_errors")?,
            tx_dropped: number("rx_dropped")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_block_io_become_lists() {
        let entry = |op: &str, value| BlockIoEntry { major: 8, minor: 16, op: op.into(), value };
        let io = parse_io_stat("8:16 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n");
        assert_eq!(io.io_service_bytes_recursive, [entry("Read", 4096), entry("Write", 8192)]);
        assert_eq!(io.io_serviced_recursive, [entry("Read", 1), entry("Write", 2)]);
        let text = "8:16 Read 4096\n8:16 Write 8192\nTotal 12288\n";
        assert_eq!(entries(text), [entry("Read", 4096), entry("Write", 8192)]);
        assert_eq!(entries("8:16 6792\n"), [entry("", 6792)]);
    }

    #[test]
    fn pressure_and_ranges_and_sizes_are_read() {
        let text =
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let pressure = parse_pressure(text);
        assert_eq!(pressure.some, PressureShare { avg10: 1.5, avg60: 0.25, avg300: 0.0, total: 1234 });
        assert_eq!(pressure.full.total, 7);
        assert_eq!(list_of_ranges("0-2,7\n"), [0, 1, 2, 7]);
        assert!(list_of_ranges("\n").is_empty());
        let names: Vec<_> = ["64", "2048", "1048576"].map(|k| size_name(&format!("hugepages-{k}kB")).unwrap()).into();
        assert_eq!(names, ["64KB", "2MB", "1GB"]);
    }

    #[test]
    fn the_text_has_the_words_that_its_readers_expect() {
        let mut metrics = Metrics::default();
        let empty = serde_json::to_value(&metrics).unwrap();
        assert_eq!(empty["cpu"], serde_json::json!({}));
        assert_eq!(empty["hugetlb"], serde_json::json!({}));
        assert_eq!(empty["intel_rdt"], serde_json::json!({}));
        assert_eq!(empty["network_interfaces"], serde_json::Value::Null);
        assert_eq!(empty["cpuset"]["sched_relax_domain_level"], 0);
        metrics.cpu.usage.total = 5;
        metrics.cpu.throttling.throttled_periods = 2;
        metrics.memory.kernel_tcp.limit = 9;
        metrics.blkio.io_queued_recursive.push(BlockIoEntry { major: 8, op: "Read".into(), ..Default::default() });
        metrics.network_interfaces =
            Some(vec![NetworkInterface { name: "veth0".into(), rx_bytes: 3, ..Default::default() }]);
        let text = serde_json::to_value(&metrics).unwrap();
        assert_eq!(text["cpu"]["usage"], serde_json::json!({"total": 5, "kernel": 0, "user": 0}));
        assert_eq!(text["cpu"]["throttling"], serde_json::json!({"throttledPeriods": 2}));
        assert_eq!(text["memory"]["kernelTCP"], serde_json::json!({"limit": 9, "failcnt": 0}));
        assert_eq!(text["blkio"]["ioQueueRecursive"][0], serde_json::json!({"major": 8, "op": "Read"}));
        assert_eq!(text["network_interfaces"][0]["RxBytes"], 3);
    }
}
