//! Names, ids, listing, removal and collection.

#![allow(clippy::unwrap_used)] // tests

mod common;

use std::time::Duration;

use brig_store::{Error, InUse};
use common::{Place, add, name};
use testkit::image::{Compression, Image, Layer};

fn image(text: &str) -> Image {
    let base = Layer::new().directory("d", 0o755).file("d/base", "base").finish();
    Image::new(
        &[base, Layer::new().directory("d", 0o755).file("d/f", text).finish()],
        Compression::Gzip,
        r#"{"Env":["A=b"]}"#,
    )
}

#[test]
fn found_by_name_id_and_prefix() {
    let place = Place::new();
    let store = &place.store;
    let one = add(store, &image("one"), &["one", "localhost:5000/me/one:v1"]).unwrap();
    let two = add(store, &image("two"), &["two"]).unwrap();
    for text in [
        "one",
        "one:latest",
        "docker.io/library/one",
        "localhost:5000/me/one:v1",
        &one.id.to_string(),
        one.id.hex(),
        one.id.short(),
    ] {
        assert_eq!(store.image(text).unwrap().id, one.id, "{text}");
    }
    assert_eq!(store.image("one").unwrap().config.config.env, ["A=b"]);
    assert_eq!(store.names_of(&store.image("one").unwrap().id).unwrap().len(), 2);
    for text in ["three", "one:v2", "", "..", "sha256:", &"0".repeat(64), "One"] {
        assert!(matches!(store.image(text), Err(Error::NoSuchImage(_))), "{text}");
    }
    store.tag("one", &name("two")).unwrap();
    assert_eq!(store.image("two").unwrap().id, one.id, "the name has moved");
    let listing = store.images().unwrap();
    assert_eq!(listing.images.len(), 2);
    let left = listing.images.iter().find(|image| image.id == two.id).unwrap();
    assert!(left.names.is_empty());
    assert_eq!(left.created.as_deref(), Some("2024-01-02T03:04:05Z"));
}

#[test]
fn a_prefix_of_two_ids_is_ambiguous() {
    let place = Place::new();
    let mut seen: Vec<String> = Vec::new();
    for n in 0.. {
        let id = add(&place.store, &image(&format!("{n}")), &[]).unwrap().id;
        if let Some(other) = seen.iter().find(|other| other[..1] == id.hex()[..1]) {
            assert!(matches!(place.store.image(&other[..1]), Err(Error::Ambiguous(_))));
            return;
        }
        seen.push(id.hex().to_owned());
    }
}

#[test]
fn long_names_are_names_too() {
    let place = Place::new();
    let long = format!("localhost:5000/{}:{}", "a/".repeat(100) + "b", "t".repeat(120));
    add(&place.store, &image("x"), &[&long]).unwrap();
    assert_eq!(place.store.names_of(&place.store.image(&long).unwrap().id).unwrap()[0].to_string(), long);
    place.store.remove(&long, &InUse::nobody, false).unwrap();
    assert!(place.store.image(&long).is_err());
}

#[test]
fn removal_frees_what_nobody_else_needs() {
    let place = Place::new();
    let store = &place.store;
    let one = add(store, &image("one"), &["one", "also"]).unwrap();
    add(store, &image("two"), &["two"]).unwrap();
    assert_eq!(place.counts(), (7, 3, 0), "two images share a layer");
    let in_use = InUse { images: vec![(one.id.clone(), "container web".to_owned())], layers: one.layer_names.clone() };
    // One name of two.
    let removed = store.remove("also", &|| Ok(in_use.clone()), false).unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted), (1, None));
    // The last name, while a container uses it.
    let error = store.remove("one", &|| Ok(in_use.clone()), false).unwrap_err();
    assert!(error.to_string().contains("container web uses it"), "{error}");
    // By force: the layers stay for the container.
    let removed = store.remove("one", &|| Ok(in_use.clone()), true).unwrap();
    assert_eq!(removed.deleted, Some(one.id.clone()));
    store.collect(&|| Ok(in_use.clone()), Duration::ZERO).unwrap();
    assert!(one.layers.iter().all(|layer| layer.is_dir()));
    assert!(store.image("one").is_err());
    // The container is gone.
    let collected = store.collect(&InUse::nobody, Duration::ZERO).unwrap();
    assert_eq!(collected.layers, 1);
    assert_eq!(place.counts(), (4, 2, 0));
    store.remove("two", &InUse::nobody, false).unwrap();
    store.collect(&InUse::nobody, Duration::ZERO).unwrap();
    assert_eq!(place.counts(), (0, 0, 0));
}

#[test]
fn a_hold_outlives_removal() {
    let place = Place::new();
    let one = add(&place.store, &image("one"), &["one"]).unwrap();
    let hold = place.store.hold(&one).unwrap();
    place.store.remove("one", &InUse::nobody, false).unwrap();
    let (blobs, ..) = place.counts();
    place.store.collect(&InUse::nobody, Duration::ZERO).unwrap();
    assert!(one.layers.iter().all(|layer| layer.is_dir()));
    assert_eq!(place.counts().0, blobs);
    drop(hold);
    place.store.collect(&InUse::nobody, Duration::ZERO).unwrap();
    assert_eq!(place.counts(), (0, 0, 0));
    assert!(matches!(place.store.hold(&one), Err(Error::NoSuchImage(_))));
}

#[test]
fn names_in_two_repositories_protect_from_removal_by_id() {
    let place = Place::new();
    let id = add(&place.store, &image("x"), &["a", "b"]).unwrap().id.to_string();
    assert!(matches!(place.store.remove(&id, &InUse::nobody, false), Err(Error::InUse { .. })));
    assert_eq!(place.store.remove(&id, &InUse::nobody, true).unwrap().untagged.len(), 2);
}

#[test]
fn unnamed_images_are_removed_on_request_only() {
    let place = Place::new();
    add(&place.store, &image("old"), &["app"]).unwrap();
    let new = add(&place.store, &image("new"), &["app"]).unwrap();
    place.store.collect(&InUse::nobody, Duration::ZERO).unwrap();
    assert_eq!(place.store.images().unwrap().images.len(), 2);
    assert_eq!(place.store.remove_unused(&InUse::nobody, false, &|_| true).unwrap().len(), 1);
    assert_eq!(place.store.image("app").unwrap().id, new.id);
}

#[test]
fn an_unreadable_record_is_told_and_nothing_is_lost() {
    let place = Place::new();
    let one = add(&place.store, &image("one"), &["one"]).unwrap();
    add(&place.store, &image("two"), &["two"]).unwrap();
    let record = place.path().join(format!("images/{}.json", one.id.hex()));
    let good = std::fs::read(&record).unwrap();
    for bad in [&b"{"[..], b"", br#"{"format":99}"#] {
        std::fs::write(&record, bad).unwrap();
        let listing = place.store.images().unwrap();
        assert_eq!((listing.images.len(), listing.unreadable.len()), (1, 1));
        assert!(listing.unreadable[0].to_string().contains(one.id.hex()));
        assert!(place.store.image("two").is_ok());
        assert!(matches!(place.store.image("one"), Err(Error::Record { .. })));
        place.store.collect(&InUse::nobody, Duration::ZERO).unwrap();
        place.store.remove_unused(&InUse::nobody, false, &|_| true).unwrap();
    }
    std::fs::write(&record, good).unwrap();
    assert!(place.store.image("one").unwrap().layers.iter().all(|layer| layer.is_dir()));
}

#[test]
fn directories_are_for_their_owner_alone() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    for path in ["", "blobs/sha256", "layers", "images", "images/names", "tmp"] {
        assert_eq!(place.path().join(path).metadata().unwrap().mode() & 0o777, 0o700, "{path}");
    }
}
