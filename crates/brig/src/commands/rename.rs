//! `brig rename`: give a container another name.

use super::{Entry, flags, parser};
use brig_engine::containers;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The container
    container: String,
    /// The new name
    name: String,
}

pub const ENTRY: Entry = Entry::new(
    "rename",
    || parser::<Flags>("rename", "Give a container another name"),
    |context, matches| {
        let flags: Flags = flags(matches)?;
        let record = containers::find(&context.config, &flags.container)?;
        containers::rename(&context.config, &record, flags.name.trim_start_matches('/'))?;
        Ok(0)
    },
);
