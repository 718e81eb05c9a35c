//! `brig stats`: what running containers use.

use super::{Entry, flags, parser};
use crate::Context;
use crate::output::{self, Column, Row, binary_size, decimal_size};
use crate::report::Outcome;
use crate::terminal;
use brig_engine::containers::{self, Sample};
use brig_engine::record::Record;
use brig_engine::{Kind, Result};
use clap::Args;
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

/// The time between two readings.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
struct Flags {
    /// The containers; without any, all that run
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// One reading only
    #[arg(long)]
    no_stream: bool,
    /// Cut nothing
    #[arg(long)]
    no_trunc: bool,
    /// Format it by a Go template, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub const ENTRY: Entry = Entry::new(
    "stats",
    || parser::<Flags>("stats", "Show what running containers use"),
    |context, matches| execute(context, &flags(matches)?),
);

const COLUMNS: [Column; 8] = [
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let machine = machine_memory();
    let mut before: HashMap<String, Sample> = samples(context, flags)?.into_iter().filter_map(with_id).collect();
    loop {
        // A rate needs two readings.
        std::thread::sleep(INTERVAL);
        let now = samples(context, flags)?;
        let rows: Vec<Row> = now
            .iter()
            .map(|(record, sample)| row(record, before.get(record.id.as_str()), sample.as_ref(), machine, flags))
            .collect();
        if !flags.no_stream && terminal::stdout_is_terminal() && flags.format.is_none() {
            output::print("\x1b[H\x1b[J");
        }
        output::listing(&rows, &COLUMNS, &[("CONTAINER", "Container")], flags.format.as_deref())?;
        if flags.no_stream {
            return Ok(0);
        }
        before = now.into_iter().filter_map(with_id).collect();
    }
}

fn with_id((record, sample): (Record, Option<Sample>)) -> Option<(String, Sample)> {
    Some((record.id.as_str().to_owned(), sample?))
}

fn samples(context: &Context, flags: &Flags) -> Result<Vec<(Record, Option<Sample>)>> {
    let records: Vec<Record> = if flags.containers.is_empty() {
        let entries = containers::list(&context.config)?.entries;
        entries.into_iter().filter(|e| flags.all || e.status.is_running()).map(|e| e.record).collect()
    } else {
        flags.containers.iter().map(|name| containers::find(&context.config, name)).collect::<Result<_>>()?
    };
    records
        .into_iter()
        .map(|record| match containers::sample(&context.config, &record) {
            Ok(sample) => Ok((record, Some(sample))),
            Err(error) if error.kind == Kind::Conflict => Ok((record, None)),
            Err(error) => Err(error),
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn row(record: &Record, before: Option<&Sample>, now: Option<&Sample>, machine: u64, flags: &Flags) -> Row {
    let id = if flags.no_trunc { record.id.as_str() } else { record.id.short() };
    let mut row: Row = [("ID", id), ("Container", id), ("Name", record.name.as_str())]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), Value::from(v)))
        .collect();
    let mut set = |key: &str, value: String| row.insert(key.to_owned(), Value::from(value));
    let Some(now) = now else {
        for key in ["CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"] {
            set(key, "--".into());
        }
        return row;
    };
    let stats = &now.cgroup;
    let cpu = before.map_or(0.0, |before| {
        let wall = now.at.duration_since(before.at).as_nanos() as f64;
        if wall > 0.0 { stats.cpu_ns.saturating_sub(before.cgroup.cpu_ns) as f64 / wall * 100.0 } else { 0.0 }
    });
    let used = stats.memory_bytes.saturating_sub(stats.memory_inactive_file_bytes);
    let limit = stats.memory_limit_bytes.unwrap_or(machine).min(machine.max(1));
    let (read, written) = stats.io.iter().fold((0, 0), |(r, w), d| (r + d.read_bytes, w + d.write_bytes));
    let (incoming, outgoing) = now.network.as_ref().map_or((0, 0), |n| (n.received.bytes, n.sent.bytes));
    set("CPUPerc", format!("{cpu:.2}%"));
    set("MemUsage", format!("{} / {}", binary_size(used), binary_size(limit)));
    set("MemPerc", format!("{:.2}%", used as f64 / limit.max(1) as f64 * 100.0));
    set("NetIO", format!("{} / {}", decimal_size(incoming), decimal_size(outgoing)));
    set("BlockIO", format!("{} / {}", decimal_size(read), decimal_size(written)));
    set("PIDs", stats.pids.to_string());
    row
}

/// The machine's memory in bytes.
fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    line.and_then(|l| l.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024
}
