//! The program inside a measured container: static, and it does nothing.
//!
//! Without an argument it ends with 0, with a number it ends with that (which proves that it ran), with a word after the number
//! it says that word first, and `idle` stays until it is killed. It begins as brig-runtime does: what the C library does before
//! `main` is nothing that a container engine is to be measured by.

#![cfg_attr(not(test), no_main)] // `program!` has it

#[cfg(brig_musl)]
brig_sys::musl_bridge!();
brig_sys::program!(run);

fn run() -> i32 {
    match std::env::args_os().nth(1) {
        None => 0,
        Some(word) if word == "idle" => loop {
            std::thread::park();
        },
        Some(number) => {
            if let Some(word) = std::env::args_os().nth(2) {
                let _ = rustix::io::write(rustix::stdio::stdout(), word.as_encoded_bytes());
            }
            number.to_str().and_then(|n| n.parse().ok()).unwrap_or(125)
        }
    }
}
