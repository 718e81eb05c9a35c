//! The program inside a measured container: static, and it does nothing.
//!
//! Without an argument it ends with 0, with a number it ends with that (which proves that it ran), and `idle` stays until
//! it is killed.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        None => ExitCode::SUCCESS,
        Some(word) if word == "idle" => loop {
            std::thread::park();
        },
        Some(word) => ExitCode::from(word.to_str().and_then(|w| w.parse().ok()).unwrap_or(125)),
    }
}
