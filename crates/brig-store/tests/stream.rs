//! Trees as tar streams: against GNU tar both ways, and hostile ones into a tree.

#![allow(clippy::unwrap_used)] // tests

use brig_store::stream::{Ids, pack, unpack};
use brig_store::{Fault, Limits};
use brig_sys::root::Root;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::image::{Compression, Layer, Meta, compress};

struct Place(tempfile::TempDir);

impl Place {
    /// A root with a directory `in`, and a secret outside.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(place.0.path().join("root/in")).unwrap();
        std::fs::create_dir_all(place.0.path().join("root/etc")).unwrap();
        std::fs::write(place.0.path().join("root/etc/passwd"), "of the root").unwrap();
        std::fs::write(place.0.path().join("secret"), "outside").unwrap();
        place
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join("root").join(path)
    }

    fn take(&self, tar: &[u8]) -> Result<(), Fault> {
        self.take_as(tar, Ids::Same, &Limits::default())
    }

    fn take_as(&self, tar: &[u8], ids: Ids, limits: &Limits) -> Result<(), Fault> {
        let root = Root::open_directory(&self.path("")).unwrap();
        let result = unpack(tar, &root, Path::new("/in"), ids, limits);
        assert_eq!(std::fs::read_to_string(self.0.path().join("secret")).unwrap(), "outside");
        let names = std::fs::read_dir(self.0.path()).unwrap().count();
        assert_eq!(names, 2, "nothing was made outside");
        result
    }

    #[track_caller]
    fn refuses(&self, layer: Layer, why: &str) {
        let error = self.take(&layer.finish()).unwrap_err();
        assert!(error.to_string().contains(why), "expected `{why}` in `{error}`");
        assert_eq!(std::fs::read_to_string(self.path("etc/passwd")).unwrap(), "of the root");
    }
}

fn tar(directory: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.args(arguments).current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, bytes) = (child.stdin.take().unwrap(), input.to_vec());
    let feed = std::thread::spawn(move || stdin.write_all(&bytes).is_ok());
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    assert!(output.status.success(), "tar {arguments:?}");
    output.stdout
}

/// All that there is to say about a tree, a line each.
fn describe(directory: &Path) -> String {
    let line = r"find . -printf '%P %y %m %U:%G %s %T@ %l\n' | sed -E 's/( d [0-9]+ [0-9:]+) [0-9]+/\1/; s/([0-9]{9,10})\.[0-9]+/\1/' | LC_ALL=C sort
        find . -type f -exec sha256sum {} + | LC_ALL=C sort
        getfattr -R -d -m 'user\.' . 2>/dev/null || true
        find . -type f -links +1 -printf '%P\n' | LC_ALL=C sort";
    let output = Command::new("sh").args(["-ec", line]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same but for the top directory, which stays as it is; tells the first line that differs.
#[track_caller]
fn same(one: &str, other: &str, what: &str) {
    let lines = |text: &str| text.lines().filter(|l| !l.starts_with(" d ")).map(str::to_owned).collect::<Vec<_>>();
    let (one, other) = (lines(one), lines(other));
    let differs = one.iter().zip(&other).find(|(a, b)| a != b);
    assert_eq!(differs, None, "{what}");
    assert_eq!(one.len(), other.len(), "{what}");
}

fn furnish(directory: &Path) {
    let long = "n".repeat(200);
    let line = format!(
        "mkdir -p a/b empty {long}/{long}; echo one > a/one; echo long > {long}/{long}/file; ln a/one a/b/two; \
         ln -s ../one a/b/link; ln -s {long}/{long}//./file far; mkfifo fifo; chown 33:44 a/one fifo; chmod 4751 a/one; \
         chmod 1777 empty; head -c 300000 /dev/urandom > big; : > none; truncate -s 1M sparse; printf x >> sparse; \
         chown 70000:70000 none; touch -d 2001-02-03 a/b/two a/b far -h; setfattr -n user.note -v text big || true; \
         touch \"$(printf 'odd\\nname \\303\\244 \\377')\""
    );
    let status = Command::new("sh").args(["-ec", &line]).current_dir(directory).status().unwrap();
    assert!(status.success());
}

#[test]
fn what_is_packed_is_what_gnu_tar_unpacks() {
    let from = tempfile::tempdir().unwrap();
    furnish(from.path());
    let _socket = std::os::unix::net::UnixListener::bind(from.path().join("socket")).unwrap();
    let directory = std::fs::File::open(from.path()).unwrap();
    let mut bytes = Vec::new();
    pack(directory.as_fd(), c".", b".", Ids::Same, &mut bytes).unwrap();
    std::fs::remove_file(from.path().join("socket")).unwrap();
    let to = tempfile::tempdir().unwrap();
    tar(to.path(), &["-xp", "--xattrs", "--xattrs-include=user.*", "--numeric-owner"], &bytes);
    same(&describe(to.path()), &describe(from.path()), "packed");
    // Under another name, and owners of a range.
    let mut bytes = Vec::new();
    pack(directory.as_fd(), c"a", b"z", Ids::Range(20), &mut bytes).unwrap();
    let list = tar(to.path(), &["-tv", "--numeric-owner"], &bytes);
    let list = String::from_utf8(list).unwrap();
    assert!(list.lines().any(|l| l.contains("13/24") && l.ends_with(" z/one link to z/b/two")), "{list}");
    assert!(list.lines().any(|l| l.contains("65534/65534") && l.ends_with(" z/")), "{list}");
    // Its own side reads it too.
    let place = Place::new();
    place.take(&bytes).unwrap();
    assert_eq!(std::fs::read_to_string(place.path("in/z/b/two")).unwrap(), "one\n");
}

#[test]
fn what_gnu_tar_packs_is_unpacked_as_by_gnu_tar() {
    let from = tempfile::tempdir().unwrap();
    furnish(from.path());
    for (format, compression) in [
        ("gnu", Compression::Plain),
        ("pax", Compression::Gzip),
        ("gnu", Compression::Zstd),
        ("ustar", Compression::Plain),
    ] {
        if format == "ustar" {
            // Its names and ids are short.
            let line = "rm -rf nnn* far; chown 33:33 none";
            assert!(Command::new("sh").args(["-ec", line]).current_dir(from.path()).status().unwrap().success());
        }
        let format = format!("--format={format}");
        let mut arguments = vec!["-c", "--numeric-owner", &format];
        if !format.ends_with("ustar") {
            arguments.push("--sparse");
        }
        if format.ends_with("pax") {
            arguments.push("--xattrs");
        } else {
            let line = "setfattr -x user.note big 2>/dev/null || true";
            assert!(Command::new("sh").args(["-ec", line]).current_dir(from.path()).status().unwrap().success());
        }
        arguments.push(".");
        let bytes = compress(&tar(from.path(), &arguments, b""), compression);
        let place = Place::new();
        place.take(&bytes).unwrap();
        same(&describe(&place.path("in")), &describe(from.path()), &format);
        // Once more over what is there.
        place.take(&bytes).unwrap();
        same(&describe(&place.path("in")), &describe(from.path()), &format!("{format} again"));
    }
}

#[test]
fn hostile_paths_stay_inside() {
    let place = Place::new();
    place.refuses(Layer::new().file("../secret", "x"), "climbs");
    place.refuses(Layer::new().file("a/../../../secret", "x"), "climbs");
    place.refuses(Layer::new().directory("..", 0o777), "climbs");
    place.refuses(Layer::new().file("f", "x").file("f/x", "x"), "cannot open directory");
    place.refuses(Layer::new().directory("d", 0o755).file("d", "x"), "a directory is in its place");
    place.refuses(Layer::new().file("g", "x").directory("g", 0o755), "no directory is in its place");
    place.refuses(Layer::new().symlink("loop", "loop").file("loop/x", "x"), "cannot open directory");
    place.refuses(Layer::new().file(".", "x"), "the root of an archive is a directory");
    // Absolute names and links mean the root's, however they climb.
    let climb = format!("{}{}/secret", "../".repeat(30), place.0.path().display());
    let links = Layer::new()
        .file("/absolute", "x")
        .symlink("up", "../../../../..")
        .file("up/made", "x")
        .symlink("etc", "/etc")
        .file("etc/made", "x")
        .symlink("out", &climb)
        .file("out", "replaced");
    place.take(&links.finish()).unwrap();
    for path in ["in/absolute", "made", "etc/made"] {
        assert!(place.path(path).is_file(), "{path}");
    }
    assert_eq!(std::fs::read_to_string(place.path("in/out")).unwrap(), "replaced");
}

#[test]
fn hostile_links_devices_and_sizes() {
    let place = Place::new();
    place.refuses(Layer::new().hard_link("h", "../etc/passwd"), "its target is outside");
    place.refuses(Layer::new().hard_link("h", "none"), "its target is missing");
    place.refuses(Layer::new().directory("d", 0o755).hard_link("h", "d"), "its target is a directory");
    place.refuses(Layer::new().entry(b'3', "null", "", b"", &Meta { device: (1, 3), ..Meta::mode(0o666) }), "devices");
    place.refuses(Layer::new().entry(b'4', "disk", "", b"", &Meta { device: (8, 0), ..Meta::mode(0o666) }), "devices");
    // A link is not written through, neither one that was there nor one of the archive.
    symlink("../etc/passwd", place.path("in/link")).unwrap();
    std::fs::hard_link(place.path("etc/passwd"), place.path("in/hard")).unwrap();
    let through = Layer::new()
        .file("link", "x")
        .file("hard", "x")
        .symlink("own", "../etc/passwd")
        .file("own", "x")
        .hard_link("again", "link")
        .file("again", "y");
    place.take(&through.finish()).unwrap();
    assert_eq!(std::fs::read_to_string(place.path("etc/passwd")).unwrap(), "of the root");
    assert_eq!(std::fs::read_to_string(place.path("in/link")).unwrap(), "x");
    // A FIFO is replaced, not written to, and one of the archive is only made.
    rustix::fs::mkfifoat(rustix::fs::CWD, place.path("in/pipe"), rustix::fs::Mode::RUSR).unwrap();
    let pipe = Layer::new().file("pipe", "x").entry(b'6', "fifo", "", b"", &Meta::mode(0o622));
    place.take(&pipe.finish()).unwrap();
    assert!(place.path("in/pipe").is_file());
    let fifo = std::fs::metadata(place.path("in/fifo")).unwrap();
    assert!(fifo.file_type().is_fifo() && fifo.permissions().mode() & 0o777 == 0o622);
    // Bombs and stumps.
    let many = Limits { entries: 2, ..Limits::default() };
    let three = Layer::new().file("1", "").file("2", "").file("3", "").finish();
    assert!(matches!(place.take_as(&three, Ids::Same, &many), Err(Fault::TooManyEntries(2))));
    let small = Limits { layer_bytes: 10, ..Limits::default() };
    let big = Layer::new().file("1", "123456").file("2", "123456").finish();
    assert!(matches!(place.take_as(&big, Ids::Same, &small), Err(Fault::TooLarge(10))));
    assert!(matches!(place.take(&big[..600]), Err(Fault::Truncated)));
    assert!(place.take(&[7; 2048]).is_err());
    let cut = compress(&big, Compression::Gzip);
    assert!(place.take(&cut[..cut.len() - 9]).is_err());
}

#[test]
fn owners_are_moved_into_the_range_and_overlays_own_words_are_dropped() {
    let place = Place::new();
    let words = Meta {
        pax: vec![
            ("SCHILY.xattr.trusted.overlay.opaque".into(), b"y".to_vec()),
            ("SCHILY.xattr.user.note".into(), b"kept".to_vec()),
        ],
        ..Meta::mode(0o755)
    };
    let owned = Meta { uid: 1, gid: 70_000, ..Meta::mode(0o6755) };
    let archive = Layer::new()
        .entry(b'5', "words", "", b"", &words)
        .entry(b'0', "deep/er/owned", "", b"x", &owned)
        .entry(b'2', "link", "x", b"", &owned);
    place.take_as(&archive.finish(), Ids::Range(1 << 20), &Limits::default()).unwrap();
    let meta = |path: &str| std::fs::symlink_metadata(place.path(path)).unwrap();
    let range = 1 << 20;
    assert_eq!((meta("in/deep/er/owned").uid(), meta("in/deep/er/owned").gid()), (range + 1, range + 65_534));
    assert_eq!(meta("in/deep/er/owned").mode() & 0o7777, 0o6755, "after the owner, which would clear it");
    assert_eq!((meta("in/link").uid(), meta("in/deep").uid(), meta("in/words").uid()), (range + 1, range, range));
    let mut value = [0; 16];
    assert!(rustix::fs::getxattr(place.path("in/words"), "trusted.overlay.opaque", &mut value).is_err());
}
