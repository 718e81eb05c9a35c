//! The program inside a measured container: static, and it does nothing.
//!
//! Without an argument it ends with 0, with a number it ends with that (which proves that it ran), with a word after the number
//! it says that word first, and `idle` stays until it is killed.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        None => ExitCode::SUCCESS,
        Some(word) if word == "idle" => loop {
            std::thread::park();
        },
        Some(number) => {
            if let Some(word) = std::env::args_os().nth(2) {
                let _ = rustix::io::write(rustix::stdio::stdout(), word.as_encoded_bytes());
            }
            ExitCode::from(number.to_str().and_then(|n| n.parse().ok()).unwrap_or(125))
        }
    }
}
