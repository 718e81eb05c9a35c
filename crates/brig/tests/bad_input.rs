//! Bad input and a bad world: each gets its error, in the three lines of the house, and loses nothing.
//!
//! Place: the machine itself, as root.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Engine, patiently, sh};
use testkit::image::{Compression, Image, busybox_layer};
use testkit::registry::{Answer, Liar, Registry};

fn image() -> Image {
    Image::new(&[busybox_layer(&["sh", "echo"])], Compression::Gzip, "{}")
}

#[test]
fn names_that_are_in_use_unknown_or_impossible() {
    let engine = Engine::new();
    let id = engine.idle("web", &[]);
    engine.brig(&["run", "--name", "web", "busybox"]).fails(
        125,
        &format!(
            "error: the name `web` is in use by container {}\nhint: remove it with `brig rm web`, or choose another with \
             `--name`\n",
            &id[..12]
        ),
    );
    assert_eq!(engine.inspect("web", "{{.State.Status}}"), "running");
    engine.brig(&["run", "--name", "a/b", "busybox"]).fails(
        125,
        "error: cannot use that name\n  because: `a/b` is not a valid name (letters, digits, `_`, `.` and `-`, at least \
         two, starting with a letter or digit)\n",
    );
    for command in ["start", "stop", "kill", "rm", "logs", "inspect", "wait", "pause", "top", "port", "attach"] {
        let output = engine.brig(&[command, "moon"]);
        let status = if command == "start" { 1 } else { output.status };
        assert_eq!(output.status, status.max(1), "{command}");
        let first =
            if command == "inspect" { "error: no such object: moon\n" } else { "error: no such container: moon\n" };
        assert!(output.stderr.starts_with(first) && output.stderr.contains("\nhint: "), "{command}: {}", output.stderr);
    }
    assert_eq!(engine.brig(&["ps", "-aq"]).ok().lines().count(), 1, "nothing is left of what failed");
}

#[test]
fn bad_flag_values_name_themselves() {
    let engine = Engine::bare();
    let cases: &[(&[&str], &str)] = &[
        (&["-m", "x"], "`x` is not a size for `--memory`\nhint: "),
        (&["-p", "80:x"], "`80:x` is not a port to publish\nhint: "),
        (&["--cpus", "many"], "`many` is not "),
        (&["--ulimit", "moon=1"], "`moon"),
        (&["--restart", "sometimes"], "`sometimes` is not "),
        (&["--security-opt", "moon"], "`moon` is not "),
        (&["--security-opt", "seccomp=/nosuch"], "cannot read "),
        (&["--pid", "moon"], "`moon` is not a mode of `--pid`\nhint: known are `host` and `container:NAME`\n"),
        (&["--sysctl", "moon"], "`moon` is not "),
        (&["--platform", "a/b/c/d"], "`a/b/c/d` is not a platform\n"),
        (&["--env-file", "/nosuch"], "cannot read "),
        (&["--pull", "sometimes"], "`sometimes` is not "),
        (&["--add-host", "x"], "`x` is not "),
    ];
    for (flags, text) in cases {
        let output = engine.brig(&[&["run"], *flags, &["busybox"]].concat());
        assert_eq!(output.status, 125, "{flags:?}");
        assert!(output.stderr.starts_with(&format!("error: {text}")), "{flags:?}: {}", output.stderr);
    }
    assert_eq!(engine.brig(&["run", "--moon", "busybox"]).status, 125);
    engine.brig(&["rnu"]).fails(
        125,
        "error: `rnu` is not a command of brig\nhint: did you mean `brig run`? `brig --help` lists the commands\n",
    );
    assert!(engine.names("root/containers").is_empty());
}

#[test]
fn values_that_only_the_engine_can_judge() {
    let engine = Engine::new();
    for flags in [
        ["--cap-add", "MOON"],
        ["--user", "moon"],
        ["--device", "/dev/nosuch"],
        ["--stop-signal", "MOON"],
        ["--sysctl", "kernel.panic=1"],
        ["--pid", "container:moon"],
        ["--cpuset-cpus", "999"],
        ["--group-add", "moon"],
    ] {
        let output = engine.brig(&[&["run", "--rm"], flags.as_slice(), &["busybox", "true"]].concat());
        assert!(matches!(output.status, 125 | 126), "{flags:?}: {output:?}");
        assert!(output.stderr.starts_with("error: "), "{flags:?}: {}", output.stderr);
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    }
    assert!(patiently(|| engine.brig(&["ps", "-aq"]).ok().is_empty()));
}

#[test]
fn unknown_images_and_dead_registries() {
    let engine = Engine::bare();
    engine.brig(&["run", "127.0.0.1:1/x"]).fails(
        125,
        "error: cannot pull image `127.0.0.1:1/x:latest`\n  because: cannot reach registry `127.0.0.1:1`\n    because: \
         Connection refused (os error 111)\nhint: check the registry's address and the network\n",
    );
    let registry = Registry::start();
    let name = format!("{}/moon:latest", registry.host());
    let unknown = engine.brig(&["pull", &name]);
    unknown.fails(
        1,
        &format!(
            "error: cannot pull image `{name}`\n  because: registry `{}` has no image {name}\nhint: check the name \
             and the tag\n",
            registry.host()
        ),
    );
    engine.brig(&["run", "--pull", "never", "busybox"]).fails(
        125,
        "error: cannot find image `busybox`\n  because: no such image: busybox\nhint: see `brig images` for those that are \
         here\n",
    );
    engine.brig(&["pull", "Not/A:::name"]).fails(1, &engine.brig(&["pull", "Not/A:::name"]).stderr);
    assert!(engine.brig(&["rmi", "moon"]).stderr.contains("\nhint: see `brig images` for those that are here\n"));
}

#[test]
fn a_registry_that_lies_is_found_out() {
    let engine = Engine::bare();
    let image = image();
    let layer = image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let path = format!("/v2/app/blobs/{}", layer.0);
    type Lie = fn(&mut Answer);
    let lies: [(&str, Lie); 4] = [
        ("nothing", |answer| answer.status = 404),
        ("another content", |answer| answer.body[100] ^= 1),
        ("too much", |answer| answer.body.extend([0; 1000])),
        ("too little", |answer| answer.body.truncate(1000)),
    ];
    for (lie, change) in lies {
        let liar = Liar::start();
        liar.serve(&image, "app", "1");
        liar.change(&path, change);
        let pulled = engine.brig(&["pull", &format!("{}/app:1", liar.host())]);
        assert_eq!(pulled.status, 1, "{lie}: {pulled:?}");
        let error = pulled.stderr.lines().find(|l| l.starts_with("error: ")).unwrap();
        assert_eq!(error, format!("error: cannot pull image `{}/app:1`", liar.host()), "{lie}");
        assert!(pulled.stderr.contains("\n  because: "), "{lie}: {}", pulled.stderr);
        assert_eq!(engine.brig(&["images", "-q"]).ok(), "", "{lie}");
    }
    // The truth, afterwards, is taken.
    let honest = Liar::start();
    honest.serve(&image, "app", "1");
    let run = engine.brig(&["run", "--rm", "-q", &format!("{}/app:1", honest.host()), "echo", "hi"]);
    assert_eq!((run.status, run.stdout.as_str()), (0, "hi\n"), "{run:?}");
}

#[test]
fn a_pull_that_was_broken_off_goes_on() {
    let engine = Engine::bare();
    let image = image();
    let layer = image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let liar = Liar::start();
    liar.serve(&image, "app", "1");
    let path = format!("/v2/app/blobs/{}", layer.0);
    liar.change(&path, |answer| (answer.break_after, answer.breaks) = (Some(20_000), 1000));
    let name = format!("{}/app:1", liar.host());
    let mut command = engine.command(&["pull", &name]);
    let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    assert!(patiently(|| engine.downloaded() > 0));
    child.kill().unwrap();
    child.wait().unwrap();
    liar.change(&path, |answer| answer.breaks = 0);
    let before = liar.seen().len();
    assert_eq!(engine.brig(&["pull", &name]).status, 0);
    // A last request of the pull that was ended may still come in; it too asks for the rest.
    let asked: Vec<_> = liar.seen().split_off(before).into_iter().filter(|s| s.path == path).collect();
    let rest = asked.iter().all(|s| s.headers.contains_key("range"));
    assert!(!asked.is_empty() && rest, "the rest of the layer is asked for, not all of it: {asked:?}");
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let engine = Engine::bare();
    let registry = Registry::start();
    // Bytes that do not compress: the blob and the tree together are more than the disk has.
    let noise = std::fs::read("/bin/busybox").unwrap();
    let layer = testkit::image::Layer::new().file("noise", [noise.as_slice(), &noise].concat()).finish();
    registry.push(&image(), "small", "1");
    registry.push(&Image::new(&[layer], Compression::Plain, "{}"), "big", "1");
    sh(&format!("mount -t tmpfs -o size=7m e2e-own {}", engine.text("root")));
    let small = format!("{}/small:1", registry.host());
    let fetched = engine.brig(&["pull", &small]);
    let name = format!("{}/big:1", registry.host());
    let full = engine.brig(&["pull", &name]);
    let list = engine.brig(&["images", "-q"]);
    let run = engine.brig(&["run", "--rm", "--network", "none", &small, "echo", "hi"]);
    let left = engine.names("root/layers");
    engine.clear();
    // The monitor of the last container may still be on its way out.
    assert!(patiently(|| engine.prepare("/bin/umount".as_ref(), &[&engine.text("root")]).status().unwrap().success()));
    assert_eq!(fetched.status, 0, "{fetched:?}");
    assert_eq!(full.status, 1, "{full:?}");
    let error = full.stderr.lines().skip_while(|l| !l.starts_with("error: ")).collect::<Vec<_>>();
    assert_eq!(error[0], format!("error: cannot pull image `{name}`"));
    assert!(error.iter().any(|l| l.contains("No space left on device")), "{error:?}");
    let hint = "hint: make room on the disk: `brig image prune` removes what nothing uses";
    assert_eq!(*error.last().unwrap(), hint);
    assert_eq!((list.ok().lines().count(), left.len()), (1, 1), "{left:?}");
    assert_eq!(run.ok(), "hi");
}

#[test]
fn an_unreadable_record_hides_nothing_else() {
    let engine = Engine::new();
    let bad = engine.idle("bad", &[]);
    engine.idle("good", &[]);
    let path = format!("root/containers/{bad}/record");
    let path = if engine.path(&path).exists() { path } else { format!("root/containers/{bad}/record.json") };
    assert!(engine.path(&path).exists(), "{:?}", engine.names(&format!("root/containers/{bad}")));
    std::fs::write(engine.path(&path), "garbage").unwrap();
    let list = engine.brig(&["ps", "--format", "{{.Names}}"]);
    assert_eq!((list.status, list.stdout.as_str()), (1, "good\n"));
    assert!(list.stderr.starts_with("error: ") && list.stderr.contains(&bad[..12]), "{}", list.stderr);
    assert!(engine.brig(&["stop", "bad"]).stderr.starts_with("error: "));
    assert_eq!(engine.brig(&["exec", "good", "echo", "hi"]).ok(), "hi");
    engine.brig(&["rm", "-f", "bad"]).ok();
    assert_eq!(engine.brig(&["ps", "-q"]).ok().lines().count(), 1);
}

#[test]
fn an_unreadable_image_record_hides_nothing_else() {
    let engine = Engine::new();
    std::fs::write(engine.path("plain"), busybox_layer(&["sh", "echo"])).unwrap();
    engine.brig(&["import", &engine.text("plain"), "other"]).ok();
    let id = engine.brig(&["image", "inspect", "-f", "{{.Id}}", "other"]).ok();
    let hex = id.trim_start_matches("sha256:");
    let record = sh(&format!("grep -rl {hex} {} | grep -v names/ | head -1", engine.text("root/images")));
    std::fs::write(record.trim_end(), "garbage").unwrap();
    let list = engine.brig(&["images"]);
    assert!(list.stdout.contains("busybox"), "{list:?}");
    assert!(list.stderr.starts_with("error: ") || list.stderr.starts_with("warning: "), "{list:?}");
    assert_eq!(engine.sh(&[], "echo hi").ok(), "hi");
}

#[test]
fn without_root_the_line_to_type_is_told() {
    let engine = Engine::bare();
    let own = engine.text("brig");
    std::fs::copy(env!("CARGO_BIN_EXE_brig"), &own).unwrap();
    sh(&format!("chmod 755 {} {own}", engine.directory.path().display()));
    let words = ["--reuid", "65534", "--clear-groups", &own, "run", "--rm", "-it", "host:", "sh"];
    let output = engine.prepare(std::path::Path::new("/usr/bin/setpriv"), &words).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!(
            "error: brig needs to be run as root\n  because: it makes namespaces, mounts and network devices that only \
             root may make\nhint: type: sudo {own} run --rm -it host: sh\n"
        )
    );
}
