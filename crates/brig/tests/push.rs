//! `brig push` against a real registry on loopback, through a relay that notes what is asked.
//!
//! Place: the machine itself, as root, with Debian's docker-registry.

#![allow(clippy::unwrap_used)]

mod support;

use support::Engine;
use testkit::image::{Compression, Image, Layer, descriptor, digest};
use testkit::registry::Registry;
use testkit::relay::{Cut, Relay};

fn image(text: &str, docker: bool) -> Image {
    let noise: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let parts = [
        (Layer::new().directory("./", 0o755).file("noise", noise).finish(), Compression::Gzip),
        (Layer::new().file("text", text).finish(), if docker { Compression::Gzip } else { Compression::Zstd }),
    ];
    Image::mixed(&parts, r#"{"Cmd":["cat","/text"]}"#, docker)
}

#[test]
fn an_image_goes_out_as_it_came_in() {
    let engine = Engine::bare();
    let (source, target) = (Registry::start(), Registry::start());
    let relay = Relay::before(&target.host());
    for (tag, docker) in [("oci", false), ("docker", true)] {
        let made = image(tag, docker);
        source.push(&made, "team/app", tag);
        let (from, to) = (format!("{}/team/app:{tag}", source.host()), format!("{}/other:{tag}", relay.host()));
        assert_eq!(engine.brig(&["pull", "-q", &from]).ok(), made.id());
        let pushed = engine.brig(&["push", &from, &to]);
        let line = format!("{tag}: digest: {} size: {}\n", digest(&made.manifest), made.manifest.len());
        assert_eq!((pushed.status, pushed.stdout.as_str()), (0, line.as_str()), "{pushed:?}");
        assert!(pushed.stderr.contains(" to send\n") && pushed.stderr.contains(": sent, "), "{pushed:?}");
        let (status, manifest) = target.get(&format!("/v2/other/manifests/{}", digest(&made.manifest)));
        assert!(status == 200 && manifest == made.manifest, "the same bytes");
        for (digest, bytes) in made.blobs.iter().filter(|(name, _)| **name != digest(&made.manifest)) {
            assert!(target.get(&format!("/v2/other/blobs/{digest}")).1 == *bytes, "{digest}");
        }
        // Once more: nothing is sent but the name.
        relay.asked();
        assert_eq!(engine.brig(&["push", "-q", &from, &to]).ok(), digest(&made.manifest));
        let asked = relay.asked();
        let sent: Vec<_> = asked.iter().filter(|asked| asked.method != "HEAD").map(|asked| &asked.path).collect();
        assert_eq!(sent, [&format!("/v2/other/manifests/{tag}")]);
    }
    // All tags at once.
    for tag in ["oci", "docker"] {
        let (from, to) = (format!("{}/team/app:{tag}", source.host()), format!("{}/all:{tag}", relay.host()));
        engine.brig(&["tag", &from, &to]).ok();
    }
    let all = engine.brig(&["push", "-q", "--all-tags", &format!("{}/all", relay.host())]).ok();
    assert_eq!(all, [digest(&image("docker", true).manifest), digest(&image("oci", false).manifest)].join("\n"));
    assert_eq!(target.get("/v2/all/manifests/oci").0, 200);
    assert!(engine.brig(&["push", "-a", &format!("{}/all:oci", relay.host())]).stderr.contains("has a tag"));
    assert!(engine.brig(&["push", "-a", "nothing"]).stderr.contains("no image here has a name in"));
    // Under its own name.
    let own = format!("{}/own:v1", relay.host());
    engine.brig(&["tag", &format!("{}/team/app:oci", source.host()), &own]).ok();
    assert!(engine.brig(&["push", &own]).stdout.starts_with("v1: digest: sha256:"));
}

#[test]
fn a_blob_of_another_repository_is_not_sent_again() {
    let engine = Engine::bare();
    let registry = Registry::start();
    let relay = Relay::before(&registry.host());
    let made = image("mounted", false);
    registry.push(&made, "first", "v1");
    let (from, to) = (format!("{}/first:v1", relay.host()), format!("{}/second/deep:v1", relay.host()));
    engine.brig(&["pull", "-q", &from]).ok();
    relay.asked();
    let pushed = engine.brig(&["push", &from, &to]);
    assert_eq!(pushed.status, 0, "{pushed:?}");
    let asked = relay.asked();
    let sent: u64 = asked.iter().filter(|asked| !asked.path.contains("/manifests/")).map(|asked| asked.body).sum();
    let mounts = asked.iter().filter(|asked| asked.path.contains("mount=") && asked.path.contains("from=first"));
    assert_eq!((sent, mounts.count()), (0, 3), "{asked:?}");
    let other = Engine::beside();
    assert_eq!(other.brig(&["pull", "-q", &to]).ok(), made.id());
}

#[test]
fn all_platforms_go_along_and_what_is_not_here_is_fetched() {
    let engine = Engine::bare();
    let (source, target) = (Registry::start(), Registry::start());
    let (here, there) = (image("here", false), image("there", false));
    let entry = |image: &Image, platform: &str| {
        let text = descriptor(image.media_type(), &image.manifest);
        format!("{},\"platform\":{platform}}}", text.trim_end_matches('}'))
    };
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{},{}]}}"#,
        entry(&here, &format!(r#"{{"os":"linux","architecture":"{}"}}"#, testkit::image::architecture())),
        entry(&there, r#"{"os":"linux","architecture":"s390x"}"#),
    );
    for made in [&here, &there] {
        source.push(made, "multi", "x");
    }
    source.push_manifest("multi", "v1", "application/vnd.oci.image.index.v1+json", index.as_bytes());
    let (from, to) = (format!("{}/multi:v1", source.host()), format!("{}/copy:v1", target.host()));
    engine.brig(&["pull", "-q", &from]).ok();
    assert_eq!(engine.brig(&["push", "-q", "--all-platforms", &from, &to]).ok(), digest(index.as_bytes()));
    let other = Engine::beside();
    assert_eq!(other.brig(&["pull", "-q", &to]).ok(), here.id());
    assert_eq!(other.brig(&["pull", "-q", "--platform", "linux/s390x", &to]).ok(), there.id());
    // One that came from no list.
    let single = format!("{}/multi:x", source.host());
    engine.brig(&["pull", "-q", "--platform", "linux/s390x", &single]).stdout.clear();
    engine.brig(&["save", "-o", &engine.text("one.tar"), &single]).ok();
    let third = Engine::beside();
    third.brig(&["load", "-q", "-i", &engine.text("one.tar")]).ok();
    let refused = third.brig(&["push", "--all-platforms", &single, &to]);
    assert!(refused.status == 1 && refused.stderr.contains("because: it was not made from a list"), "{refused:?}");
}

#[test]
fn a_commit_is_compressed_once_when_it_is_pushed() {
    let engine = Engine::new();
    let (registry, other) = (Registry::start(), Registry::start());
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i of many; i=$((i+1)); done > /lines";
    engine.brig(&["run", "--name", "web", "--network", "none", "busybox", "sh", "-c", script]).ok();
    engine.brig(&["commit", "web", "made"]).ok();
    let id = || engine.brig(&["image", "inspect", "-f", "{{.Id}}", "made"]).ok();
    let before = id();
    let layers = |registry: &Registry| -> Vec<(String, u64)> {
        let manifest: serde_json::Value = serde_json::from_slice(&registry.get("/v2/made/manifests/v1").1).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers.map(|l| (l["mediaType"].as_str().unwrap().to_owned(), l["size"].as_u64().unwrap())).collect()
    };
    let first = engine.brig(&["push", "-q", "made", &format!("{}/made:v1", registry.host())]).ok();
    assert_eq!(engine.brig(&["push", "-q", "made", &format!("{}/made:v1", other.host())]).ok(), first);
    let pushed = layers(&registry);
    assert!(pushed.iter().all(|(kind, _)| kind.ends_with("gzip")), "{pushed:?}");
    assert!(pushed.last().unwrap().1 < 100_000, "{pushed:?}");
    assert_eq!((layers(&other), id()), (pushed, before), "the image is the same");
    // Nothing is lost, and of the plain tar nothing is left.
    engine.brig(&["image", "prune", "-f"]).ok();
    engine.brig(&["system", "check", "--deep"]).ok();
    let tail = ["run", "--rm", "--network", "none"];
    assert_eq!(engine.brig(&[&tail[..], &["made", "tail", "-n1", "/lines"]].concat()).ok(), "line 19999 of many");
    let there = Engine::beside();
    let name = format!("{}/made:v1", other.host());
    assert_eq!(there.brig(&["pull", "-q", &name]).ok(), id());
    assert_eq!(there.brig(&[&tail[..], &[&name, "tail", "-n1", "/lines"]].concat()).ok(), "line 19999 of many");
}

#[test]
fn images_that_were_loaded_or_imported_can_be_pushed() {
    let engine = Engine::new();
    let registry = Registry::start();
    let to = format!("{}/busybox:1", registry.host());
    assert_eq!(engine.brig(&["push", "busybox", &to]).status, 0);
    let other = Engine::beside();
    let run = other.brig(&["run", "--rm", "-q", "--network", "none", &to, "echo", "hi"]);
    assert_eq!((run.status, run.stdout.as_str()), (0, "hi\n"), "{run:?}");
}

#[test]
fn a_push_survives_broken_connections_and_tells_what_stops_it() {
    let engine = Engine::new();
    let registry = Registry::start();
    let relay = Relay::before(&registry.host());
    relay.cut(Cut { method: "PUT", path: "/uploads/", after: 100_000, times: 2 });
    let to = format!("{}/app:1", relay.host());
    let pushed = engine.brig(&["push", "busybox", &to]);
    assert_eq!(pushed.status, 0, "{pushed:?}");
    engine.brig(&["push", "moon", &to]).fails(
        1,
        "error: cannot find image `moon`\n  because: no such image: moon\nhint: see `brig images` for those that are here\n",
    );
    let digest = format!("{}/app@sha256:{}", relay.host(), "0".repeat(64));
    assert!(engine.brig(&["push", "busybox", &digest]).stderr.contains("because: a digest is not given"));
    let id = engine.brig(&["images", "-q", "--no-trunc"]).ok();
    let hex = id.trim_start_matches("sha256:");
    assert!(engine.brig(&["push", hex]).stderr.contains("hint: say where to"), "an id is no name");
    let dead = engine.brig(&["push", "busybox", "127.0.0.1:1/x"]);
    assert!(dead.status == 1 && dead.stderr.contains("because: cannot reach registry `127.0.0.1:1`"), "{dead:?}");
}
