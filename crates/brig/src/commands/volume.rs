//! `brig volume`: volumes.

use super::{Entry, each, flags, parser};
use crate::Context;
use crate::flags::values::labels;
use crate::output::{self, Column, Filters, Row, label_fits};
use crate::report::{self, Outcome};
use brig_engine::time::rfc3339;
use brig_engine::volumes::{self, Volume};
use brig_engine::{Error, Result};
use brig_spec::id::Name;
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug, Args)]
struct Create {
    /// The name; without one, the volume is anonymous
    name: Option<String>,
    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
}

pub const CREATE: Entry = Entry::new(
    "create",
    || parser::<Create>("create", "Make a volume"),
    |context, matches| {
        let flags: Create = flags(matches)?;
        let name = flags.name.as_deref().map(Name::parse).transpose();
        let name = name.map_err(|error| Error::invalid("cannot use that name").because(error))?;
        output::line(&volumes::create(&context.config, name.as_ref(), labels(&flags.label, &[])?)?.name);
        Ok(0)
    },
);

#[derive(Debug, Args)]
struct List {
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// Only some: `name=`, `label=`, `dangling=true`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format it by a Go template, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub const LIST: Entry =
    Entry::new("ls", || parser::<List>("ls", "List volumes"), |context, matches| list(context, &flags(matches)?))
        .aliases(&["list"]);

const COLUMNS: [Column; 2] = [("DRIVER", "Driver"), ("VOLUME NAME", "Name")];

fn list(context: &Context, flags: &List) -> Outcome {
    let filters = Filters::parse(&flags.filter, &["name", "label", "dangling"])?;
    let mut rows: Vec<Row> = Vec::new();
    let mut status = 0;
    for volume in volumes::list(&context.config)? {
        let volume = match volume {
            Ok(volume) => volume,
            Err(error) => {
                report::print(&error);
                status = 1;
                continue;
            }
        };
        let unused =
            if filters.names("dangling") { volumes::users(&context.config, &volume.name)?.is_empty() } else { false };
        let fits = |key: &str, value: &str| match key {
            "name" => volume.name.contains(value),
            "label" => label_fits(&volume.labels, value),
            _ => unused == matches!(value, "true" | "1"),
        };
        if !filters.pass(fits) {
            continue;
        }
        if flags.quiet {
            output::line(&volume.name);
        } else if let Value::Object(row) = describe(context, &volume) {
            rows.push(row);
        }
    }
    if !flags.quiet {
        output::listing(&rows, &COLUMNS, &[("MOUNTPOINT", "Mountpoint"), ("SCOPE", "Scope")], flags.format.as_deref())?;
    }
    Ok(status)
}

fn describe(context: &Context, volume: &Volume) -> Value {
    json!({
        "Name": volume.name,
        "Driver": "local",
        "Scope": "local",
        "Mountpoint": volume.data(&context.config),
        "CreatedAt": rfc3339(volume.created_ns),
        "Labels": volume.labels,
        "Anonymous": volume.anonymous,
        "Options": Value::Null,
    })
}

#[derive(Debug, Args)]
struct Inspect {
    /// The volumes
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
    /// Format it by a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub const INSPECT: Entry = Entry::new(
    "inspect",
    || parser::<Inspect>("inspect", "Show all about volumes"),
    |context, matches| {
        let flags: Inspect = flags(matches)?;
        let find = |name: &str| -> Result<Value> { Ok(describe(context, &volumes::inspect(&context.config, name)?)) };
        super::inspect::print(&flags.volumes, flags.format.as_deref(), find)
    },
);

#[derive(Debug, Args)]
struct Remove {
    /// The volumes
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
    /// One that does not exist is no error
    #[arg(short, long)]
    force: bool,
}

pub const REMOVE: Entry = Entry::new(
    "rm",
    || parser::<Remove>("rm", "Remove volumes"),
    |context, matches| {
        let flags: Remove = flags(matches)?;
        each(&flags.volumes, |name| volumes::remove(&context.config, name, flags.force))
    },
)
.aliases(&["remove"]);

#[derive(Debug, Args)]
struct Prune {
    /// Those with a name too, not only the anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub const PRUNE: Entry = Entry::new(
    "prune",
    || parser::<Prune>("prune", "Remove volumes that no container uses"),
    |context, matches| {
        let flags: Prune = flags(matches)?;
        super::prune::ask(flags.force, "volumes that no container uses")?;
        for name in volumes::prune(&context.config, flags.all)? {
            output::line(&format!("Deleted volume: {name}"));
        }
        Ok(0)
    },
);
