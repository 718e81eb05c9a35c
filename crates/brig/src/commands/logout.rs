//! `brig logout`: forget what a registry was told about the user.

use super::{Entry, flags, parser, registry_options};
use crate::output;
use crate::report::Outcome;
use brig_engine::images;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The registry's host and port
    #[arg(default_value = "docker.io", hide_default_value = true)]
    server: String,
}

pub const ENTRY: Entry = Entry::new(
    "logout",
    || parser::<Flags>("logout", "Forget the credentials for a registry"),
    |_, matches| execute(&flags(matches)?),
)
.for_everyone();

fn execute(flags: &Flags) -> Outcome {
    if images::logout(&registry_options(&[])?, &flags.server)? {
        output::line(&format!("Removing login credentials for {}", flags.server));
    } else {
        output::line(&format!("Not logged in to {}", flags.server));
    }
    Ok(0)
}
