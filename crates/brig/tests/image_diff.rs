//! `brig image diff`: what an image has changed, of the layers below its last or of another image, in both forms of layers.
//!
//! Place: the machine itself, as root, with Linux 6.12 or later.

#![allow(clippy::unwrap_used)] // tests

mod support;

use support::Engine;
use testkit::image::{Compression, Image, Layer, Meta};

fn load(engine: &Engine, form: &str, name: &str, layers: &[Vec<u8>]) {
    let archive = engine.path("archive.tar");
    std::fs::write(&archive, Image::new(layers, Compression::Gzip, "{}").docker_archive(name)).unwrap();
    let loaded = engine.brig(&["--layers", form, "load", "-q", "-i", archive.to_str().unwrap()]);
    assert_eq!(loaded.status, 0, "{loaded:?}");
}

fn capable(mode: u32, value: u8) -> Meta {
    let capability = vec![1, 0, 0, 2, value, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Meta { pax: vec![("SCHILY.xattr.security.capability".into(), capability)], ..Meta::mode(mode) }
}

fn base() -> Vec<u8> {
    Layer::new()
        .directory("d", 0o755)
        .file("d/same", "same")
        .file("d/content", "before")
        .file("d/size", "long")
        .file("d/gone", "x")
        .file("d/mode", "x")
        .file("d/becomes", "a file")
        .symlink("d/link", "same")
        .entry(b'0', "d/capable", "", b"#!", &capable(0o755, 0))
        .directory("whole", 0o755)
        .file("whole/a", "a")
        .file("whole/b", "b")
        .directory("left", 0o755)
        .file("left/alone", "alone")
        .directory("lost", 0o755)
        .file("lost/inside", "x")
        .finish()
}

fn changes() -> Vec<u8> {
    Layer::new()
        .file("d/content", "after!")
        .file("d/size", "longer")
        .file("d/.wh.gone", "")
        .entry(b'0', "d/mode", "", b"x", &Meta::mode(0o4755))
        .directory("d/becomes", 0o755)
        .file("d/becomes/inside", "x")
        .symlink("d/link", "content")
        .entry(b'0', "d/capable", "", b"#!", &capable(0o755, 4))
        .directory("whole", 0o755)
        .file("whole/.wh..wh..opq", "")
        .file("whole/b", "b")
        .file("whole/c", "c")
        .file(".wh.lost", "")
        .directory("new", 0o755)
        .directory("new/deep", 0o755)
        .file("new/deep/file", "x")
        // It is the same once more, in another layer and at another time.
        .entry(b'0', "left/alone", "", b"alone", &Meta { mtime: 77, ..Meta::mode(0o644) })
        .finish()
}

const FORWARD: &str = "C /d\nC /d/becomes\nA /d/becomes/inside\nC /d/capable\nC /d/content\nD /d/gone\nC /d/link\n\
                       C /d/mode\nC /d/size\nD /lost\nA /new\nA /new/deep\nA /new/deep/file\nC /whole\nD /whole/a\nA /whole/c";
const BACKWARD: &str = "C /d\nC /d/becomes\nC /d/capable\nC /d/content\nA /d/gone\nC /d/link\nC /d/mode\nC /d/size\n\
                        A /lost\nA /lost/inside\nD /new\nC /whole\nA /whole/a\nD /whole/c";

#[test]
fn two_images_are_compared_whole() {
    let engine = Engine::bare();
    for form in ["directories", "erofs"] {
        load(&engine, form, "old:1", &[base()]);
        load(&engine, form, "new:1", &[base(), changes()]);
        assert_eq!(engine.brig(&["image", "diff", "new:1", "old:1"]).ok(), FORWARD, "{form}");
        assert_eq!(engine.brig(&["diff", "old:1", "new:1"]).ok(), BACKWARD, "{form}");
        for name in ["old:1", "new:1"] {
            assert_eq!(engine.brig(&["image", "diff", name, name]).ok(), "", "{form}");
        }
        // The same files in other layers are no difference, in the other form neither.
        let flat = Layer::new()
            .directory("d", 0o755)
            .file("d/same", "same")
            .file("d/content", "after!")
            .file("d/size", "longer")
            .entry(b'0', "d/mode", "", b"x", &Meta::mode(0o4755))
            .directory("d/becomes", 0o755)
            .file("d/becomes/inside", "x")
            .symlink("d/link", "content")
            .entry(b'0', "d/capable", "", b"#!", &capable(0o755, 4))
            .directory("whole", 0o755)
            .file("whole/b", "b")
            .file("whole/c", "c")
            .directory("new", 0o755)
            .directory("new/deep", 0o755)
            .file("new/deep/file", "x")
            .directory("left", 0o755)
            .file("left/alone", "alone")
            .finish();
        for other in ["directories", "erofs"] {
            load(&engine, other, "flat:1", std::slice::from_ref(&flat));
            assert_eq!(engine.brig(&["image", "diff", "flat:1", "new:1"]).ok(), "", "{form} {other}");
            assert_eq!(engine.brig(&["image", "diff", "new:1", "flat:1"]).ok(), "", "{form} {other}");
            assert_eq!(engine.brig(&["image", "diff", "flat:1", "old:1"]).ok(), FORWARD, "{form} {other}");
            engine.brig(&["rmi", "flat:1"]);
        }
        // Alone, an image is what its last layer makes of those below.
        let alone = engine.brig(&["image", "diff", "new:1"]).ok();
        assert!(alone.contains("C /left/alone") && alone.contains("D /lost"), "{alone}");
        let whole = engine.brig(&["image", "diff", "old:1"]).ok();
        assert_eq!(whole.lines().count(), 16, "{whole}");
        engine.brig(&["rmi", "old:1", "new:1"]);
    }
    assert!(engine.names("root/layers").is_empty());
}

#[test]
fn a_name_that_is_missing_is_said() {
    let engine = Engine::bare();
    load(&engine, "directories", "old:1", &[base()]);
    for names in [["old:1", "none:1"], ["none:1", "old:1"]] {
        let failed = engine.brig(&["image", "diff", names[0], names[1]]);
        assert_eq!(failed.status, 1, "{failed:?}");
        assert!(failed.stderr.contains("none:1"), "{failed:?}");
    }
}
