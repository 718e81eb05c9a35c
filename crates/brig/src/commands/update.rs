//! `brig update`: change limits and restart policy, also of running containers.

use super::{Entry, each_container, flags, parser};
use crate::flags::LimitFlags;
use crate::flags::values::restart;
use brig_engine::containers;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    #[command(flatten)]
    limits: LimitFlags,
    /// When to start it again
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
}

pub const ENTRY: Entry = Entry::new(
    "update",
    || parser::<Flags>("update", "Change the limits of containers"),
    |context, matches| {
        let flags: Flags = flags(matches)?;
        let change = flags.limits.resources()?;
        let policy = flags.restart.as_deref().map(restart).transpose()?;
        each_container(context, &flags.containers, |record| {
            containers::update(&context.config, record, &change, policy)
        })
    },
);
