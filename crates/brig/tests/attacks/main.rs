//! Attacks on the machine from inside a container and from an image, each as its class has been seen in other engines.
//! Everything is tried through the program; a racer is a thread that does on a volume's files what a container with that
//! volume could do.

#![allow(clippy::unwrap_used)] // tests

mod confinement;
mod copies;
mod cost;
mod images;
mod mounts;
mod program;
#[path = "../support/mod.rs"]
mod support;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::Engine;
use testkit::image::{Compression, Image, Layer, busybox_layer};

/// The least time for which a race is run.
const RACE: Duration = Duration::from_secs(4);

/// Runs `racer` again and again beside `attack`.
fn race(mut racer: impl FnMut() + Send, attack: impl FnOnce()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                racer();
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attack));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Calls `round` for as long as a race lasts, and on a slow machine until it was often enough.
fn rounds(mut round: impl FnMut(u32)) {
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < RACE || count < 20 {
        round(count);
        count += 1;
    }
}

fn exchange(a: &Path, b: &Path) {
    let _ = renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
}

/// A directory outside of every container, with a secret in it.
fn outside(engine: &Engine) -> PathBuf {
    let outside = engine.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "of the machine").unwrap();
    std::fs::set_permissions(outside.join("secret"), PermissionsExt::from_mode(0o600)).unwrap();
    outside
}

/// Nothing in it has been read, changed or added.
#[track_caller]
fn untouched(outside: &Path) {
    let names: Vec<_> = std::fs::read_dir(outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["secret"]);
    let secret = outside.join("secret");
    assert_eq!(std::fs::metadata(&secret).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::read_to_string(secret).unwrap(), "of the machine");
}

/// Where a volume's files are on the machine.
fn volume(engine: &Engine, name: &str) -> PathBuf {
    engine.brig(&["volume", "create", name]).ok();
    engine.path(&format!("root/volumes/{name}/_data"))
}

/// Adds an image of busybox, a further layer and a configuration.
fn image(engine: &Engine, name: &str, layer: Layer, process: &str) {
    let layers = [busybox_layer(&["sh", "cat", "echo", "ls", "id", "env", "head", "mount"]), layer.finish()];
    let directory = engine.path(&format!("layout-{name}"));
    Image::new(&layers, Compression::Gzip, process).write_layout(&directory, "latest");
    let source = format!("oci:{}", directory.display());
    let id = engine.brig(&["pull", "-q", &source]).ok();
    engine.brig(&["tag", &id, name]).ok();
}

/// Runs perl, which every Debian has, in a container of the machine's own files.
fn perl(engine: &Engine, flags: &[&str], script: &str) -> support::Output {
    engine.brig(&[&["run", "--rm", "--network", "none"], flags, &["host:", "perl", "-e", script]].concat())
}

/// Starts a command whose output is read.
fn piped(mut command: std::process::Command) -> std::process::Child {
    use std::process::Stdio;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}
