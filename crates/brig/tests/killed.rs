//! `brig` killed at every call by which pull, load, commit, tag, rmi and prune change the store. Whatever the point: the next
//! command opens the store, what the killed one did not touch is whole, and after a collection nothing is left over.
//!
//! Place: the machine itself, as root, with Debian's docker-registry.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use brig_store::{InUse, Silent, Store};
use std::collections::BTreeMap;
use std::time::Duration;
use support::Engine;
use testkit::image::{Compression, Image, Layer};
use testkit::killer::{End, kill_at};
use testkit::registry::Registry;

/// Two small layers, one of which needs the other, and so comes out by its chain.
fn small(text: &str) -> Image {
    let base = Layer::new().directory("d/", 0o750).file("d/base", format!("base of {text}")).symlink("l", "d").finish();
    let top = Layer::new().file("d/.wh.base", "").file("d/top", text).hard_link("d/link", "d/top").finish();
    Image::new(&[base, top], Compression::Gzip, r#"{"Cmd":["x"]}"#)
}

/// What there is, by name.
fn names(store: &Store) -> BTreeMap<String, String> {
    let listing = store.images().unwrap();
    assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
    let pairs = |image: &brig_store::ImageSummary| {
        image.names.iter().map(|name| (name.familiar(), image.id.to_string())).collect::<Vec<_>>()
    };
    let names: BTreeMap<String, String> = listing.images.iter().flat_map(pairs).collect();
    // The listing that is kept in one file says the same, whatever has been cut short.
    let (lines, _) = store.lines().unwrap();
    let titles = lines.iter().filter(|line| !line.repository.is_empty());
    let kept: BTreeMap<String, String> =
        titles.map(|line| (format!("{}:{}", line.repository, line.tag), format!("sha256:{}", line.id))).collect();
    assert_eq!(kept, names);
    assert_eq!(lines.len(), listing.images.iter().map(|image| image.names.len().max(1)).sum::<usize>());
    names
}

struct Case<'a> {
    verb: &'static str,
    /// Brings the store to where the command begins.
    prepare: &'a dyn Fn(&Store),
    /// The names that the command takes or gives, and nothing else may.
    touches: &'a [&'a str],
    command: &'a [&'a str],
}

/// Kills the command at its first call, its second, and so on until it comes through; returns how many there were.
fn kill_everywhere(engine: &Engine, case: &Case<'_>) -> u64 {
    let root = engine.path("root");
    let users = || {
        let config = brig_engine::Config::new(engine.path("root"), engine.path("run"));
        brig_engine::containers::in_use(&config).map_err(Into::into)
    };
    let mut calls: BTreeMap<&str, u64> = BTreeMap::new();
    for n in 1.. {
        let store = Store::open(&root).unwrap();
        (case.prepare)(&store);
        let before = names(&store);
        let end = kill_at(&engine.command(case.command), &root, n);
        let point = format!("{} killed at call {n}, {end:?}", case.verb);
        // 1. The next command finds everything that was not its concern.
        let listed = engine.brig(&["images", "-q"]);
        assert_eq!((listed.status, listed.stderr.as_str()), (0, ""), "{point}");
        let after = names(&store);
        for (name, id) in &before {
            assert!(case.touches.contains(&name.as_str()) || after.get(name) == Some(id), "{point}: {name} is lost");
        }
        for name in after.keys() {
            assert!(case.touches.contains(&name.as_str()) || before.contains_key(name), "{point}: {name} appears");
        }
        // 2. After a collection everything that is listed is whole, and there is nothing else.
        store.collect(&users, Duration::ZERO).unwrap();
        let report = store.check(&users, n % 16 == 0, &Silent).unwrap();
        assert!(report.problems.is_empty() && report.unused == 0, "{point}: {report:?}");
        match end {
            End::Killed(name) => *calls.entry(name).or_default() += 1,
            End::Ended(status, seen) => {
                assert_eq!((status, seen), (0, n - 1), "{point}");
                println!("{}: {seen} points: {calls:?}", case.verb);
                return seen;
            }
        }
    }
    0
}

fn forget(store: &Store, names: &[&str]) {
    for name in names {
        match store.remove(name, &InUse::nobody, true) {
            Ok(_) | Err(brig_store::Error::NoSuchImage(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    store.remove_unused(&InUse::nobody, false, &|_| true).unwrap();
    store.collect(&InUse::nobody, Duration::ZERO).unwrap();
}

#[test]
fn a_store_survives_a_kill_at_every_write() {
    let engine = Engine::new();
    let registry = Registry::start();
    registry.push(&small("pulled"), "app", "1");
    let pulled = format!("{}/app:1", registry.host());
    let archive = engine.text("two.tar");
    {
        let other = Engine::beside();
        for text in ["one", "two"] {
            let one = other.text(text);
            std::fs::write(&one, small(text).docker_archive(&format!("loaded/{text}:latest"))).unwrap();
            other.brig(&["load", "-q", "-i", &one]).ok();
        }
        other.brig(&["save", "-o", &archive, "loaded/one", "loaded/two"]).ok();
    }
    engine
        .brig(&[
            "run",
            "--name",
            "web",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "mkdir /d; echo x > /d/x; ln /d/x /d/y; rm /etc/group",
        ])
        .ok();
    let loaded = ["loaded/one:latest", "loaded/two:latest"];
    let load = |_: &Store| drop(engine.brig(&["load", "-q", "-i", &archive]).ok());
    let mut points = 0;
    for case in [
        Case {
            verb: "pull",
            prepare: &|store| forget(store, &[&pulled]),
            touches: &[&pulled],
            command: &["pull", "-q", &pulled],
        },
        Case {
            verb: "load",
            prepare: &|store| forget(store, &loaded),
            touches: &loaded,
            command: &["load", "-q", "-i", &archive],
        },
        Case {
            verb: "commit",
            prepare: &|store| forget(store, &["made:latest"]),
            touches: &["made:latest"],
            command: &["commit", "web", "made"],
        },
        Case {
            verb: "tag",
            prepare: &load,
            touches: &["loaded/two:latest"],
            command: &["tag", "loaded/one", "loaded/two"],
        },
        Case { verb: "rmi", prepare: &load, touches: &loaded, command: &["rmi", "loaded/one", "loaded/two"] },
        Case {
            verb: "prune",
            prepare: &|store| {
                load(store);
                store.untag("loaded/one", &[]).unwrap();
            },
            touches: &["loaded/one:latest"],
            command: &["image", "prune", "-f"],
        },
    ] {
        points += kill_everywhere(&engine, &case);
    }
    println!("{points} points in all");
    assert!(points > 150, "only {points} points were reached");
    assert_eq!(engine.brig(&["run", "--rm", "--network", "none", "busybox", "echo", "hi"]).ok(), "hi");
    engine.brig(&["rm", "web"]).ok();
}
