//! What twenty containers of one image hold in the page cache, and how long a start of it takes, for both forms of layers.
//!
//! Each form lies on a disk of its own, a new ext4 on a loop device: mounted anew, nothing of it is in memory, and what the
//! file system itself keeps there can be counted. With directories that is an inode and a name for each file, with images
//! those are pages of the image.

use super::measure::{Peer, plain, rounds, wait_for_children};
use super::peers::words;
use super::place::Place;
use super::pull::{self, Form};
use super::table::{self, Target};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use testkit::image::{Compression, Image, busybox_layer};
use testkit::registry::Registry;

/// Containers of one image.
const CONTAINERS: usize = 20;
/// The size of a disk in bytes; holes of it take no room.
const DISK: u64 = 2 << 30;
const PAGE: u64 = 4096;

/// Prints the pages, and how long a start takes.
pub fn run(place: &Place, count: usize) -> Result<()> {
    for tool in ["fincore", "losetup", "mkfs.ext4"] {
        if !super::peers::installed(tool) {
            println!("missing: {tool} (apt-get install util-linux-extra e2fsprogs): no page cache is counted");
            return Ok(());
        }
    }
    let mut layers = pull::layers()?;
    layers.push(busybox_layer(&["sh", "find", "cat", "sleep", "true"]));
    let image = Image::new(&layers, Compression::Gzip, r#"{"Env":["PATH=/bin"]}"#);
    drop(layers);
    let registry = Registry::start();
    registry.push(&image, "bench/cache", "latest");
    let name = format!("{}/bench/cache:latest", registry.host());
    let mut disks = Vec::new();
    for form in [Form::Directories, Form::Auto] {
        let (root, run) = pull::homes(place, form.word());
        pull::clear(Path::new(&root), Path::new(&run))?;
        let disk = Disk::make(place, form, &root)?;
        plain(&pull::brig(place, form, &["pull", "--quiet", &name]))?;
        disks.push(disk);
    }
    // It is a child of this process, which below waits until it has none.
    drop(registry);
    println!("\npage cache of {CONTAINERS} containers of one image that read all of it, in pages of 4 KiB");
    println!("{:34} {:>12} {:>12} {:>12} {:>12}", "", "files", "images", "file system", "together");
    let mut totals = Vec::new();
    let mut starts = Vec::new();
    for disk in &disks {
        let form = disk.form;
        let (root, run) = pull::homes(place, form.word());
        disk.forget()?;
        let before = disk.cached()?;
        let held = hold(place, form, &name, &root, &run);
        let own = disk.cached()?.saturating_sub(before);
        let names: Vec<String> = (0..CONTAINERS).map(container).collect();
        let mut end = vec!["rm", "-f"];
        end.extend(names.iter().map(String::as_str));
        plain(&pull::brig(place, form, &end))?;
        wait_for_children()?;
        let (files, images) = held?;
        let all = files + images + own;
        println!("brig, layers as {:18} {files:>12} {images:>12} {own:>12} {all:>12}", form.word());
        totals.push(all);
        let start = pull::brig(place, form, &["run", "--rm", "--network", "none", &name, "true"]);
        starts.push(Peer::new(form.title(), start, 0));
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
    for disk in disks {
        plain(&pull::brig(place, disk.form, &["rmi", &name]))?;
        disk.end()?;
        let (root, run) = pull::homes(place, disk.form.word());
        pull::clear(Path::new(&root), Path::new(&run))?;
    }
    Ok(())
}

/// A file system of its own below brig's root. Unmounted with the bench's mount namespace if it is not ended; the device goes
/// with the mount.
struct Disk {
    form: Form,
    device: String,
    at: String,
}

impl Disk {
    fn make(place: &Place, form: Form, at: &str) -> Result<Self> {
        let file = place.text(&format!("disk-{}", form.word()));
        File::create(&file)?.set_len(DISK)?;
        plain(&words(&[&["mkfs.ext4", "-q", "-F", &file]]))?;
        let device = plain(&words(&[&["losetup", "--find", "--show", &file]]))?.trim().to_owned();
        std::fs::create_dir_all(at)?;
        let disk = Self { form, device, at: at.to_owned() };
        let mounted = disk.mount();
        // From here on it is busy, and goes when it no longer is.
        plain(&words(&[&["losetup", "--detach", &disk.device]]))?;
        mounted.map(|()| disk)
    }

    fn mount(&self) -> Result<()> {
        plain(&words(&[&["mount", "-t", "ext4", &self.device, &self.at]])).map(drop)
    }

    /// Lets the kernel forget all that lies on it.
    fn forget(&self) -> Result<()> {
        let held = File::open(&self.device).context("cannot hold the device")?;
        plain(&words(&[&["umount", &self.at]]))?;
        self.mount()?;
        drop(held);
        Ok(())
    }

    /// Counts the pages of the file system itself.
    fn cached(&self) -> Result<u64> {
        let device = File::open(&self.device)?;
        Ok(brig_sys::page_cache::cached(device.as_fd())? / PAGE)
    }

    fn end(&self) -> Result<()> {
        plain(&words(&[&["umount", &self.at]])).map(drop)
    }
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
        Form::Auto => format!("{run}/mnt/layers"),
    };
    let images = if form == Form::Auto { cached(&format!("{root}/layers"), "image.erofs")? } else { 0 };
    Ok((cached(&below, "*")?, images))
}

/// Counts the cached pages of the files below a directory.
fn cached(directory: &str, pattern: &str) -> Result<u64> {
    let script = "find \"$1\" -type f -name \"$2\" -print0 | xargs -0 -r fincore --noheadings --bytes --output PAGES";
    let told = plain(&words(&[&["sh", "-c", script, "sh", directory, pattern]]))?;
    Ok(told.split_whitespace().filter_map(|pages| pages.parse::<u64>().ok()).sum())
}
