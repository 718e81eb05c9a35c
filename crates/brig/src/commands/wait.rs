//! `brig wait`: wait for the end of containers, and print their exit statuses.

use super::{Entry, flags, parser};
use crate::output;
use crate::report;
use brig_engine::containers;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub const ENTRY: Entry = Entry::new(
    "wait",
    || parser::<Flags>("wait", "Wait until containers end, and print their exit statuses"),
    |context, matches| {
        let flags: Flags = flags(matches)?;
        let mut status = 0;
        for name in &flags.containers {
            let ended = containers::find(&context.config, name)
                .and_then(|record| containers::wait(&context.config, &record, None));
            match ended {
                Ok(ended) if ended.phase == containers::Phase::Created => output::line("0"),
                Ok(ended) => {
                    let code = ended.exit_code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
                    output::line(&code);
                }
                Err(error) => {
                    report::print(&error);
                    status = 1;
                }
            }
        }
        Ok(status)
    },
);
