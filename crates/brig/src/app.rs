//! From the command line to one command: globals by hand, then only the parser of the subcommand that was named.
//!
//! Building the parsers of all subcommands would cost more time than a container needs to start. The whole tree is built for
//! help, completions and man pages only.

use crate::commands::{self, Entry};
use crate::report::{self, Outcome};
use crate::{Context, report::warn};
use brig_engine::{Config, Error, Kind, LayerChoice};
use clap::Command;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The default place of what survives a reboot.
const ROOT: &str = "/var/lib/brig";
/// The default place of what does not.
const RUN: &str = "/run/brig";

/// Runs the command line and returns the exit status.
pub fn run(arguments: &[OsString]) -> u8 {
    // What a reader that went away makes of writes is told by errors, not by a signal.
    let typed: Vec<String> = arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    match dispatch(&typed) {
        Ok(status) => status,
        Err((error, code)) => {
            report::print(&error);
            code
        }
    }
}

/// The globals, and the place where the subcommand stands.
#[derive(Debug, Default, PartialEq, Eq)]
struct Globals {
    root: Option<PathBuf>,
    run: Option<PathBuf>,
    layers: Option<LayerChoice>,
    help: bool,
    version: bool,
    rest: usize,
}

/// Reads what stands before the subcommand.
fn globals(typed: &[String]) -> Result<Globals, Error> {
    let mut globals = Globals { rest: 1, ..Globals::default() };
    while let Some(word) = typed.get(globals.rest) {
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) if word.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        match name {
            "--root" | "--run" => {
                globals.rest += usize::from(inline.is_none());
                let value = inline.or_else(|| typed.get(globals.rest).cloned());
                let value = value.ok_or_else(|| Error::invalid(format!("`{name}` needs a directory")))?;
                let path = std::path::absolute(&value).map_err(|error| {
                    Error::invalid(format!("`{value}` is not a directory for `{name}`")).because(error)
                })?;
                if name == "--root" { globals.root = Some(path) } else { globals.run = Some(path) }
            }
            "--layers" => {
                globals.rest += usize::from(inline.is_none());
                let value = inline.or_else(|| typed.get(globals.rest).cloned()).unwrap_or_default();
                globals.layers = Some(value.parse().map_err(|error: brig_engine::UnknownForm| {
                    Error::invalid(format!("`{value}` is not a value for `--layers`")).because(error)
                })?);
            }
            "-h" | "--help" => globals.help = true,
            "-v" | "--version" => globals.version = true,
            _ if name.starts_with('-') => {
                return Err(Error::invalid(format!("`{name}` is not an option of brig itself"))
                    .hint("`brig --help` lists commands and options"));
            }
            _ => break,
        }
        globals.rest += 1;
    }
    Ok(globals)
}

fn dispatch(typed: &[String]) -> Result<u8, (Error, u8)> {
    let globals = globals(typed).map_err(|error| (error, report::ENGINE_FAILED))?;
    if globals.version {
        out(&format!("brig version {}\n", env!("CARGO_PKG_VERSION")));
        return Ok(0);
    }
    let words = &typed[globals.rest.min(typed.len())..];
    let Some(word) = words.first().filter(|_| !globals.help) else {
        out(&command().render_help().to_string());
        return Ok(u8::from(!globals.help && words.is_empty()));
    };
    if word == "help" {
        return Ok(help(&words[1..]));
    }
    let Some(found) = commands::find(words) else {
        return Err((unknown(words), report::ENGINE_FAILED));
    };
    let (entry, depth, name) = found;
    let context = Context { config: config(globals.root, globals.run, globals.layers), typed: typed.to_vec() };
    let result = execute(&context, entry, &name, &words[depth..]);
    result.map_err(|error| {
        let code = report::exit_code(&error, entry.starts_containers);
        (error, code)
    })
}

fn execute(context: &Context, entry: &Entry, name: &str, rest: &[String]) -> Outcome {
    let parser = (entry.parser)().bin_name(format!("brig {name}")).no_binary_name(true);
    let matches = match parser.try_get_matches_from(rest) {
        Ok(matches) => matches,
        Err(error) => {
            let code = match error.kind() {
                clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => 0,
                _ if entry.starts_containers => report::ENGINE_FAILED,
                _ => 1,
            };
            let _ = error.print();
            return Ok(code);
        }
    };
    if entry.needs_root && !rustix::process::geteuid().is_root() {
        return Err(no_root(&context.typed));
    }
    (entry.execute)(context, &matches)
}

/// Why brig stops without root, and the line to type.
fn no_root(typed: &[String]) -> Error {
    let line: Vec<String> = typed.iter().map(|w| quote(w)).collect();
    Error::new(Kind::PermissionDenied, "brig needs to be run as root")
        .reason("it makes namespaces, mounts and network devices that only root may make")
        .hint(format!("type: sudo {}", line.join(" ")))
}

/// Quotes a word for a shell.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn unknown(words: &[String]) -> Error {
    let typed = words.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(" ");
    let near = commands::nearest(&words[0]);
    let hint = match near {
        Some(near) => format!("did you mean `brig {near}`? `brig --help` lists the commands"),
        None => "`brig --help` lists the commands".to_owned(),
    };
    Error::invalid(format!("`{typed}` is not a command of brig")).hint(hint)
}

fn help(words: &[String]) -> u8 {
    if let Some((entry, _, name)) = commands::find(words) {
        out(&(entry.parser)().bin_name(format!("brig {name}")).render_long_help().to_string());
        return 0;
    }
    out(&command().render_help().to_string());
    u8::from(!words.is_empty())
}

/// Writes to standard output; a reader that went away is no error.
fn out(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// The whole command line, for help, completions and man pages.
pub fn command() -> Command {
    let global = |name: &'static str, help: &'static str| clap::Arg::new(name).long(name).value_name("DIR").help(help);
    let mut command = Command::new("brig")
        .about("Runs Linux containers")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(global("root", "Where images, containers and volumes are kept [default: /var/lib/brig, or $BRIG_ROOT]"))
        .arg(global("run", "Where sockets and pids are kept [default: /run/brig, or $BRIG_RUN]"))
        .arg(
            clap::Arg::new("layers")
                .long("layers")
                .value_name("FORM")
                .value_parser(["auto", "directories", "erofs", "erofs+verity"])
                .help("How the layers of images are kept that come in from now on [default: auto, or $BRIG_LAYERS]"),
        );
    for entry in commands::TABLE {
        command = command.subcommand((entry.parser)().name(entry.name));
    }
    for (group, about, entries) in commands::GROUPS {
        let mut sub = Command::new(*group).about(*about).subcommand_required(true).arg_required_else_help(true);
        for entry in *entries {
            sub = sub.subcommand((entry.parser)().name(entry.name));
        }
        command = command.subcommand(sub);
    }
    command
}

/// Puts the engine's configuration together: options, then the environment, then defaults.
fn config(root: Option<PathBuf>, run: Option<PathBuf>, layers: Option<LayerChoice>) -> Config {
    let from_env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let root = root.or_else(|| from_env("BRIG_ROOT"));
    let run = run.or_else(|| from_env("BRIG_RUN"));
    let own = root.as_deref().is_some_and(|r| r != Path::new(ROOT));
    let root = root.unwrap_or_else(|| ROOT.into());
    // An engine elsewhere keeps its run directory with it, unless told otherwise, so that two never meet.
    let run = run.unwrap_or_else(|| if own { root.join("run") } else { RUN.into() });
    let mut config = Config::new(root, run);
    if own {
        config.bridge = format!("brigx{:08x}", hash(config.root.as_os_str().as_encoded_bytes()));
    }
    if let Ok(text) = std::env::var("BRIG_SUBNET") {
        match subnet(&text) {
            Some(subnet) => config.subnet = Some(subnet),
            None => warn(&format!("BRIG_SUBNET={text} is not a subnet such as 10.90.0.0/16, and is ignored")),
        }
    }
    if let Some(layers) = layers {
        config.layers = layers;
    } else if let Ok(text) = std::env::var("BRIG_LAYERS") {
        match text.parse() {
            Ok(layers) => config.layers = layers,
            Err(_) if text.is_empty() => {}
            Err(_) => warn(&format!(
                "BRIG_LAYERS={text} is none of auto, directories, erofs and erofs+verity, and is ignored"
            )),
        }
    }
    // An installed brig has the small program beside it: it starts faster and stays smaller.
    if let Ok(own) = std::env::current_exe() {
        let small = own.with_file_name("brig-runtime");
        config.monitor_program =
            Some(if own.file_name().is_some_and(|n| n == "brig") && small.is_file() { small } else { own });
    }
    config
}

fn subnet(text: &str) -> Option<(std::net::Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (std::net::Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    if !(8..=29).contains(&prefix) {
        return None;
    }
    let mask = u32::MAX << (32 - u32::from(prefix));
    Some((std::net::Ipv4Addr::from_bits(address.to_bits() & mask), prefix))
}

/// FNV-1a, folded: names a bridge after its engine's root.
fn hash(bytes: &[u8]) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    u32::try_from((hash >> 32) ^ (hash & 0xffff_ffff)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_ascii_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn globals_stand_before_the_command() {
        let globals = globals(&words("brig --root /a --run=/b run --root x image")).unwrap();
        assert_eq!((globals.root, globals.run, globals.rest), (Some("/a".into()), Some("/b".into()), 4));
        assert!(super::globals(&words("brig --nonsense run")).is_err());
        assert!(super::globals(&words("brig --root")).is_err());
        assert!(super::globals(&words("brig -h")).unwrap().help);
    }

    #[test]
    fn the_whole_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn the_line_to_type_can_be_pasted() {
        let error = no_root(&["brig".into(), "run".into(), "a b".into(), "it's".into()]);
        assert_eq!(error.hint.unwrap(), r"type: sudo brig run 'a b' 'it'\''s'");
    }

    #[test]
    fn an_unknown_command_names_the_nearest() {
        assert!(unknown(&words("rnu x")).hint.unwrap().contains("`brig run`"));
        assert!(!unknown(&words("xyzzy")).hint.unwrap().contains("did you mean"));
    }

    #[test]
    fn subnets() {
        assert_eq!(subnet("10.1.2.3/16").unwrap().0.to_string(), "10.1.0.0");
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/31", "x/8"] {
            assert!(subnet(bad).is_none(), "{bad}");
        }
    }
}
