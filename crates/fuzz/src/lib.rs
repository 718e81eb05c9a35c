//! Bad input for whatever reads what strangers wrote: plain functions, each with a corpus, and a small mutator that drives them.
//!
//! ```text
//!   corpus/<target>/*  and seeds made in code  --> mutate --> target(bytes): panics if a promise is broken
//! ```
//!
//! The tests run each target for some seconds. Longer: `cargo run --release -p fuzz --example longer -- TARGET SECONDS [SEED]`; an input that
//! breaks a promise is written to `corpus/<target>/`, and from then on every test tries it first. Only tests use this.

pub mod mutate;
pub mod targets;

use mutate::Mutator;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use targets::Target;

/// The directory of a target's corpus.
pub fn corpus(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// What a target's corpus holds.
fn stored(target: &Target) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(corpus(target)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// Runs a target on its corpus, on seeds that were made, and then on mutations of both, for a time; returns how many inputs it got.
///
/// Errors: an input broke a promise; it is returned with what the target said.
pub fn run(target: &Target, made: Vec<Vec<u8>>, time: Duration, seed: u64) -> Result<u64, (Vec<u8>, String)> {
    let mut seeds = stored(target);
    seeds.extend(made);
    let mut count = 0;
    let mut attempt = |bytes: &[u8]| {
        count += 1;
        catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            (bytes.to_vec(), text.unwrap_or_default())
        })
    };
    for bytes in &seeds {
        attempt(bytes)?;
    }
    let mut mutator = Mutator::new(seed, target.is_tar);
    let start = Instant::now();
    while start.elapsed() < time {
        attempt(&mutator.next(&seeds))?;
    }
    Ok(count)
}
