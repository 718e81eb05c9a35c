//! `cargo xtask bench`: brig beside the kernel alone and beside its peers, interleaved in one run.
//!
//! ```text
//!   config of one container of brig ──┬─> recipe of bench-bare   the kernel alone, with plain root and with overlay
//!                                     └─> bundle of runc, crun   the same namespaces, mounts, masks, filter, devices
//!   one image ──> brig, podman, docker
//! ```
//!
//! The clock of a timed command stops when nothing of it is left: its process and all that it started have ended and
//! were reaped here (this process is their subreaper), its record, directory and interfaces are gone. It is looked for again
//! and again, and the look that finds nothing counts from when it began. Their CPU time is what the kernel accounted to all of
//! them together. Every exit status and output is checked. A peer that is not there is named as missing. Figures are medians;
//! the least value stands beside them.

mod archives;
mod cache;
mod commit;
mod docker;
mod images;
mod list;
mod measure;
mod memory;
mod peers;
mod place;
mod pull;
mod push;
mod recipe;
mod runtime;
mod table;

use anyhow::{Result, bail};
use measure::Peer;
use place::Place;
use std::path::Path;

const HELP: &str = "\
cargo xtask bench [--count N] [--pulls N] [--only CASE[,CASE]] [--cold] [--keep] [--no-build]

  --count N    runs of each command (30)
  --pulls N    pulls, pushes and commits by each engine (5)
  --only ...   of: none, bridge, exec, memory, pull, push, commit, archives, images, layers, files, cache, runtime (all)
  --cold       measure each command after a pause, and not as in a row of starts (see below)
  --keep       leave the recipe, the bundle and the strace of the kernel alone in target/bench
  --no-build   take target/release as it is

  push         the image of `pull` to an empty registry, beside `skopeo copy` from an OCI layout, podman and docker
  commit       10 MB written in a container of that image, beside podman and docker, flushing included
  archives     save, load, export and import of that image, beside podman, and the memory that each takes
  images       the listing of 1,000 images, beside a program that opens and reads 1,000 small files

Needs root. Peers that are measured when they are installed: runc, crun, podman, docker (with a dockerd that answers; DOCKER_HOST).
On cgroup v1 the kernel makes a start after a pause wait some 10 ms, whoever starts; a start that follows another closely
does not wait. Without --cold, the kernel alone moves a process between such groups right before each measured command.
";

/// What the command line asks for.
#[derive(Debug)]
struct Options {
    count: usize,
    pulls: usize,
    only: Vec<String>,
    cold: bool,
    keep: bool,
    build: bool,
}

const CASES: [&str; 13] = [
    "none", "bridge", "exec", "memory", "pull", "push", "commit", "archives", "images", "layers", "files", "cache",
    "runtime",
];

impl Options {
    fn parse(words: &[&str]) -> Result<Option<Self>> {
        let mut options = Self { count: 30, pulls: 5, only: Vec::new(), cold: false, keep: false, build: true };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().copied().ok_or_else(|| anyhow::anyhow!("`{word}` needs a value"));
            match *word {
                "--count" => options.count = value()?.parse()?,
                "--pulls" => options.pulls = value()?.parse()?,
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--cold" => options.cold = true,
                "--keep" => options.keep = true,
                "--no-build" => options.build = false,
                "--help" | "-h" => return Ok(None),
                _ => bail!("`{word}` is not an option; see `cargo xtask bench --help`"),
            }
        }
        if let Some(unknown) = options.only.iter().find(|c| !CASES.contains(&c.as_str())) {
            bail!("`{unknown}` is no case; there are {}", CASES.join(", "));
        }
        if options.count == 0 || options.pulls == 0 {
            bail!("a median of nothing is nothing: give a count of at least 1");
        }
        Ok(Some(options))
    }

    fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|c| c == case)
    }

    /// Whether anything is measured beside the runtime by itself.
    fn wants_engine(&self) -> bool {
        CASES.iter().any(|case| *case != "runtime" && self.wants(case))
    }
}

/// Runs the cases that the words ask for. Errors: no root, a failed build, or a timed command that did not do its work.
pub fn run(root: &Path, words: &[&str]) -> Result<()> {
    let Some(options) = Options::parse(words)? else {
        print!("{HELP}");
        return Ok(());
    };
    let place = Place::make(root, options.keep, options.build, options.wants_engine())?;
    println!("{}", Place::describe());
    // Whatever happened, the machine is left as it was found.
    let result = cases(&options, &place);
    peers::remove_containers(&place);
    runtime::remove_containers(&place);
    recipe::remove_parents()?;
    place.close()?;
    if let Some(reason) = result? {
        bail!("this run is void: {reason}");
    }
    Ok(())
}

/// Measures; returns why the figures cannot be trusted, if so.
fn cases(options: &Options, place: &Place) -> Result<Option<String>> {
    let mut void = None;
    if options.wants_engine() {
        void = engine_cases(options, place)?;
    }
    if options.wants("runtime") {
        void = void.or(runtime::run(place, options.count, options.cold)?);
    }
    Ok(void)
}

fn engine_cases(options: &Options, place: &Place) -> Result<Option<String>> {
    let engines = peers::Engines::prepare(place)?;
    for missing in &engines.missing {
        println!("missing: {missing}");
    }
    let warm = (!options.cold).then(|| peers::Engines::warm(place));
    let in_turn = |peers: &[Peer]| measure::interleaved(peers, warm.as_ref(), options.count);
    let mut void = None;
    if options.wants("none") {
        let result = in_turn(&engines.run_none(place))?;
        let title = "run --rm of a static no-op, without a network (runc, crun and `plain` have no overlay)";
        table::print(title, &result, Some("kernel alone"));
        void = table::void(&result, options.cold);
    }
    if options.wants("bridge") {
        let peers = engines.run_bridge(place)?;
        table::print("run --rm of a static no-op, default bridge", &in_turn(&peers)?, None);
    }
    if options.wants("exec") {
        let (peers, running) = engines.exec(place)?;
        let result = in_turn(&peers);
        running.end()?;
        table::print("exec of a static no-op in a running container", &result?, None);
    }
    if options.wants("memory") {
        memory::run(&engines, place)?;
    }
    if options.wants("pull") {
        pull::run(&engines, place, options.pulls)?;
    }
    if options.wants("push") {
        push::run(&engines, place, options.pulls)?;
    }
    if options.wants("commit") {
        commit::run(&engines, place, options.pulls)?;
    }
    if options.wants("archives") {
        archives::run(&engines, place, options.pulls)?;
    }
    if options.wants("images") {
        list::run(&engines, place, options.count)?;
    }
    if options.wants("layers") {
        images::layers(&engines, place, options.pulls)?;
    }
    if options.wants("files") {
        images::files(&engines, place, options.pulls.min(3))?;
    }
    if options.wants("cache") {
        cache::run(place, options.pulls)?;
    }
    Ok(void)
}

/// A peer by name and command, for tables and messages.
pub(crate) fn named(peers: &[Peer]) -> String {
    peers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ")
}
