//! The program `brig`: the command line, the monitor that each container gets, and the first process of `--init`.
//!
//! One file does all three. The first argument decides before anything else happens: a monitor or an init has no thread, and
//! touches nothing of the command line.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match arguments.get(1).and_then(|word| word.to_str()) {
        Some(brig_monitor::spawn::ARGUMENT) => exit(brig_monitor::entry::main(&arguments[2..])),
        Some(brig_runtime::reaper::ARGUMENT) => {
            let rest = &arguments[2..];
            exit(brig_runtime::reaper::main(rest.strip_prefix(&[OsString::from("--")]).unwrap_or(rest)))
        }
        _ => ExitCode::from(brig::run(&arguments)),
    }
}

fn exit(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(125))
}
