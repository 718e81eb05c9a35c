//! One layer, entry by entry: what comes out is what the archive says.

#![allow(clippy::unwrap_used)] // tests

mod common;

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use common::{add_layers, both, sh};
use testkit::image::{Compression, Image, Layer, Meta};

fn xattr(path: &std::path::Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn every_kind_of_entry() {
    both(|place| {
        let long = format!("{}/{}", "p".repeat(120), "q".repeat(200));
        let owned = Meta { mode: 0o4751, uid: 1234, gid: 3_000_000, ..Meta::default() };
        let capability = vec![1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let fine = Meta {
            pax: vec![
                ("mtime".into(), b"1234567890.123456789".to_vec()),
                ("SCHILY.xattr.user.color".into(), b"blue\0green".to_vec()),
                ("SCHILY.xattr.security.capability".into(), capability.clone()),
            ],
            ..Meta::mode(0o755)
        };
        let layer = Layer::new()
            .directory("./", 0o711)
            .entry(b'5', "tmp/", "", b"", &Meta { mtime: 77, ..Meta::mode(0o1777) })
            .entry(b'5', "shared/", "", b"", &Meta { gid: 50, ..Meta::mode(0o2775) })
            .file("shared/f", "x")
            .entry(b'0', "suid", "", b"#!", &owned)
            .entry(b'0', "fine", "", b"x", &fine)
            .file("tmp/a", "a")
            .hard_link("b", "tmp/a")
            .symlink("s", &"t".repeat(300))
            .symlink("l", "tmp")
            .file("l/through", "link")
            .entry(b'6', "fifo", "", b"", &Meta::mode(0o622))
            .entry(b'3', "null", "", b"", &Meta { device: (1, 3), ..Meta::mode(0o666) })
            .entry(b'4', "disk", "", b"", &Meta { device: (259, 300_000), ..Meta::mode(0o660) })
            .directory(&"p".repeat(120), 0o755)
            .file(&long, "long")
            .file("twice", "one")
            .file("twice", "two")
            .file("was-file", "x")
            .directory("was-file", 0o700)
            .directory("was-dir/inner", 0o755)
            .file("was-dir", "file")
            .finish();
        let image = add_layers(&place.store, &[layer]).unwrap();
        let root = &place.roots(&image)[0];
        let stat = |path: &str| root.join(path).symlink_metadata().unwrap();
        assert_eq!((image.root.mode, stat("").mode() & 0o7777), (0o711, 0o711));
        assert_eq!((stat("tmp").mode() & 0o7777, stat("tmp").mtime()), (0o1777, 77));
        assert_eq!((stat("shared").mode() & 0o7777, stat("shared").gid()), (0o2775, 50));
        assert_eq!(stat("shared/f").gid(), 0, "the directory's group is not inherited");
        let suid = stat("suid");
        assert_eq!(
            (suid.mode() & 0o7777, suid.uid(), suid.gid(), suid.mtime()),
            (0o4751, 1234, 3_000_000, 1_000_000_000)
        );
        assert_eq!((stat("fine").mtime(), stat("fine").mtime_nsec()), (1_234_567_890, 123_456_789));
        assert_eq!(xattr(&root.join("fine"), "user.color").unwrap(), b"blue\0green");
        assert_eq!(xattr(&root.join("fine"), "security.capability").unwrap(), capability);
        assert_eq!(stat("b").ino(), stat("tmp/a").ino());
        assert_eq!(std::fs::read_link(root.join("s")).unwrap().as_os_str().len(), 300);
        assert_eq!(std::fs::read_to_string(root.join("tmp/through")).unwrap(), "link");
        assert!(stat("fifo").file_type().is_fifo());
        assert!(stat("null").file_type().is_char_device());
        assert_eq!(stat("null").rdev(), rustix::fs::makedev(1, 3));
        assert_eq!((stat("disk").rdev(), stat("disk").mode() & 0o777), (rustix::fs::makedev(259, 300_000), 0o660));
        assert_eq!(std::fs::read_to_string(root.join(&long)).unwrap(), "long");
        assert_eq!(std::fs::read_to_string(root.join("twice")).unwrap(), "two");
        assert!(stat("was-file").is_dir());
        assert!(stat("was-dir").is_file());
    });
}

#[test]
fn marks_become_overlays_own() {
    both(|place| {
        let below =
            Layer::new().directory("d", 0o755).file("d/x", "x").directory("e", 0o755).file("e/x", "x").file("f", "f");
        let above = Layer::new()
            .directory("d", 0o755)
            .file("d/.wh.x", "")
            .directory("e", 0o755)
            .file("e/.wh..wh..opq", "")
            .file(".wh.f", "")
            .file(".wh..wh.plnk", "aufs")
            .file(".wh.g", "")
            .directory("g", 0o755)
            .file("g/new", "")
            .finish();
        let image = add_layers(&place.store, &[below.finish(), above]).unwrap();
        let root = &place.roots(&image)[1];
        for gone in ["d/x", "f"] {
            let stat = root.join(gone).symlink_metadata().unwrap();
            assert!(stat.file_type().is_char_device() && stat.rdev() == 0, "{gone}");
        }
        assert_eq!(xattr(&root.join("e"), "trusted.overlay.opaque").unwrap(), b"y");
        assert_eq!(xattr(&root.join("g"), "trusted.overlay.opaque").unwrap(), b"y", "deleted and made anew");
        assert_eq!(xattr(&root.join("d"), "trusted.overlay.opaque"), None);
        assert!(!root.join(".wh..wh.plnk").exists());
    });
}

#[test]
fn sparse_files_of_every_format_of_gnu_tar() {
    for format in [
        "--format=gnu",
        "--format=pax --sparse-version=0.0",
        "--format=pax --sparse-version=0.1",
        "--format=pax --sparse-version=1.0",
    ] {
        both(|place| {
            let work = place.directory.path().display().to_string();
            // Pieces enough for the extended headers of the old format.
            sh(&format!(
                "cd {work}; truncate -s 50M holes; for n in $(seq 0 40); do printf data$n | dd of=holes bs=1 seek=$((n * 1048576)) conv=notrunc status=none; done; tar -S {format} -cf holes.tar holes"
            ));
            let tar = std::fs::read(place.directory.path().join("holes.tar")).unwrap();
            assert!(tar.len() < 1 << 20, "{format}: the archive itself is sparse");
            let image = add_layers(&place.store, &[tar]).unwrap();
            let file = place.roots(&image)[0].join("holes");
            assert_eq!(
                std::fs::read(&file).unwrap(),
                std::fs::read(place.directory.path().join("holes")).unwrap(),
                "{format}"
            );
            // The holes of a file in an image are holes of the image.
            let kept = if brig_store::is_image(&image.layers[0]) { &image.layers[0] } else { &file };
            assert!(kept.metadata().unwrap().blocks() * 512 < 1 << 20, "{format}: holes stay holes");
        });
    }
}

#[test]
fn archives_of_gnu_tar_with_everything() {
    for format in ["gnu", "pax", "ustar"] {
        both(|place| {
            let work = place.directory.path().display().to_string();
            sh(&format!(
                "cd {work}; mkdir -p src/a/b; cd src; echo hello > a/f; ln a/f a/b/g; ln -s ../f a/b/s; mkfifo p; chmod 1777 a/b; chown 12:34 a/f; touch -d '2001-02-03 04:05:06.789' a/f; echo ünï > 'nä me'; \
             tar --format={format} --xattrs -cf ../t.tar ."
            ));
            let image =
                add_layers(&place.store, &[std::fs::read(place.directory.path().join("t.tar")).unwrap()]).unwrap();
            let list = |path: &str| {
                sh(&format!(
                    "cd {path}; find . -printf '%P|%y|%m|%U|%G|%n|%l|%s\\n' | grep -v '|d|' | sort; cat a/b/g; stat -c %Y a/f a a/b"
                ))
            };
            assert_eq!(list(&place.roots(&image)[0].display().to_string()), list(&format!("{work}/src")), "{format}");
        });
    }
}

#[test]
fn all_compressions_make_the_same_layer() {
    both(|place| {
        let layer = Layer::new().directory("d", 0o755).file("d/f", vec![9; 3 << 20]).finish();
        let mut names = Vec::new();
        for compression in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
            let image =
                common::add(&place.store, &Image::new(std::slice::from_ref(&layer), compression, "{}"), &["test"])
                    .unwrap();
            names.push(image.layer_names[0].clone());
        }
        assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
        assert_eq!(place.counts().1, 1, "one layer for all");
    });
}

#[test]
fn an_empty_layer_and_an_empty_image() {
    both(|place| {
        let image = add_layers(&place.store, &[Layer::new().finish(), Vec::new()]).unwrap();
        assert_eq!(image.layers.len(), 2);
        assert!(add_layers(&place.store, &[]).unwrap().layers.is_empty());
    });
}
