//! Archives and layouts: in from every form, out in both, and read by other tools.

#![allow(clippy::unwrap_used)] // tests

mod common;

use std::io::Cursor;

use brig_spec::platform::Platform;
use brig_store::{Error, Import, Layout, SaveFormat, Silent};
use common::{Place, add, chain, name, sh};
use testkit::image::{Compression, Image, Layer, compress};

fn layers() -> Vec<Vec<u8>> {
    vec![
        Layer::new().directory("etc", 0o755).file("etc/motd", "hello").finish(),
        Layer::new().file("etc/second", "two").finish(),
    ]
}

fn image() -> Image {
    Image::new(&layers(), Compression::Gzip, r#"{"Cmd":["sh"],"Env":["A=b"]}"#)
}

fn check(image: &brig_store::Image) {
    assert_eq!(image.config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert_eq!(std::fs::read_to_string(image.layers[0].join("etc/motd")).unwrap(), "hello");
    assert_eq!(std::fs::read_to_string(image.layers[1].join("etc/second")).unwrap(), "two");
}

#[test]
fn a_layout_by_tag_and_without() {
    let place = Place::new();
    let path = place.directory.path().join("layout");
    image().write_layout(&path, "v1");
    let layout = Layout::open(&path).unwrap();
    for tag in [Some("v1"), None] {
        check(&place.store.add_layout(&layout, tag, &Platform::host(), &[name("a")], &Silent).unwrap());
    }
    let text = chain(&place.store.add_layout(&layout, Some("v2"), &Platform::host(), &[], &Silent).unwrap_err());
    assert!(text.contains("no image with the tag `v2`"), "{text}");
    assert!(matches!(Layout::open(place.directory.path()), Err(Error::Archive { .. })));
}

#[test]
fn docker_archives_old_and_compressed() {
    let plain = Image::new(&layers(), Compression::Plain, r#"{"Cmd":["sh"],"Env":["A=b"]}"#);
    for (image, outer) in [
        (plain, Compression::Plain),
        (image(), Compression::Plain),
        (image(), Compression::Gzip),
        (image(), Compression::Zstd),
    ] {
        let place = Place::new();
        let path = place.directory.path().join("saved.tar");
        std::fs::write(&path, compress(&image.docker_archive("me/app:1"), outer)).unwrap();
        let mut archive = place.store.open_archive(&path).unwrap();
        let loaded = place.store.load(&mut archive, &Platform::host(), &Silent).unwrap();
        assert_eq!(loaded.len(), 1);
        check(&loaded[0]);
        assert_eq!(place.store.names_of(&loaded[0].id).unwrap(), [name("me/app:1")]);
        assert_eq!(loaded[0].id.to_string(), image.id());
        let mut stream = place.store.read_archive(Cursor::new(std::fs::read(&path).unwrap()), "-").unwrap();
        assert_eq!(place.store.load(&mut stream, &Platform::host(), &Silent).unwrap()[0].id, loaded[0].id);
    }
}

#[test]
fn layers_that_are_links_in_an_old_archive() {
    let place = Place::new();
    let layer = layers().remove(0);
    let image = Image::new(&[layer.clone(), layer.clone()], Compression::Plain, r#"{"Cmd":["sh"]}"#);
    let config = format!("{}.json", &image.id()[7..]);
    let tar = Layer::new()
        .file("a/layer.tar", &layer)
        .symlink("b/layer.tar", "../a/layer.tar")
        .file(&config, &image.config)
        .file(
            "manifest.json",
            format!(r#"[{{"Config":"{config}","RepoTags":null,"Layers":["a/layer.tar","b/layer.tar"]}}]"#),
        )
        .finish();
    let mut archive = place.store.read_archive(Cursor::new(tar), "-").unwrap();
    let loaded = place.store.load(&mut archive, &Platform::host(), &Silent).unwrap();
    assert_eq!((loaded[0].layers.len(), place.store.names_of(&loaded[0].id).unwrap().len()), (2, 0));
    assert_eq!(loaded[0].layers[0], loaded[0].layers[1]);
}

#[test]
fn saved_and_loaded_again() {
    for format in [SaveFormat::Docker, SaveFormat::Oci] {
        let place = Place::new();
        let made = add(&place.store, &image(), &["me/app:1", "other:2"]).unwrap();
        let mut saved = Vec::new();
        place.store.save(&["me/app:1", "other:2"], format, &mut saved).unwrap();
        let elsewhere = Place::new();
        let mut archive = elsewhere.store.read_archive(Cursor::new(saved.clone()), "-").unwrap();
        let loaded = elsewhere.store.load(&mut archive, &Platform::host(), &Silent).unwrap();
        assert_eq!(loaded.len(), 1, "{format:?}");
        check(&loaded[0]);
        assert_eq!(loaded[0].id, made.id, "{format:?}");
        assert_eq!(elsewhere.store.names_of(&made.id).unwrap().len(), 2, "{format:?}");
        let mut again = Vec::new();
        elsewhere.store.save(&["me/app:1", "other:2"], format, &mut again).unwrap();
        assert_eq!(again.len(), saved.len());
    }
}

#[test]
fn skopeo_reads_what_is_saved_and_writes_what_is_loaded() {
    let place = Place::new();
    add(&place.store, &image(), &["me/app:1"]).unwrap();
    let work = place.directory.path().display().to_string();
    for (format, kind) in [(SaveFormat::Docker, "docker-archive"), (SaveFormat::Oci, "oci-archive")] {
        let file = std::fs::File::create(place.directory.path().join("saved.tar")).unwrap();
        place.store.save(&["me/app:1"], format, file).unwrap();
        let from = format!("{kind}:{work}/saved.tar");
        let shown = sh(&format!("skopeo --insecure-policy inspect --config {from}"));
        assert!(shown.contains("A=b"), "{shown}");
        for (to, name_there) in [("docker-archive", ":her/app:3"), ("oci-archive", ":v3")] {
            let _ = std::fs::remove_file(place.directory.path().join("copy.tar"));
            sh(&format!("skopeo --insecure-policy copy -q {from} {to}:{work}/copy.tar{name_there}"));
            let elsewhere = Place::new();
            let mut archive = elsewhere.store.open_archive(&place.directory.path().join("copy.tar")).unwrap();
            let loaded = elsewhere.store.load(&mut archive, &Platform::host(), &Silent).unwrap();
            check(&loaded[0]);
        }
    }
}

#[test]
fn a_root_file_system_is_imported() {
    let tar = layers().remove(0);
    let import = Import {
        platform: Platform::host(),
        config: brig_spec::image::ProcessConfig { cmd: Some(vec!["sh".into()]), ..Default::default() },
        created: Some("2024-01-01T00:00:00Z".into()),
        comment: None,
    };
    let place = Place::new();
    for compression in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
        let stream = Cursor::new(compress(&tar, compression));
        let image = place.store.import(stream, "-", &import, &[name("mine")], &Silent).unwrap();
        assert_eq!(std::fs::read_to_string(image.layers[0].join("etc/motd")).unwrap(), "hello");
        assert_eq!(place.store.image("mine").unwrap().id, image.id);
    }
    assert_eq!(place.counts().1, 1);
    let text =
        chain(&place.store.import(Cursor::new(b"no tar at all".repeat(100)), "x", &import, &[], &Silent).unwrap_err());
    assert!(text.contains("bad"), "{text}");
}

#[test]
fn archives_that_are_none() {
    let place = Place::new();
    for (bytes, why) in [
        (b"garbage".repeat(200), "cannot read image archive"),
        (Layer::new().file("x", "y").finish(), "neither manifest.json nor index.json"),
        (Layer::new().file("manifest.json", "[{}]").finish(), "manifest.json is bad"),
        (
            Layer::new().file("manifest.json", r#"[{"Config":"../../etc/passwd","Layers":[]}]"#).finish(),
            "it has no `../../etc/passwd`",
        ),
        (Layer::new().file("index.json", r#"{"schemaVersion":2,"config":{},"layers":[]}"#).finish(), "cannot read"),
        (Layer::new().symlink("manifest.json", "manifest.json").finish(), "too many links"),
    ] {
        let result = place
            .store
            .read_archive(Cursor::new(bytes), "x.tar")
            .and_then(|mut archive| archive.images(&Platform::host()));
        let text = chain(&result.unwrap_err());
        assert!(text.contains(why), "{text}");
    }
}
