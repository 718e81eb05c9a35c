//! The program inside a measured container: static, and it does nothing.
//!
//! Without an argument it ends with 0, with a number it ends with that (which proves that it ran), with a word after the number
//! it says that word first, and `idle` stays until it is killed. It has neither a heap nor the Rust library's start: a container
//! engine is not to be measured by what its program does.

#![cfg_attr(not(test), no_main)] // `bare_program!` has it

use std::ffi::CStr;

#[cfg(brig_musl)]
brig_sys::musl_bridge!();
brig_sys::bare_program!(run);

fn run(first: Option<&'static CStr>, second: Option<&'static CStr>) -> i32 {
    let Some(first) = first.map(CStr::to_bytes) else { return 0 };
    if first == b"idle" {
        loop {
            std::thread::park();
        }
    }
    if let Some(word) = second {
        let _ = rustix::io::write(rustix::stdio::stdout(), word.to_bytes());
    }
    std::str::from_utf8(first).ok().and_then(|number| number.parse::<u8>().ok()).map_or(125, i32::from)
}
