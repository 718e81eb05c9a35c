//! The limits of cgroup v1, in the order in which the kernel takes them.

use crate::cgroup::file::{self, Writer, is, refused, try_write, write};
use crate::cgroup::{Hierarchy, number_of_pids, shares_in_range};
use crate::error::{Context, Error};
use brig_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxResources, LinuxThrottleDevice,
};
use rustix::io::Errno;
use std::path::Path;

/// Writes the limits of this hierarchy's controllers. A new cgroup has none yet, which saves looking.
pub(in crate::cgroup) fn set(
    hierarchy: &Hierarchy,
    directory: &Path,
    resources: &LinuxResources,
    new: bool,
) -> Result<(), Error> {
    for controller in &hierarchy.controllers {
        match controller.as_str() {
            "memory" => resources.memory.as_ref().map_or(Ok(()), |m| memory(directory, m, new))?,
            "cpu" => resources.cpu.as_ref().map_or(Ok(()), |c| cpu(directory, c))?,
            "cpuset" => resources.cpu.as_ref().map_or(Ok(()), |c| cpuset(directory, c))?,
            "blkio" => resources.block_io.as_ref().map_or(Ok(()), |b| block_io(directory, b))?,
            "pids" => {
                if let Some(limit) = resources.pids.and_then(|pids| pids.limit) {
                    write(&directory.join("pids.max"), &number_of_pids(limit))?;
                }
            }
            "hugetlb" => hugepages(directory, &resources.hugepage_limits)?,
            "net_cls" | "net_prio" => {
                resources.network.as_ref().map_or(Ok(()), |n| network(directory, controller, n))?;
            }
            "rdma" => crate::cgroup::set_rdma(directory, resources)?,
            _ => {}
        }
    }
    Ok(())
}

fn memory(directory: &Path, memory: &LinuxMemory, new: bool) -> Result<(), Error> {
    if memory.use_hierarchy == Some(true) {
        // Since Linux 5.11 there is no other way, and 1 is all that the file takes.
        match try_write(&directory.join("memory.use_hierarchy"), "1") {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(refused(&directory.join("memory.use_hierarchy"), "1", errno)),
        }
    }
    let swap_file = directory.join("memory.memsw.limit_in_bytes");
    let limit = memory.limit.filter(|l| *l != 0);
    let swap = memory.swap.filter(|s| *s != 0);
    match (limit, swap) {
        (limit, Some(swap)) => {
            // memory+swap may never be below memory, so growing begins with the one and shrinking with the other.
            let grows = !new && {
                let present: Option<i64> = file::read_if_there(&swap_file).and_then(|t| t.trim().parse().ok());
                swap == -1 || present.is_some_and(|present| swap > present)
            };
            if grows {
                set_swap(&swap_file, swap)?;
            }
            if let Some(limit) = limit {
                set_memory_limit(directory, limit)?;
            }
            if !grows {
                set_swap(&swap_file, swap)?;
            }
        }
        (Some(limit), None) => {
            // Without a word about swap, only no limit at all means none there either.
            if limit == -1 && !new {
                set_swap(&swap_file, -1)?;
            }
            set_memory_limit(directory, limit)?;
        }
        (None, None) => {}
    }
    if let Some(reservation) = memory.reservation.filter(|r| *r != 0) {
        write(&directory.join("memory.soft_limit_in_bytes"), &reservation.to_string())?;
    }
    if let Some(kernel) = memory.kernel_tcp.filter(|k| *k != 0) {
        write(&directory.join("memory.kmem.tcp.limit_in_bytes"), &kernel.to_string())?;
    }
    match memory.swappiness {
        // -1 means the system's own, and has become the largest number on its way here.
        None | Some(u64::MAX) => {}
        Some(value @ 0..=100) => write(&directory.join("memory.swappiness"), &value.to_string())?,
        Some(value) => {
            return Err(Error::invalid(
                "set the memory swappiness",
                format!("invalid memory swappiness value: {value} (valid range is 0-100)"),
            ));
        }
    }
    if memory.disable_oom_killer == Some(true) {
        write(&directory.join("memory.oom_control"), "1")?;
    }
    Ok(())
}

/// Writes the limit of memory plus swap. A kernel that does not count swap has no file: then no limit is in force already.
fn set_swap(file: &Path, swap: i64) -> Result<(), Error> {
    match try_write(file, &swap.to_string()) {
        Err(Errno::NOENT) if swap == -1 => Ok(()),
        Err(errno) => Err(refused(file, &swap.to_string(), errno)),
        Ok(()) => Ok(()),
    }
}

fn set_memory_limit(directory: &Path, limit: i64) -> Result<(), Error> {
    write(&directory.join("memory.limit_in_bytes"), &limit.to_string()).map_err(|error| {
        if !is(&error, Errno::BUSY) {
            return error;
        }
        let value = |file: &str| file::read_if_there(&directory.join(file)).unwrap_or_default();
        let (usage, peak) = (value("memory.usage_in_bytes"), value("memory.max_usage_in_bytes"));
        Error::invalid(
            format!("limit the memory of {}", directory.display()),
            format!(
                "unable to set memory limit to {limit} (current usage: {}, peak usage: {})",
                usage.trim(),
                peak.trim()
            ),
        )
    })
}

fn cpu(directory: &Path, cpu: &LinuxCpu) -> Result<(), Error> {
    let file = |name: &str| directory.join(name);
    let idle = cpu.idle;
    if idle == Some(0) {
        write(&file("cpu.idle"), "0")?;
    }
    // The weight of an idle cgroup is fixed; the kernel refuses another.
    if let Some(shares) = cpu.shares.filter(|s| *s != 0 && idle.is_none_or(|idle| idle == 0)) {
        shares_in_range(shares)?;
        write(&file("cpu.shares"), &shares.to_string())?;
    }
    let quota = cpu.quota.filter(|q| *q != 0);
    // Each is checked against the other as it stands: what is refused before the quota is tried again after it.
    let mut again = Vec::new();
    let period = cpu.period.filter(|p| *p != 0).map(|p| ("cpu.cfs_period_us", p));
    for (name, value) in [period, cpu.burst.map(|b| ("cpu.cfs_burst_us", b))].into_iter().flatten() {
        match try_write(&file(name), &value.to_string()) {
            Ok(()) => {}
            Err(Errno::INVAL) if quota.is_some() => again.push((name, value)),
            // Burst came with Linux 5.14; no burst is what an older kernel does.
            Err(Errno::NOENT) if name == "cpu.cfs_burst_us" && value == 0 => {}
            Err(errno) => return Err(refused(&file(name), &value.to_string(), errno)),
        }
    }
    if let Some(quota) = quota {
        write(&file("cpu.cfs_quota_us"), &quota.to_string())?;
    }
    for (name, value) in again {
        write(&file(name), &value.to_string())?;
    }
    if let Some(idle) = idle.filter(|idle| *idle != 0) {
        write(&file("cpu.idle"), &idle.to_string())?;
    }
    real_time(directory, cpu)
}

fn real_time(directory: &Path, cpu: &LinuxCpu) -> Result<(), Error> {
    let runtime = cpu.realtime_runtime.filter(|r| *r != 0);
    let period = cpu.realtime_period.filter(|p| *p != 0).map(|p| p.to_string());
    let period_file = directory.join("cpu.rt_period_us");
    let mut again = None;
    if let Some(period) = period {
        match try_write(&period_file, &period) {
            Ok(()) => {}
            Err(Errno::INVAL) if runtime.is_some() => again = Some(period),
            Err(errno) => return Err(refused(&period_file, &period, errno)),
        }
    }
    if let Some(runtime) = runtime {
        write(&directory.join("cpu.rt_runtime_us"), &runtime.to_string())?;
    }
    again.map_or(Ok(()), |period| write(&period_file, &period))
}

fn cpuset(directory: &Path, cpu: &LinuxCpu) -> Result<(), Error> {
    for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !list.is_empty() {
            write(&directory.join(file), list)?;
        }
    }
    Ok(())
}

/// Writes to the first of two files that exists: the weights of CFQ went with it in Linux 5.0, those of BFQ took their place.
fn write_either(directory: &Path, files: [&str; 2], value: &str) -> Result<(), Error> {
    match try_write(&directory.join(files[0]), value) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => match try_write(&directory.join(files[1]), value) {
            Err(Errno::NOENT) => Err(Error::invalid(
                format!("set the block I/O weight {value}"),
                format!("this kernel has neither {} nor {} (BFQ is missing)", files[0], files[1]),
            )),
            Err(errno) => Err(refused(&directory.join(files[1]), value, errno)),
            Ok(()) => Ok(()),
        },
        Err(errno) => Err(refused(&directory.join(files[0]), value, errno)),
    }
}

fn block_io(directory: &Path, block: &LinuxBlockIo) -> Result<(), Error> {
    if let Some(weight) = block.weight.filter(|w| *w != 0) {
        write_either(directory, ["blkio.weight", "blkio.bfq.weight"], &weight.to_string())?;
    }
    if let Some(weight) = block.leaf_weight.filter(|w| *w != 0) {
        write(&directory.join("blkio.leaf_weight"), &weight.to_string())?;
    }
    for device in &block.weight_device {
        let line = |weight: u16| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = device.weight.filter(|w| *w != 0) {
            write_either(directory, ["blkio.weight_device", "blkio.bfq.weight_device"], &line(weight))?;
        }
        if let Some(weight) = device.leaf_weight.filter(|w| *w != 0) {
            write(&directory.join("blkio.leaf_weight_device"), &line(weight))?;
        }
    }
    let throttles: [(&str, &[LinuxThrottleDevice]); 4] = [
        ("blkio.throttle.read_bps_device", &block.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", &block.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", &block.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", &block.throttle_write_iops_device),
    ];
    for (file, list) in throttles {
        if list.is_empty() {
            continue;
        }
        let writer = Writer::open(directory.join(file))?;
        for device in list {
            writer.write(&format!("{}:{} {}", device.major, device.minor, device.rate))?;
        }
    }
    Ok(())
}

fn hugepages(directory: &Path, limits: &[LinuxHugepageLimit]) -> Result<(), Error> {
    for limit in limits {
        let (size, value) = (limit.page_size.as_str(), limit.limit.to_string());
        crate::cgroup::plain_name(size).step(|| "limit the huge pages".into())?;
        write(&directory.join(format!("hugetlb.{size}.limit_in_bytes")), &value)?;
        // What is reserved but not yet touched counts too, where the kernel counts it (Linux 5.7).
        let reserved = directory.join(format!("hugetlb.{size}.rsvd.limit_in_bytes"));
        match try_write(&reserved, &value) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(refused(&reserved, &value, errno)),
        }
    }
    Ok(())
}

fn network(directory: &Path, controller: &str, network: &LinuxNetwork) -> Result<(), Error> {
    if controller == "net_cls" {
        return match network.class_id.filter(|id| *id != 0) {
            Some(id) => write(&directory.join("net_cls.classid"), &id.to_string()),
            None => Ok(()),
        };
    }
    for priority in &network.priorities {
        write(&directory.join("net_prio.ifpriomap"), &format!("{} {}", priority.name, priority.priority))?;
    }
    Ok(())
}
