//! `brig rm`: remove containers.

use super::{Entry, each, flags, parser};
use brig_engine::Kind;
use brig_engine::containers;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Kill one that runs; one that does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// Remove its anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
}

pub const ENTRY: Entry = Entry::new(
    "rm",
    || parser::<Flags>("rm", "Remove containers"),
    |context, matches| {
        let flags: Flags = flags(matches)?;
        each(&flags.containers, |name| match containers::remove(&context.config, name, flags.force, flags.volumes) {
            Err(error) if flags.force && error.kind == Kind::NotFound => Ok(()),
            other => other.map(drop),
        })
    },
)
.aliases(&["remove"]);
