//! Man pages and shell completions, made from the command line that `brig` itself parses.
//!
//! ```text
//! DIR/man1/brig.1, brig-run.1, brig-image-inspect.1 ...
//! DIR/completions/brig.bash, _brig, brig.fish
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)] // a program that people start

use anyhow::{Context, Result};
use clap_complete::Shell;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("error: no directory to write to\nhint: cargo xtask man DIR");
        return ExitCode::FAILURE;
    };
    match write(Path::new(&directory)) {
        Ok(count) => {
            println!("{count} files in {}", Path::new(&directory).display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Drops the commands `help`, of which each page would only repeat another.
fn without_help(command: clap::Command) -> clap::Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

fn write(directory: &Path) -> Result<usize> {
    let (pages, completions) = (directory.join("man1"), directory.join("completions"));
    for directory in [&pages, &completions] {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let mut command = without_help(brig::command()).name("brig").version(env!("CARGO_PKG_VERSION"));
    command.build();
    clap_mangen::generate_to(command.clone(), &pages).context("cannot write the man pages")?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "brig", &completions)
            .with_context(|| format!("cannot write the completions for {shell}"))?;
    }
    Ok(std::fs::read_dir(pages)?.count() + std::fs::read_dir(completions)?.count())
}
