//! Layers as images beside the same layers as directories: whatever the archive has, both show the same tree.

#![allow(clippy::unwrap_used)] // tests

mod common;

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::{Place, add_layers, both};
use proptest::prelude::*;
use testkit::image::{Layer, Meta};

/// What a tree shows of one path: mode, owner, size, time, device, links, attributes, content or target.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    time: Option<(i64, i64)>,
    device: u64,
    links: Option<u64>,
    first_name: Option<PathBuf>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Vec<u8>,
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// Walks a tree. Times and numbers of links of directories that no entry describes are the file system's own.
fn walk(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut all = BTreeMap::new();
    let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut rest = vec![PathBuf::new()];
    while let Some(name) = rest.pop() {
        let path = root.join(&name);
        // Through the magic link to the root itself.
        let stat = if name.as_os_str().is_empty() { path.metadata() } else { path.symlink_metadata() }.unwrap();
        let kind = stat.file_type();
        if kind.is_dir() {
            let mut names: Vec<PathBuf> =
                std::fs::read_dir(&path).unwrap().map(|entry| name.join(entry.unwrap().file_name())).collect();
            names.sort();
            rest.extend(names.into_iter().rev());
        }
        let content = match () {
            () if kind.is_file() => std::fs::read(&path).unwrap(),
            () if kind.is_symlink() => std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            () => Vec::new(),
        };
        let first_name = (!kind.is_dir()).then(|| inodes.entry(stat.ino()).or_insert(name.clone()).clone());
        let whiteout = stat.rdev() == 0 && stat.mode() & 0o170_000 == 0o020_000;
        let seen = Seen {
            mode: stat.mode(),
            owner: (stat.uid(), stat.gid()),
            time: (!kind.is_dir() && !whiteout).then(|| (stat.mtime(), stat.mtime_nsec())),
            device: stat.rdev(),
            links: (!kind.is_dir()).then(|| stat.nlink()),
            first_name,
            attributes: if name.as_os_str().is_empty() { BTreeMap::new() } else { attributes(&path) },
            content,
        };
        all.insert(name, seen);
    }
    all
}

/// Walks a layer; one that is an image shows the same tree from a loop device.
fn walk_both(layer: &Path, root: &Path) -> BTreeMap<PathBuf, Seen> {
    let seen = walk(root);
    if brig_store::is_image(layer) {
        let mount = brig_store::mount_layer_from(layer, brig_store::Backing::LoopDevice).unwrap();
        assert!(seen == walk(Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd()))), "{}", layer.display());
    }
    seen
}

/// Unpacks the layers in both forms; both succeed with the same trees, or both refuse.
fn compare(layers: &[Vec<u8>]) {
    let trees = std::cell::RefCell::new(Vec::new());
    both(|place| {
        let walked = add_layers(&place.store, layers).map(|image| {
            image
                .layers
                .iter()
                .zip(place.roots(&image))
                .map(|(layer, root)| walk_both(layer, &root))
                .collect::<Vec<_>>()
        });
        trees.borrow_mut().push(walked.map_err(|error| common::chain(&error)));
    });
    let mut trees = trees.into_inner().into_iter();
    let (directories, images) = (trees.next().unwrap(), trees.next());
    let Some(images) = images else { return };
    match (directories, images) {
        (Ok(directories), Ok(images)) => {
            for (below, above) in directories.iter().zip(&images) {
                assert_eq!(below.keys().collect::<Vec<_>>(), above.keys().collect::<Vec<_>>());
                for (name, seen) in below {
                    assert_eq!(*seen, above[name], "{}", name.display());
                }
            }
        }
        // Of several layers that are refused, any may be told.
        (Err(one), Err(other)) => assert!(layers.len() > 1 || one == other, "{one}\n{other}"),
        (one, other) => panic!("one form refuses: {:?} and {:?}", one.err(), other.err()),
    }
}

/// One entry of a random archive.
#[derive(Debug, Clone)]
struct Wish {
    kind: u8,
    path: String,
    link: String,
    data: Vec<u8>,
    meta: Meta,
}

fn path() -> impl Strategy<Value = String> {
    // Few names, so that entries meet: replaced, used as parents, linked, deleted.
    let last = prop_oneof![
        48 => "[c-h]",
        1 => "[ab]",
        2 => "[!-+]",
        2 => "\\.wh\\.[a-h]",
        1 => Just(".wh..wh..opq".to_owned()),
        2 => "x{250}",
    ];
    (prop::collection::vec("[ab]", 0..3), last).prop_map(|(mut names, last)| {
        names.push(last);
        names.join("/")
    })
}

fn wish() -> impl Strategy<Value = Wish> {
    let kind = prop::sample::select(b"00000555555112346".to_vec());
    let size = prop_oneof![4 => 0..300_usize, 2 => 3_900..4_200_usize, 1 => 8_000..20_000_usize, 1 => Just(4096_usize)];
    let color = prop_oneof![3 => Just(0_usize), 1 => 1..60_usize, 1 => 900..1000_usize];
    let meta = (0..0o10_000_u32, 0..3_u32, 0..70_000_u32, -5..5_i64, 0..2_000_000_000_u64, color).prop_map(
        |(mode, uid, gid, nanoseconds, mtime, color)| {
            let mut pax = vec![("mtime".to_owned(), format!("{mtime}.{:09}", nanoseconds.abs()).into_bytes())];
            if color > 0 {
                pax.push(("SCHILY.xattr.user.color".to_owned(), vec![b'c'; color]));
                pax.push(("SCHILY.xattr.trusted.t".to_owned(), vec![b't'; color / 2]));
                pax.push(("SCHILY.xattr.nonsense".to_owned(), vec![b'n']));
            }
            Meta { uid: uid.into(), gid: gid.into(), pax, device: (gid % 4000 + 1, gid), ..Meta::mode(mode) }
        },
    );
    (kind, path(), prop_oneof![20 => path(), 1 => Just("/a/../b".to_owned()), 1 => "t{4080}"], size, any::<u8>(), meta)
        .prop_map(|(kind, path, link, size, byte, meta)| {
            let size = if matches!(kind, b'0' | b'1') { size } else { 0 };
            let data = (0..size).map(|n| byte.wrapping_add(u8::try_from(n % 251).unwrap())).collect();
            Wish { kind, path, link, data, meta }
        })
}

fn archive(wishes: &[Wish]) -> Vec<u8> {
    wishes
        .iter()
        .enumerate()
        .fold(Layer::new(), |layer, (index, wish)| match wish.kind {
            // Mostly to a file of its own: a link to nothing ends the whole layer.
            b'1' if wish.meta.mode % 256 != 0 => {
                let target = format!("a/target{index}");
                layer.entry(b'0', &target, "", &wish.data, &wish.meta).entry(b'1', &wish.path, &target, b"", &wish.meta)
            }
            b'1' | b'2' => layer.entry(wish.kind, &wish.path, &wish.link, b"", &wish.meta),
            _ => layer.entry(wish.kind, &wish.path, "", &wish.data, &wish.meta),
        })
        .finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_layers_come_out_the_same(layers in prop::collection::vec(prop::collection::vec(wish(), 0..25), 1..4)) {
        compare(&layers.iter().map(|wishes| archive(wishes)).collect::<Vec<_>>());
    }

    #[test]
    fn damaged_archives_come_out_the_same(
        wishes in prop::collection::vec(wish(), 1..12),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut tar = archive(&wishes);
        for (at, byte) in damage {
            let at = at.index(tar.len());
            tar[at] ^= byte;
        }
        let length = cut.index(tar.len() * 4).min(tar.len());
        tar.truncate(length);
        compare(&[tar]);
    }
}

#[test]
fn directories_of_many_names() {
    let mut layer = Layer::new().directory("d", 0o755).directory("e", 0o755);
    for n in 0..10_000 {
        layer = layer.file(&format!("d/{n:x}-{}", "n".repeat(n % 200)), format!("{n}"));
    }
    for n in 0..257 {
        layer = layer.directory(&format!("e/{n}"), 0o700);
    }
    compare(&[layer.finish()]);
}

#[test]
fn a_file_beyond_four_gibibytes() {
    // Five gibibytes of hole, and four bytes behind it.
    let size = 5_u64 << 30;
    let pax = |key: &str, value: String| (format!("GNU.sparse.{key}"), value.into_bytes());
    let meta = Meta {
        pax: vec![
            pax("size", (size + 4).to_string()),
            pax("numblocks", "1".to_owned()),
            pax("map", format!("{size},4")),
        ],
        ..Meta::mode(0o600)
    };
    let layer = Layer::new().entry(b'0', "large", "", b"last", &meta).file("after", "x").finish();
    both(|place| {
        use std::os::unix::fs::FileExt;
        let image = add_layers(&place.store, std::slice::from_ref(&layer)).unwrap();
        let root = place.roots(&image).remove(0);
        let file = std::fs::File::open(root.join("large")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), size + 4);
        let mut bytes = [9; 8];
        file.read_exact_at(&mut bytes, size - 4).unwrap();
        assert_eq!(&bytes, b"\0\0\0\0last");
        assert_eq!(std::fs::read(root.join("after")).unwrap(), b"x");
    });
}

#[test]
fn more_than_an_image_can_address_is_refused() {
    // Holes of 63 GiB each: more than the 16 TiB of 32-bit block numbers, in an archive of a few hundred kilobytes.
    let size = 63_u64 << 30;
    let pax = |key: &str, value: String| (format!("GNU.sparse.{key}"), value.into_bytes());
    let meta = Meta {
        pax: vec![
            pax("size", size.to_string()),
            pax("numblocks", "1".to_owned()),
            pax("map", format!("{},4", size - 4)),
        ],
        ..Meta::mode(0o600)
    };
    let layer =
        (0..300).fold(Layer::new(), |layer, n| layer.entry(b'0', &format!("f{n}"), "", b"last", &meta)).finish();
    let place = Place::with(brig_store::LayerForm::Erofs);
    let error = common::chain(&add_layers(&place.store, &[layer]).unwrap_err());
    assert!(error.contains("cannot write `f2") && error.contains("File too large"), "{error}");
    place.store.collect(&brig_store::InUse::nobody, std::time::Duration::ZERO).unwrap();
    assert_eq!(place.counts(), (0, 0, 0));
}

#[test]
fn attributes_longer_than_a_block() {
    // More than ext4 has room for beside an inode: only an image takes them.
    let meta = Meta {
        pax: (0..3).map(|n| (format!("SCHILY.xattr.user.n{n}"), vec![b'0' + n; 9_000])).collect(),
        ..Meta::mode(0o644)
    };
    let layer = Layer::new().entry(b'0', "f", "", b"data", &meta).entry(b'5', "d", "", b"", &meta).finish();
    let place = Place::with(brig_store::LayerForm::Erofs);
    let image = add_layers(&place.store, &[layer]).unwrap();
    let root = place.roots(&image).remove(0);
    for name in ["f", "d"] {
        let found = attributes(&root.join(name));
        assert_eq!(found.len(), 3);
        for n in 0..3 {
            assert_eq!(found[format!("user.n{n}").as_bytes()], vec![b'0' + n; 9_000], "{name}");
        }
    }
    assert_eq!(std::fs::read(root.join("f")).unwrap(), b"data");
}

#[test]
fn the_same_archive_makes_the_same_image() {
    let layer = || Layer::new().directory("d", 0o755).file("d/f", vec![7; 5000]).symlink("s", "d").finish();
    let images: Vec<Vec<u8>> = (0..2)
        .filter_map(|_| {
            let place = Place::with(brig_store::LayerForm::Erofs);
            let image = add_layers(&place.store, &[layer()]).unwrap();
            brig_store::is_image(&image.layers[0]).then(|| std::fs::read(&image.layers[0]).unwrap())
        })
        .collect();
    assert!(images.windows(2).all(|pair| pair[0] == pair[1]));
}
