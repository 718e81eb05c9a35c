//! The files of cgroup v1, one hierarchy at a time; Documentation/admin-guide/cgroup-v1.

use super::{Hierarchy, devices, write};
use crate::error::{Context, Error};
use brig_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Makes the directory, and the ones that lead to it.
pub(super) fn create(hierarchy: &Hierarchy, path: &Path) -> Result<(), Error> {
    let directory = hierarchy.mount.join(path);
    let step = || format!("make the cgroup {}", directory.display());
    match fs::create_dir(&directory) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(&directory).step(step)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error).step(step),
    }
    if hierarchy.controllers.iter().any(|c| c == "cpuset") {
        inherit_cpuset(&hierarchy.mount, path)?;
    }
    Ok(())
}

/// A new cpuset is empty and takes no process before it has CPUs and memory nodes: those of its parent.
fn inherit_cpuset(mount: &Path, path: &Path) -> Result<(), Error> {
    let mut parent = mount.to_owned();
    for component in path.components() {
        let child = parent.join(component);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let present =
                fs::read_to_string(child.join(file)).step(|| format!("read {}", child.join(file).display()))?;
            if present.trim().is_empty() {
                let above =
                    fs::read_to_string(parent.join(file)).step(|| format!("read {}", parent.join(file).display()))?;
                write(&child.join(file), above.trim())?;
            }
        }
        parent = child;
    }
    Ok(())
}

/// Writes the limits of this hierarchy's controllers.
pub(super) fn update(hierarchy: &Hierarchy, directory: &Path, resources: &LinuxResources) -> Result<(), Error> {
    for controller in &hierarchy.controllers {
        match controller.as_str() {
            "memory" => resources.memory().as_ref().map_or(Ok(()), |m| memory(directory, m))?,
            "cpu" => resources.cpu().as_ref().map_or(Ok(()), |c| cpu(directory, c))?,
            "cpuset" => resources.cpu().as_ref().map_or(Ok(()), |c| cpuset(directory, c))?,
            "blkio" => resources.block_io().as_ref().map_or(Ok(()), |b| block_io(directory, b))?,
            "pids" => {
                if let Some(pids) = resources.pids() {
                    let limit = pids.limit();
                    let text = if limit > 0 { limit.to_string() } else { "max".into() };
                    write(&directory.join("pids.max"), &text)?;
                }
            }
            "devices" => {
                for rule in resources.devices().iter().flatten() {
                    let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
                    write(&directory.join(file), &devices::line(rule))?;
                }
            }
            "hugetlb" => {
                for limit in resources.hugepage_limits().iter().flatten() {
                    let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size());
                    write(&directory.join(file), &limit.limit().to_string())?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn memory(directory: &Path, memory: &LinuxMemory) -> Result<(), Error> {
    let limit_file = directory.join("memory.limit_in_bytes");
    let swap_file = directory.join("memory.memsw.limit_in_bytes");
    match (memory.limit(), memory.swap()) {
        (limit, Some(swap)) if swap != 0 => {
            // memory+swap may never be below memory, so growing begins with the one and shrinking with the other.
            let present: i64 =
                fs::read_to_string(&swap_file).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(i64::MAX);
            let grows = swap == -1 || swap > present;
            if grows {
                write(&swap_file, &swap.to_string())?;
            }
            if let Some(limit) = limit {
                set_memory_limit(directory, &limit_file, limit)?;
            }
            if !grows {
                write(&swap_file, &swap.to_string())?;
            }
        }
        (Some(limit), _) => {
            // No word about swap: twice the limit, as Docker's users know it, is the front door's decision, not ours.
            if limit == -1 && swap_file.exists() {
                write(&swap_file, "-1")?;
            }
            set_memory_limit(directory, &limit_file, limit)?;
        }
        _ => {}
    }
    if let Some(reservation) = memory.reservation() {
        write(&directory.join("memory.soft_limit_in_bytes"), &reservation.to_string())?;
    }
    if let Some(kernel) = memory.kernel_tcp() {
        write(&directory.join("memory.kmem.tcp.limit_in_bytes"), &kernel.to_string())?;
    }
    if let Some(swappiness) = memory.swappiness() {
        write(&directory.join("memory.swappiness"), &swappiness.to_string())?;
    }
    if memory.disable_oom_killer() == Some(true) {
        write(&directory.join("memory.oom_control"), "1")?;
    }
    Ok(())
}

fn set_memory_limit(directory: &Path, file: &Path, limit: i64) -> Result<(), Error> {
    write(file, &limit.to_string()).map_err(|error| {
        let used = fs::read_to_string(directory.join("memory.usage_in_bytes")).unwrap_or_default();
        if error.source.raw_os_error() == Some(16) {
            return Error::invalid(
                format!("limit the memory to {limit} bytes"),
                format!("{} bytes are in use", used.trim()),
            );
        }
        error
    })
}

fn cpu(directory: &Path, cpu: &LinuxCpu) -> Result<(), Error> {
    if let Some(shares) = cpu.shares().filter(|s| *s != 0) {
        write(&directory.join("cpu.shares"), &shares.to_string())?;
    }
    // The period first: a quota is checked against it. A period that the present quota forbids comes after it.
    let period = cpu.period().filter(|p| *p != 0).map(|p| write(&directory.join("cpu.cfs_period_us"), &p.to_string()));
    if let Some(quota) = cpu.quota().filter(|q| *q != 0) {
        write(&directory.join("cpu.cfs_quota_us"), &quota.to_string())?;
    }
    if let (Some(Err(_)), Some(value)) = (period, cpu.period()) {
        write(&directory.join("cpu.cfs_period_us"), &value.to_string())?;
    }
    if let Some(burst) = cpu.burst() {
        write(&directory.join("cpu.cfs_burst_us"), &burst.to_string())?;
    }
    if let Some(idle) = cpu.idle() {
        write(&directory.join("cpu.idle"), &idle.to_string())?;
    }
    if let Some(period) = cpu.realtime_period().filter(|p| *p != 0) {
        write(&directory.join("cpu.rt_period_us"), &period.to_string())?;
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|r| *r != 0) {
        write(&directory.join("cpu.rt_runtime_us"), &runtime.to_string())?;
    }
    Ok(())
}

fn cpuset(directory: &Path, cpu: &LinuxCpu) -> Result<(), Error> {
    if let Some(cpus) = cpu.cpus().as_deref().filter(|c| !c.is_empty()) {
        write(&directory.join("cpuset.cpus"), cpus)?;
    }
    if let Some(mems) = cpu.mems().as_deref().filter(|m| !m.is_empty()) {
        write(&directory.join("cpuset.mems"), mems)?;
    }
    Ok(())
}

fn block_io(directory: &Path, block: &LinuxBlockIo) -> Result<(), Error> {
    if let Some(weight) = block.weight().filter(|w| *w != 0) {
        // The weight of CFQ went with it in Linux 5.0; BFQ's file takes its place where BFQ is built in.
        let file = ["blkio.weight", "blkio.bfq.weight"].into_iter().find(|f| directory.join(f).exists());
        let Some(file) = file else {
            return Err(Error::invalid(
                "set the block I/O weight",
                "this kernel offers no weight on cgroup v1 (BFQ is missing)",
            ));
        };
        write(&directory.join(file), &weight.to_string())?;
    }
    for device in block.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let file =
                ["blkio.weight_device", "blkio.bfq.weight_device"].into_iter().find(|f| directory.join(f).exists());
            let file = file.unwrap_or("blkio.weight_device");
            write(&directory.join(file), &format!("{}:{} {weight}", device.major(), device.minor()))?;
        }
    }
    let throttles: [(&str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("blkio.throttle.read_bps_device", block.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", block.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", block.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", block.throttle_write_iops_device()),
    ];
    for (file, list) in throttles {
        for device in list.iter().flatten() {
            write(&directory.join(file), &format!("{}:{} {}", device.major(), device.minor(), device.rate()))?;
        }
    }
    Ok(())
}

/// Freezes or thaws. Freezing may stay FREEZING while a process cannot be stopped; writing again helps the kernel on.
pub(super) fn set_frozen(directory: &Path, frozen: bool) -> Result<(), Error> {
    let file = directory.join("freezer.state");
    let want = if frozen { "FROZEN" } else { "THAWED" };
    for _ in 0..1000 {
        write(&file, want)?;
        let state = fs::read_to_string(&file).step(|| format!("read {}", file.display()))?;
        if state.trim() == want {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = write(&file, "THAWED");
    Err(Error::invalid("freeze the container", "a process did not stop within a second; it was let go on"))
}
