//! Pull and unpack of an image of about 300 MB in 6 gzip layers, from Debian's registry on loopback.

use super::docker::Docker;
use super::measure::{Peer, Series, peak, rounds};
use super::peers::{Engines, installed, words};
use super::place::Place;
use super::table::{self, Target};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use testkit::image::{Compression, Image, Layer, Meta};
use testkit::registry::Registry;

/// The layers of the image.
pub const LAYERS: usize = 6;
const LAYER_BYTES: usize = 50_000_000;
/// A file larger than this would be a layer of its own.
const FILE_MAX: u64 = 8_000_000;
/// The name of what does the least.
const YARDSTICK: &str = "gunzip, hash, write, sync";

/// How brig keeps layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As files and directories.
    Directories,
    /// As brig chooses: EROFS images, where the kernel mounts them well.
    Auto,
}

impl Form {
    /// The word of the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Directories => "directories",
            Self::Auto => "auto",
        }
    }

    /// How the figures call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Directories => "brig --layers directories",
            Self::Auto => "brig",
        }
    }

    /// The form of a peer by its name; none for others than brig.
    pub fn of(peer: &str) -> Option<Self> {
        let all = [Self::Directories, Self::Auto];
        all.into_iter().find(|form| peer.starts_with(form.title()))
    }
}

/// The storage of one engine that pulls, and what it keeps while it runs.
pub fn homes(place: &Place, engine: &str) -> (String, String) {
    (place.text(&format!("pull-{engine}")), place.text(&format!("pull-{engine}-run")))
}

/// Brig on the storage of its form.
pub fn brig(place: &Place, form: Form, rest: &[&str]) -> Vec<String> {
    let (program, (root, run)) = (place.text("pair/brig"), homes(place, form.word()));
    words(&[&[&program, "--root", &root, "--run", &run, "--layers", form.word()], rest])
}

/// Podman on a storage for pulls.
pub fn podman(place: &Place, rest: &[&str]) -> Vec<String> {
    let (root, run) = homes(place, "podman");
    words(&[&["podman", "--root", &root, "--runroot", &run, "--storage-driver", "overlay"], rest])
}

/// A command, and all of its file system on the disk.
pub fn flushed(root: &str, command: &[String]) -> Vec<String> {
    words(&[
        &["sh", "-c", "root=$1; shift; \"$@\" && sync -f \"$root\"", "sh", root],
        &command.iter().map(String::as_str).collect::<Vec<_>>(),
    ])
}

/// How many times `a` takes what `b` takes, by medians.
pub fn times(a: &Series, b: &Series) -> f64 {
    table::ratio(a.of(|s| s.wall).0, b.of(|s| s.wall).0)
}

/// All that pull by themselves, with an empty storage before each pull.
pub fn peers(engines: &Engines, place: &Place, name: &str, flush: bool, umoci: bool) -> Vec<Peer> {
    let title = |engine: &str| if flush { format!("{engine}, and sync -f") } else { engine.to_owned() };
    let mut peers = Vec::new();
    for form in [Form::Auto, Form::Directories] {
        let (root, run) = homes(place, form.word());
        peers.push(peer(&title(form.title()), brig(place, form, &["pull", "--quiet", name]), &root, &run, flush));
    }
    if engines.podman {
        let (root, run) = homes(place, "podman");
        let source = format!("docker://{name}");
        let pull = podman(place, &["pull", "--quiet", "--tls-verify=false", &source]);
        peers.push(peer(&title("podman pull"), pull, &root, &run, flush));
    }
    if umoci && installed("skopeo") && installed("umoci") {
        let (root, run) = homes(place, "umoci");
        let script = "mkdir -p \"$1\" && skopeo --insecure-policy copy --quiet --src-tls-verify=false \"docker://$2\" \
                      \"oci:$1/oci:latest\" && umoci --log=error unpack --image \"$1/oci:latest\" \"$1/bundle\"";
        let pull = words(&[&["sh", "-c", script, "sh", &root, name]]);
        peers.push(peer(&title("skopeo and umoci"), pull, &root, &run, flush));
    }
    peers
}

/// Pulls by each engine in turn, into a new storage each time, beside the least that any of them could do.
pub fn run(engines: &Engines, place: &Place, count: usize) -> Result<()> {
    let (image, sizes) = image()?;
    let registry = Registry::start();
    registry.push(&image, "bench/files", "latest");
    let docker = Docker::find(engines, &image, "bench/files", "latest");
    let yardstick = yardstick(place, &image)?;
    drop(image);
    let name = format!("{}/bench/files:latest", registry.host());
    let mut all = vec![yardstick];
    for (flush, title) in [(false, ""), (true, ", and sync -f")] {
        all.extend(peers(engines, place, &name, flush, true));
        all.extend(docker.iter().map(|docker| docker.pull(&format!("docker pull{title}"), flush)));
    }
    let result = rounds(&all, None, count, 1)?;
    table::print(&format!("pull of {sizes} from loopback"), &result, None);
    targets(&result);
    for form in [Form::Directories, Form::Auto] {
        let (root, run) = homes(place, form.word());
        let pull = peer("", brig(place, form, &["pull", "--quiet", &name]), &root, &run, false);
        let found = peak(place, &pull)?;
        clear(Path::new(&root), Path::new(&run))?;
        Target::at_most(&format!("peak memory of brig --layers {} pull, MiB", form.word()), found, 64.0).print();
    }
    Ok(())
}

/// The layers of the image, uncompressed.
pub fn layers() -> Result<Vec<Vec<u8>>> {
    layers_of(LAYER_BYTES, LAYERS)
}

/// The image, and how large it is, in words.
pub fn image() -> Result<(Image, String)> {
    eprintln!("making an image of this machine's files");
    let layers = layers()?;
    let image = Image::new(&layers, Compression::Gzip, "{}");
    let mb = |layers: &[Vec<u8>]| layers.iter().map(Vec::len).sum::<usize>() / 1_000_000;
    let sizes = format!("{} MB ({} MB as {LAYERS} gzip layers)", mb(&layers), mb(&image.layers));
    Ok((image, sizes))
}

/// The least that a pull could do: `bench-unpack` on the same layers.
fn yardstick(place: &Place, image: &Image) -> Result<Peer> {
    let blobs = place.path("yardstick");
    std::fs::create_dir_all(&blobs)?;
    let (root, run) = homes(place, "yardstick");
    let mut command = vec![place.text("bench-unpack"), root.clone()];
    for (index, layer) in image.layers.iter().enumerate() {
        let path = blobs.join(format!("layer{index}.gz"));
        std::fs::write(&path, layer)?;
        command.push(path.display().to_string());
    }
    Ok(peer(YARDSTICK, command, &root, &run, false))
}

/// The fastest of those that a user would pick instead.
pub fn fastest_other<'a>(all: impl Iterator<Item = &'a Series>) -> Option<&'a Series> {
    let others = ["podman", "skopeo", "docker"];
    all.filter(|series| others.iter().any(|other| series.name.starts_with(other)))
        .min_by_key(|series| series.of(|s| s.wall).0)
}

/// Says what was wanted, and what came out.
fn targets(all: &[Series]) {
    let flushed = |series: &&Series| series.name.ends_with("sync -f");
    let fastest = fastest_other(all.iter().filter(flushed));
    for brig in all.iter().filter(|series| series.name.starts_with("brig")).filter(flushed) {
        if let Some(least) = all.iter().find(|series| series.name == YARDSTICK) {
            Target::at_most(&format!("{} against {YARDSTICK}", brig.name), times(brig, least), 1.5).print();
        }
        if let Some(other) = fastest {
            Target::at_least(&format!("{} against {}", other.name, brig.name), times(other, brig), 3.0).print();
        }
    }
}

fn peer(title: &str, pull: Vec<String>, root: &str, run: &str, flush: bool) -> Peer {
    let command = if flush { flushed(root, &pull) } else { pull };
    let mut peer = Peer::new(title, command, 0);
    let (root, run) = (PathBuf::from(root), PathBuf::from(run));
    peer.before = Box::new(move || {
        clear(&root, &run)?;
        // What an earlier pull left to be written is not to be paid for by this one.
        rustix::fs::sync();
        Ok(())
    });
    peer
}

/// Where storages are laid aside instead of being removed, if it is there.
pub const ASIDE: &str = "aside";

/// Removes a storage, or lays it aside: ext4 looks at each inode that was freed in the last minutes before it takes another
/// one, so that who makes many files right after many were removed takes ten times as long, whoever it is.
pub fn clear(root: &Path, run: &Path) -> Result<()> {
    for directory in [root, run] {
        for place in ["overlay", "mnt", ""] {
            // Podman keeps its storage mounted on itself, brig its layers that are images.
            let _ = rustix::mount::unmount(directory.join(place), rustix::mount::UnmountFlags::DETACH);
        }
        let aside = directory.with_file_name(ASIDE);
        if aside.is_dir() && directory.exists() {
            let count = std::fs::read_dir(&aside)?.count();
            std::fs::rename(directory, aside.join(count.to_string()))?;
        } else if directory.exists() {
            std::fs::remove_dir_all(directory)?;
        }
    }
    Ok(())
}

/// Makes one layer of files of this machine.
pub fn some_files(bytes: usize) -> Result<Vec<u8>> {
    layers_of(bytes, 1)?.pop().context("no files")
}

/// Takes files of /usr, in the order of their names, until the layers are full.
fn layers_of(bytes: usize, count: usize) -> Result<Vec<Vec<u8>>> {
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
        if size >= bytes {
            layers.push(std::mem::take(&mut layer).finish());
            size = 0;
            if layers.len() == count {
                return Ok(layers);
            }
        }
    }
    bail!("this machine has too few files in /usr for {count} layers of {bytes} bytes")
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
