//! `brig export`: write a container's files as a tar.

use super::save::to_file_or_stdout;
use super::{Entry, flags, parser};
use brig_engine::containers;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The container
    container: String,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
}

pub const ENTRY: Entry = Entry::new(
    "export",
    || parser::<Flags>("export", "Write a container's files as a tar"),
    |context, matches| {
        let flags: Flags = flags(matches)?;
        let record = containers::find(&context.config, &flags.container)?;
        to_file_or_stdout(flags.output.as_deref(), "brig export -o FILE CONTAINER", |output| {
            containers::export(&context.config, &record, output)
        })
    },
);
