//! `brig kill`: send a signal.

use super::{Entry, each_container, flags, parser};
use brig_engine::containers;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// The signal
    #[arg(short, long, default_value = "KILL", value_name = "SIGNAL")]
    signal: String,
}

pub const ENTRY: Entry = Entry::new(
    "kill",
    || parser::<Flags>("kill", "Send a signal to running containers"),
    |context, matches| {
        let flags: Flags = flags(matches)?;
        let signal = containers::signal_number(&flags.signal)?;
        each_container(context, &flags.containers, |record| containers::kill(&context.config, record, signal))
    },
);
