//! Layers that are EROFS images: containers on them behave as on directories, all share one mount of each, and nothing is
//! left when the images go.
//!
//! Place: the machine itself, as root; and a kernel before 6.12, which mounts from loop devices (tools/layer-tests).

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use std::fs::File;
use std::os::fd::AsFd;
use support::{Engine, sh};
use testkit::image::{Compression, Image, Layer, Meta, busybox_layer};

/// An engine whose layers are mounted: whatever becomes of its test, they are not left on the machine.
struct Mounted {
    engine: Engine,
    // Dropped second: the engine says first what is left.
    _mounts: Mounts,
}

impl std::ops::Deref for Mounted {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

fn engine() -> Mounted {
    let engine = Engine::bare();
    Mounted { _mounts: Mounts(engine.directory.path().to_owned()), engine }
}

/// Unmounts what lies below a directory, removes that, and looks for loop devices with files of it.
struct Mounts(PathBuf);

impl Drop for Mounts {
    fn drop(&mut self) {
        let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let places = text.lines().filter_map(|line| line.split(' ').nth(4));
        for place in places.filter(|place| Path::new(place).starts_with(&self.0)).collect::<Vec<_>>().into_iter().rev()
        {
            let _ = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
        }
        let _ = std::fs::remove_dir_all(&self.0);
        let gone = support::patiently(|| loop_devices(&self.0).is_empty());
        assert!(gone || std::thread::panicking(), "left behind: {:?}", loop_devices(&self.0));
    }
}

/// The files below a directory that lie behind loop devices.
fn loop_devices(below: &Path) -> Vec<String> {
    let all = std::fs::read_dir("/sys/block").unwrap().flatten();
    let files = all.filter_map(|device| std::fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.filter(|file| Path::new(file).starts_with(below)).collect()
}

/// Loads an image of three layers, kept as images.
fn load(engine: &Engine, form: &str) {
    let capability = vec![1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let capable = Meta { pax: vec![("SCHILY.xattr.security.capability".into(), capability)], ..Meta::mode(0o755) };
    let holes = [("size", "1048580"), ("numblocks", "1"), ("map", "1048576,4")];
    let sparse = Meta {
        pax: holes.map(|(key, value)| (format!("GNU.sparse.{key}"), value.into())).to_vec(),
        ..Meta::mode(0o600)
    };
    let base = busybox_layer(&["sh", "cat", "ls", "echo", "sleep", "stat", "rm", "id", "touch", "find", "wc", "true"]);
    let files = Layer::new()
        .directory("srv", 0o755)
        .file("srv/kept", "kept")
        .file("srv/deleted", "x")
        .directory("srv/hidden", 0o755)
        .file("srv/hidden/below", "x")
        .directory("tmp", 0o1777)
        .entry(b'0', "srv/capable", "", b"#!", &capable)
        .entry(b'0', "srv/suid", "", b"#!", &Meta { uid: 7, ..Meta::mode(0o4755) })
        .finish();
    let top = Layer::new()
        .file("srv/.wh.deleted", "")
        .directory("srv/hidden", 0o700)
        .file("srv/hidden/.wh..wh..opq", "")
        .hard_link("srv/again", "srv/kept")
        .file("tmp/new", "new")
        .entry(b'0', "srv/hidden/holes", "", b"last", &sparse)
        .finish();
    let image = Image::new(&[base, files, top], Compression::Gzip, r#"{"Cmd":["sh"],"Env":["PATH=/bin"]}"#);
    let archive = engine.path("archive.tar");
    std::fs::write(&archive, image.docker_archive("app:1")).unwrap();
    let loaded = engine.brig(&["--layers", form, "load", "-i", archive.to_str().unwrap()]);
    assert_eq!(loaded.status, 0, "{loaded:?}");
    let kept = |name: &str| engine.path("root/layers").join(name).join("image.erofs").is_file();
    let names = engine.names("root/layers");
    assert!(names.len() == 3 && names.iter().all(|name| kept(name)), "{names:?}");
}

/// The mounts of layers that this thread sees.
fn mounts(engine: &Engine) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let place = engine.text("run/mnt/layers");
    text.lines().filter(|line| line.contains(&place)).map(str::to_owned).collect()
}

const LOOK: &str = "cd /srv; ls; ls hidden; cat kept again /tmp/new; stat -c '%a %u' suid /tmp hidden; \
                    [ kept -ef again ] && echo same";

#[test]
fn containers_on_images_share_one_mount_of_each_layer() {
    containers_on_images("erofs");
}

#[test]
fn containers_on_images_that_are_sealed_where_they_can_be() {
    containers_on_images("erofs+verity");
}

fn containers_on_images(form: &str) {
    let engine = engine();
    load(&engine, form);
    let seen = engine.brig(&["run", "--rm", "--network", "none", "app:1", "sh", "-c", LOOK]).ok();
    assert_eq!(seen, "again\ncapable\nhidden\nkept\nsuid\nholes\nkeptkeptnew4755 7\n1777 0\n700 0\nsame");
    assert_eq!(mounts(&engine).len(), 3, "they stay for the next container");

    // Two at once, one of them in a user namespace; both write above what both read.
    for (name, userns) in [("one", "host"), ("two", "auto")] {
        let script = "echo changed > /srv/kept; rm /srv/suid; touch /srv/mine; sleep 1000";
        engine
            .brig(&["run", "-d", "--name", name, "--network", "none", "--userns", userns, "app:1", "sh", "-c", script])
            .ok();
        assert!(support::patiently(|| engine.brig(&["exec", name, "cat", "/srv/mine"]).status == 0));
        assert_eq!(engine.brig(&["exec", name, "stat", "-c", "%u", "/srv/capable"]).ok(), "0", "its owner is its root");
        assert_eq!(engine.brig(&["exec", name, "cat", "/srv/again"]).ok(), "kept");
    }
    assert_eq!(mounts(&engine).len(), 3);
    engine.brig(&["stop", "-t", "0", "one", "two"]);
    let changes = engine.brig(&["diff", "one"]).ok();
    assert_eq!(changes, "C /srv\nC /srv/kept\nA /srv/mine\nD /srv/suid");
    engine.brig(&["cp", "one:/srv/again", &engine.text("copied")]).ok();
    assert_eq!(std::fs::read_to_string(engine.path("copied")).unwrap(), "kept");

    // After a reboot there are no mounts, and a start makes them.
    engine.brig(&["rm", "two"]).ok();
    for mount in engine.names("run/mnt/layers") {
        rustix::mount::unmount(engine.path("run/mnt/layers").join(mount), rustix::mount::UnmountFlags::empty())
            .unwrap();
    }
    rustix::mount::unmount(engine.path("run/mnt"), rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(mounts(&engine).len(), 0);
    engine.brig(&["start", "one"]).ok();
    assert_eq!(engine.brig(&["exec", "one", "cat", "/srv/kept"]).ok(), "changed");
    assert_eq!(mounts(&engine).len(), 3);
    engine.brig(&["rm", "-f", "one"]).ok();
    let checked = engine.brig(&["system", "check", "--deep"]);
    assert_eq!(checked.status, 0, "{checked:?}");
    engine.brig(&["rmi", "app:1"]).ok();
    assert_eq!(mounts(&engine), Vec::<String>::new());
    assert!(!engine.path("run/mnt").exists() && engine.names("root/layers").is_empty());
}

#[test]
fn many_first_starts_at_once_make_one_mount() {
    let engine = engine();
    load(&engine, "erofs");
    let runs: Vec<_> =
        (0..8).map(|_| engine.spawn(&["run", "--rm", "--network", "none", "app:1", "cat", "/srv/kept"])).collect();
    for run in runs {
        assert_eq!(support::collect(run, &["run"]).ok(), "kept");
    }
    assert_eq!(mounts(&engine).len(), 3, "{:#?}", mounts(&engine));
    engine.brig(&["image", "prune", "-a", "-f"]);
    assert_eq!(mounts(&engine).len(), 0);
}

#[test]
fn an_image_may_have_layers_of_both_forms() {
    let engine = engine();
    load(&engine, "erofs");
    let first = Layer::new().directory("srv", 0o711).file("srv/kept", "another").finish();
    let base = busybox_layer(&["sh", "cat", "ls", "echo", "sleep", "stat", "rm", "id", "touch", "find", "wc", "true"]);
    let top = Layer::new().hard_link("linked", "srv/kept").finish();
    let image = Image::new(&[base, first, top], Compression::Gzip, r#"{"Env":["PATH=/bin"]}"#);
    std::fs::write(engine.path("archive.tar"), image.docker_archive("mixed:1")).unwrap();
    let loaded = engine.brig(&["--layers", "directories", "load", "-i", &engine.text("archive.tar")]);
    assert_eq!(loaded.status, 0, "{loaded:?}");
    let seen =
        engine.brig(&["run", "--rm", "--network", "none", "mixed:1", "sh", "-c", "cat /linked; stat -c %a /srv"]);
    assert_eq!(seen.ok(), "another711");
    assert_eq!(mounts(&engine).len(), 1, "the layer that both images have");
    engine.brig(&["rmi", "mixed:1", "app:1"]).ok();
    assert_eq!(mounts(&engine).len(), 0);
}

#[test]
fn a_test_that_fails_leaves_nothing_mounted() {
    let mut directory = PathBuf::new();
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let engine = engine();
        directory = engine.directory.path().to_owned();
        load(&engine, "erofs");
        engine.brig(&["run", "--rm", "--network", "none", "app:1", "true"]).ok();
        assert_eq!(mounts(&engine).len(), 3);
        std::panic::resume_unwind(Box::new("a test fails here"));
    }));
    assert_eq!(failed.unwrap_err().downcast_ref(), Some(&"a test fails here"));
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!text.contains(directory.to_str().unwrap()) && !directory.exists());
}

#[test]
fn a_layer_that_was_just_written_is_read_from_memory_first() {
    let engine = Engine::bare();
    load(&engine, "erofs");
    let run = || engine.brig(&["run", "--rm", "--network", "none", "app:1", "cat", "/srv/kept"]).ok();
    let direct = || mounts(&engine).iter().filter(|mount| mount.contains("directio")).count();
    let images = || -> Vec<_> {
        let names = engine.names("root/layers");
        names
            .iter()
            .map(|name| File::open(engine.path("root/layers").join(name).join("image.erofs")).unwrap())
            .collect()
    };
    let cached = || -> u64 { images().iter().map(|image| brig_sys::page_cache::cached(image.as_fd()).unwrap()).sum() };

    // Of the pages that the load has written.
    assert_eq!(run(), "kept");
    if !loop_devices(engine.directory.path()).is_empty() {
        // Before Linux 6.12 the device reads directly at once.
        assert!(!engine.path("run/mnt/warm").exists());
        return;
    }
    assert_eq!((direct(), engine.names("run/mnt/warm").len()), (0, 3));
    // Not yet: others may be starting.
    assert_eq!(run(), "kept");
    assert_eq!((direct(), engine.names("run/mnt/warm").len()), (0, 3));
    // Later it is read directly, and the image's own pages go; a container that runs meanwhile sees nothing of it.
    let script = ": > /ready; while :; do cat /srv/kept >> /seen || exit 1; done";
    engine.brig(&["run", "-d", "--name", "reader", "--network", "none", "app:1", "sh", "-c", script]).ok();
    assert!(support::patiently(|| engine.brig(&["exec", "reader", "cat", "/ready"]).status == 0));
    rustix::fs::sync();
    let before = cached();
    sh(&format!("touch -d '11 seconds ago' {}/*", engine.text("run/mnt/warm")));
    assert_eq!(run(), "kept");
    assert_eq!(direct(), 3);
    assert!(!engine.path("run/mnt/warm").exists());
    assert!(cached() < before / 2, "{} of {before}", cached());
    assert_eq!(engine.brig(&["exec", "reader", "cat", "/srv/kept"]).ok(), "kept");
    assert_eq!(engine.inspect("reader", "{{.State.Status}}"), "running");
    // What a container runs on stays mounted for its next start.
    engine.brig(&["image", "unmount", "--all"]).ok();
    assert_eq!(mounts(&engine).len(), 3);
    engine.brig(&["rm", "-f", "reader"]).ok();

    // What is not in memory is read directly at once.
    engine.brig(&["image", "unmount", "--all"]).ok();
    for image in images() {
        rustix::fs::fadvise(&image, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    assert_eq!(run(), "kept");
    assert_eq!((direct(), engine.path("run/mnt/warm").exists()), (3, false));
}

#[test]
fn info_tells_the_form_and_nonsense_is_refused() {
    let engine = Engine::bare();
    let line = |arguments: &[&str]| {
        let report = engine.brig(&[arguments, &["doctor", "--format", "{{.Name}}: {{.Found}}"]].concat()).stdout;
        report.lines().find(|line| line.starts_with("layers: ")).unwrap().to_owned()
    };
    let told = line(&["--layers=erofs"]);
    let from = if told.contains("loop devices") { "loop devices" } else { "their files" };
    assert_eq!(told, format!("layers: EROFS images, mounted from {from}, as asked for"));
    let told = format!("layers: directories, as asked for; EROFS images work here too, mounted from {from}");
    assert_eq!(line(&["--layers=directories"]), told);
    let by_itself = match from {
        "their files" => "layers: EROFS images, mounted from their files",
        _ => {
            "layers: directories; EROFS images would be mounted from loop devices here, and are made with `--layers erofs`"
        }
    };
    assert_eq!(line(&[]), by_itself);
    // Only the place of these tests says what its disk has.
    let told = line(&["--layers=erofs+verity"]);
    let sealed = format!("layers: EROFS images, mounted from {from}, sealed by fs-verity, as asked for");
    let not = format!("layers: EROFS images, mounted from {from}, not sealed: no fs-verity in ");
    let here = std::env::var("BRIG_TEST_PLACE").is_ok_and(|place| place == "layers");
    assert!(told == sealed || !here && told.starts_with(&not), "{told}");
    engine.brig(&["--layers", "zip", "images"]).fails(
        125,
        "error: `zip` is not a value for `--layers`\n  because: layers are kept as `directories`, `erofs` or `erofs+verity`, or as `auto` finds better\n",
    );
}
