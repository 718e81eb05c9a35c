//! `brig completion`: what a shell needs to complete commands and options.

use super::{Entry, flags, parser};
use crate::output;
use clap::Args;
use clap_complete::Shell;

#[derive(Debug, Args)]
struct Flags {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub const ENTRY: Entry = Entry::new(
    "completion",
    || parser::<Flags>("completion", "Print the completion script of a shell"),
    |_, matches| {
        let flags: Flags = flags(matches)?;
        let mut text = Vec::new();
        clap_complete::generate(flags.shell, &mut crate::command(), "brig", &mut text);
        output::print(&String::from_utf8_lossy(&text));
        Ok(0)
    },
)
.for_everyone();
