//! The plain listing, which is kept in one file: it is what the records and names say, whoever changed them and however.

#![allow(clippy::unwrap_used)] // tests

mod common;

use brig_store::{InUse, Line, Store};
use common::{Place, add, name};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use testkit::image::{Compression, Image, Layer};

fn image(text: &str) -> Image {
    Image::new(&[Layer::new().file("f", text).finish()], Compression::Gzip, "{}")
}

/// What records and names say, as sorted lines.
fn truth(store: &Store) -> Vec<String> {
    let mut lines = Vec::new();
    for image in store.images().unwrap().images {
        let told =
            |name: &str| format!("{name} {} {} {}", image.id.hex(), image.size, image.created.as_deref().unwrap());
        lines.extend(image.names.iter().map(|name| told(&name.familiar())));
        if image.names.is_empty() {
            lines.push(told(":"));
        }
    }
    lines.sort();
    lines
}

/// What the listing says, as sorted lines.
fn listed(store: &Store) -> Vec<String> {
    let (lines, unreadable) = store.lines().unwrap();
    assert!(unreadable.is_empty());
    let text = |line: &Line| format!("{}:{} {} {} {}", line.repository, line.tag, line.id, line.size, line.created);
    let mut lines: Vec<String> = lines.iter().map(text).collect();
    lines.sort();
    lines
}

fn file(place: &Place) -> Vec<u8> {
    std::fs::read(place.path().join("listing")).unwrap()
}

#[test]
fn a_change_is_in_the_listing_without_reading_all_again() {
    let place = Place::new();
    let store = &place.store;
    assert!(listed(store).is_empty());
    let one = add(store, &image("one"), &["one", "localhost:5000/me/one:v1"]).unwrap();
    let users = || Ok(InUse::default());
    let steps: [(&str, &dyn Fn()); 11] = [
        ("added", &|| ()),
        ("another one", &|| drop(add(store, &image("two"), &["two"]).unwrap())),
        ("one without a name", &|| drop(add(store, &image("three"), &[]).unwrap())),
        ("added again", &|| drop(add(store, &image("one"), &["one"]).unwrap())),
        ("one more name", &|| store.tag("two", &name("registry.example:1/a/b:c")).unwrap()),
        ("a name moved away", &|| store.tag("one", &name("two:latest")).unwrap()),
        ("names taken", &|| drop(store.untag("one", &[name("two"), name("localhost:5000/me/one:v1")]).unwrap())),
        ("the last one too", &|| drop(store.untag("one", &[]).unwrap())),
        ("removed", &|| drop(store.remove(one.id.short(), &users, false).unwrap())),
        ("removed by name", &|| drop(store.remove("registry.example:1/a/b:c", &users, false).unwrap())),
        ("pruned", &|| drop(store.remove_unused(&users, false, &|_| true).unwrap())),
    ];
    for (what, step) in steps {
        step();
        let kept = file(&place);
        assert_eq!(listed(store), truth(store), "{what}");
        assert_eq!(file(&place), kept, "{what}: the listing had to be made anew");
        // What changes neither record nor name leaves it as it is.
        store.collect(&users, Duration::ZERO).unwrap();
        assert_eq!(file(&place), kept, "{what}");
    }
    assert!(listed(store).is_empty());
}

#[test]
fn a_change_by_somebody_who_knows_nothing_of_it_is_seen_at_once() {
    let place = Place::new();
    let store = &place.store;
    let ids = ["a", "b"].map(|text| add(store, &image(text), &["x"]).unwrap().id);
    let names = place.path().join("images/names");
    for n in 0..300 {
        // Kept just now, and then a rename within the same tick of the kernel's clock.
        assert_eq!(listed(store), truth(store));
        let target = format!("{} docker.io/library/x:latest", ids[n % 2].hex());
        std::os::unix::fs::symlink(&target, names.join(".new")).unwrap();
        std::fs::rename(names.join(".new"), names.join("docker.io+library+x:latest")).unwrap();
        let found = listed(store);
        assert!(found.iter().any(|line| line.starts_with(&format!("x:latest {}", ids[n % 2].hex()))), "{n}: {found:?}");
    }
    let record = place.path().join(format!("images/{}.json", ids[0].hex()));
    let text = std::fs::read_to_string(&record).unwrap();
    assert!(text.contains("\"size\":1,\"root\""), "{text}");
    for size in 100..150 {
        let new = text.replace("\"size\":1,\"root\"", &format!("\"size\":{size},\"root\""));
        std::fs::write(place.path().join("images/.new"), new).unwrap();
        std::fs::rename(place.path().join("images/.new"), &record).unwrap();
        assert_eq!(listed(store), truth(store));
        assert!(listed(store).iter().any(|line| line.contains(&format!(" {size} "))), "{size}");
    }
    std::fs::remove_file(&record).unwrap();
    assert_eq!(listed(store), truth(store));
}

#[test]
fn a_broken_listing_is_made_anew() {
    let place = Place::new();
    let store = &place.store;
    add(store, &image("one"), &["one"]).unwrap();
    let good = listed(store);
    let path = place.path().join("listing");
    let kept = file(&place);
    for cut in [0, 1, 20, kept.len() / 2, kept.len() - 1] {
        std::fs::write(&path, &kept[..cut]).unwrap();
        assert_eq!(listed(store), good, "{cut}");
        assert_eq!(listed(store), good, "{cut}");
        // Nor does a change build upon it.
        std::fs::write(&path, &kept[..cut]).unwrap();
        store.tag("one", &name("two")).unwrap();
        assert_eq!(listed(store), truth(store), "{cut}");
        store.untag("one", &[name("two")]).unwrap();
    }
    // The power went: the size had come to the disk, and nothing of the content.
    std::fs::write(&path, vec![0; kept.len()]).unwrap();
    assert_eq!(listed(store), good);
    // Nor can any other thing in its place be in the way.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(listed(store), good);
    store.tag("one", &name("two")).unwrap();
    assert_eq!(listed(store), truth(store));
    std::fs::remove_dir(&path).unwrap();
    assert_eq!(listed(store), truth(store));
    assert_eq!(file(&place).last(), Some(&b'\n'));
    assert_eq!(
        std::fs::read_dir(place.path().join("tmp")).unwrap().count(),
        0,
        "nothing is left of what could not be kept"
    );
}

#[test]
fn what_cannot_be_trusted_is_not_kept() {
    let place = Place::new();
    let store = &place.store;
    let one = add(store, &image("one"), &["one"]).unwrap();
    // A name of an image that is gone, as a killed removal leaves it, is the image's again when that comes back.
    std::fs::remove_file(place.path().join(format!("images/{}.json", one.id.hex()))).unwrap();
    assert!(listed(store).is_empty());
    assert!(!place.path().join("listing").exists() || listed(store).is_empty());
    add(store, &image("one"), &[]).unwrap();
    assert_eq!(listed(store), truth(store));
    assert!(listed(store)[0].starts_with("one:latest "), "{:?}", listed(store));
    // A record that cannot be read is told of each time.
    let record = place.path().join(format!("images/{}.json", one.id.hex()));
    std::fs::set_permissions(&record, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(place.path().join("images/.new"), "{").unwrap();
    std::fs::rename(place.path().join("images/.new"), &record).unwrap();
    for _ in 0..2 {
        let (lines, unreadable) = store.lines().unwrap();
        assert_eq!((lines.len(), unreadable.len()), (0, 1));
    }
}

#[test]
fn many_at_once_lose_no_change() {
    let place = Place::new();
    let store = &place.store;
    add(store, &image("one"), &["one"]).unwrap();
    listed(store);
    std::thread::scope(|scope| {
        for n in 0..6 {
            scope.spawn(move || {
                for round in 0..10 {
                    let own = name(&format!("localhost/thread{n}:{round}"));
                    store.tag("one", &own).unwrap();
                    let familiar = format!("{} ", own.familiar());
                    assert!(listed(store).iter().any(|line| line.starts_with(&familiar)), "{familiar}");
                    if round % 2 == 0 {
                        store.untag("one", &[own]).unwrap();
                        assert!(!listed(store).iter().any(|line| line.starts_with(&familiar)), "{familiar}");
                    }
                }
            });
        }
    });
    assert_eq!(listed(store), truth(store));
    assert_eq!(listed(store).len(), 1 + 6 * 5);
}
