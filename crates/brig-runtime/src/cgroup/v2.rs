//! The files of cgroup v2; Documentation/admin-guide/cgroup-v2.

use super::{Hierarchy, devices, write};
use crate::error::{Context, Error};
use brig_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Makes the directory and hands every controller down to it. In a hybrid layout only the directory is wanted.
pub(super) fn create(hierarchy: &Hierarchy, path: &Path, hybrid: bool) -> Result<(), Error> {
    let mut directory = hierarchy.mount.clone();
    if !hybrid && hierarchy.mount.join(path).parent().is_some_and(|p| handed_down(p, hierarchy)) {
        let directory = hierarchy.mount.join(path);
        return make(&directory);
    }
    for component in path.components() {
        if !hybrid {
            hand_down(&directory, hierarchy);
        }
        directory.push(component);
        make(&directory)?;
    }
    Ok(())
}

fn make(directory: &Path) -> Result<(), Error> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).step(|| format!("make the cgroup {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn handed_down(directory: &Path, hierarchy: &Hierarchy) -> bool {
    let Ok(text) = fs::read_to_string(directory.join("cgroup.subtree_control")) else { return false };
    hierarchy.controllers.iter().all(|c| text.split_ascii_whitespace().any(|t| t == c))
}

/// Enables what the parent offers. One at a time where the whole list is refused: one controller that cannot be had (real
/// time processes forbid `cpu`) must not cost the others.
fn hand_down(directory: &Path, hierarchy: &Hierarchy) {
    if handed_down(directory, hierarchy) {
        return;
    }
    let file = directory.join("cgroup.subtree_control");
    let all: Vec<String> = hierarchy.controllers.iter().map(|c| format!("+{c}")).collect();
    let Err(error) = write(&file, &all.join(" ")) else { return };
    if error.source.raw_os_error() == Some(16) {
        // Processes sit in this very cgroup: brig runs inside a container that has no sub-cgroup yet. The file stays as
        // it is, and a limit that then has no file says so by name.
        return;
    }
    for one in all {
        let _ = write(&file, &one);
    }
}

/// Writes the limits.
pub(super) fn update(directory: &Path, resources: &LinuxResources) -> Result<(), Error> {
    if let Some(m) = resources.memory() {
        memory(directory, m)?;
    }
    if let Some(c) = resources.cpu() {
        cpu(directory, c)?;
    }
    if let Some(pids) = resources.pids() {
        let limit = pids.limit();
        let text = if limit > 0 { limit.to_string() } else { "max".into() };
        write(&directory.join("pids.max"), &text)?;
    }
    if let Some(block) = resources.block_io() {
        block_io(directory, block)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        write(&directory.join(format!("hugetlb.{}.max", limit.page_size())), &limit.limit().to_string())?;
    }
    if let Some(rules) = resources.devices().as_ref().filter(|r| !r.is_empty()) {
        devices::attach(directory, rules)?;
    }
    for (file, value) in resources.unified().iter().flatten() {
        if file.contains('/') || !file.contains('.') || file.starts_with("cgroup.") {
            return Err(Error::invalid(
                "write the unified cgroup settings",
                format!("`{file}` is not a controller's file"),
            ));
        }
        write(&directory.join(file), value)?;
    }
    Ok(())
}

fn number(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

fn memory(directory: &Path, memory: &LinuxMemory) -> Result<(), Error> {
    if let Some(swap) = memory.swap().filter(|s| *s != 0) {
        // The configuration counts memory and swap together, the kernel swap alone.
        let alone = match (swap, memory.limit()) {
            (-1, _) => -1,
            (swap, Some(limit)) if limit >= 0 && swap >= limit => swap - limit,
            (swap, Some(-1) | None) if swap > 0 => {
                return Err(Error::invalid("limit the swap", "a limit of memory plus swap needs a memory limit"));
            }
            _ => {
                return Err(Error::invalid(
                    "limit the swap",
                    "the limit of memory plus swap is below the memory limit",
                ));
            }
        };
        let file = directory.join("memory.swap.max");
        if file.exists() || alone > 0 {
            write(&file, &number(alone))?;
        }
    } else if memory.limit() == Some(-1) && directory.join("memory.swap.max").exists() {
        write(&directory.join("memory.swap.max"), "max")?;
    }
    if let Some(limit) = memory.limit().filter(|l| *l != 0) {
        write(&directory.join("memory.max"), &number(limit))?;
    }
    if let Some(low) = memory.reservation().filter(|r| *r != 0) {
        write(&directory.join("memory.low"), &number(low))?;
    }
    Ok(())
}

/// Turns shares of v1 (2 to 262144, default 1024) into a weight (1 to 10000, default 100) along a curve that meets all
/// three points; the straight line that was used before makes 1024 shares a weight of 39.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
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
    if let Some(idle) = cpu.idle() {
        write(&directory.join("cpu.idle"), &idle.to_string())?;
    }
    if let Some(shares) = cpu.shares().filter(|s| *s != 0) {
        write(&directory.join("cpu.weight"), &weight_of_shares(shares).to_string())?;
    }
    if cpu.quota().is_some_and(|q| q != 0) || cpu.period().is_some_and(|p| p != 0) {
        let quota = cpu.quota().filter(|q| *q > 0).map_or("max".into(), |q| q.to_string());
        let text = cpu.period().filter(|p| *p != 0).map_or(quota.clone(), |p| format!("{quota} {p}"));
        write(&directory.join("cpu.max"), &text)?;
    }
    if let Some(burst) = cpu.burst() {
        write(&directory.join("cpu.max.burst"), &burst.to_string())?;
    }
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
        let bfq = directory.join("io.bfq.weight");
        if bfq.exists() {
            write(&bfq, &weight.to_string())?;
        } else {
            // 10 to 1000 becomes 1 to 10000.
            let weight = 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990;
            write(&directory.join("io.weight"), &format!("default {weight}"))?;
        }
    }
    let limits: [(&str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("rbps", block.throttle_read_bps_device()),
        ("wbps", block.throttle_write_bps_device()),
        ("riops", block.throttle_read_iops_device()),
        ("wiops", block.throttle_write_iops_device()),
    ];
    for (key, list) in limits {
        for device in list.iter().flatten() {
            let rate = if device.rate() == 0 { "max".into() } else { device.rate().to_string() };
            write(&directory.join("io.max"), &format!("{}:{} {key}={rate}", device.major(), device.minor()))?;
        }
    }
    Ok(())
}

/// Freezes or thaws, and waits until the kernel says so in `cgroup.events`.
pub(super) fn set_frozen(directory: &Path, frozen: bool) -> Result<(), Error> {
    write(&directory.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
    let events = directory.join("cgroup.events");
    let want = if frozen { "frozen 1" } else { "frozen 0" };
    for _ in 0..2000 {
        let text = fs::read_to_string(&events).step(|| format!("read {}", events.display()))?;
        if text.lines().any(|line| line == want) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = write(&directory.join("cgroup.freeze"), "0");
    Err(Error::invalid("freeze the container", "a process did not stop within two seconds; it was let go on"))
}

#[cfg(test)]
mod tests {
    use super::weight_of_shares;

    #[test]
    fn shares_meet_the_three_fixed_points_and_grow() {
        assert_eq!((weight_of_shares(2), weight_of_shares(1024), weight_of_shares(262_144)), (1, 100, 10_000));
        let weights: Vec<u64> = (1..=18).map(|p| weight_of_shares(1 << p)).collect();
        assert!(weights.windows(2).all(|w| w[0] < w[1]), "{weights:?}");
    }
}
