//! Commit of a change of 10 MB in a container of the image of `pull`, until it lies on the disk.
//!
//! Each run commits other bytes than the one before, so that nobody has the layer already; afterwards the new image is mounted,
//! the file in it is compared with what was written, and the image is removed.

use super::docker::{self, Docker};
use super::measure::{self, Peer, plain, rounds};
use super::peers::{Engines, words};
use super::place::Place;
use super::pull::{self, Form};
use super::table::{self, Target};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::image::Image;
use testkit::registry::Registry;

/// What a container wrote, in bytes.
const CHANGE_BYTES: usize = 10_000_000;
/// The name of the container.
const CONTAINER: &str = "changed";
/// The name of one that is only looked into.
const LOOK: &str = "looked-into";
/// The name of what is made of it.
const COMMITTED: &str = "localhost/bench/committed:latest";

/// The command line of an engine, without what it shall do.
#[derive(Clone)]
struct Engine {
    title: String,
    command: Vec<String>,
    root: String,
    run: String,
}

impl Engine {
    fn brig(place: &Place, form: Form) -> Self {
        Self::new(form.title(), pull::brig(place, form, &[]), pull::homes(place, form.word()))
    }

    fn podman(place: &Place) -> Self {
        Self::new("podman commit", pull::podman(place, &[]), pull::homes(place, "podman"))
    }

    fn new(title: &str, command: Vec<String>, (root, run): (String, String)) -> Self {
        Self { title: title.to_owned(), command, root, run }
    }

    /// Docker, whose storage is the daemon's.
    fn docker(docker: &Docker) -> Self {
        Self::new("docker commit", words(&[&["docker"]]), (docker.root.clone(), String::new()))
    }

    fn is_docker(&self) -> bool {
        self.title.starts_with("docker")
    }

    fn command(&self, rest: &[&str]) -> Vec<String> {
        self.command.iter().cloned().chain(rest.iter().map(|word| (*word).to_owned())).collect()
    }

    fn does(&self, rest: &[&str]) -> Result<String> {
        plain(&self.command(rest))
    }

    /// Removes the container, if there is one, and all that the engine stored.
    fn end(&self) -> Result<()> {
        if self.is_docker() {
            let _ = self.does(&["rm", "--force", CONTAINER]);
            return docker::remove(COMMITTED);
        }
        if Path::new(&self.root).exists() {
            let _ = self.does(&["rm", "--force", CONTAINER]);
        }
        pull::clear(Path::new(&self.root), Path::new(&self.run))
    }
}

/// What the containers write.
struct Change {
    bytes: Vec<u8>,
    /// Which change it is.
    number: AtomicUsize,
    /// Where it lies on the machine.
    path: PathBuf,
}

impl Change {
    /// Puts bytes that were never there before into the container.
    fn write(&self, engine: &Engine) -> Result<()> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let mut bytes = self.bytes.clone();
        // Spread, so that no piece of it is that of another change.
        for place in bytes.chunks_mut(4096) {
            let mark = number.to_le_bytes();
            if let Some(start) = place.get_mut(..mark.len()) {
                start.copy_from_slice(&mark);
            }
        }
        std::fs::write(&self.path, bytes)?;
        let (path, to) = (self.path.display().to_string(), format!("{CONTAINER}:/change"));
        engine.does(&["cp", &path, &to])?;
        rustix::fs::sync();
        Ok(())
    }

    /// Whether the image has the file; removes the image then.
    fn check(&self, engine: &Engine) -> Result<()> {
        if engine.is_docker() {
            return self.check_docker(engine);
        }
        let at = engine.does(&["image", "mount", COMMITTED])?;
        let at = at.split_whitespace().find(|word| word.starts_with('/')).context("mounted nowhere")?;
        let found = std::fs::read(Path::new(at).join("change"));
        engine.does(&["image", "unmount", COMMITTED])?;
        if found.context("the image lacks the file")? != std::fs::read(&self.path)? {
            bail!("the file in the image is another one");
        }
        engine.does(&["rmi", COMMITTED]).map(drop)
    }

    /// Docker mounts no images: a container of it is looked into.
    fn check_docker(&self, engine: &Engine) -> Result<()> {
        let to = self.path.with_extension("found").display().to_string();
        engine.does(&["create", "--name", LOOK, COMMITTED, "/usr/bin/true"])?;
        let copied = engine.does(&["cp", &format!("{LOOK}:/change"), &to]);
        engine.does(&["rm", LOOK])?;
        copied.context("the image lacks the file")?;
        if std::fs::read(to)? != std::fs::read(&self.path)? {
            bail!("the file in the image is another one");
        }
        engine.does(&["rmi", COMMITTED]).map(drop)
    }
}

/// Commits by each engine in turn.
pub fn run(engines: &Engines, place: &Place, count: usize) -> Result<()> {
    let (image, sizes) = pull::image()?;
    let mut all = vec![Engine::brig(place, Form::Auto), Engine::brig(place, Form::Directories)];
    if engines.podman {
        all.push(Engine::podman(place));
    }
    let docker = Docker::find(engines, &image, "bench/files", "latest");
    all.extend(docker.as_ref().map(Engine::docker));
    let result = prepare(&all, &image, docker.as_ref()).and_then(|()| measured(&all, place, &sizes, count));
    // Whatever happened, nothing stays.
    let ended: Vec<Result<()>> = all.iter().map(Engine::end).collect();
    result?;
    ended.into_iter().collect()
}

fn measured(all: &[Engine], place: &Place, sizes: &str, count: usize) -> Result<()> {
    let mut bytes = pull::some_files(CHANGE_BYTES)?;
    bytes.truncate(CHANGE_BYTES);
    let change = Arc::new(Change { bytes, number: AtomicUsize::new(0), path: place.path("change") });
    let peers: Vec<Peer> = all.iter().map(|engine| peer(engine, &change)).collect();
    let result = rounds(&peers, None, count, 1)?;
    let title = format!("commit of {} MB on an image of {sizes}, and sync -f", CHANGE_BYTES / 1_000_000);
    table::print(&title, &result, None);
    measure::print_peaks(place, &peers)?;
    // The issue's own yardstick is podman; docker stands beside it.
    let podman = result.iter().find(|series| series.name.starts_with("podman"));
    for brig in result.iter().filter(|series| series.name.starts_with("brig")) {
        if let Some(podman) = podman {
            Target::at_least(&format!("{} against {}", podman.name, brig.name), pull::times(podman, brig), 10.0)
                .print();
        }
    }
    Ok(())
}

/// Gives each engine the image and a container of it.
fn prepare(all: &[Engine], image: &Image, docker: Option<&Docker>) -> Result<()> {
    let registry = Registry::start();
    registry.push(image, "bench/files", "latest");
    let here = format!("{}/bench/files:latest", registry.host());
    for engine in all {
        let name = docker.filter(|_| engine.is_docker()).map_or(&here, |docker| &docker.name);
        let podman = engine.title.starts_with("podman");
        let insecure: &[&str] = if podman { &["--tls-verify=false"] } else { &[] };
        engine.does(&[&["pull", "--quiet"], insecure, &[name]].concat())?;
        engine.does(&["create", "--name", CONTAINER, "--network", "none", name, "/usr/bin/true"])?;
    }
    Ok(())
}

fn peer(engine: &Engine, change: &Arc<Change>) -> Peer {
    // Docker's says no more than the id anyway.
    let quiet: &[&str] = if engine.is_docker() { &[] } else { &["--quiet"] };
    let commit = engine.command(&[&["commit"], quiet, &[CONTAINER, COMMITTED]].concat());
    let mut peer = Peer::new(&engine.title, pull::flushed(&engine.root, &commit), 0);
    peer.counts_cpu = !engine.is_docker();
    let (container, written) = (engine.clone(), Arc::clone(change));
    peer.before = Box::new(move || written.write(&container));
    let (image, expected) = (engine.clone(), Arc::clone(change));
    peer.after = Box::new(move || expected.check(&image));
    peer
}
