//! Images of unusual shapes, 120 layers and 200,000 small files: pulled and removed.

use super::docker::Docker;
use super::measure::{Peer, Series, plain, rounds};
use super::peers::{Engines, words};
use super::place::Place;
use super::pull::{self, Form};
use super::table::{self, Target};
use anyhow::{Context, Result};
use std::path::Path;
use testkit::image::{Compression, Image, Layer};
use testkit::registry::Registry;

const LAYERS: usize = 120;
const FILES: usize = 200_000;
/// Files of one directory.
const SIBLINGS: usize = 500;

/// An image of many small layers.
pub fn layers(engines: &Engines, place: &Place, count: usize) -> Result<()> {
    let layer = |n: usize| {
        let directory = Layer::new().directory(&format!("layer{n}"), 0o755);
        let files = (0..20).fold(directory, |layer, file| {
            layer.file(&format!("layer{n}/file{file}"), format!("{n} {file} ").repeat(100 + file * 13))
        });
        files.finish()
    };
    let image = Image::new(&(0..LAYERS).map(layer).collect::<Vec<_>>(), Compression::Gzip, "{}");
    shape(engines, place, "layers", &format!("an image of {LAYERS} small layers"), &image, count)
}

/// An image of many small files.
pub fn files(engines: &Engines, place: &Place, count: usize) -> Result<()> {
    let mut layer = Layer::new();
    for file in 0..FILES {
        if file % SIBLINGS == 0 {
            layer = layer.directory(&format!("d{}", file / SIBLINGS), 0o755);
        }
        let text = format!("{file} ").repeat(20 + file * 37 % 200);
        layer = layer.file(&format!("d{}/file-{:04}.txt", file / SIBLINGS, file % SIBLINGS), text);
    }
    let image = Image::new(&[layer.finish()], Compression::Gzip, "{}");
    shape(engines, place, "small", &format!("an image of {FILES} small files"), &image, count)
}

fn shape(engines: &Engines, place: &Place, tag: &str, title: &str, image: &Image, count: usize) -> Result<()> {
    let registry = Registry::start();
    registry.push(image, "bench/shape", tag);
    let name = format!("{}/bench/shape:{tag}", registry.host());
    let aside = place.path(pull::ASIDE);
    std::fs::create_dir(&aside)?;
    let docker = Docker::find(engines, image, "bench/shape", tag);
    let peers = pull::peers(engines, place, &name, true, true);
    let pulls = docker.as_ref().map(|docker| docker.pull("docker pull, and sync -f", true));
    let peers: Vec<Peer> = peers.into_iter().chain(pulls).collect();
    let pulled = rounds(&peers, None, count, 0)?;
    table::print(&format!("pull of {title}, and sync -f"), &pulled, None);
    against_others(&pulled, 3.0);
    // Docker removes by another command, and who unpacks with umoci by rm alone.
    let own = peers.into_iter().filter(|peer| !peer.name.starts_with("docker") && !peer.name.starts_with("skopeo"));
    let removals = docker.as_ref().map(|docker| docker.removal("docker rmi, and sync -f"));
    let removers: Vec<Peer> = own.map(|peer| remover(place, peer, &name)).chain(removals).collect();
    let removed = rounds(&removers, None, count, 0)?;
    table::print(&format!("removal of {title}, and sync -f"), &removed, None);
    against_others(&removed, 5.0);
    for form in [Form::Directories, Form::Auto] {
        println!("layers of brig as {}: {} KiB on the disk", form.word(), on_disk(place, form, &name)?);
    }
    std::fs::remove_dir_all(&aside)?;
    Ok(())
}

/// Says how many times faster each brig is than the fastest of the others.
fn against_others(all: &[Series], wanted: f64) {
    for brig in all.iter().filter(|series| series.name.starts_with("brig")) {
        if let Some(other) = pull::fastest_other(all.iter()) {
            Target::at_least(&format!("{} against {}", other.name, brig.name), pull::times(other, brig), wanted)
                .print();
        }
    }
}

/// Turns a pull into the removal of what it brought.
fn remover(place: &Place, pull: Peer, name: &str) -> Peer {
    let form = Form::of(&pull.name);
    let (root, _) = pull::homes(place, form.map_or("podman", Form::word));
    let remove = match form {
        Some(form) => pull::brig(place, form, &["rmi", name]),
        None => pull::podman(place, &["rmi", name]),
    };
    let mut peer = Peer::new(&pull.name.replace(" pull", " rmi"), pull::flushed(&root, &remove), 0);
    peer.before = Box::new(move || {
        (pull.before)()?;
        plain(&pull.command).map(drop)
    });
    peer
}

/// Pulls once more, and counts the blocks below `layers`.
fn on_disk(place: &Place, form: Form, name: &str) -> Result<u64> {
    let (root, run) = pull::homes(place, form.word());
    pull::clear(Path::new(&root), Path::new(&run))?;
    plain(&pull::brig(place, form, &["pull", "--quiet", name]))?;
    let told = plain(&words(&[&["du", "-s", "--block-size=1024", &format!("{root}/layers")]]))?;
    pull::clear(Path::new(&root), Path::new(&run))?;
    told.split_whitespace().next().and_then(|size| size.parse().ok()).context("du tells no size")
}
