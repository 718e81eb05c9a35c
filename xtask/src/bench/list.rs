//! The listing of a store with 1,000 images, beside a program that opens and reads as many small files.
//!
//! The images come in one archive: they share one small layer and differ in their configurations. The listing is measured
//! twice: of a store at rest, where something may be kept ready from one listing to the next, and right after a change, where
//! nothing of before counts.

use super::docker::docker;
use super::measure::{self, Peer, Series, plain, rounds};
use super::peers::{Engines, words};
use super::place::Place;
use super::pull::{self, Form};
use super::table::{self, Target};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::time::Duration;
use testkit::image::{Compression, Image, Layer};

const IMAGES: usize = 1000;
/// The size of each small file, in bytes: about that of an image's configuration.
const FILE_BYTES: usize = 1024;
/// How long nothing happens before a store counts as one at rest.
const REST: Duration = Duration::from_secs(2);
/// The name of what does the least.
const YARDSTICK: &str = "open and read of 1,000 files";
/// A name that comes and goes.
const PASSING: &str = "localhost/bench/passing:latest";

/// Lists in turn with the yardstick.
pub fn run(engines: &Engines, place: &Place, count: usize) -> Result<()> {
    let archive = place.path("many.tar");
    std::fs::write(&archive, archive_of_images()).context("cannot write the archive of images")?;
    let load = ["load", "--quiet", "--input", &archive.display().to_string()];
    plain(&pull::brig(place, Form::Directories, &load))?;
    if engines.docker {
        docker(&["load", "--quiet", "--input", &archive.display().to_string()])?;
    }
    std::fs::remove_file(&archive)?;
    std::thread::sleep(REST);
    let result = measured(engines, place, count);
    if engines.docker {
        let names: Vec<String> = (0..IMAGES).map(name).collect();
        let all: Vec<&str> = ["rmi", "--force"].into_iter().chain(names.iter().map(String::as_str)).collect();
        docker(&all)?;
    }
    let (root, run) = pull::homes(place, Form::Directories.word());
    pull::clear(Path::new(&root), Path::new(&run))?;
    result
}

fn measured(engines: &Engines, place: &Place, count: usize) -> Result<()> {
    for (title, brig) in
        [("in a store at rest", listing(place)?), ("right after a name came and went", after_a_change(place)?)]
    {
        let mut peers = vec![yardstick(place)?, brig];
        if engines.docker && title.ends_with("rest") {
            peers.push(docker_listing(place));
        }
        let result = rounds(&peers, None, count, 2)?;
        table::print(&format!("listing of {IMAGES} images {title}"), &result, None);
        measure::print_peaks(place, &peers)?;
        targets(title, &result);
    }
    Ok(())
}

/// Docker's listing, which is the daemon's work, so that its CPU time is not known. Images of one time come in any order.
fn docker_listing(place: &Place) -> Peer {
    let to = place.text("docker-images");
    let mut peer = Peer::new("docker images", words(&[&["sh", "-c", "exec docker images > \"$1\"", "sh", &to]]), 0);
    peer.counts_cpu = false;
    peer.after = Box::new(move || {
        let told = std::fs::read_to_string(&to)?;
        match (0..IMAGES).find(|number| !told.contains(&format!("localhost/bench/image{number} "))) {
            Some(missing) => bail!("docker does not list image {missing} of {IMAGES}"),
            None => Ok(()),
        }
    });
    peer
}

/// Makes one archive, as `docker save` writes it, of all images.
fn archive_of_images() -> Vec<u8> {
    let layer = Layer::new().file("hello", "hello").finish();
    let mut tar = Layer::new().file("layer.tar", &layer);
    let mut described = Vec::with_capacity(IMAGES);
    for number in 0..IMAGES {
        let process = format!(r#"{{"Env":["PATH=/bin","NUMBER={number}"],"Cmd":["hello"]}}"#);
        let image = Image::new(std::slice::from_ref(&layer), Compression::Plain, &process);
        let config = format!("{}.json", image.id().replace("sha256:", ""));
        tar = tar.file(&config, &image.config);
        described.push(format!(r#"{{"Config":"{config}","RepoTags":["{}"],"Layers":["layer.tar"]}}"#, name(number)));
    }
    tar.file("manifest.json", format!("[{}]", described.join(","))).finish()
}

fn name(number: usize) -> String {
    format!("localhost/bench/image{number}:latest")
}

/// The program that only reads.
fn yardstick(place: &Place) -> Result<Peer> {
    let directory = place.path("records");
    std::fs::create_dir_all(&directory)?;
    for number in 0..IMAGES {
        std::fs::write(directory.join(number.to_string()), vec![b'x'; FILE_BYTES])?;
    }
    let command = words(&[&[&place.text("bench-read"), &directory.display().to_string(), &IMAGES.to_string()]]);
    let mut peer = Peer::new(YARDSTICK, command, 0);
    peer.output = Some(format!("{}\n", IMAGES * FILE_BYTES).leak());
    Ok(peer)
}

/// The command as it is typed, which says the same each time.
fn listing(place: &Place) -> Result<Peer> {
    let command = pull::brig(place, Form::Directories, &["images"]);
    let told = plain(&command)?;
    let missing = (0..IMAGES).find(|number| !told.contains(&format!("localhost/bench/image{number} ")));
    if told.lines().count() != IMAGES + 1 || missing.is_some() {
        bail!("the listing is not one of {IMAGES} images: {} lines, {missing:?} is missing", told.lines().count());
    }
    let mut peer = Peer::new("brig", command, 0);
    peer.output = Some(told.leak());
    Ok(peer)
}

/// The same when something has changed since the listing before.
fn after_a_change(place: &Place) -> Result<Peer> {
    let mut peer = listing(place)?;
    let tag = pull::brig(place, Form::Directories, &["tag", &name(0), PASSING]);
    let untag = pull::brig(place, Form::Directories, &["untag", &name(0), PASSING]);
    peer.before = Box::new(move || plain(&tag).and_then(|_| plain(&untag)).map(drop));
    Ok(peer)
}

/// Says what was wanted, and what came out.
fn targets(when: &str, all: &[Series]) {
    let Some(least) = all.iter().find(|series| series.name == YARDSTICK) else { return };
    for brig in all.iter().filter(|series| series.name.starts_with("brig")) {
        let times = table::ratio(brig.of(|s| s.cpu).0, least.of(|s| s.cpu).0);
        Target::at_most(&format!("CPU of brig images against {YARDSTICK}, {when}"), times, 1.3).print();
    }
}
