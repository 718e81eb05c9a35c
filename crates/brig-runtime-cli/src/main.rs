//! `brig-runtime`: the lower floors alone. The monitor, when brig spawns it; the first process of a container, with
//! `--init`.
//!
//! Small, static, without threads or async. When it lies beside `brig`, every monitor runs from it.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a program of the top layer

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let status = match arguments.first().and_then(|a| a.to_str()) {
        Some(brig_monitor::spawn::ARGUMENT) => brig_monitor::entry::main(&arguments[1..]),
        Some(brig_runtime::reaper::ARGUMENT) => {
            let rest = &arguments[1..];
            brig_runtime::reaper::main(rest.strip_prefix(&["--".into()]).unwrap_or(rest))
        }
        Some("--version" | "-v" | "version") => {
            println!("brig-runtime {}", env!("CARGO_PKG_VERSION"));
            0
        }
        _ => {
            eprintln!(
                "error: brig-runtime is started by `brig`\nhint: `brig run` starts a container; `brig --help` lists the commands"
            );
            2
        }
    };
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}
