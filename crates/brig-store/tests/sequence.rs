//! Layers unpacked side by side, compared with GNU tar unpacking them one over the other.
//!
//! The reference is made by `tar -x` layer after layer, with the layer's deletions done before it; the other side is an
//! overlay of the store's trees, mounted in a mount namespace that ends with the comparison.

#![allow(clippy::unwrap_used)] // tests

mod common;

use std::path::Path;

use common::{Place, add_layers, both, sh};
use testkit::image::{Layer, Meta};

/// One layer: what it deletes first, for the reference; and its archive.
struct Step {
    delete: &'static [&'static str],
    layer: Layer,
}

fn step(layer: Layer) -> Step {
    Step { delete: &[], layer }
}

/// Lists a tree: path, kind, mode, owner, target, content, and which names are one file.
const LIST: &str = r#"find . -mindepth 1 -printf '%P|%y|%m|%U|%G|%l\n' | sort
    find . -type f -links +1 -printf '%i %P\n' | sort -k2 | awk '{ if (!($1 in g)) g[$1] = $2; print $2 " is " g[$1] }'
    find . -mindepth 1 ! -type d -printf '%P|%Ts\n' | sort
    find . -type f | sort | xargs -r -d '\n' sha256sum"#;

fn compare(case: &str, steps: Vec<Step>) {
    let steps: Vec<_> = steps.into_iter().map(|step| (step.delete, step.layer.finish())).collect();
    both(|place| compare_in(place, case, &steps));
}

fn compare_in(place: &Place, case: &str, steps: &[(&[&str], Vec<u8>)]) {
    let reference = place.directory.path().join("reference");
    std::fs::create_dir(&reference).unwrap();
    let mut layers = Vec::new();
    for (index, (delete, tar)) in steps.iter().enumerate() {
        let file = place.directory.path().join(format!("{index}.tar"));
        std::fs::write(&file, tar).unwrap();
        for path in *delete {
            sh(&format!("cd {}; rm -rf {path}", reference.display()));
        }
        sh(&format!(
            "cd {}; umask 022; tar --extract --file {} --numeric-owner --same-owner --same-permissions --exclude='.wh.*'",
            reference.display(),
            file.display()
        ));
        layers.push(tar.clone());
    }
    let image = add_layers(&place.store, &layers).unwrap_or_else(|error| panic!("{case}: {}", common::chain(&error)));
    let expected = sh(&format!("cd {}; {LIST}", reference.display()));
    let found = merged(place.directory.path(), &place.roots(&image));
    assert_eq!(found, expected, "{case}");
}

/// Mounts the trees as overlay, topmost first, and lists what is there.
fn merged(work: &Path, layers: &[std::path::PathBuf]) -> String {
    let lower: Vec<String> = layers.iter().rev().map(|path| path.display().to_string()).collect();
    let empty = work.join("empty");
    let mount = work.join("merged");
    std::fs::create_dir_all(&empty).unwrap();
    std::fs::create_dir_all(&mount).unwrap();
    let script = work.join("list.sh");
    let text = format!(
        "set -eu\nmount -t overlay overlay -o ro,lowerdir={}:{} {}\ncd {}\n{LIST}\n",
        lower.join(":"),
        empty.display(),
        mount.display(),
        mount.display()
    );
    std::fs::write(&script, text).unwrap();
    sh(&format!("unshare --mount --propagation private sh {}", script.display()))
}

#[test]
fn parents_that_only_the_layers_below_know() {
    compare(
        "sticky /tmp and an odd owner",
        vec![
            step(Layer::new().directory("tmp", 0o1777).entry(b'5', "home/", "", b"", &Meta::mode(0o755)).entry(
                b'5',
                "home/me/",
                "",
                b"",
                &Meta { uid: 1000, gid: 1001, ..Meta::mode(0o700) },
            )),
            step(Layer::new().file("tmp/foo", "x").file("home/me/deep/er/file", "y")),
            step(Layer::new().file("home/me/deep/other", "z")),
        ],
    );
}

#[test]
fn a_directory_that_is_a_link_below() {
    compare(
        "lib/x over /lib -> usr/lib",
        vec![
            step(
                Layer::new()
                    .directory("usr", 0o755)
                    .directory("usr/lib", 0o751)
                    .file("usr/lib/old.so", "old")
                    .symlink("lib", "usr/lib"),
            ),
            step(Layer::new().file("lib/x.so", "x").file("lib/sub/y.so", "y")),
            step(Layer::new().file("lib/sub/z.so", "z").file("usr/lib/w.so", "w")),
        ],
    );
    compare(
        "a chain of links, relative and absolute inside",
        vec![
            step(
                Layer::new()
                    .directory("run", 0o755)
                    .directory("var", 0o755)
                    .symlink("var/run", "../run")
                    .symlink("r", "var/run"),
            ),
            step(Layer::new().file("r/lock/pid", "1")),
            step(Layer::new().directory("var/run/", 0o700).file("var/run/now-a-directory", "2")),
        ],
    );
    compare(
        "the same directory by both names in one layer",
        vec![
            step(Layer::new().directory("usr", 0o755).directory("usr/lib", 0o755).symlink("lib", "usr/lib")),
            step(
                Layer::new()
                    .file("lib/a", "a")
                    .directory("usr/lib/d", 0o750)
                    .file("lib/d/b", "b")
                    .file("usr/lib/c", "c"),
            ),
        ],
    );
}

#[test]
fn hard_links_to_files_below() {
    compare(
        "a link to a file two layers down, and a link to that link",
        vec![
            step(Layer::new().directory("a", 0o710).entry(
                b'0',
                "a/f",
                "",
                b"data",
                &Meta { uid: 5, ..Meta::mode(0o4755) },
            )),
            step(Layer::new().file("other", "")),
            step(Layer::new().hard_link("g", "a/f").hard_link("h", "g").hard_link("b/i", "a/f")),
        ],
    );
    compare(
        "through a linked directory",
        vec![
            step(
                Layer::new()
                    .directory("usr", 0o755)
                    .directory("usr/bin", 0o755)
                    .file("usr/bin/tool", "t")
                    .symlink("bin", "usr/bin"),
            ),
            step(Layer::new().hard_link("bin/alias", "bin/tool").hard_link("top", "usr/bin/tool")),
        ],
    );
    compare(
        "a link that a later entry replaces",
        vec![step(Layer::new().file("f", "below")), step(Layer::new().hard_link("g", "f").file("g", "new"))],
    );
}

#[test]
fn deletions() {
    compare(
        "a file, a directory, a directory made anew, in any order",
        vec![
            step(
                Layer::new()
                    .directory("d", 0o755)
                    .file("d/a", "a")
                    .file("d/b", "b")
                    .directory("e", 0o755)
                    .file("e/x", "x")
                    .directory("n", 0o755)
                    .file("n/x", "x"),
            ),
            Step {
                delete: &["d/a", "e", "n"],
                layer: Layer::new()
                    .file("d/.wh.a", "")
                    .file(".wh.e", "")
                    .directory("n", 0o711)
                    .file("n/y", "y")
                    .file(".wh.n", ""),
            },
            Step { delete: &["d/b"], layer: Layer::new().file("d/.wh.b", "").file("e/back", "again") },
        ],
    );
    compare(
        "in a directory that is a link below, and of what is not there",
        vec![
            step(
                Layer::new()
                    .directory("usr", 0o755)
                    .directory("usr/lib", 0o755)
                    .file("usr/lib/a", "a")
                    .file("usr/lib/b", "b")
                    .symlink("lib", "usr/lib"),
            ),
            Step {
                delete: &["usr/lib/a"],
                layer: Layer::new().file("lib/.wh.a", "").file("none/.wh.x", "").file("usr/lib/.wh.zzz", ""),
            },
        ],
    );
    compare(
        "an opaque directory without an entry for itself",
        vec![
            step(
                Layer::new()
                    .entry(b'5', "o", "", b"", &Meta { uid: 7, ..Meta::mode(0o750) })
                    .file("o/a", "a")
                    .directory("o/d", 0o755)
                    .file("o/d/b", "b"),
            ),
            Step { delete: &["o/a", "o/d"], layer: Layer::new().file("o/.wh..wh..opq", "").file("o/c", "c") },
            step(Layer::new().file("o/d/e", "e")),
        ],
    );
    compare(
        "something deleted and used as a parent again",
        vec![
            step(Layer::new().directory("p", 0o700).directory("p/q", 0o700).file("p/q/r", "r")),
            Step { delete: &["p"], layer: Layer::new().file(".wh.p", "").file("p/q/s", "s") },
        ],
    );
}

#[test]
fn kinds_that_change() {
    compare(
        "file to directory, directory to link, link to file",
        vec![
            step(Layer::new().file("a", "a").directory("b", 0o755).file("b/x", "x").symlink("c", "b")),
            Step {
                delete: &["b"],
                layer: Layer::new().directory("a", 0o755).file("a/y", "y").symlink("b", "a").file("c", "c"),
            },
            step(Layer::new().file("b/z", "z")),
        ],
    );
}

#[test]
fn a_layer_is_shared_only_where_it_is_the_same() {
    both(|place| {
        let plain = Layer::new().directory("d", 0o755).file("d/f", "f").finish();
        let implicit = Layer::new().file("tmp/foo", "x").finish();
        let sticky = Layer::new().directory("tmp", 0o1777).finish();
        let private = Layer::new().directory("tmp", 0o700).finish();
        let one = add_layers(&place.store, &[sticky, plain.clone(), implicit.clone()]).unwrap();
        let two = add_layers(&place.store, &[private, plain, implicit.clone()]).unwrap();
        let bottom = add_layers(&place.store, &[implicit]).unwrap();
        assert_eq!(one.layer_names[1], two.layer_names[1], "it stands alone");
        assert_ne!(one.layer_names[2], two.layer_names[2], "it takes its parent's mode from below");
        let mode = |path: &Path| std::os::unix::fs::MetadataExt::mode(&path.join("tmp").metadata().unwrap()) & 0o7777;
        assert_eq!(
            (mode(&place.roots(&one)[2]), mode(&place.roots(&two)[2]), mode(&place.roots(&bottom)[0])),
            (0o1777, 0o700, 0o755)
        );
    });
}

#[test]
fn the_same_blob_twice_in_one_image() {
    both(|place| {
        let alone = Layer::new().directory("d", 0o755).file("d/f", "f").finish();
        let open = Layer::new().file("d/g", "g").finish();
        let image = add_layers(&place.store, &[alone.clone(), open.clone(), alone, open]).unwrap();
        assert_eq!(image.layers.len(), 4);
        assert_eq!(image.layers[0], image.layers[2]);
        assert_ne!(image.layers[1], image.layers[3]);
        assert!(place.roots(&image).iter().all(|path| path.is_dir()));
    });
}
