//! `brig pause` and `brig unpause`.

use super::{Entry, each_container, flags, parser};
use brig_engine::containers;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub const ENTRY: Entry = Entry::new(
    "pause",
    || parser::<Flags>("pause", "Freeze all processes of containers"),
    |context, matches| {
        let flags: Flags = flags(matches)?;
        each_container(context, &flags.containers, |record| containers::pause(&context.config, record))
    },
);

pub const UNPAUSE: Entry = Entry::new(
    "unpause",
    || parser::<Flags>("unpause", "Let frozen containers go on"),
    |context, matches| {
        let flags: Flags = flags(matches)?;
        each_container(context, &flags.containers, |record| containers::unpause(&context.config, record))
    },
);
