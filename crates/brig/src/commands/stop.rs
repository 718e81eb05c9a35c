//! `brig stop` and `brig restart`.

use super::{Entry, each_container, flags, parser};
use crate::Context;
use crate::report::{self, Outcome};
use brig_engine::containers;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Seconds until it is killed; -1 waits for ever
    #[arg(short, long, alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    /// The signal that asks it to end
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
}

pub const ENTRY: Entry = Entry::new(
    "stop",
    || parser::<Flags>("stop", "Stop running containers"),
    |context, matches| {
        let flags: Flags = flags(matches)?;
        let signal = flags.signal.as_deref().map(containers::signal_number).transpose()?;
        each_container(context, &flags.containers, |record| {
            containers::stop(&context.config, record, signal, flags.time)
        })
    },
);

pub const RESTART: Entry = Entry::new(
    "restart",
    || parser::<Flags>("restart", "Stop containers and start them again"),
    |context, matches| restart(context, &flags(matches)?),
);

fn restart(context: &Context, flags: &Flags) -> Outcome {
    let signal = flags.signal.as_deref().map(containers::signal_number).transpose()?;
    each_container(context, &flags.containers, |record| {
        containers::stop(&context.config, record, signal, flags.time)?;
        let mut record = record.clone();
        containers::start(&context.config, &mut record, 0).map(|started| report::warnings(&started.warnings))
    })
}
