//! The limits of cgroup v2, in the order in which the kernel takes them.

use crate::cgroup::file::{self, Writer, refused, try_write, write};
use crate::cgroup::number_of_pids;
use crate::error::{Context, Error};
use brig_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};
use rustix::io::Errno;
use std::path::Path;

/// Files of the cgroup itself that a configuration may set; the others move processes or rearrange the tree.
const OWN_FILES: [&str; 3] = ["cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"];

/// Writes the limits. In a hybrid layout `only` names the controllers that are v2's there.
pub(in crate::cgroup) fn set(
    directory: &Path,
    resources: &LinuxResources,
    only: Option<&[String]>,
) -> Result<(), Error> {
    let wanted = |controller: &str| only.is_none_or(|only| only.iter().any(|c| c == controller));
    if let Some(limit) = resources.pids.and_then(|pids| pids.limit).filter(|_| wanted("pids")) {
        write(&directory.join("pids.max"), &number_of_pids(limit))?;
    }
    if let Some(m) = resources.memory.as_ref().filter(|_| wanted("memory")) {
        memory(directory, m)?;
    }
    if let Some(block) = resources.block_io.as_ref().filter(|_| wanted("io")) {
        block_io(directory, block)?;
    }
    if let Some(c) = &resources.cpu {
        if wanted("cpu") {
            cpu(directory, c)?;
        }
        if wanted("cpuset") {
            cpuset(directory, c)?;
        }
    }
    if wanted("hugetlb") {
        hugepages(directory, &resources.hugepage_limits)?;
    }
    if wanted("rdma") {
        crate::cgroup::set_rdma(directory, resources)?;
    }
    if only.is_none() {
        unified(directory, resources)?;
    }
    Ok(())
}

fn number(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// Returns the limit of swap alone, as v2 has it, from the limit of memory plus swap that a configuration has: none is no
/// change, -1 no limit.
pub(in crate::cgroup) fn swap_alone(memory: &LinuxMemory) -> Result<Option<i64>, Error> {
    let limit = memory.limit.unwrap_or(0);
    let wrong = |why: String| Err(Error::invalid("limit the swap", why));
    match memory.swap.unwrap_or(0) {
        0 if limit == -1 => Ok(Some(-1)),
        0 => Ok(None),
        swap if swap < 0 || limit == -1 => Ok(Some(swap)),
        _ if limit == 0 => wrong("unable to set swap limit without memory limit".into()),
        _ if limit < 0 => wrong(format!("invalid memory value: {limit}")),
        swap if swap < limit => wrong("memory+swap limit should be >= memory limit".into()),
        swap => Ok(Some(swap - limit)),
    }
}

/// Refuses limits that are in use already, where the configuration asks for that: the kernel would kill processes instead.
pub(in crate::cgroup) fn check_memory(directory: &Path, memory: &LinuxMemory) -> Result<(), Error> {
    if memory.check_before_update != Some(true) {
        return Ok(());
    }
    let usage = file::read_if_there(&directory.join("memory.current")).and_then(|text| text.trim().parse().ok());
    let Some(usage): Option<i64> = usage else { return Ok(()) };
    for (what, limit) in [("memory+swap", memory.swap), ("memory", memory.limit)] {
        if let Some(limit) = limit.filter(|limit| *limit > 0 && *limit <= usage) {
            return Err(Error::invalid("limit the memory", format!("rejecting {what} limit {limit} <= usage {usage}")));
        }
    }
    Ok(())
}

fn memory(directory: &Path, memory: &LinuxMemory) -> Result<(), Error> {
    check_memory(directory, memory)?;
    if let Some(swap) = swap_alone(memory)? {
        let file = directory.join("memory.swap.max");
        match try_write(&file, &number(swap)) {
            // A kernel that does not count swap has no file; then neither none nor any number of it can be enforced.
            Err(Errno::NOENT) if swap <= 0 => {}
            Err(errno) => return Err(refused(&file, &number(swap), errno)),
            Ok(()) => {}
        }
    }
    if let Some(limit) = memory.limit.filter(|l| *l != 0) {
        write(&directory.join("memory.max"), &number(limit))?;
    }
    if let Some(low) = memory.reservation.filter(|r| *r != 0) {
        write(&directory.join("memory.low"), &number(low))?;
    }
    Ok(())
}

/// Turns shares of v1 (2 to 262144, default 1024) into a weight (1 to 10000, default 100) along a curve that meets all
/// three points; the straight line that was used before makes 1024 shares a weight of 39.
pub(in crate::cgroup) fn weight_of_shares(shares: u64) -> u64 {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

fn cpu(directory: &Path, cpu: &LinuxCpu) -> Result<(), Error> {
    let idle = cpu.idle;
    if let Some(idle) = idle {
        write(&directory.join("cpu.idle"), &idle.to_string())?;
    }
    // The weight of an idle cgroup is fixed; the kernel refuses another.
    if let Some(shares) = cpu.shares.filter(|s| *s != 0 && idle.is_none_or(|idle| idle == 0)) {
        write(&directory.join("cpu.weight"), &weight_of_shares(shares).to_string())?;
    }
    let (quota, period) = (cpu.quota.filter(|q| *q != 0), cpu.period.filter(|p| *p != 0));
    let burst_file = directory.join("cpu.max.burst");
    let mut again = None;
    if let Some(burst) = cpu.burst.map(|b| b.to_string()) {
        match try_write(&burst_file, &burst) {
            Ok(()) => {}
            // Checked against the quota as it stands: tried again after the new one.
            Err(Errno::INVAL) if quota.is_some() || period.is_some() => again = Some(burst),
            Err(errno) => return Err(refused(&burst_file, &burst, errno)),
        }
    }
    let max = directory.join("cpu.max");
    match (quota, period) {
        (Some(quota), Some(period)) => write(&max, &format!("{} {period}", number(quota)))?,
        (Some(quota), None) => write(&max, &number(quota))?,
        (None, Some(period)) => {
            let present = file::read(&max).step(|| format!("read {}", max.display()))?;
            let quota = present.split_ascii_whitespace().next().unwrap_or("max");
            write(&max, &format!("{quota} {period}"))?;
        }
        (None, None) => {}
    }
    again.map_or(Ok(()), |burst| write(&burst_file, &burst))
}

fn cpuset(directory: &Path, cpu: &LinuxCpu) -> Result<(), Error> {
    for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !list.is_empty() {
            write(&directory.join(file), list)?;
        }
    }
    Ok(())
}

/// The weights of v1 and of BFQ, 10 to 1000, as the 1 to 10000 of `io.weight`.
pub(in crate::cgroup) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

fn block_io(directory: &Path, block: &LinuxBlockIo) -> Result<(), Error> {
    let weight = block.weight.filter(|w| *w != 0);
    let devices: Vec<_> =
        block.weight_device.iter().filter_map(|d| Some((d.major, d.minor, d.weight.filter(|w| *w != 0)?))).collect();
    if weight.is_some() || !devices.is_empty() {
        // BFQ, where it is there, has a file of its own and takes the numbers as they are.
        let bfq = directory.join("io.bfq.weight");
        let (writer, scale): (_, fn(u16) -> u64) = match rustix::fs::access(&bfq, rustix::fs::Access::EXISTS) {
            Ok(()) => (Writer::open(bfq)?, u64::from),
            Err(_) => (Writer::open(directory.join("io.weight"))?, io_weight),
        };
        if let Some(weight) = weight {
            writer.write(&scale(weight).to_string())?;
        }
        for (major, minor, weight) in devices {
            writer.write(&format!("{major}:{minor} {}", scale(weight)))?;
        }
    }
    let limits: [(&str, &[LinuxThrottleDevice]); 4] = [
        ("rbps", &block.throttle_read_bps_device),
        ("wbps", &block.throttle_write_bps_device),
        ("riops", &block.throttle_read_iops_device),
        ("wiops", &block.throttle_write_iops_device),
    ];
    let lines: Vec<String> = limits
        .into_iter()
        .flat_map(|(key, list)| list.iter().map(move |device| (key, device)))
        .map(|(key, device)| {
            let rate = if device.rate == 0 { "max".into() } else { device.rate.to_string() };
            format!("{}:{} {key}={rate}", device.major, device.minor)
        })
        .collect();
    if !lines.is_empty() {
        let writer = Writer::open(directory.join("io.max"))?;
        lines.iter().try_for_each(|line| writer.write(line))?;
    }
    Ok(())
}

fn hugepages(directory: &Path, limits: &[LinuxHugepageLimit]) -> Result<(), Error> {
    for limit in limits {
        let (size, value) = (limit.page_size.as_str(), number(limit.limit));
        crate::cgroup::plain_name(size).step(|| "limit the huge pages".into())?;
        write(&directory.join(format!("hugetlb.{size}.max")), &value)?;
        let reserved = directory.join(format!("hugetlb.{size}.rsvd.max"));
        match try_write(&reserved, &value) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(refused(&reserved, &value, errno)),
        }
    }
    Ok(())
}

/// Writes files by name, in the order of their names: `cpu.max` goes before the `cpu.max.burst` that depends on it.
fn unified(directory: &Path, resources: &LinuxResources) -> Result<(), Error> {
    for (name, value) in &resources.unified {
        let wrong = |why: String| Error::invalid("set the unified cgroup resources", why);
        if name.contains('/') {
            return Err(wrong(format!("unified resource \"{name}\" must be a file name (no slashes)")));
        }
        let Some((controller, _)) = name.split_once('.').filter(|(controller, _)| !controller.is_empty()) else {
            return Err(wrong(format!("unified resource \"{name}\" must be in the form CONTROLLER.PARAMETER")));
        };
        if controller == "cgroup" && !OWN_FILES.contains(&name.as_str()) {
            return Err(wrong(format!("unified resource \"{name}\" is not a limit")));
        }
        let path = directory.join(name);
        for line in value.split_inclusive('\n') {
            match try_write(&path, line) {
                Ok(()) => {}
                Err(Errno::NOENT | Errno::PERM | Errno::ACCESS) if !has_controller(directory, controller) => {
                    return Err(wrong(format!(
                        "unified resource \"{name}\" can't be set: controller \"{controller}\" not available"
                    )));
                }
                Err(errno) => return Err(refused(&path, line, errno)),
            }
        }
    }
    Ok(())
}

fn has_controller(directory: &Path, controller: &str) -> bool {
    let available = file::read_if_there(&directory.join("cgroup.controllers")).unwrap_or_default();
    controller == "cgroup" || available.split_ascii_whitespace().any(|c| c == controller)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_meet_the_three_fixed_points_and_grow() {
        assert_eq!((weight_of_shares(2), weight_of_shares(1024), weight_of_shares(262_144)), (1, 100, 10_000));
        let weights: Vec<u64> = (1..=18).map(|p| weight_of_shares(1 << p)).collect();
        assert!(weights.windows(2).all(|w| w[0] < w[1]), "{weights:?}");
    }

    #[test]
    fn weights_of_block_io_meet_both_ends() {
        assert_eq!((io_weight(10), io_weight(750), io_weight(1000)), (1, 7475, 10_000));
    }

    #[test]
    fn memory_plus_swap_becomes_swap_alone() {
        let alone = |limit: i64, swap: i64| {
            let memory = LinuxMemory { limit: Some(limit), swap: Some(swap), ..LinuxMemory::default() };
            swap_alone(&memory).map_err(|error| error.source.to_string())
        };
        assert_eq!(alone(0, 0), Ok(None));
        assert_eq!(alone(100, 0), Ok(None));
        assert_eq!(alone(-1, 0), Ok(Some(-1)));
        assert_eq!(alone(100, -1), Ok(Some(-1)));
        assert_eq!(alone(-1, 50), Ok(Some(50)));
        assert_eq!(alone(100, 100), Ok(Some(0)));
        assert_eq!(alone(100, 250), Ok(Some(150)));
        assert_eq!(alone(0, 50), Err("unable to set swap limit without memory limit".into()));
        assert_eq!(alone(100, 50), Err("memory+swap limit should be >= memory limit".into()));
        assert_eq!(alone(-2, 50), Err("invalid memory value: -2".into()));
    }
}
