//! Images coming in: interrupted, lied to, cancelled, twice at once, and killed at every step.

#![allow(clippy::unwrap_used)] // tests

mod common;

use std::io::{self, Read};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use brig_spec::image::Descriptor;
use brig_store::{
    BlobSource, Error, InUse, LayerChoice, LayerForm, NewImage, Observer, Opened, Progress, Silent, Store,
};
use common::{Memory, Place, add, chain, counts, name};
use testkit::image::{Compression, Image, Layer, digest};

/// Bytes that do not compress, always the same.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn image() -> Image {
    let layers: Vec<Vec<u8>> = (0..3)
        .map(|n| Layer::new().directory("d", 0o755).file(&format!("d/f{n}"), noise(3 << 20, n + 1)).finish())
        .collect();
    let open = Layer::new().file("d/implicit", "x").finish();
    let parts: Vec<(Vec<u8>, Compression)> = layers
        .into_iter()
        .zip([Compression::Gzip, Compression::Zstd, Compression::Plain])
        .chain([(open, Compression::Gzip)])
        .collect();
    Image::mixed(&parts, r#"{"Cmd":["sh"]}"#, false)
}

fn new_image<'a>(image: &'a Image, names: &'a [brig_spec::reference::Reference]) -> NewImage<'a> {
    NewImage { manifest: &image.manifest, media_type: Some(image.media_type()), names, origins: &[] }
}

/// A source that breaks off after so many bytes in all, and remembers the offsets that it was asked for.
struct Breaking<'a> {
    image: &'a Image,
    left: AtomicU64,
    ranges: bool,
    offsets: Mutex<Vec<u64>>,
}

struct Counted<'a> {
    bytes: &'a [u8],
    left: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(8192);
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.left.store(0, Ordering::SeqCst);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.bytes.read(&mut buffer[..most])
    }
}

impl BlobSource for Breaking<'_> {
    fn open_blob(&self, blob: &Descriptor, offset: u64) -> io::Result<Opened<'_>> {
        self.offsets.lock().unwrap().push(offset);
        let bytes = &self.image.blobs[&blob.digest.to_string()];
        let offset = if self.ranges { offset } else { 0 };
        let bytes = &bytes[usize::try_from(offset).unwrap()..];
        Ok(Opened { reader: Box::new(Counted { bytes, left: &self.left }), offset })
    }
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    for ranges in [true, false] {
        let place = Place::new();
        let image = image();
        let mut tries = 0;
        let mut budget = 0;
        let mut offsets = Vec::new();
        let id = loop {
            // Without ranges everything is sent again each time, so only a longer life of the connection helps.
            budget = if ranges { 300 } else { budget + 300 };
            let source = Breaking { image: &image, left: AtomicU64::new(budget), ranges, offsets: Mutex::default() };
            let result = place.store.add(&new_image(&image, &[name("test")]), &source, &Silent);
            offsets.extend(source.offsets.into_inner().unwrap());
            tries += 1;
            match result {
                Ok(image) => break image.id,
                Err(Error::Fetch { .. }) => assert!(place.store.images().unwrap().images.is_empty()),
                Err(error) => panic!("{}", chain(&error)),
            }
            assert!(tries < 20, "no progress is made");
        };
        assert!(tries > 1, "it was never interrupted");
        assert!(offsets.iter().any(|offset| *offset > 0), "it was never resumed");
        assert_eq!(id.to_string(), image.id());
        assert_eq!(place.counts(), (6, 4, 0));
    }
}

#[test]
fn lies_about_digest_and_size_are_found() {
    let good = image();
    let victim = digest(&good.layers[1]);
    let mut flipped = good.layers[1].clone();
    *flipped.last_mut().unwrap() ^= 1;
    let longer = [&good.layers[1][..], b"x"].concat();
    let shorter = good.layers[1][..good.layers[1].len() - 1].to_vec();
    for (lie, why) in [
        (flipped, "expected sha256:"),
        (longer, "bytes, expected"),
        (shorter, "bytes, expected"),
        (b"<html>login please</html>".to_vec(), "bytes, expected"),
        (noise(good.layers[1].len(), 99), "expected sha256:"),
    ] {
        let place = Place::new();
        let mut bad = good.clone();
        bad.blobs.insert(victim.clone(), lie);
        let error = add(&place.store, &bad, &["test"]).unwrap_err();
        let text = chain(&error);
        assert!(text.contains(why) && text.contains(&victim), "{text}");
        assert_eq!((place.counts().0, place.counts().1), (0, 0));
        // What was wrong is not kept: the honest source is believed afterwards.
        add(&place.store, &good, &["test"]).unwrap();
    }
}

#[test]
fn documents_that_contradict_one_another() {
    let good = image();
    let layer = Layer::new().file("f", "x").finish();
    let place = Place::new();
    // The layer is not what the configuration says.
    let mut swapped = Image::new(std::slice::from_ref(&layer), Compression::Gzip, "{}");
    let config = String::from_utf8(swapped.config.clone()).unwrap().replace(&digest(&layer), &digest(b"else"));
    let manifest = String::from_utf8(swapped.manifest.clone())
        .unwrap()
        .replace(&digest(&swapped.config), &digest(config.as_bytes()));
    swapped.blobs.insert(digest(config.as_bytes()), config.into_bytes());
    swapped.manifest = manifest.into_bytes();
    let text = chain(&add(&place.store, &swapped, &["test"]).unwrap_err());
    assert!(text.contains(&digest(b"else")), "{text}");
    // More layers in one than in the other.
    let manifest = String::from_utf8(good.manifest.clone()).unwrap();
    let cut = manifest.rfind(",{").unwrap();
    let mut fewer = good.clone();
    fewer.manifest = format!("{}]}}", &manifest[..cut]).into_bytes();
    let text = chain(&add(&place.store, &fewer, &["test"]).unwrap_err());
    assert!(text.contains("the manifest has 3 layers, the configuration 4"), "{text}");
    place.store.collect(&InUse::nobody, Duration::ZERO).unwrap();
    assert_eq!(place.counts(), (0, 0, 0));
}

/// An observer that cancels after some events.
struct Impatient(AtomicU64);

impl Observer for Impatient {
    fn progress(&self, _event: Progress) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst) > u64::MAX / 2
    }
}

#[test]
fn a_cancelled_pull_leaves_only_what_can_be_resumed() {
    let place = Place::new();
    let image = image();
    let error = place.store.add(&new_image(&image, &[name("test")]), &Memory(&image), &Impatient(AtomicU64::new(5)));
    assert!(matches!(error, Err(Error::Cancelled)), "{error:?}");
    assert_eq!((place.counts().0, place.counts().1), (0, 0));
    let left = std::fs::read_dir(place.path().join("tmp")).unwrap();
    assert!(left.flatten().all(|entry| entry.file_name().to_string_lossy().ends_with(".part")));
    place.store.collect(&InUse::nobody, Duration::from_secs(3600)).unwrap();
    add(&place.store, &image, &["test"]).unwrap();
    assert_eq!(place.counts(), (6, 4, 0));
}

#[test]
fn two_at_once_do_the_work_once() {
    struct Counting<'a>(&'a Image, AtomicU64);
    impl BlobSource for Counting<'_> {
        fn open_blob(&self, blob: &Descriptor, offset: u64) -> io::Result<Opened<'_>> {
            if !blob.media_type.contains("config") {
                self.1.fetch_add(1, Ordering::SeqCst);
            }
            let bytes = &self.0.blobs[&blob.digest.to_string()][usize::try_from(offset).unwrap()..];
            Ok(Opened { reader: Box::new(SlowStart(bytes, false)), offset })
        }
    }
    struct SlowStart<'a>(&'a [u8], bool);
    impl Read for SlowStart<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if !self.1 {
                self.1 = true;
                std::thread::sleep(Duration::from_millis(100));
            }
            self.0.read(buffer)
        }
    }
    let place = Place::new();
    let image = image();
    let source = Counting(&image, AtomicU64::new(0));
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (image, source, place) = (&image, &source, &place);
            scope.spawn(move || {
                let store = Store::open(&place.path()).unwrap();
                store.add(&new_image(image, &[name(&format!("test{n}"))]), source, &Silent).unwrap();
                store.collect(&InUse::nobody, Duration::ZERO).unwrap();
            });
        }
    });
    assert_eq!(source.1.load(Ordering::SeqCst), 4, "each layer was fetched once");
    assert_eq!(place.store.images().unwrap().images[0].names.len(), 4);
    assert_eq!(place.counts(), (6, 4, 0));
}

/// Kills its own process at an event.
struct Fatal(AtomicU64);

impl Observer for Fatal {
    fn progress(&self, _event: Progress) {
        if self.0.fetch_sub(1, Ordering::SeqCst) == 0 {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
    }
}

/// Not a test by itself: the process that `killed_at_every_step` starts.
#[test]
fn victim() {
    let (Ok(root), Ok(at)) = (std::env::var("VICTIM_ROOT"), std::env::var("VICTIM_AT")) else { return };
    let image = image();
    let form = std::env::var("VICTIM_FORM").unwrap().parse().unwrap();
    let store = Store::open(std::path::Path::new(&root)).unwrap().with_layers_as(form);
    store
        .add(&new_image(&image, &[name("test")]), &Memory(&image), &Fatal(AtomicU64::new(at.parse().unwrap())))
        .unwrap();
}

#[test]
fn killed_at_every_step() {
    for form in [LayerForm::Directories, LayerForm::Erofs] {
        let form = LayerChoice::Always(form);
        let points = killed_with_layers_as(form);
        println!("{points} points tried with layers as {form}");
        assert!(points > 15, "only {points} points tried");
    }
}

fn killed_with_layers_as(form: LayerChoice) -> u32 {
    let image = image();
    let mut points = 0;
    for at in 0.. {
        let place = Place::choosing(form);
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env("VICTIM_ROOT", place.path())
            .env("VICTIM_FORM", form.to_string())
            .env("VICTIM_AT", at.to_string())
            .output()
            .unwrap()
            .status;
        if status.success() {
            break;
        }
        points += 1;
        // 1. What is listed is whole.
        let check = || {
            let listing = place.store.images().unwrap();
            assert!(listing.unreadable.is_empty(), "step {at}: {:?}", listing.unreadable);
            for summary in &listing.images {
                let image = place.store.image(&summary.id.to_string()).unwrap();
                assert!(place.roots(&image).iter().all(|root| root.is_dir()), "step {at}");
                place.store.save(&[&summary.id.to_string()], brig_store::SaveFormat::Docker, io::sink()).unwrap();
            }
            listing.images.len()
        };
        let before = check();
        // 2. The collector removes the rest, and nothing of the image.
        place.store.collect(&InUse::nobody, Duration::ZERO).unwrap();
        assert_eq!(check(), before);
        let expected = if before == 1 { (6, 4, 0) } else { (0, 0, 0) };
        assert_eq!(place.counts(), expected, "step {at}");
        // 3. The next attempt succeeds.
        add(&place.store, &image, &["test"]).unwrap();
        assert_eq!(place.counts(), (6, 4, 0), "step {at}");
    }
    points
}

#[test]
fn a_full_disk_is_told_and_cleaned_up() {
    let place = Place::new();
    let root = place.directory.path().join("small");
    std::fs::create_dir(&root).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=4m tmpfs {0}; VICTIM_FULL={0} exec {1} --exact on_a_small_disk --nocapture",
        root.display(),
        std::env::current_exe().unwrap().display()
    );
    let output =
        Command::new("unshare").args(["--mount", "--propagation", "private", "sh", "-euc", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("refused and cleaned"));
}

/// Not a test by itself: runs with a store on a file system of 4 MiB.
#[test]
fn on_a_small_disk() {
    let Ok(root) = std::env::var("VICTIM_FULL") else { return };
    let root = std::path::Path::new(&root).join("root");
    let store = Store::open(&root).unwrap();
    let error = add(&store, &image(), &["test"]).unwrap_err();
    assert!(chain(&error).contains("No space left"), "{}", chain(&error));
    store.collect(&InUse::nobody, Duration::ZERO).unwrap();
    assert_eq!(counts(&root), (0, 0, 0));
    println!("refused and cleaned");
}
