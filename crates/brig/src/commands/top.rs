//! `brig top`: the processes of a container.

use super::{Entry, flags, parser};
use crate::Context;
use crate::output::{self, Column, Row};
use crate::report::Outcome;
use brig_engine::containers;
use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
struct Flags {
    /// The container
    container: String,
    /// Format it by a Go template, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub const ENTRY: Entry = Entry::new(
    "top",
    || parser::<Flags>("top", "Show the processes of a container"),
    |context, matches| execute(context, &flags(matches)?),
);

const COLUMNS: [Column; 8] = [
    ("UID", "User"),
    ("PID", "PID"),
    ("PPID", "PPID"),
    ("S", "State"),
    ("RSS", "RSS"),
    ("TTY", "TTY"),
    ("TIME", "Time"),
    ("CMD", "Command"),
];

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let record = containers::find(&context.config, &flags.container)?;
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let rows: Vec<Row> = containers::top(&context.config, &record)?
        .into_iter()
        .map(|process| {
            let seconds = process.cpu_ticks / ticks;
            let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            let fields = [
                ("User", Value::from(process.user)),
                ("PID", Value::from(process.pid)),
                ("PPID", Value::from(process.ppid)),
                ("State", Value::from(process.state.to_string())),
                ("RSS", Value::from(output::binary_size(process.rss_kib * 1024))),
                ("TTY", Value::from(process.tty)),
                ("Time", Value::from(time)),
                ("Command", Value::from(process.command)),
            ];
            fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
        })
        .collect();
    output::listing(&rows, &COLUMNS, &[], flags.format.as_deref())?;
    Ok(0)
}
