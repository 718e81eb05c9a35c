//! Images of unusual shapes, 120 layers and 200,000 small files: pulled and removed; and what containers hold in the page cache.

use super::measure::{Peer, Series, plain, rounds};
use super::peers::{Engines, words};
use super::place::Place;
use super::pull::{self, Form};
use super::table::{self, Target};
use anyhow::{Context, Result, bail};
use std::path::Path;
use testkit::image::{Compression, Image, Layer};
use testkit::registry::Registry;

const LAYERS: usize = 120;
const FILES: usize = 200_000;
/// Files of one directory.
const SIBLINGS: usize = 500;
/// Containers of one image.
const CONTAINERS: usize = 20;

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
    let peers = pull::peers(engines, place, &name, true, false);
    let pulled = rounds(&peers, None, count, 0)?;
    table::print(&format!("pull of {title}, and sync -f"), &pulled, None);
    against_podman(&pulled, 3.0);
    let removers: Vec<Peer> = peers.into_iter().map(|peer| remover(place, peer, &name)).collect();
    let removed = rounds(&removers, None, count, 0)?;
    table::print(&format!("removal of {title}, and sync -f"), &removed, None);
    against_podman(&removed, 5.0);
    for form in [Form::Directories, Form::Erofs] {
        println!("layers of brig as {}: {} KiB on the disk", form.word(), on_disk(place, form, &name)?);
    }
    std::fs::remove_dir_all(&aside)?;
    Ok(())
}

/// Says how many times faster each brig is than podman.
fn against_podman(all: &[Series], wanted: f64) {
    for brig in all.iter().filter(|series| series.name.starts_with("brig")) {
        if let Some(podman) = all.iter().find(|series| series.name.starts_with("podman")) {
            Target::at_least(&format!("podman against {}", brig.name), pull::times(podman, brig), wanted).print();
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

/// The page cache of many containers of one image, and how long a start of it takes, for both forms of layers.
///
/// Every container reads every file. Before, the kernel is told to forget what the pull has left of these very files. For
/// directories the pages are those of the files; for images those of the mounted files, and those of the image below them.
pub fn cache(place: &Place, count: usize) -> Result<()> {
    if !super::peers::installed("fincore") {
        println!("missing: fincore (apt-get install util-linux-extra, or util-linux): no page cache is counted");
        return Ok(());
    }
    let image = Image::new(
        &[pull::some_files(40_000_000)?, testkit::image::busybox_layer(&["sh", "find", "cat", "sleep", "true"])],
        Compression::Gzip,
        r#"{"Env":["PATH=/bin"]}"#,
    );
    let registry = Registry::start();
    registry.push(&image, "bench/cache", "latest");
    let name = format!("{}/bench/cache:latest", registry.host());
    for form in [Form::Directories, Form::Erofs] {
        let (root, run) = pull::homes(place, form.word());
        pull::clear(Path::new(&root), Path::new(&run))?;
        plain(&pull::brig(place, form, &["pull", "--quiet", &name]))?;
        forget(Path::new(&root))?;
    }
    // It is a child of this process, which below waits until it has none.
    drop(registry);
    println!("\npage cache of {CONTAINERS} containers of one image that read all of it, in pages of 4 KiB");
    println!("{:34} {:>12} {:>12} {:>12}", "", "files", "images", "together");
    let mut totals = Vec::new();
    let mut starts = Vec::new();
    for form in [Form::Directories, Form::Erofs] {
        let (root, run) = pull::homes(place, form.word());
        let held = hold(place, form, &name, &root, &run);
        let names: Vec<String> = (0..CONTAINERS).map(container).collect();
        let mut end = vec!["rm", "-f"];
        end.extend(names.iter().map(String::as_str));
        plain(&pull::brig(place, form, &end))?;
        super::measure::wait_for_children()?;
        let (files, images) = held?;
        println!("brig, layers as {:18} {files:>12} {images:>12} {:>12}", form.word(), files + images);
        totals.push(files + images);
        let start = pull::brig(place, form, &["run", "--rm", "--network", "none", &name, "true"]);
        starts.push(Peer::new(if form == Form::Directories { "brig" } else { "brig --layers erofs" }, start, 0));
    }
    if let [directories, images] = totals[..] {
        #[expect(clippy::cast_precision_loss, reason = "counts of pages")]
        let times = images as f64 / directories.max(1) as f64;
        Target::at_most("images against directories, page cache", times, 1.0).print();
    }
    let result = rounds(&starts, None, count.max(5) * 2, 2)?;
    table::print("run --rm of a static program on that image, without a network", &result, None);
    if let [directories, images] = &result[..] {
        Target::at_most("images against directories, start", pull::times(images, directories), 1.0).print();
    }
    for form in [Form::Directories, Form::Erofs] {
        let (root, run) = pull::homes(place, form.word());
        plain(&pull::brig(place, form, &["rmi", &name]))?;
        pull::clear(Path::new(&root), Path::new(&run))?;
    }
    Ok(())
}

fn container(number: usize) -> String {
    format!("reader{number}")
}

/// Lets all containers read all files; returns the pages of files and of images that are cached then.
fn hold(place: &Place, form: Form, name: &str, root: &str, run: &str) -> Result<(u64, u64)> {
    let script = "find / -xdev -type f -exec cat {} + > /dev/null && : > /done; sleep 100000";
    for number in 0..CONTAINERS {
        let container = container(number);
        let command = ["run", "-d", "--name", &container, "--network", "none", name, "sh", "-c", script];
        plain(&pull::brig(place, form, &command))?;
    }
    for number in 0..CONTAINERS {
        let ready = pull::brig(place, form, &["exec", &container(number), "cat", "/done"]);
        let mut tries = 0;
        while plain(&ready).is_err() {
            tries += 1;
            if tries > 600 {
                bail!("a container does not end reading");
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
    let below = match form {
        Form::Directories => format!("{root}/layers"),
        Form::Erofs => format!("{run}/mnt/layers"),
    };
    let images = if form == Form::Erofs { cached(&format!("{root}/layers"), "image.erofs")? } else { 0 };
    Ok((cached(&below, "*")?, images))
}

/// Counts the cached pages of the files below a directory.
fn cached(directory: &str, pattern: &str) -> Result<u64> {
    let script = "find \"$1\" -type f -name \"$2\" -print0 | xargs -0 -r fincore --noheadings --bytes --output PAGES";
    let told = plain(&words(&[&["sh", "-c", script, "sh", directory, pattern]]))?;
    Ok(told.split_whitespace().filter_map(|pages| pages.parse::<u64>().ok()).sum())
}

/// Lets the kernel forget the pages of all files below a directory; those of nobody else.
fn forget(root: &Path) -> Result<()> {
    rustix::fs::syncfs(std::fs::File::open(root)?)?;
    let mut rest = vec![root.join("layers")];
    while let Some(directory) = rest.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                rest.push(entry.path());
            } else if kind.is_file() {
                let file = std::fs::File::open(entry.path())?;
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            }
        }
    }
    Ok(())
}
