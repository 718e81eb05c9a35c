//! `brig ps`: list containers.

use super::{Entry, flags, parser};
use crate::Context;
use crate::output::{self, Column, Filters, Row, ago, ellipsis, label_fits, since, span};
use crate::report::{self, Outcome};
use brig_engine::config::{MountKind, modes::Describe};
use brig_engine::containers::{self, Phase, Status};
use brig_engine::record::Record;
use brig_engine::time::rfc3339;
use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
struct Flags {
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Cut nothing
    #[arg(long)]
    no_trunc: bool,
    /// The newest only
    #[arg(short, long)]
    latest: bool,
    /// So many of the newest
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Show the size of what each has written
    #[arg(short, long)]
    size: bool,
    /// Only some: `name=`, `id=`, `status=`, `label=`, `ancestor=`, `exited=`, `volume=`, `network=`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format it by a Go template, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub const ENTRY: Entry = Entry::new(
    "ps",
    || parser::<Flags>("ps", "List containers"),
    |context, matches| execute(context, &flags(matches)?),
);

const COLUMNS: [Column; 7] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
];

const HEADINGS: [Column; 8] = [
    ("CREATED AT", "CreatedAt"),
    ("STATE", "State"),
    ("SIZE", "Size"),
    ("LABELS", "Labels"),
    ("MOUNTS", "Mounts"),
    ("NETWORKS", "Networks"),
    ("LOCAL VOLUMES", "LocalVolumes"),
    ("PLATFORM", "Platform"),
];

const FILTERS: [&str; 8] = ["name", "id", "status", "label", "ancestor", "exited", "volume", "network"];

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let filters = Filters::parse(&flags.filter, &FILTERS)?;
    let listing = containers::list(&context.config)?;
    for (_, error) in &listing.unreadable {
        report::print(error);
    }
    let many = if flags.latest { Some(1) } else { flags.last };
    let all = flags.all || many.is_some() || filters.names("status") || filters.names("exited");
    let mut rows: Vec<Row> = Vec::new();
    let wanted = listing.entries.iter().filter(|e| all || e.status.is_active());
    for entry in
        wanted.filter(|e| filters.pass(|k, v| fits(&e.record, &e.status, k, v))).take(many.unwrap_or(usize::MAX))
    {
        let record = &entry.record;
        if flags.quiet {
            output::line(if flags.no_trunc { record.id.as_str() } else { record.id.short() });
        } else {
            rows.push(row(context, record, &entry.status, flags));
        }
    }
    if !flags.quiet {
        let mut columns = COLUMNS.to_vec();
        if flags.size {
            columns.push(("SIZE", "Size"));
        }
        output::listing(&rows, &columns, &HEADINGS, flags.format.as_deref())?;
    }
    Ok(u8::from(!listing.unreadable.is_empty()))
}

fn fits(record: &Record, status: &Status, key: &str, value: &str) -> bool {
    match key {
        "name" => record.name.contains(value.trim_start_matches('/')),
        "id" => record.id.as_str().starts_with(value),
        "status" => status.phase.as_str() == value,
        "label" => label_fits(&record.config.labels, value),
        "ancestor" => {
            record.config.image == value
                || record.config.image.split([':', '@']).next() == Some(value)
                || record.image.id.trim_start_matches("sha256:").starts_with(value.trim_start_matches("sha256:"))
                    && !value.is_empty()
        }
        "exited" => status.phase == Phase::Exited && status.exit_code.map(|c| c.to_string()).as_deref() == Some(value),
        "volume" => record.volumes.iter().any(|v| v.name == value || v.destination.as_os_str() == value),
        _ => record.config.network.describe() == value,
    }
}

fn row(context: &Context, record: &Record, status: &Status, flags: &Flags) -> Row {
    let command = record.config.argv().join(" ");
    let command = if flags.no_trunc { command } else { ellipsis(&command, 20) };
    let labels: Vec<String> = record.config.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let size = if flags.size {
        output::decimal_size(written(&record.dir(&context.config).join("upper")))
    } else {
        String::new()
    };
    let volumes = record.volumes.iter().map(|v| v.name.clone());
    let binds = record.config.mounts.iter().filter_map(|m| match &m.kind {
        MountKind::Bind { source, .. } => Some(source.display().to_string()),
        _ => None,
    });
    let mounts: Vec<String> = volumes.chain(binds).collect();
    let fields = [
        ("ID", Value::from(if flags.no_trunc { record.id.as_str() } else { record.id.short() })),
        ("Image", Value::from(record.config.image.clone())),
        ("Command", Value::from(format!("\"{}\"", command.escape_debug()))),
        ("CreatedAt", Value::from(rfc3339(record.created_ns))),
        ("RunningFor", Value::from(ago(record.created_ns))),
        ("Status", Value::from(status_text(status, flags.no_trunc))),
        ("State", Value::from(status.phase.as_str())),
        ("Ports", Value::from(ports(record, status))),
        ("Names", Value::from(record.name.clone())),
        ("Labels", Value::from(labels.join(","))),
        ("Mounts", Value::from(mounts.join(","))),
        ("LocalVolumes", Value::from(record.volumes.len())),
        ("Networks", Value::from(record.config.network.describe())),
        ("Size", Value::from(size)),
        ("Platform", Value::from(record.config.platform.clone().unwrap_or_default())),
    ];
    fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

/// A state in words, as Docker says it; what is not known is said to be so, and why nothing runs.
fn status_text(status: &Status, whole: bool) -> String {
    match status.phase {
        Phase::Created => "Created".into(),
        Phase::Running => format!("Up {}", span(since(status.started_ns))),
        Phase::Paused => format!("Up {} (Paused)", span(since(status.started_ns))),
        Phase::Stopping => "Stopping".into(),
        Phase::Restarting => {
            let code = status.exit_code.map_or_else(|| "unknown".into(), |c| c.to_string());
            format!("Restarting ({code}) {}", ago(status.finished_ns))
        }
        Phase::Exited => {
            let code = status.exit_code.map_or_else(|| "unknown".into(), |c| c.to_string());
            let when = if status.finished_ns == 0 { String::new() } else { format!(" {}", ago(status.finished_ns)) };
            let oom = if status.oom_killed { " (OOM killed)" } else { "" };
            let why = status
                .error
                .as_ref()
                .map(|text| format!(": {}", if whole { text.clone() } else { ellipsis(text, 60) }));
            format!("Exited ({code}){when}{oom}{}", why.unwrap_or_default())
        }
    }
}

fn ports(record: &Record, status: &Status) -> String {
    let published = record.network.iter().filter(|_| status.is_active()).flat_map(|n| &n.ports);
    let mut all = Vec::new();
    for port in published {
        let inside = format!("{}/{}", port.container_port, port.protocol);
        match port.host_address {
            Some(address) if address.is_ipv6() => all.push(format!("[{address}]:{}->{inside}", port.host_port)),
            Some(address) => all.push(format!("{address}:{}->{inside}", port.host_port)),
            None => {
                all.push(format!("0.0.0.0:{}->{inside}", port.host_port));
                all.push(format!("[::]:{}->{inside}", port.host_port));
            }
        }
    }
    let inside = |text: &String| all.iter().any(|p| p.ends_with(&format!("->{text}")));
    let exposed: Vec<String> =
        record.config.exposed.iter().filter(|e| status.is_active() && !inside(e)).cloned().collect();
    all.extend(exposed);
    all.join(", ")
}

/// The bytes that a writable layer takes on the disk.
fn written(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                left.push(entry.path());
            } else {
                total += meta.blocks() * 512;
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_in_words() {
        let base = Status {
            phase: Phase::Exited,
            pid: 0,
            monitor_pid: 0,
            exit_code: Some(3),
            oom_killed: false,
            started_ns: 1,
            finished_ns: brig_monitor::state::now_ns() - 65_000_000_000,
            error: None,
            stopped: false,
            restarts: 0,
        };
        assert_eq!(status_text(&base, false), "Exited (3) About a minute ago");
        let failed = Status { error: Some("no such file: ".repeat(10)), ..base.clone() };
        assert!(status_text(&failed, false).ends_with(": no …"), "{}", status_text(&failed, false));
        assert!(status_text(&failed, true).ends_with("no such file: "));
        assert_eq!(status_text(&Status { exit_code: None, finished_ns: 0, ..base.clone() }, false), "Exited (unknown)");
        assert!(status_text(&Status { oom_killed: true, ..base.clone() }, false).ends_with("(OOM killed)"));
        assert_eq!(status_text(&Status { phase: Phase::Created, ..base }, false), "Created");
    }
}
