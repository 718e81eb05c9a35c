//! What a listing costs at least: `bench-read DIRECTORY COUNT` opens and reads the files `0` to `COUNT - 1` of a directory, each
//! in one go, and says how many bytes they were.
//!
//! It is the yardstick for a command that lists so many records: as static as that, and without anything to decode.

#![allow(clippy::print_stderr)] // a program that the bench starts

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags};
use std::process::ExitCode;

/// A file larger than this is none of the small ones, in bytes.
const SMALL: usize = 4096;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-read: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut words = std::env::args_os().skip(1);
    let directory = words.next().context("no directory")?;
    let count = words.next().context("no count")?;
    let count: usize = count.to_str().context("the count is no number")?.parse()?;
    let directory = rustix::fs::openat(CWD, &directory, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open {}", directory.display()))?;
    let mut piece = [0; SMALL];
    let mut bytes = 0;
    for number in 0..count {
        let file = rustix::fs::openat(&directory, number.to_string(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("cannot open file {number}"))?;
        let length = rustix::io::read(&file, &mut piece).with_context(|| format!("cannot read file {number}"))?;
        if length == SMALL {
            bail!("file {number} is larger than {SMALL} bytes");
        }
        bytes += length;
    }
    rustix::io::write(rustix::stdio::stdout(), format!("{bytes}\n").as_bytes()).context("cannot write")?;
    Ok(())
}
