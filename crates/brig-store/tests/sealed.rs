//! Layers as images that are sealed by fs-verity: a byte that is another one on the disk is an error, and so is another image.
//!
//! Place: a kernel with fs-verity, ext4 and loop devices, as root: `tools/layer-tests`. There `BRIG_TEST_PLACE=layers` is set,
//! and every test does its work. Elsewhere each asserts instead that images are sealed just where they can be.

#![allow(clippy::unwrap_used)] // tests

mod common;

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brig_store::{Image, InUse, LayerChoice, LayerForm, Silent, Store};
use common::{Place, add_layers, chain, sh};
use testkit::image::Layer;

const MARK: &[u8] = b"This text is on the disk once, as the blob of the layer is compressed.";

/// A disk of its own, made with fs-verity.
struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let disk = Self { directory: tempfile::tempdir().unwrap() };
        let image = disk.image();
        sh(&format!(
            "truncate -s 64M {0}; mkfs.ext4 -q -b 4096 -O verity {0}; mkdir {1}",
            image.display(),
            disk.root().display()
        ));
        disk.mount();
        disk
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn mount(&self) {
        sh(&format!("mount -o loop {} {}", self.image().display(), self.root().display()));
    }

    fn unmount(&self) {
        sh(&format!("umount {}", self.root().display()));
    }

    fn store(&self) -> Store {
        Store::open(&self.root().join("root")).unwrap().with_layers_as(LayerChoice::Sealed)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.root(), rustix::mount::UnmountFlags::DETACH);
    }
}

fn layer() -> Vec<u8> {
    let text: Vec<u8> = [&[b'-'; 4096][..], MARK, &[b'-'; 4096]].concat();
    Layer::new().directory("d", 0o755).file("d/text", text).file("other", vec![b'o'; 9000]).finish()
}

/// The record of an image's only layer.
fn record(image: &Image) -> (PathBuf, serde_json::Value) {
    let path = image.layers[0].with_file_name("layer.json");
    let record = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    (path, record)
}

/// A disk with a store and one image, in the place of these tests.
fn place() -> Option<(Disk, Store, Image)> {
    if std::env::var("BRIG_TEST_PLACE").is_ok_and(|place| place == "layers") {
        let disk = Disk::new();
        let store = disk.store();
        let image = add_layers(&store, &[layer()]).unwrap();
        return Some((disk, store, image));
    }
    let place = Place::choosing(LayerChoice::Sealed);
    let image = add_layers(&place.store, &[layer()]).unwrap();
    let sealed = record(&image).1.get("verity").is_some();
    assert_eq!(sealed, place.store.probe_verity().is_ok());
    assert_eq!(std::fs::read(place.roots(&image)[0].join("other")).unwrap(), vec![b'o'; 9000]);
    None
}

fn read(image: &Image, name: &str) -> std::io::Result<Vec<u8>> {
    let mount = brig_store::mount_layer(&image.layers[0])?;
    let mut content = Vec::new();
    File::open(format!("/proc/self/fd/{}/{name}", mount.as_raw_fd()))?.read_to_end(&mut content)?;
    Ok(content)
}

fn problems(store: &Store, deep: bool) -> Vec<String> {
    let report = store.check(&InUse::nobody, deep, &Silent).unwrap();
    report.problems.into_iter().map(|problem| problem.fault).collect()
}

#[test]
fn a_sealed_image_is_mounted_and_cannot_be_written() {
    let Some((_disk, store, image)) = place() else { return };
    store.probe_verity().unwrap();
    let digest = record(&image).1["verity"].as_str().unwrap().to_owned();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
    assert_eq!(read(&image, "other").unwrap(), vec![b'o'; 9000]);
    let refused = File::options().write(true).open(&image.layers[0]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    assert_eq!(problems(&store, true), Vec::<String>::new());
}

#[test]
fn without_the_word_nothing_is_sealed() {
    let Some((disk, ..)) = place() else { return };
    let choice = LayerChoice::Always(LayerForm::Erofs);
    let store = Store::open(&disk.root().join("plain")).unwrap().with_layers_as(choice);
    let image = add_layers(&store, &[layer()]).unwrap();
    assert!(record(&image).1.get("verity").is_none());
    File::options().write(true).open(&image.layers[0]).unwrap();
    assert_eq!(read(&image, "other").unwrap(), vec![b'o'; 9000]);
}

#[test]
fn a_byte_changed_on_the_disk_is_an_error() {
    let Some((disk, store, image)) = place() else { return };
    drop(store);
    disk.unmount();
    let raw = File::options().read(true).write(true).open(disk.image()).unwrap();
    let bytes = std::fs::read(disk.image()).unwrap();
    let found: Vec<usize> =
        bytes.windows(MARK.len()).enumerate().filter(|(_, w)| *w == MARK).map(|(at, _)| at).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    raw.write_all_at(b"t", found[0] as u64).unwrap();
    raw.sync_all().unwrap();
    drop(raw);
    disk.mount();
    let error = read(&image, "d/text").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    assert_eq!(read(&image, "other").unwrap(), vec![b'o'; 9000]);
    // A look at all of it finds it, and the layer is made anew from its blob.
    let store = disk.store();
    let found = problems(&store, true);
    assert!(found.len() == 1 && found[0].starts_with("it cannot be read: "), "{found:?}");
    repair(&store, true);
    assert!(read(&image, "d/text").unwrap().windows(MARK.len()).any(|window| window == MARK));
}

#[test]
fn an_image_that_is_not_the_one_on_record_is_refused() {
    let Some((_disk, store, image)) = place() else { return };
    let (path, mut other) = record(&image);
    other["verity"] = format!("sha256:{}", "1".repeat(64)).into();
    std::fs::write(&path, other.to_string()).unwrap();
    refused(&store, &image, "the image is not the one that was sealed: its fs-verity digest is sha256:");
    repair(&store, false);

    // The same bytes, without the seal.
    let copy = image.layers[0].with_file_name("copy");
    std::fs::copy(&image.layers[0], &copy).unwrap();
    std::fs::rename(&copy, &image.layers[0]).unwrap();
    refused(&store, &image, "the image was sealed by fs-verity, and is not any more");
    repair(&store, false);
}

fn refused(store: &Store, image: &Image, why: &str) {
    let error = chain(&read(image, "other").unwrap_err());
    assert!(error.contains(why), "{error}");
    let found = problems(store, false);
    assert!(found.len() == 1 && found[0].contains(why), "{found:?}");
}

fn repair(store: &Store, deep: bool) {
    let report = store.check(&InUse::nobody, deep, &Silent).unwrap();
    store.repair(&report, &InUse::nobody, &Silent).unwrap();
    store.collect(&InUse::nobody, Duration::ZERO).unwrap();
    assert_eq!(problems(store, true), Vec::<String>::new());
    assert!(store.layers_here().unwrap().keys().all(|name| sealed(&store.root().join("layers").join(name))));
}

fn sealed(layer: &Path) -> bool {
    std::fs::read_to_string(layer.join("layer.json")).unwrap().contains("\"verity\":\"sha256:")
}
