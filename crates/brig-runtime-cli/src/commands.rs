//! The commands, one file each, and the table that names them.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod update;

use crate::arguments::{self, Ends, Opt, Parsed, flag};
use crate::failure::{Failure, Step};
use crate::global::{self, Global};
use std::fmt::Write;

/// A command as the command line names it.
pub(crate) struct Command {
    /// Its name.
    pub name: &'static str,
    /// Its operands, for the help.
    pub operands: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Its options.
    pub options: &'static [Opt],
    /// Where its options end.
    pub ends: Ends,
    /// Whether it puts a process into a container.
    pub enters: bool,
    /// What it does; returns the exit status.
    pub run: fn(&Global, &Parsed) -> Result<u8, Failure>,
}

const COMMANDS: &[&Command] = &[
    &checkpoint::COMMAND,
    &create::COMMAND,
    &delete::COMMAND,
    &events::COMMAND,
    &exec::COMMAND,
    &features::COMMAND,
    &kill::COMMAND,
    &list::COMMAND,
    &pause::PAUSE,
    &ps::COMMAND,
    &restore::COMMAND,
    &pause::RESUME,
    &run::COMMAND,
    &spec::COMMAND,
    &start::COMMAND,
    &state::COMMAND,
    &update::COMMAND,
];

const HELP: Opt = flag("help", 'h', "print this help");

/// Runs the command line and returns the exit status.
pub(crate) fn main(words: &[String]) -> u8 {
    let (global, options, rest) = match Global::parse(words) {
        Ok(parsed) => parsed,
        Err(failure) => {
            crate::log::Log::default().error(&failure.to_string());
            return failure.status;
        }
    };
    dispatch(&global, &options, &rest).unwrap_or_else(|failure| {
        match &failure.bare {
            Some(bare) => global.log.bare_error(bare, &failure.to_string()),
            None => global.log.error(&failure.to_string()),
        }
        failure.status
    })
}

/// Finds the command and runs it; returns the exit status.
fn dispatch(global: &Global, options: &Parsed, rest: &[String]) -> Result<u8, Failure> {
    if options.has("version") {
        return say(version() + "\n");
    }
    let Some((name, words)) = rest.split_first() else {
        return say(help() + "\n");
    };
    if options.has("help") || name == "help" {
        let about = words.first().filter(|_| name == "help").and_then(|name| find(name));
        return say(about.map_or_else(help, command_help) + "\n");
    }
    let Some(command) = find(name) else {
        if words.iter().any(|word| word == "-h" || word == "--help") {
            return say(format!("No help topic for '{name}'\n")).map(|_| 3);
        }
        return Err(Failure::new(format!("no such command: `{name}` (`brig-runtime --help` lists them)")));
    };
    let options: Vec<Opt> = command.options.iter().copied().chain([HELP]).collect();
    let parsed = arguments::parse(words, &options, command.ends)?;
    if parsed.has("help") {
        return say(command_help(command) + "\n");
    }
    if command.enters {
        crate::protect::go_on_protected()?;
    }
    global.log.debug(&format!("{name}: {}", parsed.operands.join(" ")));
    (command.run)(global, &parsed)
}

/// Prints on standard output; returns the exit status of success. Errors: nobody reads it, or it is full.
pub(crate) fn say(text: impl AsRef<[u8]>) -> Result<u8, Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_ref()).and_then(|()| out.flush()).step(|| "write to standard output")?;
    Ok(0)
}

fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name).copied()
}

/// The one operand of a command that works on a container.
pub(crate) fn container_id(parsed: &Parsed) -> Result<&str, Failure> {
    match parsed.operands.as_slice() {
        [id] => Ok(id),
        [] => Err(Failure::new("a container id is needed: exactly 1 argument")),
        _ => Err(Failure::new(format!("exactly 1 argument is needed, {} were given", parsed.operands.len()))),
    }
}

fn version() -> String {
    let (name, version) = (crate::own_name(), env!("CARGO_PKG_VERSION"));
    format!("{name} version {version}\ncommit: v{version}\nspec: {}", crate::SPEC_VERSION)
}

// The headings are those that scripts look for in the help of an OCI runtime.

fn help() -> String {
    let program = crate::own_name();
    let mut text = format!(
        "NAME:\n   {program} - Open Container Initiative runtime, of brig\n\n\
         USAGE:\n   {program} [OPTIONS] COMMAND [OPTIONS] [OPERANDS]\n\nCOMMANDS:\n"
    );
    for command in COMMANDS {
        let _ = writeln!(text, "   {:<12}{}", command.name, command.about);
    }
    text + "\nGLOBAL OPTIONS:\n" + &options_help(global::OPTIONS)
}

fn command_help(command: &Command) -> String {
    let (name, operands) = (command.name, command.operands);
    let program = crate::own_name();
    let mut text =
        format!("NAME:\n   {program} {name} - {}\n\nUSAGE:\n   {program} {name} [OPTIONS] {operands}\n", command.about);
    if !command.options.is_empty() {
        text += "\nOPTIONS:\n";
        text += &options_help(command.options);
    }
    text
}

fn options_help(options: &[Opt]) -> String {
    let line = |option: &Opt| {
        let short = if option.short == '\0' { "    ".into() } else { format!("-{}, ", option.short) };
        let value = if option.value { " VALUE" } else { "" };
        format!("   {short}{:<28}{}\n", format!("--{}{value}", option.name), option.help)
    };
    options.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_options_are_unlike() {
        assert!(COMMANDS.is_sorted_by_key(|c| c.name));
        for command in COMMANDS {
            for (at, option) in command.options.iter().enumerate() {
                let clash = |o: &&Opt| o.name == option.name || (o.short != '\0' && o.short == option.short);
                assert!(!command.options[..at].iter().any(|o| clash(&o)), "{} --{}", command.name, option.name);
            }
        }
    }
}
