//! Limits, in the words of the specification.

use super::devices::Node;
use super::{Host, built};
use crate::config::{Resources, Throttle};
use crate::error::{Error, Result};
use brig_spec::runtime::{
    LinuxBlockIo, LinuxBlockIoBuilder, LinuxCpu, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxMemory, LinuxMemoryBuilder,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
    LinuxWeightDeviceBuilder,
};

/// The period of a CPU quota in microseconds, when none is named.
const PERIOD_US: u64 = 100_000;
/// The least memory that a container can be started with, in bytes.
const MEMORY_MIN: i64 = 6 << 20;

/// Turns limits and device rules into the specification's form.
pub fn linux(limits: &Resources, host: &Host, devices: Vec<LinuxDeviceCgroup>) -> Result<LinuxResources> {
    check(limits)?;
    let mut all = LinuxResourcesBuilder::default();
    if !devices.is_empty() {
        all = all.devices(devices);
    }
    if let Some(limit) = limits.pids {
        all = all.pids(built(LinuxPidsBuilder::default().limit(if limit <= 0 { -1 } else { limit }).build()));
    }
    let memory = built(memory(limits).build());
    if memory != LinuxMemory::default() {
        all = all.memory(memory);
    }
    let cpu = built(cpu(limits)?.build());
    if cpu != LinuxCpu::default() {
        all = all.cpu(cpu);
    }
    let block_io = built(block_io(limits, host)?.build());
    if block_io != LinuxBlockIo::default() {
        all = all.block_io(block_io);
    }
    Ok(built(all.build()))
}

fn check(limits: &Resources) -> Result<()> {
    let memory = limits.memory.filter(|&m| m > 0);
    if memory.is_some_and(|m| m < MEMORY_MIN) {
        return Err(Error::invalid("the memory limit is below 6 MiB").hint("no program starts with less"));
    }
    if let Some(swap) = limits.memory_swap.filter(|&s| s > 0) {
        let Some(memory) = memory else {
            return Err(Error::invalid("a limit of memory and swap needs a memory limit").hint("add `--memory`"));
        };
        if swap < memory {
            return Err(Error::invalid("the limit of memory and swap is below the memory limit")
                .hint("`--memory-swap` counts both: make it at least as large as `--memory`"));
        }
    }
    if limits.nano_cpus.is_some() && limits.cpu_quota.is_some() {
        return Err(Error::invalid("`--cpus` and `--cpu-quota` say the same thing twice").hint("use one of them"));
    }
    if limits.blkio_weight.is_some_and(|w| w != 0 && !(10..=1000).contains(&w)) {
        return Err(Error::invalid("the block I/O weight is not between 10 and 1000"));
    }
    if limits.memory_swappiness.is_some_and(|s| s > 100) {
        return Err(Error::invalid("the swappiness is not between 0 and 100"));
    }
    Ok(())
}

fn memory(limits: &Resources) -> LinuxMemoryBuilder {
    let mut memory = LinuxMemoryBuilder::default();
    if let Some(limit) = limits.memory.filter(|&m| m != 0) {
        memory = memory.limit(limit);
        // Without a word about swap, there is as much swap as memory.
        let swap = limits.memory_swap.filter(|&s| s != 0).unwrap_or(limit.saturating_mul(2));
        memory = memory.swap(if limit < 0 { limit } else { swap });
    } else if let Some(swap) = limits.memory_swap.filter(|&s| s != 0) {
        memory = memory.swap(swap);
    }
    if let Some(reservation) = limits.memory_reservation.filter(|&m| m != 0) {
        memory = memory.reservation(reservation);
    }
    if let Some(swappiness) = limits.memory_swappiness {
        memory = memory.swappiness(swappiness);
    }
    if limits.oom_kill_disable {
        memory = memory.disable_oom_killer(true);
    }
    memory
}

fn cpu(limits: &Resources) -> Result<LinuxCpuBuilder> {
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(shares) = limits.cpu_shares.filter(|&s| s != 0) {
        cpu = cpu.shares(shares.clamp(2, 262_144));
    }
    if let Some(nano) = limits.nano_cpus.filter(|&n| n != 0) {
        let quota = i64::try_from(nano / (1_000_000_000 / PERIOD_US)).unwrap_or(i64::MAX);
        if quota < 1000 {
            return Err(Error::invalid("a container needs at least 0.01 CPUs"));
        }
        cpu = cpu.period(PERIOD_US).quota(quota);
    }
    if let Some(period) = limits.cpu_period.filter(|&p| p != 0) {
        cpu = cpu.period(period);
    }
    if let Some(quota) = limits.cpu_quota.filter(|&q| q != 0) {
        cpu = cpu.quota(quota);
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        cpu = cpu.cpus(cpus.clone());
    }
    if let Some(mems) = &limits.cpuset_mems {
        cpu = cpu.mems(mems.clone());
    }
    Ok(cpu)
}

fn block_io(limits: &Resources, host: &Host) -> Result<LinuxBlockIoBuilder> {
    let mut io = LinuxBlockIoBuilder::default();
    if let Some(weight) = limits.blkio_weight.filter(|&w| w != 0) {
        io = io.weight(weight);
    }
    if !limits.blkio_weight_device.is_empty() {
        let weights = limits.blkio_weight_device.iter().map(|throttle| {
            let node = node(throttle, host)?;
            let weight = u16::try_from(throttle.rate).ok().filter(|w| (10..=1000).contains(w));
            let weight = weight.ok_or_else(|| Error::invalid("the block I/O weight is not between 10 and 1000"))?;
            Ok(built(LinuxWeightDeviceBuilder::default().major(node.major).minor(node.minor).weight(weight).build()))
        });
        io = io.weight_device(weights.collect::<Result<Vec<_>>>()?);
    }
    let list = |throttles: &[Throttle]| throttles.iter().map(|t| self::throttle(t, host)).collect::<Result<Vec<_>>>();
    if !limits.read_bps.is_empty() {
        io = io.throttle_read_bps_device(list(&limits.read_bps)?);
    }
    if !limits.write_bps.is_empty() {
        io = io.throttle_write_bps_device(list(&limits.write_bps)?);
    }
    if !limits.read_iops.is_empty() {
        io = io.throttle_read_iops_device(list(&limits.read_iops)?);
    }
    if !limits.write_iops.is_empty() {
        io = io.throttle_write_iops_device(list(&limits.write_iops)?);
    }
    Ok(io)
}

fn throttle(throttle: &Throttle, host: &Host) -> Result<LinuxThrottleDevice> {
    let node = node(throttle, host)?;
    Ok(built(LinuxThrottleDeviceBuilder::default().major(node.major).minor(node.minor).rate(throttle.rate).build()))
}

fn node<'a>(throttle: &Throttle, host: &'a Host) -> Result<&'a Node> {
    let found = host.devices.iter().find(|node| node.path == throttle.path && node.block);
    found.ok_or_else(|| Error::invalid(format!("`{}` is not a block device of this machine", throttle.path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(limits: &Resources) -> LinuxResources {
        linux(limits, &Host::default(), Vec::new()).unwrap()
    }

    #[test]
    fn swap_is_twice_the_memory_unless_told() {
        let memory = of(&Resources { memory: Some(64 << 20), ..Resources::default() }).memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(128 << 20)));
        let told = Resources { memory: Some(64 << 20), memory_swap: Some(-1), ..Resources::default() };
        assert_eq!(of(&told).memory().unwrap().swap(), Some(-1));
    }

    #[test]
    fn cpus_become_a_quota() {
        let resources = of(&Resources { nano_cpus: Some(1_500_000_000), ..Resources::default() });
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(150_000), Some(100_000)));
    }

    #[test]
    fn nothing_asked_gives_nothing() {
        let none = of(&Resources::default());
        assert!(none.memory().is_none() && none.cpu().is_none() && none.block_io().is_none() && none.pids().is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        let bad = [
            Resources { memory: Some(1024), ..Resources::default() },
            Resources { memory_swap: Some(1 << 30), ..Resources::default() },
            Resources { memory: Some(1 << 30), memory_swap: Some(1 << 29), ..Resources::default() },
            Resources { nano_cpus: Some(1), cpu_quota: Some(1), ..Resources::default() },
            Resources { nano_cpus: Some(1000), ..Resources::default() },
            Resources { blkio_weight: Some(5), ..Resources::default() },
            Resources { read_bps: vec![Throttle { path: "/dev/none".into(), rate: 1 }], ..Resources::default() },
        ];
        for limits in bad {
            assert!(linux(&limits, &Host::default(), Vec::new()).is_err(), "{limits:?}");
        }
    }
}
