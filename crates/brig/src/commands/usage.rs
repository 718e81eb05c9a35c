//! `brig system df`: what takes how much of the disk.

use super::{Entry, flags, parser, store};
use crate::Context;
use crate::output::{self, Column, Row, ago, decimal_size, ellipsis};
use crate::report::{self, Outcome};
use brig_engine::system::{self, Usage};
use brig_engine::time::parse_rfc3339;
use brig_spec::reference::Reference;
use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
struct Flags {
    /// Show each image, container and volume
    #[arg(short, long)]
    verbose: bool,
    /// Format it by a Go template, or `json`
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "verbose")]
    format: Option<String>,
}

pub const ENTRY: Entry = Entry::new(
    "df",
    || parser::<Flags>("df", "Show what takes how much of the disk"),
    |context, matches| execute(context, &flags(matches)?),
);

const COLUMNS: [Column; 5] =
    [("TYPE", "Type"), ("TOTAL", "TotalCount"), ("ACTIVE", "Active"), ("SIZE", "Size"), ("RECLAIMABLE", "Reclaimable")];

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let usage = system::disk_usage(&context.config, &store(context)?)?;
    usage.unreadable.iter().for_each(report::print);
    if flags.verbose {
        verbose(&usage)?;
    } else {
        output::listing(&summary(&usage), &COLUMNS, &[], flags.format.as_deref())?;
    }
    Ok(u8::from(!usage.unreadable.is_empty()))
}

fn row<const N: usize>(fields: [(&str, Value); N]) -> Row {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn summary(usage: &Usage) -> Vec<Row> {
    let line = |kind: &str, total: usize, active: usize, size: u64, free: u64| {
        let part = free.saturating_mul(100).checked_div(size).unwrap_or(0);
        row([
            ("Type", Value::from(kind)),
            ("TotalCount", Value::from(total)),
            ("Active", Value::from(active)),
            ("Size", Value::from(decimal_size(size))),
            ("Reclaimable", Value::from(format!("{} ({part}%)", decimal_size(free)))),
        ])
    };
    let images = usage.images.iter().filter(|image| image.containers > 0).count();
    let running = usage.containers.iter().filter(|container| container.status.is_active());
    let stopped = usage.containers.iter().filter(|container| !container.status.is_active());
    let loose = usage.volumes.iter().filter(|volume| volume.links == 0);
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    vec![
        line("Images", usage.images.len(), images, usage.layers, usage.layers_free),
        line(
            "Image blobs",
            count(usage.blobs.0),
            count(usage.blobs.0 - usage.blobs_free.0),
            usage.blobs.1,
            usage.blobs_free.1,
        ),
        line(
            "Containers",
            usage.containers.len(),
            running.count(),
            usage.containers.iter().map(|container| container.size).sum(),
            stopped.map(|container| container.size).sum(),
        ),
        line(
            "Local Volumes",
            usage.volumes.len(),
            usage.volumes.iter().filter(|volume| volume.links > 0).count(),
            usage.volumes.iter().map(|volume| volume.size).sum(),
            loose.map(|volume| volume.size).sum(),
        ),
    ]
}

fn verbose(usage: &Usage) -> brig_engine::Result<()> {
    let none = || "<none>".to_owned();
    output::line("Images:\n");
    let mut rows = Vec::new();
    for one in &usage.images {
        let names: Vec<Option<&Reference>> =
            if one.image.names.is_empty() { vec![None] } else { one.image.names.iter().map(Some).collect() };
        for name in names {
            rows.push(row([
                ("Repository", Value::from(name.map_or_else(none, Reference::familiar_name))),
                ("Tag", Value::from(name.and_then(|n| n.tag()).map_or_else(none, str::to_owned))),
                ("ID", Value::from(one.image.id.short())),
                ("Created", Value::from(ago(one.image.created.as_deref().and_then(parse_rfc3339).unwrap_or(0)))),
                ("Size", Value::from(decimal_size(one.shared + one.unique))),
                ("Shared", Value::from(decimal_size(one.shared))),
                ("Unique", Value::from(decimal_size(one.unique))),
                ("Containers", Value::from(one.containers)),
            ]));
        }
    }
    let columns: [Column; 8] = [
        ("REPOSITORY", "Repository"),
        ("TAG", "Tag"),
        ("IMAGE ID", "ID"),
        ("CREATED", "Created"),
        ("SIZE", "Size"),
        ("SHARED SIZE", "Shared"),
        ("UNIQUE SIZE", "Unique"),
        ("CONTAINERS", "Containers"),
    ];
    output::listing(&rows, &columns, &[], None)?;
    output::line("\nContainers:\n");
    let rows: Vec<Row> = usage
        .containers
        .iter()
        .map(|one| {
            row([
                ("ID", Value::from(one.record.id.short())),
                ("Image", Value::from(one.record.config.image.clone())),
                ("Command", Value::from(ellipsis(&one.record.config.argv().join(" "), 20))),
                ("Volumes", Value::from(one.record.volumes.len())),
                ("Size", Value::from(decimal_size(one.size))),
                ("Created", Value::from(ago(one.record.created_ns))),
                ("Status", Value::from(one.status.phase.as_str())),
                ("Names", Value::from(one.record.name.clone())),
            ])
        })
        .collect();
    let columns: [Column; 8] = [
        ("CONTAINER ID", "ID"),
        ("IMAGE", "Image"),
        ("COMMAND", "Command"),
        ("LOCAL VOLUMES", "Volumes"),
        ("SIZE", "Size"),
        ("CREATED", "Created"),
        ("STATUS", "Status"),
        ("NAMES", "Names"),
    ];
    output::listing(&rows, &columns, &[], None)?;
    output::line("\nLocal volumes:\n");
    let rows: Vec<Row> = usage
        .volumes
        .iter()
        .map(|one| {
            row([
                ("Name", Value::from(one.volume.name.clone())),
                ("Links", Value::from(one.links)),
                ("Size", Value::from(decimal_size(one.size))),
            ])
        })
        .collect();
    output::listing(&rows, &[("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size")], &[], None)
}
