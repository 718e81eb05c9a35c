//! Every target on its corpus, and for a short time on what comes of it.
//!
//! Place: the machine itself, as root.

mod seeds;

use fuzz::targets::ALL;
use std::time::Duration;

#[test]
fn no_input_breaks_a_promise() {
    for target in &ALL {
        match fuzz::run(target, seeds::of(target.name), Duration::from_secs(2), 7) {
            Ok(count) => {
                println!("{}: {count} inputs", target.name);
                assert!(count > 20, "{}: only {count} inputs", target.name);
            }
            Err((bytes, text)) => panic!("{}: {text}\n{}", target.name, String::from_utf8_lossy(&bytes).escape_debug()),
        }
    }
}
