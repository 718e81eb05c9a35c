//! `brig exec`: a further process in a running container.

use super::{Entry, flags, parser};
use crate::Context;
use crate::flags::values::{env_file, environment};
use crate::output;
use crate::report::{self, Outcome};
use crate::session::{self, End, Keys, Options, Signals};
use crate::terminal;
use brig_engine::Error;
use brig_engine::containers::{self, ExecConfig};
use brig_monitor::protocol::{HELLO_OUTPUT, HELLO_STDIN};
use clap::{Args, Command};

#[derive(Debug, Args)]
struct Flags {
    /// The container, then the command and its arguments
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_name = "CONTAINER COMMAND")]
    container_and_command: Vec<String>,
    /// Leave it running in the background
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// The user, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Give it every capability
    #[arg(long)]
    privileged: bool,
    /// Keys that end the session and leave the process running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
}

pub const ENTRY: Entry = Entry::new("exec", command, |context, matches| execute(context, &flags(matches)?)).starting();

fn command() -> Command {
    parser::<Flags>("exec", "Run a command in a running container")
        .override_usage("brig exec [OPTIONS] CONTAINER COMMAND [ARG]...")
}

fn execute(context: &Context, flags: &Flags) -> Outcome {
    let (name, command) =
        flags.container_and_command.split_first().ok_or_else(|| Error::invalid("no container is named"))?;
    if command.is_empty() {
        return Err(Error::invalid("no command is given").hint(format!("for a shell: `brig exec -it {name} sh`")));
    }
    let mut env = Vec::new();
    for file in &flags.env_file {
        env.extend(env_file(file)?);
    }
    for text in &flags.env {
        env.extend(environment(text)?);
    }
    if !flags.detach && flags.tty && flags.interactive && !terminal::stdin_is_terminal() {
        return Err(Error::invalid("standard input is not a terminal").hint("leave `-t` away, or use it without `-i`"));
    }
    let record = containers::find(&context.config, name)?;
    let wish = ExecConfig {
        command: command.to_vec(),
        env,
        user: flags.user.clone().unwrap_or_default(),
        workdir: flags.workdir.clone().unwrap_or_default(),
        tty: flags.tty,
        stdin: flags.interactive,
        privileged: flags.privileged,
        keep: false,
        console_size: if flags.tty { terminal::size() } else { None },
    };
    let options = Options {
        stdin: flags.interactive && !flags.detach,
        tty: flags.tty,
        sig_proxy: !flags.tty,
        detach_keys: flags.detach_keys.as_deref().map_or_else(|| Ok(Keys::default()), Keys::parse)?,
    };
    if flags.detach {
        let execution = containers::exec(&context.config, &record, &wish, 0)?;
        report::warnings(&execution.warnings);
        output::line(&execution.id);
        return Ok(0);
    }
    let signals = Signals::collect(&options)?;
    let hello = HELLO_OUTPUT | if options.stdin { HELLO_STDIN } else { 0 };
    let execution = containers::exec(&context.config, &record, &wish, hello)?;
    report::warnings(&execution.warnings);
    match session::hold(execution.connection, &signals, &options, &execution.early)? {
        End::Exited(exited) => exited.status.ok_or_else(|| {
            Error::internal(format!("how the command in container `{}` ended can no longer be known", record.name))
        }),
        End::Detached => Ok(0),
        End::Lost => Err(Error::internal(format!("the monitor of the command in container `{}` is gone", record.name))),
    }
}
