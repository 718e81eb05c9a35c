//! `brig attach`: hold a session with a running container.

use super::{Entry, flags, parser};
use crate::Context;
use crate::report::Outcome;
use crate::session::{self, Keys, Options, Signals};
use brig_engine::containers;
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The container
    container: String,
    /// Leave its standard input alone
    #[arg(long)]
    no_stdin: bool,
    /// Keys that end the session and leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Whether signals go on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    sig_proxy: Option<bool>,
}

pub const ENTRY: Entry = Entry::new(
    "attach",
    || parser::<Flags>("attach", "Hold a session with a running container"),
    |context, matches| execute(context, &flags(matches)?),
);

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let record = containers::find(&context.config, &flags.container)?;
    let options = Options {
        stdin: record.config.stdin && !flags.no_stdin,
        tty: record.config.tty,
        sig_proxy: flags.sig_proxy.unwrap_or(true) && !record.config.tty,
        detach_keys: flags.detach_keys.as_deref().map_or_else(|| Ok(Keys::default()), Keys::parse)?,
    };
    let connection = containers::attach(&context.config, &record, options.stdin)?;
    let signals = Signals::collect(&options)?;
    let end = session::hold(connection, &signals, &options, &[])?;
    super::run::finish(end, &record.name)
}
