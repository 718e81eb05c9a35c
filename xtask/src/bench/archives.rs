//! Save, load, export and import of the image of `pull`, beside podman; and how much memory each holds at most.
//!
//! ```text
//!   image ──save──> saved.tar ──load──> image (in an empty storage)
//!   container ──export──> exported.tar ──import──> image of one layer
//! ```
//!
//! What came out is looked at each time: the archive's list, and one file in the image that was made.

use super::measure::{PEAK_MAX, Peer, Series, peak, plain, rounds};
use super::peers::{Engines, words};
use super::place::Place;
use super::pull::{self, Form};
use super::table::{self, Target};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use testkit::registry::Registry;

/// The name of the image in every storage.
const IMAGE: &str = "localhost/bench/archived:latest";
/// What is imported is called so.
const IMPORTED: &str = "localhost/bench/imported:latest";
const CONTAINER: &str = "exported";

/// One engine and its storage.
#[derive(Clone)]
struct Engine {
    title: &'static str,
    command: Vec<String>,
    root: PathBuf,
    run: PathBuf,
    /// Where it writes.
    saved: String,
    exported: String,
}

/// What is expected of every archive and every image.
#[derive(Clone)]
struct Expected {
    /// The image's id, without the algorithm.
    id: String,
    /// A file of the image, and its bytes.
    file: String,
    bytes: Vec<u8>,
    /// The files of all layers.
    files: usize,
}

impl Engine {
    fn new(title: &'static str, command: Vec<String>, (root, run): (String, String), place: &Place) -> Self {
        let of = |what: &str| place.text(&format!("{what}-{}.tar", title.replace(' ', "-")));
        Self { title, command, root: root.into(), run: run.into(), saved: of("saved"), exported: of("exported") }
    }

    fn command(&self, rest: &[&str]) -> Vec<String> {
        self.command.iter().cloned().chain(rest.iter().map(|word| (*word).to_owned())).collect()
    }

    fn does(&self, rest: &[&str]) -> Result<String> {
        plain(&self.command(rest))
    }

    fn clear(&self) -> Result<()> {
        pull::clear(&self.root, &self.run)?;
        // What was written before is not to be paid for by the next one.
        rustix::fs::sync();
        Ok(())
    }

    /// A timed verb; `flushed` is what it writes to.
    fn peer(&self, verb: &[&str], flushed: &Path) -> Peer {
        Peer::new(self.title, pull::flushed(&flushed.display().to_string(), &self.command(verb)), 0)
    }

    /// Whether an image is there and has the file; all is removed then.
    fn check(&self, name: &str, expected: &Expected) -> Result<()> {
        let at = self.does(&["image", "mount", name])?;
        let at = at.split_whitespace().find(|word| word.starts_with('/')).context("mounted nowhere")?;
        let found = std::fs::read(Path::new(at).join(&expected.file));
        self.does(&["image", "unmount", name])?;
        if found.context("the image lacks a file")? != expected.bytes {
            bail!("{} is another file in the image", expected.file);
        }
        Ok(())
    }
}

/// Whether an archive has a file with such a name, and so many files at least; removes it.
fn check_archive(path: &str, file: &str, entries: usize) -> Result<()> {
    let list = plain(&words(&[&["tar", "--list", "--file", path]]))?;
    let count = list.lines().filter(|name| !name.ends_with('/')).count();
    if count < entries || !list.lines().any(|name| name.contains(file)) {
        bail!("{path} is not whole: {count} files, and is {file} there?");
    }
    std::fs::remove_file(path).context("cannot remove an archive")
}

/// Archives by each engine in turn.
pub fn run(engines: &Engines, place: &Place, count: usize) -> Result<()> {
    let brig =
        |form: Form| Engine::new(form.title(), pull::brig(place, form, &[]), pull::homes(place, form.word()), place);
    let mut all = vec![brig(Form::Auto), brig(Form::Directories)];
    if engines.podman {
        all.push(Engine::new("podman", pull::podman(place, &[]), pull::homes(place, "podman"), place));
    }
    let result = measured(&all, place, count);
    // Whatever happened, nothing stays.
    for engine in &all {
        if engine.root.exists() {
            let _ = engine.does(&["rm", "--force", CONTAINER]);
        }
        engine.clear()?;
    }
    result
}

fn measured(all: &[Engine], place: &Place, count: usize) -> Result<()> {
    let (expected, sizes) = prepare(all)?;
    let whole = place.path("");
    let save = |engine: &Engine| {
        let mut peer = engine.peer(&["save", "--output", &engine.saved, IMAGE], &whole);
        // All name the configuration by the image's id, with a directory before it or an ending, and a layer is one file.
        let (path, id) = (engine.saved.clone(), expected.id.clone());
        peer.after = Box::new(move || check_archive(&path, &id, pull::LAYERS + 2));
        peer
    };
    case(all, place, count, &format!("save of {sizes}, and sync -f"), &save)?;
    let export = |engine: &Engine| {
        let mut peer = engine.peer(&["export", "--output", &engine.exported, CONTAINER], &whole);
        let (path, expected) = (engine.exported.clone(), expected.clone());
        peer.after = Box::new(move || check_archive(&path, &expected.file, expected.files));
        peer
    };
    case(all, place, count, &format!("export of a container of {sizes}, and sync -f"), &export)?;
    // What one has written, all read: one archive for everybody.
    let (saved, exported) = (place.text("saved.tar"), place.text("exported.tar"));
    all[0].does(&["save", "--output", &saved, IMAGE])?;
    all[0].does(&["export", "--output", &exported, CONTAINER])?;
    for engine in all {
        engine.does(&["rm", "--force", CONTAINER])?;
    }
    for (title, verb, name) in [
        ("load", &["load", "--quiet", "--input", &saved][..], IMAGE),
        ("import", &["import", &exported, IMPORTED][..], IMPORTED),
    ] {
        let peer = |engine: &Engine| {
            let mut peer = engine.peer(verb, &whole);
            let (before, after, expected) = (engine.clone(), engine.clone(), expected.clone());
            peer.before = Box::new(move || before.clear());
            peer.after = Box::new(move || after.check(name, &expected));
            peer
        };
        case(all, place, count, &format!("{title} of {sizes} into an empty storage, and sync -f"), &peer)?;
    }
    std::fs::remove_file(saved)?;
    std::fs::remove_file(exported)?;
    Ok(())
}

/// Measures one verb of all, and what memory it takes.
fn case(all: &[Engine], place: &Place, count: usize, title: &str, peer: &dyn Fn(&Engine) -> Peer) -> Result<()> {
    let peers: Vec<Peer> = all.iter().map(peer).collect();
    let result: Vec<Series> = rounds(&peers, None, count, 1)?;
    table::print(title, &result, None);
    let verb = title.split(' ').next().unwrap_or_default();
    for peer in &peers {
        let held = peak(place, peer)?;
        let what = format!("peak memory of {} {verb}, MiB", peer.name);
        if peer.name.starts_with("brig") {
            Target::at_most(&what, held, PEAK_MAX).print();
        } else {
            println!("{what}: {held:.2}");
        }
    }
    Ok(())
}

/// Gives each engine the image and a container of it; says what is in it, and how large it is, in words.
fn prepare(all: &[Engine]) -> Result<(Expected, String)> {
    let (image, sizes) = pull::image()?;
    let registry = Registry::start();
    registry.push(&image, "bench/files", "latest");
    let name = format!("{}/bench/files:latest", registry.host());
    for engine in all {
        let insecure: &[&str] = if engine.title == "podman" { &["--tls-verify=false"] } else { &[] };
        engine.does(&[&["pull", "--quiet"], insecure, &[&name]].concat())?;
        engine.does(&["tag", &name, IMAGE])?;
        engine.does(&["create", "--name", CONTAINER, "--network", "none", IMAGE, "/usr/bin/true"])?;
    }
    let at = all[0].does(&["image", "mount", IMAGE])?;
    let found = first_file(Path::new(at.trim()));
    all[0].does(&["image", "unmount", IMAGE])?;
    let (file, bytes, files) = found?;
    let id = image.id().trim_start_matches("sha256:").to_owned();
    Ok((Expected { id, file, bytes, files }, sizes))
}

/// The first file of a tree by name, its bytes, and how many there are.
fn first_file(root: &Path) -> Result<(String, Vec<u8>, usize)> {
    let list = plain(&words(&[&["find", &root.display().to_string(), "-type", "f"]]))?;
    let first = list.lines().min().context("the image is empty")?;
    let name = Path::new(first).strip_prefix(root)?.display().to_string();
    Ok((name, std::fs::read(first)?, list.lines().count()))
}
