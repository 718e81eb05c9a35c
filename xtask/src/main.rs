//! The project's own tools: `cargo xtask tidy`, `cargo xtask man DIR`, `cargo xtask bench`.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a program that people start

mod bench;
mod tidy;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
cargo xtask tidy          checks layers, dependencies and source files against the rules of the house
cargo xtask man DIR       writes man pages and shell completions, made from the command line of brig
cargo xtask bench [...]   measures brig beside its peers; `cargo xtask bench --help` tells more
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["tidy"] => tidy::run(&root()),
        ["man", directory] => documents(directory),
        ["bench", rest @ ..] => bench::run(&root(), rest),
        _ => {
            print!("{HELP}");
            return ExitCode::from(u8::from(!matches!(words.as_slice(), ["help" | "--help" | "-h"])));
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Builds and runs the program that knows the command line of brig.
fn documents(directory: &str) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments =
        ["run", "--quiet", "--package", "xtask", "--features", "documents", "--bin", "xtask-documents", "--"];
    let status = Command::new(cargo).args(arguments).arg(directory).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("no man pages were written");
    }
    Ok(())
}
