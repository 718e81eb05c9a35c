//! The targets: what reads foreign bytes, and what it promises.

use brig_spec::digest::Digest;
use brig_spec::image::{Document, ImageConfig};
use brig_spec::platform::Platform;
use brig_spec::reference::Reference;
use brig_store::stream::{self, Ids};
use brig_store::{Import, InUse, Limits, Silent, Store};
use brig_sys::root::Root;
use std::path::{Path, PathBuf};

/// A function that panics if a promise is broken.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// What it does with an input.
    pub run: fn(&[u8]),
    /// Whether its input is a tar.
    pub is_tar: bool,
}

const fn text(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, is_tar: false }
}

/// All targets.
pub const ALL: [Target; 7] = [
    text("reference", reference),
    text("digest", digest),
    text("document", document),
    text("config", config),
    Target { name: "layer", run: layer, is_tar: true },
    Target { name: "stream", run: unpack, is_tar: true },
    Target { name: "archive", run: archive, is_tar: true },
];

/// A name that is read is written so that it is read as the same name.
fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(name) = text.parse::<Reference>() else { return };
    for written in [name.to_string(), name.familiar()] {
        assert_eq!(written.parse::<Reference>().ok().as_ref(), Some(&name), "{text:?} as {written:?}");
        let climbs = written.split('/').any(|part| part == ".." || part.is_empty());
        assert!(!climbs && !written.contains(char::is_control), "{written:?}");
    }
}

/// A digest that is read can be a file name.
fn digest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(digest) = text.parse::<Digest>() else { return };
    assert_eq!(digest.to_string(), text);
    assert!(digest.hex().bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)), "{digest}");
}

/// A manifest or index that is read is one of the two, and the same when it is written and read again.
fn document(bytes: &[u8]) {
    let again = match Document::parse(bytes, None) {
        Ok(Document::Manifest(manifest)) => serde_json::to_vec(&manifest),
        Ok(Document::Index(index)) => {
            let _ = index.select(&Platform::host());
            serde_json::to_vec(&index)
        }
        Err(_) => return,
    };
    let again = again.expect("what was read can be written");
    assert_eq!(Document::parse(&again, None).ok(), Document::parse(bytes, None).ok());
}

/// The same for configurations.
fn config(bytes: &[u8]) {
    let Ok(config) = ImageConfig::parse(bytes) else { return };
    let _ = config.platform();
    let again = serde_json::to_vec(&config).expect("what was read can be written");
    assert_eq!(ImageConfig::parse(&again).ok(), Some(config));
}

/// A store in memory, with a file beside it that nothing may touch.
struct Place {
    directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let directory = tempfile::tempdir_in(parent).expect("a directory");
        std::fs::write(directory.path().join("beside"), "untouched").expect("a file");
        let limits = Limits { entries: 2000, layer_bytes: 16 << 20, ..Limits::default() };
        let store = Store::open_with(&directory.path().join("root"), limits).expect("a store");
        Self { directory, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Only what is known lies here, and all of it is whole.
    fn is_sound(&self) {
        let mut names: Vec<_> =
            std::fs::read_dir(self.directory.path()).expect("a directory").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert!(names.iter().all(|name| name == "beside" || name == "root" || name == "tree"), "{names:?}");
        assert_eq!(std::fs::read_to_string(self.path("beside")).ok().as_deref(), Some("untouched"));
        let report = self.store.check(&InUse::nobody, true, &Silent).expect("a check");
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }
}

/// A layer is unpacked whole or refused; what is unpacked twice is twice the same; nothing outside is touched.
fn layer(bytes: &[u8]) {
    let place = Place::new();
    let import = Import {
        platform: Platform::host(),
        config: brig_spec::image::ProcessConfig::default(),
        created: None,
        comment: None,
    };
    let _ = place.store.import(bytes, "input", &import, &[], &Silent);
    place.is_sound();
}

/// A tar is put below a directory and nowhere else.
fn unpack(bytes: &[u8]) {
    let place = Place::new();
    let tree = place.path("tree");
    std::fs::create_dir(&tree).expect("a directory");
    std::os::unix::fs::symlink("../../..", tree.join("up")).expect("a link");
    let root = Root::open_directory(&tree).expect("a root");
    let _ = stream::unpack(bytes, &root, Path::new("/"), Ids::Same, place.store.limits());
    place.is_sound();
}

/// An archive of images is taken in whole or refused.
fn archive(bytes: &[u8]) {
    let place = Place::new();
    if let Ok(mut archive) = place.store.read_archive(bytes, "input") {
        let _ = place.store.load(&mut archive, &Platform::host(), &Silent);
    }
    place.is_sound();
}
