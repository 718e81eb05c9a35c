//! What the tests of the store share: a store in a directory of its own, and an image in memory as a source of blobs.

#![allow(dead_code)] // each test program uses its part

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use brig_spec::image::Descriptor;
use brig_spec::reference::Reference;
use brig_store::{BlobSource, Error, Image, LayerChoice, LayerForm, NewImage, Opened, Silent, Store};
use testkit::image::Compression;

/// A store that is gone when the test ends.
pub struct Place {
    // First: a mount that is still open would keep the directory's files.
    mounts: std::sync::Mutex<Vec<OwnedFd>>,
    pub directory: tempfile::TempDir,
    pub store: Store,
}

/// Runs a test in a store of each form of layers.
pub fn both(test: impl Fn(&Place)) {
    test(&Place::with(LayerForm::Directories));
    let images = Place::with(LayerForm::Erofs);
    match images.store.probe_erofs() {
        Ok(_) => test(&images),
        Err(error) => panic!("this kernel mounts images: {error}"),
    }
}

impl Place {
    pub fn new() -> Self {
        Self::with(LayerForm::Directories)
    }

    pub fn with(form: LayerForm) -> Self {
        Self::choosing(LayerChoice::Always(form))
    }

    pub fn choosing(choice: LayerChoice) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("root")).unwrap().with_layers_as(choice);
        Self { mounts: std::sync::Mutex::default(), directory, store }
    }

    /// Returns the roots of an image's layers, bottom first; those that are images themselves are mounted for them.
    pub fn roots(&self, image: &Image) -> Vec<PathBuf> {
        image.layers.iter().map(|layer| self.root(layer)).collect()
    }

    fn root(&self, layer: &Path) -> PathBuf {
        if !brig_store::is_image(layer) {
            return layer.to_owned();
        }
        let mount = brig_store::mount_layer(layer).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd());
        self.mounts.lock().unwrap().push(mount);
        path.into()
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Counts blobs, layers and things below tmp.
    pub fn counts(&self) -> (usize, usize, usize) {
        counts(&self.path())
    }
}

pub fn counts(root: &Path) -> (usize, usize, usize) {
    let count = |path: &str| std::fs::read_dir(root.join(path)).unwrap().count();
    (count("blobs/sha256"), count("layers"), count("tmp"))
}

/// Blobs in memory.
pub struct Memory<'a>(pub &'a testkit::image::Image);

impl BlobSource for Memory<'_> {
    fn open_blob(&self, blob: &Descriptor, offset: u64) -> io::Result<Opened<'_>> {
        let bytes = self.0.blobs.get(&blob.digest.to_string()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Opened { reader: Box::new(&bytes[usize::try_from(offset).unwrap()..]), offset })
    }
}

pub fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

pub fn add(store: &Store, image: &testkit::image::Image, names: &[&str]) -> Result<Image, Error> {
    let names: Vec<Reference> = names.iter().map(|text| name(text)).collect();
    let new = NewImage { manifest: &image.manifest, media_type: Some(image.media_type()), names: &names, origins: &[] };
    store.add(&new, &Memory(image), &Silent)
}

pub fn add_layers(store: &Store, layers: &[Vec<u8>]) -> Result<Image, Error> {
    add(store, &testkit::image::Image::new(layers, Compression::Gzip, "{}"), &["test"])
}

/// Runs a shell script and returns what it printed; fails with what it complained about.
pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the error and its causes as one text.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
