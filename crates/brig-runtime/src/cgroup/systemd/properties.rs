//! Resources as properties of a systemd unit; systemd.resource-control(5).
//!
//! systemd writes a unit's properties into the cgroup whenever it likes, after a reload say. So what is limited is told to
//! systemd too, as far as it has words for it; everything is then written to the files as well.

use super::wire::Value;
use crate::bits;
use crate::cgroup::{devices, v2};
use crate::error::Error;
use brig_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxResources};

/// The period of a CPU quota, in microseconds, where none is named.
const USUAL_PERIOD: u64 = 100_000;

/// A property of a unit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) value: Value,
}

impl Property {
    pub(super) fn new(name: &str, value: Value) -> Self {
        Self { name: name.to_owned(), value }
    }
}

/// Writes a list of properties as systemd's methods take it.
pub(super) fn list(properties: &[Property]) -> Value {
    let pair = |p: &Property| Value::Struct(vec![Value::text(&p.name), Value::variant(p.value.clone())]);
    Value::Array("(sv)".into(), properties.iter().map(pair).collect())
}

/// What the running systemd understands depends on its version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) version: u32,
    pub(super) v2: bool,
}

/// Translates resources. The quota of the CPU in `resources` is rounded as systemd rounds it, so that the files will say the
/// same.
pub(super) fn of(resources: &mut LinuxResources, target: Target) -> Result<Vec<Property>, Error> {
    let mut all = Vec::new();
    if let Some(m) = &resources.memory {
        memory(m, target, &mut all)?;
    }
    let mut rounded = None;
    if let Some(c) = &resources.cpu {
        cpu(c, target, &mut all)?;
        rounded = quota(c.quota.filter(|q| *q != 0), c.period.filter(|p| *p != 0), target, &mut all);
    }
    if let (Some(quota), Some(c)) = (rounded, &mut resources.cpu) {
        c.quota = Some(quota);
    }
    if let Some(block) = &resources.block_io {
        block_io(block, target, &mut all);
    }
    if let Some(limit) = resources.pids.and_then(|pids| pids.limit) {
        let most = match limit {
            ..0 => u64::MAX,
            limit => limit.cast_unsigned().max(1),
        };
        all.push(Property::new("TasksMax", Value::U64(most)));
    }
    for (name, value) in &resources.unified {
        unified(name, value.trim(), target, &mut all)?;
    }
    Ok(all)
}

fn memory(memory: &LinuxMemory, target: Target, all: &mut Vec<Property>) -> Result<(), Error> {
    let bytes = |n: i64| Value::U64(if n < 0 { u64::MAX } else { n.cast_unsigned() });
    if let Some(limit) = memory.limit.filter(|l| *l != 0) {
        all.push(Property::new(if target.v2 { "MemoryMax" } else { "MemoryLimit" }, bytes(limit)));
    }
    if !target.v2 {
        return Ok(());
    }
    if let Some(low) = memory.reservation.filter(|r| *r != 0) {
        all.push(Property::new("MemoryLow", bytes(low)));
    }
    if let Some(swap) = v2::swap_alone(memory)? {
        all.push(Property::new("MemorySwapMax", bytes(swap)));
    }
    Ok(())
}

fn cpu(cpu: &LinuxCpu, target: Target, all: &mut Vec<Property>) -> Result<(), Error> {
    let shares = cpu.shares.filter(|s| *s != 0);
    if !target.v2 {
        all.extend(shares.map(|shares| Property::new("CPUShares", Value::U64(shares))));
    } else if cpu.idle == Some(1) && target.version >= 252 {
        // No weight is systemd's word for idle.
        all.push(Property::new("CPUWeight", Value::U64(0)));
    } else {
        all.extend(shares.map(|shares| Property::new("CPUWeight", Value::U64(v2::weight_of_shares(shares)))));
    }
    if target.version >= 244 {
        for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
            if !list.is_empty() {
                all.push(Property::new(name, mask(list)?));
            }
        }
    }
    Ok(())
}

/// Adds the quota. systemd knows whole percents of a CPU: the quota is rounded up to one, and returned where that changed it.
fn quota(quota: Option<i64>, period: Option<u64>, target: Target, all: &mut Vec<Property>) -> Option<i64> {
    const SECOND: u128 = 1_000_000;
    const PERCENT: u128 = SECOND / 100;
    let (mut per_second, mut rounded) = (u64::MAX, None);
    if quota.is_none() && period.is_none() {
        return None;
    }
    if let Some(period) = period.filter(|_| target.version >= 242) {
        all.push(Property::new("CPUQuotaPeriodUSec", Value::U64(period)));
    }
    if let Some(quota) = quota.and_then(|q| u64::try_from(q).ok()) {
        let period = u128::from(period.unwrap_or(USUAL_PERIOD));
        let exact = u128::from(quota) * SECOND / period;
        let whole = exact.next_multiple_of(PERCENT);
        per_second = u64::try_from(whole).unwrap_or(u64::MAX);
        if whole != exact {
            rounded = i64::try_from(whole * period / SECOND).ok();
        }
    } else if quota.is_none() {
        // A period alone is no word about the quota.
        return None;
    }
    all.push(Property::new("CPUQuotaPerSecUSec", Value::U64(per_second)));
    rounded
}

/// Translates device rules, for v1: there systemd's own are written into the same files.
pub(super) fn devices(rules: &[LinuxDeviceCgroup]) -> Result<[Property; 3], Error> {
    let (policy, allowed) = devices::for_systemd(rules)?;
    let pair = |(device, access)| Value::Struct(vec![Value::Text(device), Value::Text(access)]);
    let list = |pairs| Property::new("DeviceAllow", Value::Array("(ss)".into(), pairs));
    // An empty list takes back what was allowed before.
    Ok([
        list(Vec::new()),
        Property::new("DevicePolicy", Value::text(policy)),
        list(allowed.into_iter().map(pair).collect()),
    ])
}

fn block_io(block: &LinuxBlockIo, target: Target, all: &mut Vec<Property>) {
    if let Some(weight) = block.weight.filter(|w| *w != 0) {
        all.push(if target.v2 {
            Property::new("IOWeight", Value::U64(v2::io_weight(weight)))
        } else {
            Property::new("BlockIOWeight", Value::U64(weight.into()))
        });
    }
}

/// Translates a file of the unified map; one that systemd has no word for is only written.
fn unified(name: &str, value: &str, target: Target, all: &mut Vec<Property>) -> Result<(), Error> {
    let wrong = || {
        Error::invalid(
            "set the unified cgroup resources",
            format!("unified resource \"{name}\" value conversion error: \"{value}\""),
        )
    };
    let number = |text: &str| match text {
        "max" => Ok(u64::MAX),
        _ => text.parse::<u64>().map_err(|_| wrong()),
    };
    let property = match name {
        "cpu.idle" if value == "1" && target.version >= 252 => Property::new("CPUWeight", Value::U64(0)),
        "cpu.weight" => Property::new("CPUWeight", Value::U64(number(value)?)),
        "cpu.max" => {
            let mut words = value.split_ascii_whitespace();
            let limit = match words.next().ok_or_else(wrong)? {
                "max" => -1,
                text => text.parse().map_err(|_| wrong())?,
            };
            let period = words.next().map_or(Ok(USUAL_PERIOD), |text| text.parse().map_err(|_| wrong()))?;
            if words.next().is_some() || period == 0 {
                return Err(wrong());
            }
            quota(Some(limit), Some(period), target, all);
            return Ok(());
        }
        "cpuset.cpus" if target.version >= 244 => Property::new("AllowedCPUs", mask(value)?),
        "cpuset.mems" if target.version >= 244 => Property::new("AllowedMemoryNodes", mask(value)?),
        "memory.high" => Property::new("MemoryHigh", Value::U64(number(value)?)),
        "memory.low" => Property::new("MemoryLow", Value::U64(number(value)?)),
        "memory.min" => Property::new("MemoryMin", Value::U64(number(value)?)),
        "memory.max" => Property::new("MemoryMax", Value::U64(number(value)?)),
        "memory.swap.max" => Property::new("MemorySwapMax", Value::U64(number(value)?)),
        "pids.max" => Property::new("TasksMax", Value::U64(number(value)?.max(1))),
        _ => return Ok(()),
    };
    // The map has the last word.
    all.retain(|p| p.name != property.name);
    all.push(property);
    Ok(())
}

/// Writes a list such as `0-2,7` as systemd takes it: a bit for each, the first byte has the first eight.
fn mask(list: &str) -> Result<Value, Error> {
    const MOST: usize = 8192;
    let wrong = |why| Error::invalid("limit the CPUs", format!("`{list}` is not a list of numbers and ranges: {why}"));
    let bytes = bits::of(list, MOST).map_err(wrong)?;
    Ok(Value::Array("y".into(), bytes.into_iter().map(Value::Byte).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Target = Target { version: 255, v2: true };

    fn translated(json: &str, target: Target) -> (Vec<(String, Value)>, LinuxResources) {
        let mut resources = serde_json::from_str(json).unwrap();
        let all = of(&mut resources, target).unwrap();
        (all.into_iter().map(|p| (p.name, p.value)).collect(), resources)
    }

    fn numbers(json: &str, target: Target) -> Vec<(String, u64)> {
        let number = |(name, value)| match value {
            Value::U64(n) => (name, n),
            other => panic!("{name} is {other:?}"),
        };
        translated(json, target).0.into_iter().map(number).collect()
    }

    fn want(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
        pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    #[test]
    fn every_resource_has_its_word() {
        let all = r#"{"memory":{"limit":100,"swap":250,"reservation":50},"cpu":{"shares":1024,"quota":50000,"period":100000},
            "pids":{"limit":0},"blockIO":{"weight":1000}}"#;
        assert_eq!(
            numbers(all, NEW),
            want(&[
                ("MemoryMax", 100),
                ("MemoryLow", 50),
                ("MemorySwapMax", 150),
                ("CPUWeight", 100),
                ("CPUQuotaPeriodUSec", 100_000),
                ("CPUQuotaPerSecUSec", 500_000),
                ("IOWeight", 10_000),
                ("TasksMax", 1),
            ])
        );
        assert_eq!(
            numbers(all, Target { version: 241, v2: false }),
            want(&[
                ("MemoryLimit", 100),
                ("CPUShares", 1024),
                ("CPUQuotaPerSecUSec", 500_000),
                ("BlockIOWeight", 1000),
                ("TasksMax", 1),
            ])
        );
        let none = r#"{"memory":{"limit":-1},"cpu":{"quota":-1},"pids":{"limit":-1}}"#;
        assert_eq!(
            numbers(none, NEW),
            want(&[
                ("MemoryMax", u64::MAX),
                ("MemorySwapMax", u64::MAX),
                ("CPUQuotaPerSecUSec", u64::MAX),
                ("TasksMax", u64::MAX),
            ])
        );
        assert_eq!(numbers(r#"{"cpu":{"idle":1,"shares":7}}"#, NEW), want(&[("CPUWeight", 0)]));
    }

    #[test]
    fn a_quota_becomes_whole_percents_and_the_files_follow() {
        let (properties, resources) = translated(r#"{"cpu":{"quota":5001,"period":100000}}"#, NEW);
        assert_eq!(properties[1], ("CPUQuotaPerSecUSec".into(), Value::U64(60_000)));
        assert_eq!(resources.cpu.as_ref().unwrap().quota, Some(6000));
        let (_, resources) = translated(r#"{"cpu":{"quota":5000,"period":100000}}"#, NEW);
        assert_eq!(resources.cpu.as_ref().unwrap().quota, Some(5000));
        assert_eq!(numbers(r#"{"cpu":{"period":50000}}"#, NEW), want(&[("CPUQuotaPeriodUSec", 50_000)]));
    }

    #[test]
    fn the_unified_map_has_the_last_word() {
        let json =
            r#"{"memory":{"limit":100},"unified":{"memory.max":" 200 ","pids.max":"0","cpu.max":"max","io.max":"x"}}"#;
        assert_eq!(
            numbers(json, NEW),
            want(&[
                ("CPUQuotaPeriodUSec", 100_000),
                ("CPUQuotaPerSecUSec", u64::MAX),
                ("MemoryMax", 200),
                ("TasksMax", 1),
            ])
        );
        for bad in ["x", "1 2 3", "", "5 0", "-"] {
            let mut resources = serde_json::from_str(&format!(r#"{{"unified":{{"cpu.max":"{bad}"}}}}"#)).unwrap();
            assert!(of(&mut resources, NEW).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_of_cpus_become_bits() {
        let bytes = |list: &[u8]| Value::Array("y".into(), list.iter().copied().map(Value::Byte).collect());
        assert_eq!(mask("0").unwrap(), bytes(&[1]));
        assert_eq!(mask(" 1, 3-5,").unwrap(), bytes(&[0b11_1010]));
        assert_eq!(mask("5-8").unwrap(), bytes(&[0b1110_0000, 1]));
        for bad in ["", ",", "a", "3-1", "-1", "1-", "99999999999", "8192"] {
            assert!(mask(bad).is_err(), "{bad}");
        }
    }
}
