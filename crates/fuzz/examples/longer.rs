//! `longer [TARGET [SECONDS [SEED]]]`: runs one target, or all, for as long as is asked.

#[path = "../tests/seeds/mod.rs"]
mod seeds;

use fuzz::targets::ALL;
use std::process::ExitCode;
use std::time::Duration;

#[expect(clippy::print_stdout, reason = "it is a tool for people")]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, other: u64| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(other);
    let (seconds, seed) = (number(1, 60), number(2, u64::from(std::process::id())));
    let mut status = ExitCode::SUCCESS;
    for target in ALL.iter().filter(|target| words.first().is_none_or(|word| word == target.name || word == "all")) {
        match fuzz::run(target, seeds::of(target.name), Duration::from_secs(seconds), seed) {
            Ok(count) => println!("{}: {count} inputs, seed {seed}", target.name),
            Err((bytes, text)) => {
                let path = fuzz::corpus(target).join(format!("found-{seed}"));
                let written = std::fs::create_dir_all(fuzz::corpus(target)).and_then(|()| std::fs::write(&path, bytes));
                println!("{}: {text}\n  input in {} ({written:?})", target.name, path.display());
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}
