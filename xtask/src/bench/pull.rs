//! Pull and unpack of an image of about 300 MB in 6 gzip layers, from Debian's registry on loopback.

use super::docker::Docker;
use super::measure::{Peer, interleaved};
use super::peers::{Engines, words};
use super::place::Place;
use super::table;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use testkit::image::{Compression, Image, Layer, Meta};
use testkit::registry::Registry;

const LAYERS: usize = 6;
const LAYER_BYTES: usize = 50_000_000;
/// A file larger than this would be a layer of its own.
const FILE_MAX: u64 = 8_000_000;

/// Pulls by each engine in turn, into a new storage each time.
pub fn run(engines: &Engines, place: &Place, count: usize) -> Result<()> {
    eprintln!("making an image of this machine's files");
    let layers = layers()?;
    let size: usize = layers.iter().map(Vec::len).sum();
    let image = Image::new(&layers, Compression::Gzip, "{}");
    drop(layers);
    let compressed: usize = image.layers.iter().map(Vec::len).sum();
    let registry = Registry::start();
    registry.push(&image, "bench/files", "latest");
    let docker = engines.docker.then(|| Docker::reach(&image)).transpose().unwrap_or_else(|error| {
        println!("docker is not asked to pull: {error:#}");
        None
    });
    drop(image);
    let name = format!("{}/bench/files:latest", registry.host());
    let mut peers = Vec::new();
    for (flush, title) in [(false, ""), (true, ", and sync -f")] {
        let (root, run) = (place.text("pull-brig"), place.text("pull-brig-run"));
        let program = place.text("pair/brig");
        let pull = words(&[&[&program, "--root", &root, "--run", &run, "pull", "--quiet", &name]]);
        peers.push(peer(&format!("brig{title}"), pull, &root, &run, flush));
        if engines.podman {
            let (root, run) = (place.text("pull-podman"), place.text("pull-podman-run"));
            let own = ["--root", &root, "--runroot", &run, "--storage-driver", "overlay"];
            let source = format!("docker://{name}");
            let pull = words(&[&["podman"], &own, &["pull", "--quiet", "--tls-verify=false", &source]]);
            peers.push(peer(&format!("podman pull{title}"), pull, &root, &run, flush));
        }
        peers.extend(docker.iter().map(|docker| docker.pull(&format!("docker pull{title}"), flush)));
    }
    let result = interleaved(&peers, None, count)?;
    let mb = |bytes: usize| bytes / 1_000_000;
    table::print(
        &format!("pull of {} MB ({} MB as {LAYERS} gzip layers) from loopback", mb(size), mb(compressed)),
        &result,
        None,
    );
    docker.map_or(Ok(()), Docker::finish)
}

fn peer(title: &str, pull: Vec<String>, root: &str, run: &str, flush: bool) -> Peer {
    let command = if flush {
        words(&[
            &["sh", "-c", "root=$1; shift; \"$@\" && sync -f \"$root\"", "sh", root],
            &pull.iter().map(String::as_str).collect::<Vec<_>>(),
        ])
    } else {
        pull
    };
    let mut peer = Peer::new(title, command, 0);
    let (root, run) = (PathBuf::from(root), PathBuf::from(run));
    peer.before = Box::new(move || {
        for directory in [&root, &run] {
            for place in ["overlay", ""] {
                // Podman keeps its storage mounted on itself.
                let _ = rustix::mount::unmount(directory.join(place), rustix::mount::UnmountFlags::DETACH);
            }
            if directory.exists() {
                std::fs::remove_dir_all(directory)?;
            }
        }
        // What an earlier pull left to be written is not to be paid for by this one.
        rustix::fs::sync();
        Ok(())
    });
    peer
}

/// Takes files of /usr, in the order of their names, until the layers are full.
fn layers() -> Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    for directory in ["/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/share", "/usr/include", "/usr/sbin"] {
        collect(Path::new(directory), &mut files);
    }
    files.sort();
    files.dedup();
    let mut layers = Vec::new();
    let (mut layer, mut size) = (Layer::new(), 0);
    for path in files {
        let Ok(data) = std::fs::read(&path) else { continue };
        let name = path.strip_prefix("/").unwrap_or(&path).display().to_string();
        size += data.len() + 1024;
        layer = layer.entry(b'0', &name, "", &data, &Meta::mode(0o755));
        if size >= LAYER_BYTES {
            layers.push(std::mem::take(&mut layer).finish());
            size = 0;
            if layers.len() == LAYERS {
                return Ok(layers);
            }
        }
    }
    bail!("this machine has too few files in /usr for {LAYERS} layers of {LAYER_BYTES} bytes")
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            collect(&entry.path(), files);
        } else if kind.is_file() && entry.metadata().is_ok_and(|m| m.len() <= FILE_MAX) {
            files.push(entry.path());
        }
    }
}
