//! `brig system check` and its repair, and `brig system df`.
//!
//! Place: the machine itself, as root.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use support::{Engine, sh};
use testkit::image::{Compression, Image, Layer};

const WELL: &str = "all is well";

/// An engine with two images that share a layer: `a:1` and `b:1`.
fn engine() -> (Engine, Vec<PathBuf>) {
    let engine = Engine::on_directories();
    let base = Layer::new().directory("d/", 0o755).file("d/base", "some text in the base").finish();
    let top =
        |text: &str| Layer::new().directory("d/", 0o755).file(&format!("d/{text}"), text).symlink("d/l", text).finish();
    for name in ["a", "b"] {
        let archive = engine.path(name);
        let image = Image::new(&[base.clone(), top(name)], Compression::Gzip, "{}");
        std::fs::write(&archive, image.docker_archive(&format!("{name}:1"))).unwrap();
        engine.brig(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    }
    let layers = engine.brig(&["image", "inspect", "-f", "{{join .GraphDriver.Data.Layers \"\\n\"}}", "a:1"]).ok();
    (engine, layers.lines().map(PathBuf::from).collect())
}

/// Checks, repairs, and checks again; returns what the first check and the repair said.
#[track_caller]
fn check(engine: &Engine, arguments: &[&str]) -> String {
    let found = engine.brig(&[&["system", "check"], arguments].concat());
    assert_eq!((found.status, found.stderr.as_str()), (1, ""), "{}", found.stdout);
    let repaired = engine.brig(&[&["system", "check", "--repair"], arguments].concat());
    assert_eq!(repaired.stderr, "", "{}", repaired.stdout);
    assert!(repaired.stdout.starts_with(&found.stdout), "{}\n{}", repaired.stdout, found.stdout);
    repaired.stdout
}

#[track_caller]
fn is_well(engine: &Engine) {
    let well = engine.brig(&["system", "check", "--deep"]);
    assert!(well.status == 0 && well.stdout.contains(WELL), "{well:?}");
}

#[test]
fn a_layer_that_was_changed_is_found_and_made_anew() {
    let (engine, layers) = engine();
    is_well(&engine);
    let (base, top) = (layers[0].display(), layers[1].display());
    for (damage, deep, fault) in [
        (format!("rm {base}/d/base"), false, "has 0 names, and was unpacked with 1"),
        (format!("touch {base}/d/more"), false, "has 2 names"),
        (format!("mkdir {base}/d/more"), false, "has 3 directories"),
        (format!("echo longer >> {base}/d/base"), false, "bytes, and was unpacked with 21"),
        (format!("rm -r {base}"), false, "cannot open directory"),
        (format!("rm -r $(dirname {base})"), false, "it is missing"),
        (format!("rm {base}/../layer.json"), false, "it has no record"),
        (format!("echo x > {base}/../layer.json"), false, "its record is unreadable"),
        (format!("cp {top}/../layer.json {base}/.."), false, "its record is of another layer"),
        (
            format!(
                "cd {base}/d; t=$(stat -c %y base); printf SOME | dd of=base conv=notrunc 2>&1; touch -d \"$t\" base"
            ),
            true,
            "`d/base` has other content",
        ),
        (format!("chmod 600 {base}/d/base"), true, "another mode or owner"),
        (format!("touch {base}/d/base"), true, "another time"),
        (format!("setfattr -n user.x -v y {base}/d/base"), true, "other extended attributes"),
        (format!("setfattr -n trusted.overlay.opaque -v y {base}/d"), true, "hides what is below"),
        (
            format!("cd {top}/d; t=$(stat -c %y .); ln -sf b l.new; touch -hr l l.new; mv l.new l; touch -d \"$t\" ."),
            true,
            "`d/l` leads elsewhere",
        ),
    ] {
        sh(&damage);
        let arguments: &[&str] = if deep { &["--deep"] } else { &[] };
        let told = check(&engine, arguments);
        let who = if damage.contains(&format!("{top}/d")) { "a:1" } else { "a:1, b:1" };
        assert!(told.contains(fault) && told.contains(&format!("(needed by {who})")), "{damage}: {told}");
        assert!(told.contains("Unpacked again: "), "{damage}: {told}");
        is_well(&engine);
    }
}

#[test]
fn blobs_records_and_names_that_cannot_be_trusted_are_told_and_go() {
    let (engine, _) = engine();
    let id = engine.brig(&["inspect", "-f", "{{.Id}}", "a:1"]).ok();
    let manifest = engine.brig(&["inspect", "-f", "{{.Digest}}", "a:1"]).ok();
    let blob = |digest: &str| engine.path("root/blobs/sha256").join(&digest[7..]);
    let load = || drop(engine.brig(&["load", "-q", "-i", &engine.text("a")]).ok());

    // A layer's blob: the image still runs, and is asked for again.
    let layer = engine.names("root/blobs/sha256").into_iter().find(|name| {
        let text = std::fs::read(engine.path("root/blobs/sha256").join(name)).unwrap();
        text.starts_with(&[0x1f, 0x8b]) && text.len() < 400
    });
    let layer = engine.path("root/blobs/sha256").join(layer.unwrap());
    let mut bytes = std::fs::read(&layer).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&layer, &bytes).unwrap();
    let told = check(&engine, &[]);
    assert!(told.contains("its content has the digest") && told.contains("Pull again: "), "{told}");
    assert!(!layer.exists());
    load();
    engine.brig(&["load", "-q", "-i", &engine.text("b")]).ok();
    is_well(&engine);

    // Configuration, manifest: nothing is left of the image.
    for (digest, gone) in [(&id, false), (&manifest, true)] {
        if gone {
            std::fs::remove_file(blob(digest)).unwrap();
        } else {
            std::fs::write(blob(digest), "{}").unwrap();
        }
        let told = check(&engine, &[]);
        assert!(told.contains(if gone { "it is missing (needed by a:1)" } else { "has the digest" }), "{told}");
        assert!(told.contains("Pull again: a:1") && told.contains("Removed: the record of image"), "{told}");
        engine.brig(&["image", "prune", "-f"]).ok();
        is_well(&engine);
        load();
        is_well(&engine);
    }

    // Records.
    let record = engine.path("root/images").join(format!("{}.json", &id[7..]));
    let good = std::fs::read_to_string(&record).unwrap();
    for (text, fault) in [
        ("{".to_owned(), "it is unreadable"),
        (good.replace(&manifest, &manifest.replace(':', ":0")), "it is unreadable"),
    ] {
        std::fs::write(&record, &text).unwrap();
        // It hides no other, and stops no command.
        assert!(engine.brig(&["images", "-q"]).stdout.lines().count() >= 2);
        let told = check(&engine, &[]);
        assert!(told.contains(fault) && told.contains("Pull again: a:1"), "{told}");
        engine.brig(&["image", "prune", "-f"]).ok();
        is_well(&engine);
        load();
    }
    // One of the future is told and left alone.
    let newer = good.replacen(r#""format":1"#, r#""format":99"#, 1);
    std::fs::write(&record, newer).unwrap();
    let told = engine.brig(&["system", "check", "--repair"]);
    assert!(told.status == 1 && told.stdout.contains("Kept: the record of image"), "{told:?}");
    std::fs::write(&record, &good).unwrap();
    is_well(&engine);

    // Names.
    sh(&format!(
        "cd {}/root/images/names; ln -s nonsense odd; ln -s \"{} docker.io/library/x:1\" docker.io+library+x:1",
        engine.directory.path().display(),
        "0".repeat(64)
    ));
    let told = check(&engine, &[]);
    assert!(told.contains("the name `odd`: it does not say") && told.contains("`docker.io/library/x:1`"), "{told}");
    is_well(&engine);
}

#[test]
fn what_a_container_uses_is_not_taken_from_it() {
    let engine = Engine::on_directories();
    engine.idle("web", &["--network", "none"]);
    let layer = engine.brig(&["image", "inspect", "-f", "{{index .GraphDriver.Data.Layers 0}}", "busybox"]).ok();
    sh(&format!("touch {layer}/more"));
    let told = engine.brig(&["system", "check", "--repair"]);
    assert!(
        told.status == 1 && told.stdout.contains("Kept: layer") && told.stdout.contains("a container uses it"),
        "{told:?}"
    );
    assert_eq!(engine.brig(&["exec", "web", "echo", "hi"]).ok(), "hi");
    engine.brig(&["rm", "-f", "web"]).ok();
    let told = engine.brig(&["system", "check", "--repair"]);
    assert!(told.status == 0 && told.stdout.contains("Unpacked again: busybox:latest"), "{told:?}");
    is_well(&engine);
}

#[test]
fn df_measures_what_is_shared_and_what_is_free() {
    let (engine, _) = engine();
    engine
        .brig(&[
            "run",
            "--name",
            "web",
            "--network",
            "none",
            "-v",
            "data:/data",
            "busybox",
            "sh",
            "-c",
            "dd if=/dev/zero of=/f bs=1k count=100 2>/dev/null; echo x > /data/x",
        ])
        .ok();
    engine.brig(&["volume", "create", "loose"]).ok();
    let all = engine.brig(&["system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Active}}"]).ok();
    assert_eq!(all, "Images|3|1\nImage blobs|10|10\nContainers|1|0\nLocal Volumes|2|1");
    let verbose = engine.brig(&["system", "df", "-v"]).ok();
    for part in ["REPOSITORY", "UNIQUE SIZE", "VOLUME NAME", "loose", "web", "102kB"] {
        assert!(verbose.contains(part), "{part}: {verbose}");
    }
    let a = verbose.lines().find(|line| line.starts_with("a ")).unwrap();
    assert!(a.contains("22B") && a.contains("21B") && a.contains("1B"), "{a}");
    assert!(engine.brig(&["system", "df"]).ok().starts_with("TYPE"));
    engine.brig(&["volume", "rm", "loose"]).ok();
}
