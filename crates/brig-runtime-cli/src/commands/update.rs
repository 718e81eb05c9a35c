//! `update`: changes the limits of a container that runs.

use super::Command;
use crate::arguments::{Ends, Opt, Parsed, value};
use crate::container::{self, Container, Status};
use crate::failure::{Failure, Step};
use crate::global::Global;
use brig_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};
use serde_json::{Map, Value, json};

const OPTIONS: [Opt; 19] = [
    value(
        "resources",
        'r',
        "a file (or - for standard input) with resources as the specification describes them; all else is ignored",
    ),
    value("blkio-weight", '\0', "block I/O weight, 10 to 1000"),
    value("cpu-period", '\0', "period of the CPU quota, microseconds"),
    value("cpu-quota", '\0', "CPU time in a period, microseconds"),
    value("cpu-burst", '\0', "CPU time that may be saved up, microseconds"),
    value("cpu-share", '\0', "CPU shares"),
    value("cpu-rt-period", '\0', "period of real-time CPU time, microseconds"),
    value("cpu-rt-runtime", '\0', "real-time CPU time in a period, microseconds"),
    value("cpuset-cpus", '\0', "CPUs to use"),
    value("cpuset-mems", '\0', "memory nodes to use"),
    value("kernel-memory", '\0', "has no effect"),
    value("kernel-memory-tcp", '\0', "memory of TCP buffers, bytes (v1)"),
    value("memory", '\0', "memory, bytes"),
    value("cpu-idle", '\0', "1 for the idle scheduling class, 0 for the usual one"),
    value("memory-reservation", '\0', "memory that is kept under pressure, bytes"),
    value("memory-swap", '\0', "memory and swap together, bytes; -1 for no limit"),
    value("pids-limit", '\0', "processes and threads; -1 for no limit"),
    value("l3-cache-schema", '\0', "schema of the L3 cache (resctrl)"),
    value("mem-bw-schema", '\0', "schema of the memory bandwidth (resctrl)"),
];

pub(crate) const COMMAND: Command = Command {
    name: "update",
    operands: "CONTAINER",
    about: "change the limits of a container",
    options: &OPTIONS,
    ends: Ends::Never,
    enters: false,
    run,
};

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let container = Container::load(&global.root, super::container_id(parsed)?)?;
    if container.status() == Status::Stopped {
        return Err(Failure::new("container not running"));
    }
    container.cgroup()?.update(&resources(parsed)?)?;
    Ok(0)
}

fn resources(parsed: &Parsed) -> Result<LinuxResources, Failure> {
    let step = || "read the resources";
    let text = match parsed.filled("resources") {
        Some("-") => container::read_bounded(rustix::io::dup(rustix::stdio::stdin()).step(step)?).step(step)?,
        Some(path) => {
            let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(step)?;
            container::read_bounded(fd).step(step)?
        }
        None => from_options(parsed)?.to_string().into_bytes(),
    };
    serde_json::from_slice(&text).map_err(|error| Failure::step(step(), &error))
}

/// The options as the specification would write them.
fn from_options(parsed: &Parsed) -> Result<Value, Failure> {
    let mut groups = [("memory", Map::new()), ("cpu", Map::new()), ("blockIO", Map::new()), ("pids", Map::new())];
    for (option, group, key) in [
        ("memory", 0, "limit"),
        ("memory-swap", 0, "swap"),
        ("memory-reservation", 0, "reservation"),
        ("kernel-memory-tcp", 0, "kernelTCP"),
        ("cpu-period", 1, "period"),
        ("cpu-quota", 1, "quota"),
        ("cpu-burst", 1, "burst"),
        ("cpu-share", 1, "shares"),
        ("cpu-rt-period", 1, "realtimePeriod"),
        ("cpu-rt-runtime", 1, "realtimeRuntime"),
        ("cpu-idle", 1, "idle"),
        ("blkio-weight", 2, "weight"),
        ("pids-limit", 3, "limit"),
    ] {
        if let Some(text) = parsed.filled(option) {
            let number = if group == 0 { bytes(text) } else { text.parse().ok() };
            let number =
                number.ok_or_else(|| Failure::new(format!("invalid value for {option}: {text:?} is not a number")))?;
            groups[group].1.insert(key.into(), json!(number));
        }
    }
    for (option, key) in [("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")] {
        if let Some(list) = parsed.filled(option) {
            groups[1].1.insert(key.into(), json!(list));
        }
    }
    Ok(groups.into_iter().filter(|(_, m)| !m.is_empty()).map(|(k, m)| (k.to_owned(), Value::Object(m))).collect())
}

/// Reads a number of bytes: `4096`, `64k`, `1.5G`, `10MiB`; powers of 1024.
fn bytes(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, shift) = match number.char_indices().last()? {
        (at, 'k') => (&number[..at], 10),
        (at, 'm') => (&number[..at], 20),
        (at, 'g') => (&number[..at], 30),
        (at, 't') => (&number[..at], 40),
        (at, 'p') => (&number[..at], 50),
        _ => (number, 0),
    };
    let number: f64 = number.trim().parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    let scaled = number * f64::from(2u32).powi(shift);
    #[allow(clippy::cast_possible_truncation)] // below 2^63, as the comparison says
    (scaled < 9.2e18).then_some(scaled as i64)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_units() {
        for (text, number) in [
            ("0", 0),
            ("-1", -1),
            ("4096", 4096),
            ("64k", 65536),
            ("1.5G", 1_610_612_736),
            ("10MiB", 10_485_760),
            ("5b", 5),
        ] {
            assert_eq!(bytes(text), Some(number), "{text}");
        }
        for text in ["", "k", "1x", "-1k", "1e30t", "nan"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
