//! Fifty commands of every kind at once on one store: none waits for ever, none loses what another has done.
//!
//! Place: the machine itself, as root, with Debian's docker-registry.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Child;
use support::{Engine, collect};
use testkit::image::{Compression, Image, Layer};
use testkit::registry::Registry;

fn image(text: &str) -> Image {
    let shared = Layer::new().directory("d/", 0o755).file("d/shared", "the same for all").finish();
    let own = Layer::new().directory("d/", 0o755).file("d/own", text).finish();
    Image::new(&[shared, own], Compression::Gzip, r#"{"Cmd":["x"]}"#)
}

#[test]
fn fifty_commands_at_once() {
    let engine = Engine::new();
    let registry = Registry::start();
    for n in 0..4 {
        registry.push(&image(&format!("pulled {n}")), &format!("app{n}"), "1");
    }
    for n in 0..4 {
        std::fs::write(
            engine.path(&format!("load{n}")),
            image(&format!("loaded {n}")).docker_archive(&format!("loaded:{n}")),
        )
        .unwrap();
        std::fs::write(
            engine.path(&format!("gone{n}")),
            image(&format!("gone {n}")).docker_archive(&format!("gone:{n}")),
        )
        .unwrap();
        engine.brig(&["load", "-q", "-i", &engine.text(&format!("gone{n}"))]).ok();
    }
    engine.brig(&["run", "--name", "web", "--network", "none", "busybox", "sh", "-c", "echo web > /web"]).ok();
    let mut children: Vec<(String, Child)> = Vec::new();
    let mut start = |line: String| {
        let words: Vec<&str> = line.split(' ').collect();
        let child = engine.spawn(&words);
        children.push((line, child));
    };
    // Fifty, of seventeen kinds, mixed.
    for n in 0..4 {
        start(format!("pull -q {}/app{n}:1", registry.host()));
        start(format!("load -q -i {}", engine.text(&format!("load{n}"))));
        start(format!("tag busybox many:{n}"));
        start(format!("rmi gone:{n}"));
        start(format!("save -o {} busybox", engine.text(&format!("saved{n}"))));
        start(format!("commit -q web made:{n}"));
        start(format!("run --rm --network none busybox echo {n}"));
        start("image prune -f".to_owned());
        start("images".to_owned());
    }
    for line in [
        "system check",
        "system df",
        "history busybox",
        "image inspect busybox",
        "create --name made busybox x",
        "diff web",
        "image mount busybox",
        "export -o exported web",
        "ps -a",
        "system df -v",
        "pull -q HOST/app0:1",
        "load -q -i LOAD",
        "images --tree",
        "run --rm --network none many:0 true",
    ] {
        start(line.replace("HOST", &registry.host()).replace("LOAD", &engine.text("load0")));
    }
    assert_eq!(children.len(), 50);
    for (line, child) in children {
        let words: Vec<&str> = line.split(' ').collect();
        let output = collect(child, &words);
        // The last one's image may not be there yet; the check may see what is being removed, and nothing broken.
        let allowed = line.starts_with("run --rm --network none many:0");
        assert!(allowed || output.status == 0, "{line}: {output:?}");
    }
    let listed = engine.brig(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    let mut names: Vec<&str> = listed.lines().collect();
    names.sort_unstable();
    let host = registry.host();
    let mut wanted: Vec<String> = (0..4)
        .flat_map(|n| [format!("{host}/app{n}:1"), format!("loaded:{n}"), format!("many:{n}")])
        .chain((0..4).map(|n| format!("made:{n}")))
        .chain(["busybox:latest".to_owned()])
        .collect();
    wanted.sort();
    names.retain(|name| *name != "<none>:<none>");
    assert_eq!(names, wanted);
    for n in 0..4 {
        assert_eq!(engine.brig(&["run", "--rm", "--network", "none", &format!("made:{n}"), "cat", "/web"]).ok(), "web");
        let other = Engine::beside();
        other.brig(&["load", "-q", "-i", &engine.text(&format!("saved{n}"))]).ok();
    }
    engine.brig(&["image", "unmount", "busybox"]).ok();
    engine.brig(&["image", "prune", "-f"]).ok();
    let checked = engine.brig(&["system", "check", "--deep"]).ok();
    assert!(checked.lines().count() == 1 && checked.ends_with("all is well"), "{checked}");
}
