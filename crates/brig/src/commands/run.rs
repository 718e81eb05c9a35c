//! `brig run`: have the image, make the container, start it, and hold a session with it.

use super::create::{image, make, write_cidfile};
use super::{Entry, flags, parser};
use crate::Context;
use crate::flags::ContainerFlags;
use crate::output;
use crate::report::{self, Outcome};
use crate::session::{self, End, Keys, Options, Signals};
use crate::terminal;
use brig_engine::containers;
use brig_engine::{Error, Result};
use brig_monitor::client::Exited;
use brig_monitor::protocol::{HELLO_OUTPUT, HELLO_STDIN};
use clap::{Args, Command};

#[derive(Debug, Args)]
struct Flags {
    #[command(flatten)]
    container: ContainerFlags,
    /// Leave it running in the background, and print its id
    #[arg(short, long)]
    detach: bool,
    /// Keys that end the session and leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Whether signals go on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    sig_proxy: Option<bool>,
    /// Attach to these streams only: `stdin`, `stdout`, `stderr`
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<String>,
}

pub const ENTRY: Entry = Entry::new("run", command, |context, matches| execute(context, &flags(matches)?)).starting();

fn command() -> Command {
    parser::<Flags>("run", "Run a command in a new container")
        .disable_help_flag(true)
        .override_usage("brig run [OPTIONS] IMAGE [COMMAND] [ARG]...")
}

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let mut config = flags.container.config()?;
    if flags.detach && config.remove && flags.attach.iter().any(|_| true) {
        return Err(Error::invalid("`-d` and `-a` exclude each other"));
    }
    if let Some(other) =
        flags.attach.iter().find(|a| !matches!(a.to_ascii_lowercase().as_str(), "stdin" | "stdout" | "stderr"))
    {
        return Err(
            Error::invalid(format!("`{other}` is not a stream")).hint("known are `stdin`, `stdout` and `stderr`")
        );
    }
    let foreground = !flags.detach;
    config.stdin |= flags.attach.iter().any(|a| a.eq_ignore_ascii_case("stdin"));
    if foreground && config.tty && config.stdin && !terminal::stdin_is_terminal() {
        return Err(Error::invalid("standard input is not a terminal").hint("leave `-t` away, or use it without `-i`"));
    }
    config.console_size = terminal::size();
    let options = Options {
        stdin: config.stdin && foreground,
        tty: config.tty,
        sig_proxy: flags.sig_proxy.unwrap_or(true) && !config.tty,
        detach_keys: flags.detach_keys.as_deref().map_or_else(|| Ok(Keys::default()), Keys::parse)?,
    };
    let source = image(context, &config, &flags.container)?;
    let created = make(context, config, &source, &flags.container)?;
    let signals = if foreground { Some(Signals::collect(&options)?) } else { None };
    let hello = if foreground { HELLO_OUTPUT | if options.stdin { HELLO_STDIN } else { 0 } } else { 0 };
    let (record, started) = containers::start_created(&context.config, created, hello);
    let started = match started {
        Ok(started) => started,
        Err(error) => {
            if record.config.remove {
                // The monitor may have removed it already, or never have begun.
                let _ = containers::remove(&context.config, record.id.as_str(), true, true);
            }
            return Err(error);
        }
    };
    report::warnings(&started.warnings);
    write_cidfile(&flags.container, &record)?;
    let Some(signals) = signals else {
        output::line(record.id.as_str());
        return Ok(0);
    };
    let end = session::hold(started.connection, &signals, &options, &started.early)?;
    finish(end, &record.name)
}

/// Turns the end of a session into an exit status, with a word about what is not obvious.
pub(super) fn finish(end: End, name: &str) -> Result<u8> {
    match end {
        End::Exited(Exited { status, oom_killed }) => {
            if oom_killed {
                report::warn(&format!(
                    "a process of container `{name}` was ended by the OOM killer: its memory limit was reached"
                ));
            }
            match status {
                Some(status) => Ok(status),
                None => Err(Error::internal(format!("how container `{name}` ended can no longer be known"))),
            }
        }
        End::Detached => Ok(0),
        End::Lost => Err(Error::internal(format!("the monitor of container `{name}` is gone"))
            .hint(format!("the container itself may go on: `brig ps`, `brig attach {name}`"))),
    }
}
