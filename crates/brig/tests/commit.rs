//! `commit`, `history`, `export`, `untag` and `diff` of images through the command line.
//!
//! Place: the machine itself, as root.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Stdio;
use support::{Engine, collect, sh};

/// What a container does to its files: each kind of thing that a layer must carry.
const CHANGES: &str = "mkdir -p /data/sub /etc/empty; echo one > /data/one; ln /data/one /data/two; ln -s one /data/link; \
    mkfifo /data/fifo; chmod 4750 /data/two; rm /bin/wc; rm -r /root; mkdir /root; echo new > /root/new; \
    dd if=/dev/zero of=/data/sparse bs=1 count=1 seek=10000000 2>/dev/null; \
    mknod /data/node c 1 3; chown 1234:4321 /data/sub; touch -d '2001-02-03 04:05:06' /data/one; rm /tmp -r; echo f > /tmp; \
    echo extra >> /etc/passwd";

/// What a container sees of its own files, without what the engine mounts.
const LIST: &str = "cd / && find . -path ./proc -prune -o -path ./sys -prune -o -path ./dev -prune -o -path ./etc/hosts -prune \
    -o -path ./etc/hostname -prune -o -path ./etc/resolv.conf -prune -o -print | sort | \
    while read f; do stat -c '%n %F %a %u %g' \"$f\"; [ -d \"$f\" ] || stat -c '%s %Y' \"$f\"; done; stat -c %h /data/two; cat /data/one /etc/passwd /root/new";

#[test]
fn a_commit_is_what_the_container_was() {
    let engine = Engine::new();
    let userns: &[&str] = &["--userns", "auto"];
    for (name, flags, running) in [("stopped", &[][..], false), ("running", &[], true), ("mapped", userns, false)] {
        // A map has no place for devices made inside.
        let changes =
            if name == "mapped" { CHANGES.replace("mknod /data/node c 1 3;", "") } else { CHANGES.to_owned() };
        if running {
            engine.idle(name, flags);
            engine.brig(&["exec", name, "sh", "-c", &changes]).ok();
        } else {
            engine.brig(&[&["run", "--name", name], flags, &["busybox", "sh", "-c", &changes]].concat()).ok();
        }
        let tar = engine.path(&format!("{name}.tar"));
        let child = engine.command(&["export", name]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let exported = child.wait_with_output().unwrap();
        assert!(exported.status.success() && exported.stderr.is_empty(), "{exported:?}");
        std::fs::write(&tar, &exported.stdout).unwrap();
        engine.brig(&["commit", name, &format!("made:{name}")]).ok();
        engine.brig(&["import", tar.to_str().unwrap(), &format!("flat:{name}")]).ok();
        let layered = engine.sh_of(&format!("made:{name}"), flags, LIST);
        let flat = engine.sh_of(&format!("flat:{name}"), flags, LIST);
        assert_eq!(layered, flat, "{name}: layer by layer as all at once");
        for part in [
            "/data/two regular file 4750 0 0",
            "/data/sub directory 755 1234 4321",
            "/data/fifo fifo",
            "981173106",
            "\n2\none\n",
        ] {
            assert!(layered.contains(part), "{name}: {part} in {layered}");
        }
        assert!(!layered.contains("/bin/wc") && layered.contains("/tmp regular file"), "{layered}");
        if running {
            assert_eq!(engine.inspect(name, "{{.State.Status}}"), "running", "it goes on");
        }
        // The hole is one in the layer too, and the mark of deletion is not a file of it.
        let layer = engine
            .brig(&["image", "inspect", "-f", "{{index .GraphDriver.Data.Layers 1}}", &format!("made:{name}")])
            .ok();
        assert!(sh(&format!("du -k {layer}/data/sparse")).starts_with(['0', '4', '8']), "sparse");
        assert_eq!(sh(&format!("stat -c %F,%t,%T {layer}/bin/wc")).trim(), "character special file,0,0");
        // Made anew from the blob, the layer is the same.
        let archive = engine.text(&format!("{name}.oci"));
        engine.brig(&["save", "-o", &archive, &format!("made:{name}")]).ok();
        let mut other = Engine::beside();
        other.layers = "directories";
        other.brig(&["load", "-q", "-i", &archive]).ok();
        let again = other
            .brig(&["image", "inspect", "-f", "{{index .GraphDriver.Data.Layers 1}}", &format!("made:{name}")])
            .ok();
        let census = |tree: &str| {
            sh(&format!(
                "cd {tree} && find . -printf '%p %y %s %m %U %G %n %l %T@ %D\\n' | sed 's/ \\([dc]\\) [0-9]* / \\1 /; s/ [0-9]*$//' | grep -v ' c 0 ' | sed '/^\\. /s/[0-9.]*$//' | sort; getfattr -Rhd -m - . 2>/dev/null || true; find . -type f -exec sha256sum {{}} + | sort"
            ))
        };
        let strip = |text: String| text.lines().filter(|l| !l.starts_with("./bin/wc c")).collect::<Vec<_>>().join("\n");
        assert_eq!(strip(census(&layer)), strip(census(&again)), "{name}");
        drop(other);
        engine.brig(&["rm", "-f", name]).ok();
    }
}

#[test]
fn a_commit_says_what_it_was_told() {
    let engine = Engine::new();
    let base = engine.brig(&["inspect", "-f", "{{.Id}}", "busybox"]).ok();
    engine
        .brig(&[
            "run",
            "--name",
            "web",
            "-e",
            "A=run",
            "--label",
            "l=run",
            "-v",
            "/anon",
            "busybox",
            "sh",
            "-c",
            "echo hi > /f",
        ])
        .ok();
    let id = engine
        .brig(&[
            "commit",
            "-a",
            "Somebody",
            "-m",
            "a message",
            "-c",
            "ENV B=\"c d\"",
            "-c",
            "EXPOSE 80",
            "-c",
            "WORKDIR /srv",
            "-c",
            "CMD [\"cat\", \"/f\"]",
            "-c",
            "ENTRYPOINT []",
            "-c",
            "VOLUME /v",
            "-c",
            "STOPSIGNAL SIGINT",
            "-c",
            "USER 7",
            "-c",
            "ONBUILD RUN x",
            "-c",
            "HEALTHCHECK --interval=3s CMD true",
            "-c",
            "LABEL m=\"n o\"",
            "web",
            "made",
        ])
        .ok();
    let field = |template: &str| engine.brig(&["image", "inspect", "-f", template, "made"]).ok();
    assert_eq!(field("{{.Id}}"), id);
    assert_ne!(id, base);
    assert_eq!(
        field("{{.Author}} {{.Config.User}} {{.Config.WorkingDir}} {{.Config.StopSignal}}"),
        "Somebody 7 /srv SIGINT"
    );
    assert_eq!(field("{{json .Config.Cmd}} {{json .Config.OnBuild}}"), r#"["cat","/f"] ["RUN x"]"#);
    assert_eq!(field("{{range .Config.Env}}<{{.}}>{{end}}"), "<A=run><B=c d>");
    assert_eq!(
        field("{{json .Config.Volumes}} {{json .Config.ExposedPorts}}"),
        r#"{"/anon":{},"/v":{}} {"80/tcp":{}}"#
    );
    assert_eq!(field("{{index .Config.Labels \"l\"}} {{join .Config.Healthcheck.Test \" \"}}"), "run CMD-SHELL true");
    assert_eq!(field("{{len .RootFS.Layers}}"), "2");
    assert_eq!(engine.brig(&["run", "--rm", "made"]).ok(), "hi");
    assert_eq!(engine.brig(&["diff", "made"]).ok(), "A /f");

    let history =
        engine.brig(&["history", "--format", "{{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}}|{{.Author}}", "made"]).ok();
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(lines[0], format!("{}|sh -c echo hi > /f|3B|a message|Somebody", &id[7..19]));
    assert!(lines.len() == 2 && lines[1].starts_with("<missing>|"), "{history}");
    assert_eq!(engine.brig(&["history", "-q", "--no-trunc", "made"]).ok(), format!("{id}\n<missing>"));
    assert!(engine.brig(&["history", "made"]).ok().starts_with("IMAGE"));

    // Nothing written: a step without a layer.
    engine.brig(&["run", "--name", "idle", "busybox", "true"]).ok();
    engine.brig(&["commit", "idle", "idle:1"]).ok();
    assert_eq!(engine.brig(&["inspect", "-f", "{{len .RootFS.Layers}} {{len .History}}", "idle:1"]).ok(), "1 2");
    // The same again is the same layer.
    engine.brig(&["commit", "web", "made:again"]).ok();
    assert_eq!(engine.names("root/layers").len(), 2, "{:?}", engine.names("root/layers"));

    engine.brig(&["tag", "made", "other:1"]).ok();
    engine.brig(&["untag", "made", "moon"]).fails(
        1,
        "error: cannot untag image `made`\n  because: no such image: moon:latest among the names of made\nhint: see `brig images` \
         for those that are here\n",
    );
    assert_eq!(engine.brig(&["untag", "made", "made"]).ok(), "Untagged: made:latest");
    assert_eq!(engine.brig(&["untag", "other:1"]).ok(), "Untagged: other:1");
    assert_eq!(engine.brig(&["image", "inspect", "-f", "{{len .RepoTags}}", &id]).ok(), "0", "it stays");

    // What cannot be done is said before anything is made.
    for (arguments, reason) in [
        (&["commit", "-c", "RUN x", "web"][..], "`RUN x` is not a change that can be made"),
        (&["commit", "web", "UPPER"], "cannot commit container `web`"),
        (&["commit", "moon"], "moon"),
    ] {
        let refused = engine.brig(arguments);
        assert!(refused.status == 1 && refused.stderr.contains(reason), "{refused:?}");
    }
    engine.brig(&["run", "--name", "host", "host:", "true"]);
    assert!(engine.brig(&["commit", "host"]).stderr.contains("brig export"));
}

#[test]
fn a_paused_container_stays_paused_and_an_unpaused_one_writes_on() {
    let engine = Engine::new();
    engine
        .brig(&[
            "run",
            "-d",
            "--name",
            "busy",
            "busybox",
            "sh",
            "-c",
            "n=0; while true; do n=$((n+1)); echo $n > /n; mkdir -p /d/$n; rm -r /d; done",
        ])
        .ok();
    for pause in ["--pause", "--pause=false", "--pause=true"] {
        for _ in 0..3 {
            let child = engine.spawn(&["commit", pause, "busy"]);
            let output = collect(child, &["commit"]);
            assert_eq!((output.status, output.stderr.as_str()), (0, ""), "{pause}");
        }
    }
    engine.brig(&["pause", "busy"]).ok();
    engine.brig(&["commit", "busy", "made"]).ok();
    assert_eq!(engine.inspect("busy", "{{.State.Status}}"), "paused");
    engine.brig(&["unpause", "busy"]).ok();
}

/// A disk of its own over brig's root, gone with the value.
struct Disk(String);

impl Disk {
    fn new(engine: &Engine, kind: &str) -> Self {
        let (file, root) = (engine.text("disk"), engine.text("root"));
        sh(&format!("truncate -s 300M {file} && mkfs.{kind} -q {file} && mount -t {kind} -o loop {file} {root}"));
        Self(root)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        sh(&format!("umount {}", self.0));
    }
}

#[test]
fn a_commit_shares_the_blocks_of_files_where_the_file_system_can() {
    let engine = Engine::bare();
    let disk = Disk::new(&engine, "btrfs");
    engine.import();
    let script = "head -c 8000000 /dev/urandom > /big; echo small > /small; sync";
    engine.brig(&["run", "--name", "web", "--network", "none", "busybox", "sh", "-c", script]).ok();
    engine.brig(&["commit", "web", "made"]).ok();
    let layer = engine.brig(&["image", "inspect", "-f", "{{index .GraphDriver.Data.Layers 1}}", "made"]).ok();
    let id = engine.inspect("web", "{{.Id}}");
    let written = engine.text(&format!("root/containers/{id}/upper/big"));
    let extents = sh(&format!("filefrag -v {layer}/big"));
    assert!(extents.contains("shared"), "{extents}");
    // It is a copy all the same: what the container writes later is not in the layer.
    let before = sh(&format!("sha256sum < {layer}/big"));
    assert_eq!(sh(&format!("sha256sum < {written}")), before);
    sh(&format!("printf changed | dd of={written} bs=4096 seek=3 conv=notrunc 2>/dev/null"));
    assert_eq!(sh(&format!("sha256sum < {layer}/big")), before);
    assert_eq!(engine.sh_of("made", &[], "sha256sum < /big; cat /small").trim(), format!("{}\nsmall", before.trim()));
    engine.clear();
    drop(disk);
}

trait Run {
    fn sh_of(&self, image: &str, flags: &[&str], script: &str) -> String;
}

impl Run for Engine {
    fn sh_of(&self, image: &str, flags: &[&str], script: &str) -> String {
        self.brig(&[&["run", "--rm", "--network", "none"], flags, &[image, "sh", "-c", script]].concat()).ok()
    }
}
