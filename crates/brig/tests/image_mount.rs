//! `brig image mount` and `unmount`.
//!
//! Place: the machine itself, as root.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use support::{Engine, sh};
use testkit::image::{Compression, Image, Layer};

fn load(engine: &Engine, name: &str, layers: &[Vec<u8>]) {
    let archive = engine.path("archive");
    std::fs::write(&archive, Image::new(layers, Compression::Gzip, "{}").docker_archive(name)).unwrap();
    engine.brig(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
}

#[test]
fn an_image_is_mounted_once_and_in_use_until_it_is_unmounted() {
    for form in ["directories", "erofs"] {
        let engine = Engine::new();
        let brig = |arguments: &[&str]| {
            let mut command = engine.command(arguments);
            command.env("BRIG_LAYERS", form);
            let output = command.output().unwrap();
            (
                output.status.code().unwrap(),
                String::from_utf8(output.stdout).unwrap(),
                String::from_utf8(output.stderr).unwrap(),
            )
        };
        let base = Layer::new()
            .directory("./", 0o750)
            .directory("d/", 0o755)
            .file("d/old", "old")
            .file("d/kept", "kept")
            .finish();
        let top = Layer::new().directory("d/", 0o755).file("d/.wh.old", "").file("d/new", form).finish();
        for (name, layers) in [("one:1", &[base.clone()][..]), ("two:1", &[base, top])] {
            let archive = engine.path("archive");
            std::fs::write(&archive, Image::new(layers, Compression::Gzip, "{}").docker_archive(name)).unwrap();
            assert_eq!(brig(&["load", "-q", "-i", archive.to_str().unwrap()]).0, 0);
        }
        let (status, paths, told) = brig(&["image", "mount", "one:1", "two:1"]);
        assert_eq!((status, told.as_str()), (0, ""));
        let paths: Vec<&Path> = paths.lines().map(Path::new).collect();
        assert_eq!(std::fs::read_to_string(paths[0].join("d/old")).unwrap(), "old");
        assert_eq!(std::fs::read_to_string(paths[1].join("d/new")).unwrap(), form);
        assert!(!paths[1].join("d/old").exists() && paths[1].join("d/kept").exists());
        assert_eq!(sh(&format!("stat -c %a {} {}", paths[0].display(), paths[1].display())), "750\n750\n");
        assert!(std::fs::write(paths[1].join("d/x"), "").is_err(), "read-only");
        // Once is enough, and it is told.
        assert_eq!(brig(&["image", "mount", "two:1"]).1.trim_end(), paths[1].to_str().unwrap());
        let listed = brig(&["image", "mount"]).1;
        assert!(listed.contains(&format!("two:1 {}", paths[1].display())) && listed.lines().count() == 2, "{listed}");
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert_eq!(mounts.lines().filter(|line| line.contains(paths[1].to_str().unwrap())).count(), 1);
        // In use, even when it is removed by force.
        let (status, _, refused) = brig(&["rmi", "two:1"]);
        assert!(status == 1 && refused.contains("is in use: the mount"), "{refused}");
        brig(&["image", "prune", "-a", "-f"]);
        assert_eq!(brig(&["rmi", "-f", "two:1"]).0, 0);
        brig(&["image", "prune", "-a", "-f"]);
        assert_eq!(std::fs::read_to_string(paths[1].join("d/kept")).unwrap(), "kept");
        // Gone by id, and with the last one the whole place.
        let id = paths[1].file_name().unwrap().to_str().unwrap();
        assert_eq!(brig(&["image", "unmount", id]).1, format!("sha256:{id}\n"));
        assert!(brig(&["image", "unmount", "one:1"]).1.starts_with("sha256:"));
        let (status, _, refused) = brig(&["image", "unmount", "one:1"]);
        assert!(status == 1 && refused.contains("it is not mounted"), "{refused}");
        assert_eq!(brig(&["rmi", "one:1"]).0, 0);
        brig(&["image", "prune", "-a", "-f"]);
        assert!(!engine.path("run/mnt").exists(), "{:?}", engine.names("run/mnt"));
    }
}

#[test]
fn what_a_killed_mount_left_is_swept() {
    let engine = Engine::new();
    load(&engine, "one:1", &[Layer::new().file("f", "f").finish()]);
    let mut points = 0;
    for n in 1.. {
        let end = testkit::killer::kill_at(&engine.command(&["image", "mount", "one:1"]), &engine.path("run"), n);
        if matches!(end, testkit::killer::End::Ended(..)) {
            break;
        }
        points += 1;
        // Whatever was done, it can be used and taken back.
        let path = engine.brig(&["image", "mount", "one:1"]).ok();
        assert_eq!(std::fs::read_to_string(Path::new(&path).join("f")).unwrap(), "f", "{n}");
        engine.brig(&["image", "unmount", "--all"]).ok();
        assert!(!engine.path("run/mnt").exists(), "{n} {end:?}");
    }
    assert!(points > 5, "{points}");
    engine.brig(&["image", "unmount", "--all"]).ok();
}
