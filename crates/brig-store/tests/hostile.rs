//! Layers that attack: each is refused with a clear error and leaves nothing behind.

#![allow(clippy::unwrap_used)] // tests

mod common;

use brig_store::{Limits, Store};
use common::{Place, add_layers, both, chain, counts};
use testkit::image::{Layer, Meta};

/// Takes a layer in, and checks that it is refused for the right reason and without a trace.
fn refused(layers: &[Vec<u8>], why: &str) {
    both(|place| refused_in(place, layers, why));
}

fn refused_in(place: &Place, layers: &[Vec<u8>], why: &str) {
    let outside = place.directory.path().join("outside");
    std::fs::write(&outside, "untouched").unwrap();
    let error = add_layers(&place.store, layers).unwrap_err();
    let text = chain(&error);
    assert!(text.contains(why), "expected `{why}` in `{text}`");
    place.store.collect(&brig_store::InUse::nobody, std::time::Duration::ZERO).unwrap();
    assert_eq!(place.counts(), (0, 0, 0), "{text}");
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "untouched");
    assert!(place.store.images().unwrap().images.is_empty());
}

fn one(layer: Layer, why: &str) {
    refused(&[layer.finish()], why);
}

#[test]
fn paths_that_climb() {
    one(Layer::new().file("../outside", "x"), "climbs with `..`");
    one(Layer::new().file("a/../../../outside", "x"), "climbs with `..`");
    one(Layer::new().directory("..", 0o777), "climbs with `..`");
    one(Layer::new().file("/../outside", "x"), "climbs with `..`");
    one(Layer::new().file(".wh...", ""), "deletes nothing");
    one(Layer::new().file(".wh..", ""), "deletes nothing");
    one(Layer::new().file(".wh.", ""), "deletes nothing");
    one(Layer::new().file("a/../.wh.x", ""), "climbs");
    one(Layer::new().file(&"d/".repeat(2100), "x"), "too long");
    one(Layer::new().file(&"n".repeat(300), "x"), "too long");
    let pax = Meta { pax: vec![("path".into(), b"../../outside".to_vec())], ..Meta::default() };
    one(Layer::new().entry(b'0', "ok", "", b"x", &pax), "climbs");
    let zero = Meta { pax: vec![("path".into(), b"a\0b".to_vec())], ..Meta::default() };
    one(Layer::new().entry(b'0', "ok", "", b"x", &zero), "bad path");
}

#[test]
fn symbolic_links_that_climb() {
    one(Layer::new().symlink("up", "../../..").file("up/outside", "x"), "climbs above the root");
    one(Layer::new().symlink("a", "b").symlink("b", "../..").file("a/outside", "x"), "climbs above the root");
    one(Layer::new().symlink("a", "b").symlink("b", "a").file("a/x", "x"), "too many symbolic links");
    one(Layer::new().file("f", "x").file("f/x", "x"), "not a directory");
    // Over two layers the link is below.
    refused(
        &[Layer::new().symlink("up", "../../..").finish(), Layer::new().file("up/outside", "x").finish()],
        "climbs above the root",
    );
    refused(
        &[Layer::new().symlink("me", "me").finish(), Layer::new().file("me/x", "x").finish()],
        "too many symbolic links",
    );
    refused(&[Layer::new().file("f", "x").finish(), Layer::new().file("f/x", "x").finish()], "not a directory");
}

#[test]
fn hard_links_that_lead_out() {
    one(Layer::new().hard_link("h", "../../outside"), "its target is outside");
    one(Layer::new().hard_link("h", "/"), "its target is the root");
    one(Layer::new().hard_link("h", "none"), "neither here nor in the layers below");
    one(Layer::new().directory("d", 0o755).hard_link("h", "d"), "its target is a directory");
    one(Layer::new().symlink("up", "../..").hard_link("h", "up/outside"), "climbs above the root");
}

#[test]
fn an_absolute_link_stays_inside() {
    both(|place| {
        let layer = Layer::new().directory("etc", 0o755).symlink("l", "/etc").file("l/brig-test", "in").finish();
        let image = add_layers(&place.store, &[layer]).unwrap();
        assert_eq!(std::fs::read_to_string(place.roots(&image)[0].join("etc/brig-test")).unwrap(), "in");
        assert!(!std::path::Path::new("/etc/brig-test").exists());
    });
}

#[test]
fn nodes_where_files_must_be() {
    for kind in [b'6', b'3', b'4'] {
        let node = Meta { device: (1, 3), ..Meta::default() };
        one(Layer::new().directory("etc", 0o755).entry(kind, "etc/passwd", "", b"", &node), "regular file");
    }
    one(
        Layer::new().symlink("e", "etc").directory("etc", 0o755).entry(b'6', "e/group", "", b"", &Meta::default()),
        "regular file",
    );
    one(Layer::new().entry(b'3', "gone", "", b"", &Meta::default()), "device 0:0");
}

#[test]
fn commands_to_overlay_are_dropped() {
    both(|place| {
        let pax = vec![
            ("SCHILY.xattr.trusted.overlay.redirect".to_owned(), b"/etc".to_vec()),
            ("SCHILY.xattr.trusted.overlay.opaque".to_owned(), b"y".to_vec()),
            ("SCHILY.xattr.user.overlay.opaque".to_owned(), b"y".to_vec()),
            ("SCHILY.xattr.user.kept".to_owned(), b"yes".to_vec()),
        ];
        let meta = Meta { mode: 0o755, pax, ..Meta::default() };
        let layer = Layer::new().entry(b'5', "d", "", b"", &meta).entry(b'0', "f", "", b"x", &meta).finish();
        let image = add_layers(&place.store, &[layer]).unwrap();
        for file in ["d", "f"] {
            let mut names = vec![0; 4096];
            let length = rustix::fs::llistxattr(place.roots(&image)[0].join(file), &mut names[..]).unwrap();
            assert_eq!(String::from_utf8_lossy(&names[..length]), "user.kept\0");
        }
    });
}

#[test]
fn damaged_archives() {
    let good = Layer::new().file("f", vec![7; 5000]).finish();
    refused(&[good[..3000].to_vec()], "cut short");
    refused(&[good[..700].to_vec()], "cut short");
    refused(&[good[..300].to_vec()], "cut short");
    let mut bad = good.clone();
    bad[5] = b'x';
    refused(&[bad], "bad checksum");
    one(Layer::new().entry(b'?', "f", "", b"", &Meta::default()), "unknown type");
    one(Layer::new().entry(b'L', "f", "", &vec![b'a'; 2 << 20], &Meta::default()), "extension header");
    one(Layer::new().raw_bytes(&[0x55; 1024]), "bad");
    let huge = Meta { pax: vec![("size".into(), b"9223372036854775807".to_vec())], ..Meta::default() };
    one(Layer::new().entry(b'0', "f", "", b"x", &huge), "bad size");
    let id = Meta { uid: 4_294_967_295, ..Meta::default() };
    one(Layer::new().entry(b'0', "f", "", b"x", &id), "bad uid");
}

#[test]
fn bombs() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { entries: 100, layer_bytes: 1 << 20, ratio: 10, ratio_floor: 64 << 10, ..Limits::default() };
    let store = Store::open_with(directory.path(), limits).unwrap();
    let mut many = Layer::new();
    for n in 0..101 {
        many = many.file(&format!("f{n}"), "");
    }
    let text = chain(&add_layers(&store, &[many.finish()]).unwrap_err());
    assert!(text.contains("more than 100 entries") || text.contains("unpacks to more"), "{text}");
    // Highly compressed: the ratio stops it.
    let text = chain(&add_layers(&store, &[Layer::new().file("zeros", vec![0; 900 << 10]).finish()]).unwrap_err());
    assert!(text.contains("unpacks to more than"), "{text}");
    // A sparse file as large as all disks of the world.
    let sparse = Meta {
        pax: vec![("GNU.sparse.size".into(), b"9000000000000000".to_vec()), ("GNU.sparse.map".into(), b"0,1".to_vec())],
        ..Meta::default()
    };
    let text = chain(&add_layers(&store, &[Layer::new().entry(b'0', "f", "", b"x", &sparse).finish()]).unwrap_err());
    assert!(text.contains("unpacks to more than"), "{text}");
    store.collect(&brig_store::InUse::nobody, std::time::Duration::ZERO).unwrap();
    assert_eq!(counts(directory.path()), (0, 0, 0));
}

/// A layer with a little of everything, to be damaged.
fn varied() -> Vec<u8> {
    let pax = Meta {
        pax: vec![
            ("path".into(), b"etc/../x".to_vec()),
            ("mtime".into(), b"1.5".to_vec()),
            ("GNU.sparse.size".into(), b"100".to_vec()),
            ("GNU.sparse.map".into(), b"0,1,50,1".to_vec()),
        ],
        ..Meta::default()
    };
    let mut layer = Layer::new().directory("etc", 0o755).file("etc/f", "x").symlink("l", "etc").file("l/g", "y");
    layer = layer.hard_link("h", "etc/f").file("etc/.wh.z", "").entry(b'6', "p", "", b"", &Meta::default());
    layer.file(&"n/".repeat(80), "").file("o/.wh..wh..opq", "").entry(b'0', "s", "", b"ab", &pax).finish()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damaged_layers_neither_panic_nor_escape(
        changes in proptest::collection::vec((0..12_000_usize, proptest::prelude::any::<u8>()), 1..12),
        repair in proptest::prelude::any::<bool>(),
    ) {
        let mut tar = varied();
        for (at, byte) in changes {
            let at = at % tar.len();
            tar[at] = byte;
            if repair {
                // A header that is wrong, but whose checksum is right.
                let start = at / 512 * 512;
                let mut header = tar::Header::from_byte_slice(&tar[start..start + 512]).clone();
                header.set_cksum();
                tar[start..start + 512].copy_from_slice(header.as_bytes());
            }
        }
        both(|place| {
            let result = add_layers(&place.store, std::slice::from_ref(&tar));
            let beside = std::fs::read_dir(place.directory.path()).unwrap().flatten();
            assert_eq!(beside.map(|entry| entry.file_name()).collect::<Vec<_>>(), ["root"]);
            if result.is_err() {
                place.store.collect(&brig_store::InUse::nobody, std::time::Duration::ZERO).unwrap();
                assert_eq!(place.counts(), (0, 0, 0));
            }
        });
    }
}

#[test]
fn a_deep_tree_is_made_and_removed() {
    both(|place| {
        let deep = "d/".repeat(1900);
        let layer = Layer::new().file(&format!("{deep}f"), "x").file("d", "now a file").finish();
        let image = add_layers(&place.store, &[layer]).unwrap();
        assert_eq!(std::fs::read_to_string(place.roots(&image)[0].join("d")).unwrap(), "now a file");
    });
}
