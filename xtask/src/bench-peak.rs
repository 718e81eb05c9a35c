//! How much memory a command held at most: `bench-peak FILE COMMAND...` writes the KiB to the file and ends as the command did.
//!
//! Small and static: a process that is started takes over the peak of its starter.

#![allow(clippy::print_stderr)] // a program that the bench starts

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    run().map_or_else(
        |error| {
            eprintln!("bench-peak: {error:#}");
            ExitCode::from(125)
        },
        ExitCode::from,
    )
}

fn run() -> Result<u8> {
    let mut words = std::env::args_os().skip(1);
    let file = words.next().context("no file")?;
    let program = words.next().context("no command")?;
    let status = Command::new(&program).args(words).status().context("cannot start the command")?;
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    std::fs::write(&file, peak.to_string()).context("cannot write the peak")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}
