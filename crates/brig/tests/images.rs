//! Images through the command line: from a real registry on loopback, from archives, layouts and tars, and `host:`.
//!
//! Place: the machine itself, as root, with Debian's docker-registry.

#![allow(clippy::unwrap_used)]

mod support;

use support::Engine;
use testkit::image::{Compression, Image, Layer, busybox_layer};
use testkit::registry::Registry;

fn small(compression: Compression, text: &str) -> Image {
    let top = Layer::new().directory("srv/", 0o755).file("srv/text", text).finish();
    let process = r#"{"Cmd":["cat","/srv/text"],"Env":["PATH=/bin","A=image"],"Labels":{"a":"b"}}"#;
    Image::new(&[busybox_layer(&["cat", "sh", "ls", "echo"]), top], compression, process)
}

#[test]
fn an_image_comes_from_a_registry_and_goes() {
    let engine = Engine::bare();
    let registry = Registry::start();
    for (tag, compression) in [("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
        registry.push(&small(compression, tag), "team/app", tag);
    }
    let name = |tag: &str| format!("{}/team/app:{tag}", registry.host());
    let pulled = engine.brig(&["pull", &name("gzip")]);
    assert_eq!(pulled.status, 0, "{pulled:?}");
    assert_eq!(pulled.stdout.trim_end().lines().last().unwrap(), format!("Pulled {}", name("gzip")));
    assert!(!pulled.stdout.contains('\x1b') && !pulled.stderr.contains('\x1b'), "plain lines off a terminal");
    // Run pulls what is missing, and only that.
    let run = engine.brig(&["run", "--rm", &name("zstd")]);
    assert_eq!((run.status, run.stdout.as_str()), (0, "zstd"));
    assert_eq!(engine.brig(&["run", "--rm", &name("gzip")]).ok(), "gzip");
    engine
        .brig(&["run", "--rm", "--pull", "never", &name("moon")])
        .fails(125, &engine.brig(&["run", "--rm", "--pull", "never", &name("moon")]).stderr);
    // A tag that has moved is noticed only when asked.
    registry.push(&small(Compression::Gzip, "newer"), "team/app", "gzip");
    assert_eq!(engine.brig(&["run", "--rm", &name("gzip")]).ok(), "gzip");
    assert_eq!(engine.brig(&["run", "--rm", "--quiet", "--pull", "always", &name("gzip")]).stdout, "newer");

    engine.brig(&["tag", &name("zstd"), "app:1"]).ok();
    let list = engine.brig(&["images", "--format", "{{.Repository}}:{{.Tag}}", "app"]).ok();
    assert_eq!(list, "app:1");
    let id = engine.brig(&["image", "inspect", "-f", "{{.Id}}", "app:1"]).ok();
    assert_eq!(id, small(Compression::Zstd, "zstd").id());
    assert_eq!(engine.brig(&["inspect", "-f", "{{index .Config.Labels \"a\"}}", "app:1"]).ok(), "b");
    engine.brig(&["create", "--name", "web", "app:1"]).ok();
    engine.brig(&["rmi", &name("zstd")]).ok();
    let used = engine.brig(&["rmi", "app:1"]);
    used.fails(
        1,
        "error: cannot remove image `app:1`\n  because: image `app:1` is in use: container web uses it\nhint: remove what \
         uses it first, or force it with `-f`\n",
    );
    engine.brig(&["rm", "web"]).ok();
    engine.brig(&["rmi", "app:1", &name("gzip")]).ok();
    engine.brig(&["image", "prune", "-a", "-f"]);
    assert_eq!(engine.brig(&["images", "-q"]).ok(), "");
    assert_eq!(
        engine.names("root/layers").len() + engine.names("root/blobs/sha256").len(),
        0,
        "nothing is kept for nobody"
    );
}

#[test]
fn save_and_load_carry_an_image_whole() {
    let engine = Engine::new();
    let made = "error: cannot";
    for format in ["docker-archive", "oci-archive"] {
        let file = engine.text(format);
        engine.brig(&["save", "--format", format, "-o", &file, "busybox"]).ok();
        let other = Engine::beside();
        let loaded = other.brig(&["load", "-q", "-i", &file]);
        assert_eq!(loaded.ok(), "Loaded image: busybox:latest");
        assert_eq!(other.brig(&["run", "--rm", "--network", "none", "busybox", "echo", "hi"]).ok(), "hi");
        // By name, without a load.
        let third = Engine::beside();
        let run = third.brig(&["run", "--rm", "-q", "--network", "none", &format!("{format}:{file}"), "echo", "hi"]);
        assert_eq!((run.status, run.stdout.as_str()), (0, "hi\n"), "{run:?}");
    }
    let bytes = std::fs::read(engine.path("docker-archive")).unwrap();
    let other = Engine::beside();
    assert_eq!(other.brig_with(&["load", "-q"], &bytes).ok(), "Loaded image: busybox:latest");
    // A torn archive leaves nothing.
    let torn = Engine::beside();
    let failed = torn.brig_with(&["load"], &bytes[..bytes.len() / 2]);
    assert!(failed.status == 1 && failed.stderr.starts_with(made), "{failed:?}");
    assert_eq!(torn.brig(&["images", "-q"]).ok(), "");
    assert!(torn.names("root/tmp").is_empty());
}

#[test]
fn layouts_and_tars_are_images() {
    let engine = Engine::bare();
    let image = small(Compression::Plain, "layout");
    image.write_layout(&engine.path("layout"), "one");
    let layout = format!("oci:{}", engine.text("layout"));
    let run = engine.brig(&["run", "--rm", &format!("{layout}:one")]);
    assert_eq!((run.status, run.stdout.as_str()), (0, "layout"), "{run:?}");
    assert_eq!(engine.brig(&["run", "--rm", &layout]).stdout, "layout");
    let missing = engine.brig(&["run", "--rm", &format!("{layout}:two")]);
    assert!(missing.status == 125 && missing.stderr.starts_with("error: "), "{missing:?}");

    let tar = busybox_layer(&["sh", "echo"]);
    for (name, compression) in [("plain", Compression::Plain), ("gz", Compression::Gzip), ("zst", Compression::Zstd)] {
        std::fs::write(engine.path(name), testkit::image::compress(&tar, compression)).unwrap();
        let flags = ["import", "-c", "ENTRYPOINT [\"echo\"]", "-c", "ENV A=b", name, name];
        assert!(engine.brig(&flags).ok().starts_with("sha256:"));
        assert_eq!(engine.brig(&["run", "--rm", name, "hi"]).ok(), "hi");
        assert_eq!(engine.brig(&["run", "--rm", "--entrypoint", "sh", name, "-c", "echo $A"]).ok(), "b");
    }
    assert!(engine.brig_with(&["import", "-", "piped"], &tar).ok().starts_with("sha256:"));
    assert_eq!(engine.brig(&["run", "--rm", "piped", "echo", "x"]).ok(), "x");
}

#[test]
fn hostile_layers_are_refused_and_leave_nothing() {
    let engine = Engine::bare();
    let hostile = [
        ("traversal", Layer::new().file("../../escaped", "x").finish()),
        ("through-link", Layer::new().symlink("out", "/tmp").file("out/brig-escaped", "x").finish()),
        ("hard-link", Layer::new().hard_link("passwd", "../../../etc/passwd").finish()),
    ];
    for (name, layer) in hostile {
        let image = Image::new(&[layer], Compression::Gzip, "{}");
        image.write_layout(&engine.path(name), "latest");
        let pulled = engine.brig(&["pull", &format!("oci:{}", engine.text(name))]);
        // What is resolved inside the root does no harm; what is not is refused.
        assert!(pulled.status == 0 || pulled.stderr.contains("\nerror: cannot load image from "), "{name}: {pulled:?}");
        assert!(!std::path::Path::new("/tmp/brig-escaped").exists());
        assert!(!engine.path("root/escaped").exists() && !engine.path("escaped").exists(), "{name}");
        let left: Vec<_> =
            engine.names("root/tmp").into_iter().filter(|name| name.rsplit('.').next() != Some("part")).collect();
        assert!(left.is_empty() && engine.downloaded() == 0, "{name}: {left:?}");
    }
    let mut image = small(Compression::Gzip, "x");
    let (digest, bytes) = image.blobs.iter_mut().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let part = digest.replace(':', "-") + ".part";
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    image.write_layout(&engine.path("flipped"), "latest");
    let pulled = engine.brig(&["pull", &format!("oci:{}", engine.text("flipped"))]);
    assert!(pulled.status == 1 && pulled.stderr.contains("\nerror: cannot load image from "), "{pulled:?}");
    let kept = engine.path("root/tmp").join(part).metadata().map_or(0, |meta| meta.len());
    assert_eq!(kept, 0, "of a wrong blob nothing is kept");
}

#[test]
fn ten_thousand_files_in_a_layer() {
    let engine = Engine::bare();
    let mut layer = Layer::new().directory("many/", 0o755);
    for number in 0..10_000 {
        layer = layer.file(&format!("many/{number}"), "x");
    }
    let image = Image::new(&[busybox_layer(&["sh", "ls", "wc"]), layer.finish()], Compression::Gzip, "{}");
    image.write_layout(&engine.path("layout"), "latest");
    let name = format!("oci:{}", engine.text("layout"));
    let run = engine.brig(&["run", "--rm", &name, "sh", "-c", "ls /many | wc -l"]);
    assert_eq!((run.status, run.stdout.as_str()), (0, "10000\n"), "{run:?}");
}

#[test]
fn the_machine_itself_is_an_image() {
    let engine = Engine::bare();
    // Other tests' files come and go below /tmp while it looks; anything else that goes wrong is an error.
    let find = engine.brig(&["run", "--rm", "host:", "sh", "-c", "find / -xdev >/dev/null; echo whole"]);
    let wrong: Vec<&str> =
        find.stderr.lines().filter(|l| !(l.contains("/tmp/") && l.ends_with("No such file or directory"))).collect();
    assert_eq!((find.stdout.as_str(), wrong), ("whole\n", vec![]));
    let script = "echo x > /etc/brig-e2e-mark; rm /etc/passwd; touch /usr/brig-e2e-mark";
    let changed = engine.brig(&["run", "--name", "copy", "host:", "sh", "-c", script]);
    assert_eq!(changed.status, 0, "{changed:?}");
    let diff = engine.brig(&["diff", "copy"]).ok();
    for line in ["C /etc", "A /etc/brig-e2e-mark", "D /etc/passwd", "C /usr", "A /usr/brig-e2e-mark"] {
        assert!(diff.lines().any(|l| l == line), "no `{line}` in\n{diff}");
    }
    assert_eq!(diff.lines().count(), 5, "{diff}");
    assert!(std::path::Path::new("/etc/passwd").exists() && !std::path::Path::new("/etc/brig-e2e-mark").exists());
    // No network unless asked.
    let links = engine.brig(&["run", "--rm", "host:", "ls", "/sys/class/net"]);
    assert_eq!(links.stdout, "lo\n");
    // The engine's own directories are hidden.
    let hidden = engine.brig(&["run", "--rm", "host:", "ls", &engine.text("root")]);
    assert!(!hidden.stdout.contains("containers"), "{hidden:?}");
}
