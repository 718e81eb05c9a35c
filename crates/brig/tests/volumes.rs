//! Volumes, binds and tmpfs through the command line.
//!
//! Place: the machine itself, as root.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::MetadataExt;
use support::{Engine, sh};

#[test]
fn volumes_live_longer_than_containers() {
    let engine = Engine::new();
    assert_eq!(engine.brig(&["volume", "create", "data"]).ok(), "data");
    engine.sh(&["-v", "data:/data"], "echo one > /data/file").ok();
    assert_eq!(engine.sh(&["-v", "data:/elsewhere:ro"], "cat /elsewhere/file").ok(), "one");
    let read_only = engine.sh(&["-v", "data:/data:ro"], "echo two > /data/file");
    assert!(read_only.status != 0 && read_only.stderr.contains("Read-only file system"), "{read_only:?}");
    assert_eq!(engine.sh(&["--mount", "type=volume,src=data,dst=/m,readonly"], "cat /m/file").ok(), "one");
    engine.idle("web", &["-v", "data:/data"]);
    let used = engine.brig(&["volume", "rm", "data"]);
    assert!(used.status == 1 && used.stderr.contains("`web`") || used.stderr.contains("web"), "{used:?}");
    engine.brig(&["rm", "-f", "web"]).ok();
    let place = engine.brig(&["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]).ok();
    assert_eq!(std::fs::read_to_string(format!("{place}/file")).unwrap(), "one\n");
    assert_eq!(engine.brig(&["volume", "ls", "-q"]).ok(), "data");
    engine.brig(&["volume", "rm", "data"]).ok();
    assert!(engine.names("root/volumes").is_empty());
}

#[test]
fn a_new_volume_takes_what_the_image_has_there() {
    let engine = Engine::new();
    assert_eq!(engine.sh(&["-v", "etc:/etc"], "cat /etc/passwd").ok().lines().count(), 2);
    engine.sh(&["-v", "etc:/etc"], "echo x > /etc/passwd").ok();
    assert_eq!(engine.sh(&["-v", "etc:/etc"], "cat /etc/passwd").ok(), "x", "a volume with content stays as it is");
    assert_eq!(engine.sh(&["-v", "none:/etc:nocopy"], "ls /etc/passwd").status, 1);
    // Owner and mode of the directory come along.
    assert_eq!(engine.sh(&["-v", "tmp:/tmp"], "stat -c %a /tmp").ok(), "1777");
    engine.brig(&["volume", "rm", "etc", "none", "tmp"]).ok();
}

#[test]
fn anonymous_volumes_go_with_their_container() {
    let engine = Engine::new();
    let tar = engine.text("busybox.tar");
    let change = ["import", "-c", "VOLUME /var/data", "-c", "USER nobody", "-c", "STOPSIGNAL USR1", &tar, "with"];
    engine.brig(&change).ok();
    let count = || engine.brig(&["volume", "ls", "-q"]).ok().lines().count();
    engine.brig(&["run", "--rm", "with", "sh", "-c", "mount | grep -q /var/data"]).ok();
    assert_eq!(count(), 0);
    assert_eq!(engine.brig(&["run", "--name", "kept", "with", "whoami"]).ok(), "nobody");
    assert_eq!(count(), 1);
    assert_eq!(engine.inspect("kept", "{{.Config.StopSignal}}"), "USR1");
    engine.brig(&["rm", "kept"]).ok();
    assert_eq!(count(), 1, "`rm` without -v keeps it");
    assert!(engine.brig(&["volume", "prune", "-f"]).ok().starts_with("Deleted volume: "));
    assert_eq!(count(), 0);
    engine.brig(&["create", "--name", "again", "with", "true"]).ok();
    engine.brig(&["rm", "-v", "again"]).ok();
    assert_eq!(count(), 0);
    engine.sh(&["-v", "/anon"], "echo x > /anon/x").ok();
    assert_eq!(count(), 0);
}

#[test]
fn binds_show_directories_and_files_of_the_machine() {
    let engine = Engine::new();
    std::fs::create_dir(engine.path("dir")).unwrap();
    std::fs::write(engine.path("dir/file"), "one\n").unwrap();
    let bind = |options: &str| format!("{}:/data{options}", engine.text("dir"));
    engine.sh(&["-v", &bind("")], "cat /data/file; echo two > /data/new").ok();
    assert_eq!(std::fs::read_to_string(engine.path("dir/new")).unwrap(), "two\n");
    assert!(engine.sh(&["-v", &bind(":ro")], "touch /data/x").stderr.contains("Read-only"));
    assert_eq!(engine.sh(&["-v", &format!("{}:/etc/motd", engine.text("dir/file"))], "cat /etc/motd").ok(), "one");
    // Binds below binds, in whatever order they are named.
    std::fs::create_dir(engine.path("dir/below")).unwrap();
    std::fs::create_dir(engine.path("inner")).unwrap();
    std::fs::write(engine.path("inner/deep"), "deep\n").unwrap();
    let inner = format!("{}:/data/below", engine.text("inner"));
    assert_eq!(
        engine.sh(&["-v", &inner, "-v", &bind(":ro")], "cat /data/below/deep; touch /data/below/w").ok(),
        "deep"
    );
    // -v makes what is missing, --mount does not.
    engine.sh(&["-v", &format!("{}:/x", engine.text("made"))], "true").ok();
    assert!(engine.path("made").is_dir());
    let missing = format!("type=bind,src={},dst=/x", engine.text("missing"));
    engine.sh(&["--mount", &missing], "true").fails(
        125,
        &format!(
            "error: cannot bind `{}`: it does not exist\nhint: make it first; `-v` makes a missing directory, `--mount` \
             does not\n",
            engine.text("missing")
        ),
    );
    // A link inside the image leads to a place inside, not on the machine.
    let script = "ls /data/file && readlink /l";
    engine.brig(&["create", "--name", "link", "busybox"]).ok();
    engine.sh(&["-v", &bind("")], script);
    let nodev = engine.sh(&["-v", &bind(":noexec")], "cp /bin/busybox /data/true; /data/true");
    assert!(nodev.stderr.contains("Permission denied"), "{nodev:?}");
}

#[test]
fn mounts_below_a_bind_come_along_and_later_ones_only_when_asked() {
    let engine = Engine::new();
    std::fs::create_dir_all(engine.path("dir/sub")).unwrap();
    sh(&format!("mount -t tmpfs e2e-own {0} && touch {0}/inside", engine.text("dir/sub")));
    let bind = format!("{}:/data", engine.text("dir"));
    let seen = engine.sh(&["-v", &bind], "ls /data/sub");
    let single = format!("type=bind,src={},dst=/data,bind-nonrecursive", engine.text("dir"));
    let alone = engine.sh(&["--mount", &single], "ls /data/sub");
    sh(&format!("umount {}", engine.text("dir/sub")));
    assert_eq!((seen.ok().as_str(), alone.ok().as_str()), ("inside", ""));
}

#[test]
fn tmpfs_and_a_read_only_root() {
    let engine = Engine::new();
    let script = "touch /x 2>/dev/null || echo root; touch /tmp/x && df -k /tmp | tail -1 | awk '{print $2}'";
    assert_eq!(engine.sh(&["--read-only", "--tmpfs", "/tmp:size=1m"], script).ok(), "root\n1024");
    let mount = "type=tmpfs,dst=/t,tmpfs-size=2m,tmpfs-mode=700";
    assert_eq!(
        engine.sh(&["--mount", mount], "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'").ok(),
        "700\n2048"
    );
    assert_eq!(engine.sh(&["--read-only", "-v", "/data"], "touch /data/x && touch /dev/shm/x && echo ok").ok(), "ok");
}

#[test]
fn root_inside_is_nobody_outside_and_files_keep_their_owners() {
    let engine = Engine::new();
    std::fs::create_dir(engine.path("dir")).unwrap();
    let bind = format!("{}:/data", engine.text("dir"));
    let flags = ["--userns=auto", "-v", "vol:/vol", "-v", &bind];
    let script = "cat /proc/self/uid_map | awk '{print $1, $3}'; touch /vol/a /data/a; chown 33 /data/a; stat -c %u /vol/a /data/a";
    assert_eq!(engine.sh(&flags, script).ok(), "0 65536\n0\n33");
    let outside = std::fs::metadata(engine.path("dir/a")).unwrap();
    assert_eq!(outside.uid(), 33, "an id-mapped bind keeps the owners as the machine knows them");
    // Another container, with other ids on the machine, and one without a map, see the same.
    assert_eq!(engine.sh(&flags, "stat -c %u /vol/a /data/a").ok(), "0\n33");
    assert_eq!(engine.sh(&["-v", "vol:/vol"], "stat -c %u /vol/a").ok(), "0");
    engine.idle("mapped", &["--userns=auto"]);
    let pid = engine.inspect("mapped", "{{.State.Pid}}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let uid = status.lines().find(|l| l.starts_with("Uid:")).unwrap().split_whitespace().nth(1).unwrap();
    assert!(uid.parse::<u32>().unwrap() >= 65536, "{status}");
    engine.brig(&["exec", "mapped", "sh", "-c", "touch /x && chown 1000 /x"]).ok();
    let write = engine.sh(&["--userns=auto"], "mknod /dev/x b 8 0 || echo refused");
    assert!(write.stdout.contains("refused"), "{write:?}");
}

#[test]
fn what_is_written_wrongly_is_told() {
    let engine = Engine::bare();
    let cases = [
        (
            ["--mount", "type=moon,dst=/a"],
            "`moon` is not a type of mount\nhint: known are `bind`, `volume`, `tmpfs` and `image`",
        ),
        (["--mount", "type=bind,dst=/a"], "`--mount type=bind,dst=/a` names no source"),
        (["--mount", "type=volume"], "`--mount type=volume` names no destination"),
        (["-v", "/a:/b:moon"], "`moon` in `/a:/b:moon` is not an option of a mount"),
        (["-v", "a/b:/c"], "`a/b:/c` names no volume"),
        (
            ["-v", "/a:b"],
            "`b` in `/a:b` is not a place to mount at\nhint: a destination is an absolute path without `..`, and not `/` itself",
        ),
    ];
    for (flags, text) in cases {
        let output = engine.brig(&["run", flags[0], flags[1], "busybox"]);
        assert_eq!(output.status, 125, "{flags:?}");
        assert!(output.stderr.starts_with(&format!("error: {text}\n")), "{flags:?}: {}", output.stderr);
    }
}

#[test]
fn volumes_of_another_container() {
    let engine = Engine::new();
    std::fs::create_dir(engine.path("bound")).unwrap();
    std::fs::write(engine.path("bound/file"), "bound").unwrap();
    let bind = format!("{}:/bound", engine.text("bound"));
    let flags = ["-v", "named:/named", "-v", "/anonymous", "-v", &bind, "--tmpfs", "/memory"];
    engine.idle("lender", &flags);
    engine.brig(&["exec", "lender", "sh", "-c", "echo one > /named/a; echo two > /anonymous/b"]).ok();
    let look = "cat /named/a /anonymous/b /bound/file; ls -d /memory 2>/dev/null; touch /named/c";
    assert_eq!(engine.sh(&["--volumes-from", "lender"], look).ok(), "one\ntwo\nbound");
    let told = engine.sh(&["--volumes-from", "lender:ro"], "touch /anonymous/x");
    assert!(told.status == 1 && told.stderr.contains("Read-only file system"), "{told:?}");
    // What one asks for oneself wins, and the borrower's end takes nothing of the lender's along.
    assert_eq!(engine.sh(&["--volumes-from", "lender", "-v", "/named"], "ls /named; cat /anonymous/b").ok(), "two");
    engine.brig(&["create", "--name", "borrower", "--volumes-from", "lender", "busybox", "cat", "/anonymous/b"]).ok();
    assert_eq!(engine.inspect("borrower", "{{index .HostConfig.VolumesFrom 0}}"), "lender");
    // The lender goes with its anonymous volumes, but for the one that is lent.
    engine.brig(&["rm", "-f", "-v", "lender"]).ok();
    assert_eq!(engine.brig(&["start", "-a", "borrower"]).ok(), "two");
    engine.brig(&["rm", "-v", "borrower"]).ok();
    assert_eq!(engine.brig(&["volume", "ls", "-q"]).ok().lines().count(), 2);
    engine.brig(&["volume", "prune", "-f"]).ok();
    assert_eq!(engine.brig(&["volume", "ls", "-q"]).ok(), "named");
    engine.brig(&["volume", "rm", "named"]).ok();
    let unknown = engine.brig(&["run", "--volumes-from", "moon", "busybox"]);
    assert!(unknown.status == 125 && unknown.stderr.starts_with("error: no such container: moon"), "{unknown:?}");
    assert_eq!(engine.brig(&["ps", "-aq"]).ok(), "");
}

#[test]
fn a_throwaway_lender_leaves_what_is_lent() {
    let engine = Engine::new();
    engine.idle("lender", &["--rm", "-v", "/lent", "-v", "/also"]);
    engine.brig(&["exec", "lender", "sh", "-c", "echo kept > /lent/file"]).ok();
    let also = engine.brig(&["volume", "ls", "-q"]).ok();
    engine.idle("borrower", &["--volumes-from", "lender", "-v", "/also"]);
    engine.brig(&["stop", "-t", "0", "lender"]).ok();
    engine.brig(&["wait", "lender"]);
    assert_eq!(engine.brig(&["exec", "borrower", "cat", "/lent/file"]).ok(), "kept");
    let left = engine.brig(&["volume", "ls", "-q"]).ok();
    assert_eq!(left.lines().filter(|name| also.contains(name)).count(), 1, "the one that was not lent is gone");
    engine.brig(&["rm", "-f", "-v", "borrower"]).ok();
    engine.brig(&["volume", "prune", "-f"]).ok();
    assert_eq!(engine.brig(&["volume", "ls", "-q"]).ok(), "");
}
