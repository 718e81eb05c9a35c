//! Copies in and out while what is copied is swapped. Class 7.

use crate::support::{Engine, sh};
use crate::{exchange, outside, race, rounds, untouched, volume};
use std::os::unix::fs::{MetadataExt, symlink};
use testkit::image::{Layer, Meta};

#[test]
fn copies_both_ways_do_not_follow_what_is_swapped_meanwhile() {
    let engine = Engine::new();
    let outside = outside(&engine);
    let shared = volume(&engine, "shared");
    for directory in ["dir", "other"] {
        std::fs::create_dir(shared.join(directory)).unwrap();
        std::fs::write(shared.join(directory).join("secret"), "of the volume").unwrap();
    }
    symlink(&outside, shared.join("link")).unwrap();
    std::fs::write(shared.join("file"), "of the volume").unwrap();
    sh(&format!("mkfifo {}", shared.join("fifo").display()));
    engine.idle("web", &["--network", "none", "-v", "shared:/v"]);
    std::fs::write(engine.path("payload"), "sent").unwrap();
    // Through each name that is swapped, as a directory, a file and a pipe.
    let archive = Layer::new()
        .file("dir/new", "sent")
        .file("dir/secret", "sent")
        .directory("dir/made", 0o777)
        .entry(b'6', "dir/pipe", "", b"", &Meta::mode(0o666))
        .file("file", "sent")
        .file("v/dir/new", "sent")
        .entry(b'6', "v/dir/secret", "", b"", &Meta::mode(0o666))
        .finish();
    let mut turn = 0;
    race(
        || {
            turn += 1;
            exchange(&shared.join("dir"), &shared.join("link"));
            exchange(&shared.join("file"), &shared.join(if turn % 2 == 0 { "fifo" } else { "link" }));
        },
        || {
            rounds(|n| {
                let out = engine.path(&format!("out{n}"));
                let to = out.to_str().unwrap();
                for from in ["web:/v/dir/secret", "web:/v/file", "web:/v/dir/.", "web:/v/dir"] {
                    let more: &[&str] = if n % 2 == 0 { &["cp", "-L"] } else { &["cp"] };
                    let _ = engine.brig(&[more, &[from, to]].concat());
                    let read = sh(&format!("find {to} -type f -exec cat {{}} + 2>/dev/null || true"));
                    assert!(!read.contains("of the machine"), "{from}");
                    sh(&format!("rm -rf {to}"));
                }
                // The same as streams: what is read, and what is written.
                for from in ["web:/v/dir", "web:/v/file", "web:/v"] {
                    let more: &[&str] = if n % 2 == 0 { &["cp", "-L"] } else { &["cp"] };
                    let output = engine.brig(&[more, &[from, "-"]].concat());
                    assert!(!output.stdout.contains("of the machine"), "{from}");
                }
                for target in ["web:/v", "web:/v/dir", "web:/"] {
                    let _ = engine.brig_with(&["cp", "-", target], &archive);
                    untouched(&outside);
                }
                for target in ["web:/v/dir", "web:/v/dir/new", "web:/v/file"] {
                    let _ = engine.brig(&["cp", &engine.text("payload"), target]);
                    untouched(&outside);
                }
            });
        },
    );
}

#[test]
fn copies_do_not_leave_by_the_containers_proc() {
    let engine = Engine::new();
    let outside = outside(&engine);
    let secret = format!("{}/secret", outside.display());
    engine.idle("web", &["--network", "none"]);
    engine.brig(&["exec", "web", "ln", "-s", &format!("/proc/1/root/../../../..{secret}"), "/link"]).ok();
    let out = engine.text("out");
    for from in
        ["web:/link", "web:/proc/1/root", "web:/proc/self/root/etc/passwd", "web:/proc/1/cwd/etc", "web:/../../.."]
    {
        let _ = engine.brig(&["cp", "-L", &format!("{from}{}", if from.ends_with("..") { &secret } else { "" }), &out]);
        let read = sh(&format!("find {out} -type f -exec cat {{}} + 2>/dev/null || true"));
        assert!(!read.contains("of the machine"), "{from}");
        sh(&format!("rm -rf {out}"));
    }
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    std::fs::write(engine.path("core_pattern"), "|/bin/x").unwrap();
    assert_ne!(engine.brig(&["cp", &engine.text("core_pattern"), "web:/proc/sys/kernel/core_pattern"]).status, 0);
    // Nor does an archive, directly or through its own links; the same for other files of the kernel.
    for (target, layer) in [
        ("web:/", Layer::new().file("proc/sys/kernel/core_pattern", "|/bin/x")),
        ("web:/proc", Layer::new().file("sys/kernel/core_pattern", "|/bin/x")),
        ("web:/tmp", Layer::new().symlink("k", "/proc/sys/kernel").file("k/core_pattern", "|/bin/x")),
        (
            "web:/tmp",
            Layer::new().symlink("r", &format!("/proc/1/root/../../..{}", outside.display())).file("r/new", "x"),
        ),
        ("web:/tmp", Layer::new().symlink("u", &format!("../../../..{}", outside.display())).file("u/new", "x")),
        ("web:/", Layer::new().directory("proc/1", 0o777)),
        ("web:/", Layer::new().directory("sys/fs/cgroup", 0o777)),
        ("web:/", Layer::new().directory("proc", 0o777)),
    ] {
        let mode = std::fs::metadata("/proc/1").unwrap().mode();
        let output = engine.brig_with(&["cp", "-", target], &layer.finish());
        untouched(&outside);
        assert_eq!(std::fs::metadata("/proc/1").unwrap().mode(), mode);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        assert_eq!(kernel, pattern, "{output:?}");
        assert!(target != "web:/" || output.stderr.contains("the kernel's own file systems"), "{output:?}");
    }
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}
