//! Listings of images, and prunes, with filters.
//!
//! Place: the machine itself, as root.

#![allow(clippy::unwrap_used)]

mod support;

use support::Engine;
use testkit::image::Layer;

/// Three images, one on the other, made at different times: `base:1`, `mid:1` with a label, and one without a name.
fn engine() -> Engine {
    let engine = Engine::bare();
    let tar = engine.path("tar");
    std::fs::write(&tar, Layer::new().directory("bin/", 0o755).file("f", "some text").finish()).unwrap();
    engine.brig(&["import", tar.to_str().unwrap(), "base:1"]).ok();
    for (from, name, change) in [("base:1", "mid:1", "LABEL stage=mid"), ("mid:1", "", "LABEL stage=top")] {
        engine.brig(&["create", "--name", "cc", "-w", "/", from, "x"]).ok();
        std::fs::write(engine.path("more"), name).unwrap();
        engine
            .brig(&["cp", &engine.text("more"), &format!("cc:/{}", if name.is_empty() { "top" } else { "mid" })])
            .ok();
        let mut commit = vec!["commit", "-c", change, "cc"];
        if !name.is_empty() {
            commit.push(name);
        }
        engine.brig(&commit).ok();
        engine.brig(&["rm", "cc"]).ok();
    }
    engine
}

#[test]
fn filters_choose_images() {
    let engine = engine();
    let list = |filters: &[&str]| {
        let mut arguments = vec!["images", "--format", "{{.Repository}}"];
        filters.iter().for_each(|filter| arguments.extend(["--filter", filter]));
        let mut lines: Vec<String> = engine.brig(&arguments).ok().lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(" ")
    };
    for (filters, wanted) in [
        (&[][..], "<none> base mid"),
        (&["dangling=true"], "<none>"),
        (&["dangling=false"], "base mid"),
        (&["label=stage"], "<none> mid"),
        (&["label=stage=mid"], "mid"),
        (&["label=stage", "label=stage=top"], "<none>"),
        (&["label!=stage"], "base"),
        (&["before=mid:1"], "base"),
        (&["since=base:1"], "<none> mid"),
        (&["since=base:1", "label=stage=mid"], "mid"),
        (&["reference=b*"], "base"),
        (&["reference=b*", "reference=mid"], "base mid"),
        (&["until=1h"], ""),
        (&["until=2100-01-01"], "<none> base mid"),
    ] {
        assert_eq!(list(filters), wanted, "{filters:?}");
    }
    for (filter, reason) in [
        ("moon=1", "`moon` is not a filter"),
        ("before=moon", "cannot compare with image `moon`"),
        ("until=soon", "not a value for the filter `until`"),
        ("dangling=maybe", "use true or false"),
    ] {
        let refused = engine.brig(&["images", "--filter", filter]);
        assert!(refused.status == 1 && refused.stderr.contains(reason), "{refused:?}");
    }
    let digests = engine.brig(&["image", "ls", "--digests", "--no-trunc", "base"]).ok();
    assert!(digests.contains("DIGEST") && digests.matches("sha256:").count() == 2, "{digests}");
    let tree = engine.brig(&["image", "ls", "--tree"]).ok();
    let lines: Vec<&str> = tree.lines().map(|line| line.split("   ").next().unwrap()).collect();
    assert_eq!(lines[..3], ["IMAGE", "base:1", "└─ mid:1"], "{tree}");
    assert!(tree.lines().nth(3).unwrap().starts_with("   └─ <none>"), "{tree}");
}

#[test]
fn prunes_take_what_is_chosen() {
    let engine = engine();
    let names = || engine.brig(&["images", "--format", "{{.Repository}}"]).ok().lines().count();
    let prune = |filters: &[&str]| {
        let mut arguments = vec!["image", "prune", "-f"];
        filters.iter().for_each(|filter| arguments.extend(["--filter", filter]));
        engine.brig(&arguments).ok()
    };
    assert_eq!(prune(&["until=1h"]), "Total reclaimed space: 0B");
    assert_eq!(prune(&["label=stage=mid"]), "Total reclaimed space: 0B");
    assert_eq!(names(), 3);
    let pruned = prune(&["label=stage=top"]);
    assert!(pruned.starts_with("Deleted image: sha256:") && pruned.contains("Total reclaimed space: "), "{pruned}");
    assert_eq!(names(), 2);
    // Containers by label and age; images that only they used go after them.
    engine.brig(&["create", "--name", "aa", "--label", "keep", "mid:1", "x"]).ok();
    engine.brig(&["create", "--name", "bb", "base:1", "x"]).ok();
    let pruned = engine.brig(&["system", "prune", "-f", "--filter", "label!=keep", "--filter", "until=1h"]).ok();
    assert_eq!(pruned, "Total reclaimed space: 0B");
    let pruned = engine.brig(&["container", "prune", "-f", "--filter", "label!=keep"]).ok();
    assert_eq!(pruned.lines().count(), 1, "{pruned}");
    assert_eq!(engine.brig(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "aa");
    assert_eq!(
        engine.brig(&["image", "prune", "-f", "-a", "--filter", "label=moon"]).ok(),
        "Total reclaimed space: 0B"
    );
    engine.brig(&["image", "prune", "-f", "-a"]).ok();
    assert_eq!(engine.brig(&["images", "--format", "{{.Repository}}"]).ok(), "mid", "a container uses it");
    engine.brig(&["rm", "aa"]).ok();
    engine.brig(&["image", "prune", "-f", "--filter", "dangling=false"]).ok();
    assert_eq!(names(), 0);
    assert!(engine.names("root/layers").is_empty() && engine.names("root/blobs/sha256").is_empty());
}
