//! `brig start`: start containers that were made or have ended.

use super::{Entry, each_container, flags, parser};
use crate::Context;
use crate::report::{self, Outcome};
use crate::session::{self, Keys, Options, Signals};
use brig_engine::containers;
use brig_engine::{Error, Kind, Result};
use brig_monitor::protocol::{HELLO_OUTPUT, HELLO_STDIN};
use clap::Args;

#[derive(Debug, Args)]
struct Flags {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Hold a session with its output
    #[arg(short, long)]
    attach: bool,
    /// Hold a session with its input too
    #[arg(short, long)]
    interactive: bool,
    /// Keys that end the session and leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Whether signals go on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    sig_proxy: Option<bool>,
}

pub const ENTRY: Entry = Entry::new(
    "start",
    || parser::<Flags>("start", "Start containers that do not run"),
    |context, matches| execute(context, &flags(matches)?),
)
.starting();

fn execute(context: &Context, flags: &Flags) -> Outcome {
    if !flags.attach && !flags.interactive {
        return each_container(context, &flags.containers, |record| {
            let mut record = record.clone();
            let started = containers::start(&context.config, &mut record, 0);
            already(started.map(|started| report::warnings(&started.warnings)), context, &record)
        });
    }
    let [name] = flags.containers.as_slice() else {
        return Err(Error::invalid("a session can be held with one container only"));
    };
    let mut record = containers::find(&context.config, name)?;
    let options = Options {
        stdin: flags.interactive && record.config.stdin,
        tty: record.config.tty,
        sig_proxy: flags.sig_proxy.unwrap_or(true) && !record.config.tty,
        detach_keys: flags.detach_keys.as_deref().map_or_else(|| Ok(Keys::default()), Keys::parse)?,
    };
    let signals = Signals::collect(&options)?;
    let hello = HELLO_OUTPUT | if options.stdin { HELLO_STDIN } else { 0 };
    let started = containers::start(&context.config, &mut record, hello)?;
    report::warnings(&started.warnings);
    let end = session::hold(started.connection, &signals, &options, &started.early)?;
    super::run::finish(end, &record.name)
}

/// A container that runs already is as good as started.
fn already(result: Result<()>, context: &Context, record: &brig_engine::record::Record) -> Result<()> {
    match result {
        Err(error)
            if error.kind == Kind::Conflict
                && containers::status::of(&context.config, record).phase == containers::Phase::Running =>
        {
            Ok(())
        }
        other => other,
    }
}
