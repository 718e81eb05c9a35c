//! Mounts on paths that another container moves meanwhile. Classes 3 and 6.

use crate::support::{Engine, collect};
use crate::{exchange, image, outside, piped, race, rounds, untouched, volume};
use std::os::unix::fs::symlink;
use std::path::Path;
use testkit::image::Layer;

#[test]
fn a_mount_on_a_path_that_another_container_swaps_stays_inside() {
    let engine = Engine::new();
    let outside = outside(&engine);
    let shared = volume(&engine, "shared");
    std::fs::create_dir_all(shared.join("a/deep")).unwrap();
    symlink(&outside, shared.join("b")).unwrap();
    race(
        || exchange(&shared.join("a"), &shared.join("b")),
        || {
            rounds(|_| {
                let flags = ["-v", "shared:/data", "-v", "other:/data/a/deep/new", "--tmpfs", "/data/a/tmp"];
                let script = ["busybox", "sh", "-c", "echo ran; echo x > /data/a/deep/new/f"];
                let output = engine.brig(&[&["run", "--rm", "--network", "none"], &flags[..], &script].concat());
                assert!(output.stdout == "ran\n" || output.status == 125, "{output:?}");
                untouched(&outside);
            });
        },
    );
    assert_eq!(engine.remains(), Vec::<String>::new());
}

#[test]
fn a_part_of_a_volume_that_is_swapped_for_a_link_is_not_followed() {
    let engine = Engine::new();
    let outside = outside(&engine);
    let shared = volume(&engine, "shared");
    std::fs::create_dir_all(shared.join("part/sub")).unwrap();
    std::fs::write(shared.join("part/sub/file"), "of the volume").unwrap();
    std::fs::create_dir(engine.path("sub")).unwrap();
    symlink(engine.directory.path(), shared.join("link")).unwrap();
    let (mut good, mut refused) = (0, 0);
    race(
        || exchange(&shared.join("part"), &shared.join("link")),
        || {
            for (path, want) in [("part/sub", "file"), ("part/outside", "")] {
                rounds(|_| {
                    let mount = format!("type=volume,src=shared,dst=/m,volume-subpath={path}");
                    let output =
                        engine.brig(&["run", "--rm", "--network", "none", "--mount", &mount, "busybox", "ls", "/m"]);
                    match output.status {
                        0 => {
                            assert_eq!(output.stdout.trim_end(), want, "{output:?}");
                            good += 1;
                        }
                        _ => refused += 1,
                    }
                });
            }
        },
    );
    assert!(good > 0 && refused > 0, "{good} {refused}: the race was not one");
    untouched(&outside);
}

#[test]
fn a_node_that_is_swapped_for_a_link_while_it_is_made_changes_nothing_outside() {
    let engine = Engine::new();
    let outside = outside(&engine);
    let shared = volume(&engine, "shared");
    let (null, link) = (shared.join("null"), shared.join("link"));
    race(
        || {
            let _ = std::fs::remove_file(&null);
            let _ = symlink(outside.join("secret"), &link);
            for _ in 0..50 {
                if std::fs::symlink_metadata(&null).is_ok_and(|m| !m.is_symlink()) {
                    let _ = std::fs::rename(&link, &null);
                    break;
                }
            }
        },
        || {
            rounds(|_| {
                let output = engine.brig(&["run", "--rm", "--network", "none", "-v", "shared:/dev", "busybox", "true"]);
                assert!([0, 125].contains(&output.status), "{output:?}");
                untouched(&outside);
            });
        },
    );
}

#[test]
fn a_destination_through_a_dangling_link_is_made_inside() {
    let engine = Engine::new();
    let target = engine.text("made/by/nobody");
    let layer = Layer::new().symlink("data", &format!("../../../..{target}")).symlink("abs", &target);
    image(
        &engine,
        "dangling",
        layer,
        r#"{"Volumes": {"/data": {}, "../..": {}, "/x/../../y": {}, "/": {}, "rel": {}}}"#,
    );
    let script = format!("echo x > {target}/f; cat /data/f; mount");
    let output = engine.brig(&["run", "--rm", "--network", "none", "dangling", "sh", "-c", &script]).ok();
    assert!(output.starts_with("x\n") && output.contains(&format!(" on {target} ")), "{output}");
    let output =
        engine.brig(&["run", "--rm", "--network", "none", "-v", "vol:/abs/sub", "dangling", "ls", &target]).ok();
    assert_eq!(output, "sub");
    assert!(!engine.path("made").exists());
    for climbing in ["vol:/../x", "vol:/a/../../x", "vol:..", "vol:/"] {
        let output = engine.brig(&["run", "--rm", "--network", "none", "-v", climbing, "busybox", "true"]);
        assert_eq!(output.status, 125, "{climbing}: {output:?}");
    }
}

#[test]
fn a_read_only_bind_is_read_only_below_too() {
    let engine = Engine::new();
    std::fs::create_dir_all(engine.path("bound/below")).unwrap();
    let bound = engine.text("bound");
    // A mount namespace of its own: the machine's mounts stay as they are.
    let line = |flags: &str| {
        let brig = env!("CARGO_BIN_EXE_brig");
        let run = format!("{brig} run --rm --network none {flags} -v {bound}:/b:ro busybox touch /b/f /b/below/f");
        let script = format!("mount --make-rprivate / && mount -t tmpfs none {bound}/below && {run}");
        collect(piped(engine.prepare(Path::new("unshare"), &["-m", "sh", "-c", &script])), &["unshare"])
    };
    for flags in ["", "--userns auto"] {
        let output = line(flags);
        assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{output:?}");
    }
}
