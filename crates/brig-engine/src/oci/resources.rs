//! Limits, in the words of the specification.

use super::Host;
use super::devices::Node;
use crate::config::{Resources, Throttle};
use crate::error::{Error, Result};
use brig_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxWeightDevice,
};

/// The period of a CPU quota in microseconds, when none is named.
const PERIOD_US: u64 = 100_000;
/// The least memory that a container can be started with, in bytes.
const MEMORY_MIN: i64 = 6 << 20;

/// Turns limits and device rules into the specification's form.
pub fn linux(limits: &Resources, host: &Host, devices: Vec<LinuxDeviceCgroup>) -> Result<LinuxResources> {
    check(limits)?;
    let asked = (memory(limits), cpu(limits)?, block_io(limits, host)?);
    Ok(LinuxResources {
        devices,
        memory: Some(asked.0).filter(|memory| *memory != LinuxMemory::default()),
        cpu: Some(asked.1).filter(|cpu| *cpu != LinuxCpu::default()),
        pids: limits.pids.map(|limit| LinuxPids { limit: Some(if limit <= 0 { -1 } else { limit }) }),
        block_io: Some(asked.2).filter(|block_io| *block_io != LinuxBlockIo::default()),
        ..LinuxResources::default()
    })
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

fn memory(limits: &Resources) -> LinuxMemory {
    let limit = limits.memory.filter(|&m| m != 0);
    let swap = limits.memory_swap.filter(|&s| s != 0);
    LinuxMemory {
        limit,
        swap: match limit {
            Some(..0) => limit,
            // Without a word about swap, there is as much swap as memory.
            Some(limit) => swap.or(Some(limit.saturating_mul(2))),
            None => swap,
        },
        reservation: limits.memory_reservation.filter(|&m| m != 0),
        swappiness: limits.memory_swappiness,
        disable_oom_killer: limits.oom_kill_disable.then_some(true),
        ..LinuxMemory::default()
    }
}

fn cpu(limits: &Resources) -> Result<LinuxCpu> {
    let cpus = limits.nano_cpus.filter(|&n| n != 0);
    let cpus = cpus.map(|nano| i64::try_from(nano / (1_000_000_000 / PERIOD_US)).unwrap_or(i64::MAX));
    if cpus.is_some_and(|quota| quota < 1000) {
        return Err(Error::invalid("a container needs at least 0.01 CPUs"));
    }
    Ok(LinuxCpu {
        shares: limits.cpu_shares.filter(|&s| s != 0).map(|shares| shares.clamp(2, 262_144)),
        period: limits.cpu_period.filter(|&p| p != 0).or(cpus.map(|_| PERIOD_US)),
        quota: limits.cpu_quota.filter(|&q| q != 0).or(cpus),
        cpus: limits.cpuset_cpus.clone().unwrap_or_default(),
        mems: limits.cpuset_mems.clone().unwrap_or_default(),
        ..LinuxCpu::default()
    })
}

fn block_io(limits: &Resources, host: &Host) -> Result<LinuxBlockIo> {
    let weight = |device: &Throttle| {
        let node = node(device, host)?;
        let weight = u16::try_from(device.rate).ok().filter(|w| (10..=1000).contains(w));
        let weight = weight.ok_or_else(|| Error::invalid("the block I/O weight is not between 10 and 1000"))?;
        Ok(LinuxWeightDevice { major: node.major, minor: node.minor, weight: Some(weight), leaf_weight: None })
    };
    let list = |throttles: &[Throttle]| throttles.iter().map(|t| throttle(t, host)).collect::<Result<Vec<_>>>();
    Ok(LinuxBlockIo {
        weight: limits.blkio_weight.filter(|&w| w != 0),
        leaf_weight: None,
        weight_device: limits.blkio_weight_device.iter().map(weight).collect::<Result<Vec<_>>>()?,
        throttle_read_bps_device: list(&limits.read_bps)?,
        throttle_write_bps_device: list(&limits.write_bps)?,
        throttle_read_iops_device: list(&limits.read_iops)?,
        throttle_write_iops_device: list(&limits.write_iops)?,
    })
}

fn throttle(throttle: &Throttle, host: &Host) -> Result<LinuxThrottleDevice> {
    let node = node(throttle, host)?;
    Ok(LinuxThrottleDevice { major: node.major, minor: node.minor, rate: throttle.rate })
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
        let memory = of(&Resources { memory: Some(64 << 20), ..Resources::default() }).memory.unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(64 << 20), Some(128 << 20)));
        let told = Resources { memory: Some(64 << 20), memory_swap: Some(-1), ..Resources::default() };
        assert_eq!(of(&told).memory.unwrap().swap, Some(-1));
    }

    #[test]
    fn cpus_become_a_quota() {
        let resources = of(&Resources { nano_cpus: Some(1_500_000_000), ..Resources::default() });
        let cpu = resources.cpu.as_ref().unwrap();
        assert_eq!((cpu.quota, cpu.period), (Some(150_000), Some(100_000)));
    }

    #[test]
    fn nothing_asked_gives_nothing() {
        let none = of(&Resources::default());
        assert!(none.memory.is_none() && none.cpu.is_none() && none.block_io.is_none() && none.pids.is_none());
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
