//! Images from a registry to the store, as the program does it.

use std::time::Duration;

use brig_registry::Options;
use brig_spec::platform::Platform;
use brig_store::{InUse, LayerChoice, LayerForm, SaveFormat, Silent, Store};
use testkit::image::{Compression, Image, Layer, compress, descriptor, digest};
use testkit::registry::{Liar, Registry};

use super::{ImageFilter, Images, PullPolicy};
use crate::error::Kind;

struct Place {
    _directory: tempfile::TempDir,
    store: Store,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    // As directories, which can be looked into.
    let form = LayerChoice::Always(LayerForm::Directories);
    let store = Store::open(&directory.path().join("root")).unwrap().with_layers_as(form);
    Place { _directory: directory, store }
}

fn options() -> Options {
    Options { retries: 1, read_timeout: Duration::from_secs(5), ..Options::default() }
}

fn image(text: &str, docker: bool) -> Image {
    let base = Layer::new().directory("./", 0o750).directory("d", 0o700).file("d/base", "base").finish();
    let parts = [
        (base, Compression::Gzip),
        (Layer::new().file("d/f", text).finish(), if docker { Compression::Gzip } else { Compression::Zstd }),
    ];
    Image::mixed(&parts, r#"{"Cmd":["sh"]}"#, docker)
}

#[test]
fn pulled_listed_tagged_saved_and_removed() {
    let registry = Registry::start();
    let (oci, docker) = (image("oci", false), image("docker", true));
    registry.push(&oci, "me/app", "oci");
    registry.push(&docker, "me/app", "docker");
    let place = place();
    let images = Images::new(&place.store, options());
    for (tag, made) in [("oci", &oci), ("docker", &docker)] {
        let name = format!("{}/me/app:{tag}", registry.host());
        let pulled = images.pull(&name, None, &Silent).unwrap();
        assert_eq!((pulled.image.id.to_string(), pulled.changed), (made.id(), true));
        assert_eq!(pulled.digest.unwrap().to_string(), digest(&made.manifest));
        assert_eq!(std::fs::read_to_string(pulled.image.layers[1].join("d/f")).unwrap(), tag);
        assert_eq!(pulled.image.root.mode, 0o750);
        assert!(!images.pull(&name, None, &Silent).unwrap().changed);
        // By the digest that was shown.
        let pinned = format!("{}/me/app@{}", registry.host(), digest(&made.manifest));
        assert_eq!(images.inspect(&pinned).unwrap().id.to_string(), made.id());
    }
    let name = format!("{}/me/app:oci", registry.host());
    images.tag(&name, "mine:1").unwrap();
    assert_eq!(images.list().unwrap().images.len(), 2);
    let mut saved = Vec::new();
    images.save(&["mine:1"], SaveFormat::Docker, &mut saved).unwrap();
    assert_eq!(images.load_stream(&saved[..], "-", None, &Silent).unwrap()[0].id.to_string(), oci.id());
    assert_eq!(images.tag("mine:1", "UPPER").unwrap_err().kind, Kind::InvalidArgument);
    images.remove("mine:1", &InUse::nobody, false).unwrap();
    assert!(images.remove(&name, &InUse::nobody, false).unwrap().deleted.is_some());
    assert_eq!(images.inspect(&name).unwrap_err().kind, Kind::NotFound);
    images.prune(&InUse::nobody, true, &ImageFilter::default()).unwrap();
    assert_eq!(std::fs::read_dir(place.store.root().join("layers")).unwrap().count(), 0);
}

#[test]
fn an_index_gives_the_platform_asked_for() {
    let registry = Registry::start();
    let (here, there) = (image("here", false), image("there", false));
    for image in [&here, &there] {
        registry.push(image, "multi", &digest(&image.manifest)[7..20]);
    }
    let entry = |image: &Image, platform: &str| {
        format!("{},\"platform\":{platform}}}", descriptor(image.media_type(), &image.manifest).trim_end_matches('}'))
    };
    let media = "application/vnd.oci.image.index.v1+json";
    let host = format!(r#"{{"os":"linux","architecture":"{}"}}"#, testkit::image::architecture());
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media}","manifests":[{},{},{}]}}"#,
        entry(&there, r#"{"os":"linux","architecture":"s390x"}"#),
        entry(&here, &host),
        entry(&there, r#"{"os":"unknown","architecture":"unknown"}"#)
    );
    registry.push_manifest("multi", "latest", media, index.as_bytes());
    let place = place();
    let images = Images::new(&place.store, options());
    let name = format!("{}/multi", registry.host());
    let pulled = images.pull(&name, None, &Silent).unwrap();
    assert_eq!(pulled.image.id.to_string(), here.id());
    assert_eq!(pulled.digest.unwrap().to_string(), digest(index.as_bytes()));
    assert_eq!(pulled.image.origins.len(), 2, "by the index's digest and by its own");
    let other: Platform = "linux/s390x".parse().unwrap();
    assert_eq!(images.pull(&name, Some(&other), &Silent).unwrap().image.id.to_string(), there.id());
    let none: Platform = "linux/riscv64".parse().unwrap();
    let error = images.pull(&name, Some(&none), &Silent).unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    assert!(error.causes()[0].contains("linux/s390x"), "{error:?}");
}

#[test]
fn the_policy_decides_about_pulling() {
    let liar = Liar::start();
    let (old, new) = (image("old", false), image("new", false));
    liar.serve(&old, "app", "v1");
    let place = place();
    let images = Images::new(&place.store, options());
    let name = format!("{}/app:v1", liar.host());
    let ensure = |policy| images.ensure(&name, policy, None, &Silent);
    assert_eq!(ensure(PullPolicy::Never).unwrap_err().kind, Kind::NotFound);
    assert_eq!(ensure(PullPolicy::Missing).unwrap().id.to_string(), old.id());
    liar.serve(&new, "app", "v1");
    let asked = liar.seen().len();
    assert_eq!(ensure(PullPolicy::Missing).unwrap().id.to_string(), old.id());
    assert_eq!(ensure(PullPolicy::Never).unwrap().id.to_string(), old.id());
    assert_eq!(liar.seen().len(), asked, "nobody was asked");
    assert_eq!(ensure(PullPolicy::Always).unwrap().id.to_string(), new.id());
    assert_eq!(images.ensure(&new.id(), PullPolicy::Missing, None, &Silent).unwrap().id.to_string(), new.id());
    let unknown = "0".repeat(64);
    assert!(images.ensure(&unknown, PullPolicy::Missing, None, &Silent).is_err());
}

#[test]
fn a_pull_that_broke_off_goes_on() {
    let liar = Liar::start();
    let noise: Vec<u8> = (0..1_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let image = Image::new(&[Layer::new().file("noise", noise).finish()], Compression::Plain, "{}");
    liar.serve(&image, "big", "v1");
    let path = format!("/v2/big/blobs/{}", digest(&image.layers[0]));
    liar.change(&path, |answer| (answer.break_after, answer.breaks, answer.status) = (Some(3_000_000), 1, 0));
    let place = place();
    let name = format!("{}/big:v1", liar.host());
    let impatient = Options { retries: 0, ..options() };
    let error = Images::new(&place.store, impatient).pull(&name, None, &Silent).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error:?}");
    assert!(Images::new(&place.store, options()).list().unwrap().images.is_empty());
    Images::new(&place.store, options()).pull(&name, None, &Silent).unwrap();
    let ranges: Vec<_> = liar.seen().iter().filter_map(|seen| seen.headers.get("range").cloned()).collect();
    assert!(ranges.len() == 1 && ranges[0] != "bytes=0-", "{ranges:?}");
}

#[test]
fn failures_say_what_why_and_what_to_do() {
    let liar = Liar::start();
    let good = image("x", false);
    liar.serve(&good, "lies", "v1");
    let victim = digest(&good.layers[0]);
    liar.change(&format!("/v2/lies/blobs/{victim}"), |answer| {
        *answer.body.last_mut().unwrap() ^= 1;
    });
    let place = place();
    let images = Images::new(&place.store, Options { retries: 0, ..options() });
    let fails = |name: &str| images.pull(name, None, &Silent).unwrap_err();
    let lie = fails(&format!("{}/lies:v1", liar.host()));
    assert_eq!(lie.kind, Kind::Unavailable);
    assert!(lie.causes()[0].contains(&victim) && lie.hint.is_some(), "{lie:?}");
    let missing = fails(&format!("{}/none:v1", liar.host()));
    assert_eq!(missing.kind, Kind::NotFound);
    assert!(missing.message.contains("none:v1"), "{missing:?}");
    let dead = fails("127.0.0.1:1/app:v1");
    assert_eq!(dead.kind, Kind::Unavailable);
    assert!(dead.hint.is_some() && !dead.causes().is_empty());
    assert_eq!(fails("Not A Name").kind, Kind::InvalidArgument);
    assert_eq!(fails("oci:/nonexistent").kind, Kind::InvalidArgument);
    assert_eq!(fails("docker-archive:/nonexistent").kind, Kind::NotFound);
    let hostile = Image::new(&[Layer::new().file("../up", "x").finish()], Compression::Gzip, "{}");
    liar.serve(&hostile, "hostile", "v1");
    let refused = fails(&format!("{}/hostile:v1", liar.host()));
    assert!(refused.causes().iter().any(|cause| cause.contains("climbs")), "{refused:?}");
    place.store.collect(&InUse::nobody, Duration::ZERO).unwrap();
    for path in ["blobs/sha256", "layers", "tmp"] {
        assert_eq!(std::fs::read_dir(place.store.root().join(path)).unwrap().count(), 0, "{path}");
    }
}

#[test]
fn archives_and_layouts_are_sources_too() {
    let place = place();
    let images = Images::new(&place.store, options());
    let directory = tempfile::tempdir().unwrap();
    let made = image("x", false);
    let layout = directory.path().join("myapp");
    made.write_layout(&layout, "v1");
    let pulled = images.pull(&format!("oci:{}:v1", layout.display()), None, &Silent).unwrap();
    assert_eq!(place.store.names_of(&pulled.image.id).unwrap()[0].to_string(), "localhost/myapp:v1");
    let archive = directory.path().join("saved.tar");
    std::fs::write(&archive, compress(&made.docker_archive("me/app:2"), Compression::Gzip)).unwrap();
    let source = format!("docker-archive:{}", archive.display());
    let image = images.ensure(&source, PullPolicy::Missing, None, &Silent).unwrap();
    assert_eq!(place.store.names_of(&image.id).unwrap().len(), 2);
    assert_eq!(images.load(&archive, None, &Silent).unwrap()[0].id, image.id);
    assert_eq!(images.inspect("me/app:2").unwrap().id, image.id);
}

#[test]
fn a_container_made_during_a_collection_has_its_layers_or_is_refused() {
    use crate::config::{Config, ContainerConfig, NetworkMode};
    use crate::containers::{self, Source};
    let place = place();
    let images = Images::new(&place.store, options());
    let archive = place.store.root().join("archive");
    std::fs::write(&archive, image("x", true).docker_archive("app:1")).unwrap();
    let config = Config::new(place.store.root(), place.store.root().join("run"));
    let create = |image: brig_store::Image| {
        let wish = ContainerConfig {
            image: "app:1".into(),
            command: vec!["true".into()],
            network: NetworkMode::None,
            ..ContainerConfig::default()
        };
        containers::create(&config, wish, &Source::Image(Box::new(image)))
    };
    // What the collector is told is as old as can be, or as new as can be: it asks while it holds its lock.
    for tell_late in [false, true] {
        let image = images.load(&archive, None, &Silent).unwrap().remove(0);
        let layer = image.layers[0].clone();
        let before = containers::list(&config).unwrap().entries.len();
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::channel();
            let maker = std::sync::Mutex::new(None);
            let users = || {
                let early = containers::in_use(&config)?;
                let (image, sender, create) = (image.clone(), sender.clone(), &create);
                *maker.lock().unwrap() = Some(scope.spawn(move || {
                    let made = create(image);
                    let _ = sender.send(());
                    made
                }));
                // It writes its record, and must then wait for this very collection.
                while containers::in_use(&config)?.images.len() == before {
                    std::thread::yield_now();
                }
                assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err(), "it did not wait");
                if tell_late { Ok(containers::in_use(&config)?) } else { Ok(early) }
            };
            place.store.remove("app:1", &InUse::nobody, true).unwrap();
            place.store.collect(&users, Duration::ZERO).unwrap();
            let made = maker.into_inner().unwrap().unwrap().join().unwrap();
            assert_eq!((made.is_ok(), layer.exists()), (tell_late, tell_late), "{made:?}");
        });
        assert_eq!(containers::list(&config).unwrap().entries.len(), before + usize::from(tell_late));
    }
}

#[test]
fn nothing_is_removed_when_users_cannot_be_told() {
    let place = place();
    let images = Images::new(&place.store, options());
    let archive = place.store.root().join("archive");
    std::fs::write(&archive, image("x", true).docker_archive("app:1")).unwrap();
    let image = images.load(&archive, None, &Silent).unwrap().remove(0);
    let users = || Err(crate::Error::internal("the record of container web cannot be read").hint("look at it").into());
    let error = images.prune(&users, true, &ImageFilter::default()).unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("look at it"));
    assert!(error.causes().iter().any(|c| c.contains("container web")), "{error:?}");
    assert!(images.remove("app:1", &users, false).is_err());
    assert!(images.inspect("app:1").is_ok() && image.layers[0].exists());
}
