//! `brig-runtime`: the lower floors alone. The OCI command line, a drop-in for runc; the monitor, when brig spawns it; the first
//! process of a container, with `--init`.
//!
//! Small, static, without threads or async. When it lies beside `brig`, every monitor runs from it.

#![cfg_attr(not(test), no_main)] // `program!` has it
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program of the top layer

mod arguments;
mod commands;
mod container;
mod criu;
mod failure;
mod foreground;
mod global;
mod log;
mod make;
mod protect;
mod sockets;
mod teardown;

use std::ffi::OsString;
/// The version of the runtime specification that this program follows.
const SPEC_VERSION: &str = "1.3.0";

#[cfg(brig_musl)]
brig_sys::musl_bridge!();
brig_sys::program!(run);

fn run() -> i32 {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.first().and_then(|a| a.to_str()) {
        Some(brig_monitor::spawn::ARGUMENT) => brig_monitor::entry::main(&arguments[1..]),
        Some(brig_runtime::reaper::ARGUMENT) => {
            let rest = &arguments[1..];
            brig_runtime::reaper::main(rest.strip_prefix(&["--".into()]).unwrap_or(rest))
        }
        _ => oci(arguments),
    }
}

/// The name by which this program was called: it may be installed under another runtime's.
fn own_name() -> String {
    let first = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&first).file_name().map(|name| name.to_string_lossy().into_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "brig-runtime".into())
}

fn oci(arguments: Vec<OsString>) -> i32 {
    let words: Result<Vec<String>, _> = arguments.into_iter().map(OsString::into_string).collect();
    match words {
        Ok(words) => commands::main(&words).into(),
        Err(word) => {
            eprintln!("the argument {} is not UTF-8", word.display());
            1
        }
    }
}
