//! Push of the image of `pull` to an empty registry on loopback.
//!
//! ```text
//!   brig's store ─────────┐
//!   OCI layout (skopeo) ──┼──> a registry of its own for each run, empty, on a port of its own
//!   podman's storage ─────┘
//! ```
//!
//! A registry that was never seen before: nothing can be mounted from another repository, and no cache of what lies where
//! knows it. Afterwards it is asked for the manifest and for everything that this names.

use super::docker::{self, Docker};
use super::measure::{self, Peer, Series, plain, rounds};
use super::peers::{Engines, installed, words};
use super::place::Place;
use super::pull::{self, Form, LAYERS};
use super::table::{self, Target};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use testkit::image::Image;
use testkit::registry::Registry;

/// The name of what was pushed.
const REPOSITORY: &str = "bench/pushed";
/// The tag of that.
const TAG: &str = "latest";

/// The registry of the moment, and what it shall have in the end.
struct Receiver {
    registry: Mutex<Option<Registry>>,
    /// Whose network it is in, if not in that of this process.
    docker: Option<Arc<Docker>>,
    /// The file with the registry's address, for commands that are made before it is.
    address: PathBuf,
    /// The digest of the image's configuration, which nobody may change on the way.
    config: String,
}

impl Receiver {
    /// Ends the registry of before, and starts an empty one.
    fn renew(&self) -> Result<()> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.take();
        let new =
            self.docker.as_ref().map_or_else(|| Ok(Registry::start()), |docker| docker.inside(Registry::start))?;
        std::fs::write(&self.address, format!("{}\n", new.host()))?;
        *registry = Some(new);
        // What was written before is not to be paid for by this push.
        rustix::fs::sync();
        Ok(())
    }

    /// Whether the registry has the manifest, the configuration and all layers.
    fn check(self: &Arc<Self>) -> Result<()> {
        let Some(docker) = &self.docker else { return self.check_here() };
        let receiver = Arc::clone(self);
        docker.inside(move || receiver.check_here())?
    }

    fn check_here(&self) -> Result<()> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = registry.as_ref().context("there is no registry")?;
        let (status, manifest) = registry.get(&format!("/v2/{REPOSITORY}/manifests/{TAG}"));
        if status != 200 {
            bail!("the registry has no manifest: {status}");
        }
        let manifest: Value = serde_json::from_slice(&manifest).context("the manifest in the registry is no JSON")?;
        let layers = manifest["layers"].as_array().map_or(&[][..], Vec::as_slice);
        if manifest["config"]["digest"] != self.config.as_str() || layers.len() != LAYERS {
            bail!("this is not the manifest of the image: {manifest}");
        }
        for part in layers.iter().chain([&manifest["config"]]) {
            let digest = part["digest"].as_str().context("a blob without a digest")?;
            let (status, blob) = registry.get(&format!("/v2/{REPOSITORY}/blobs/{digest}"));
            if status != 200 || Some(blob.len() as u64) != part["size"].as_u64() {
                bail!("the registry does not have {digest} whole: {status}, {} bytes", blob.len());
            }
        }
        Ok(())
    }
}

/// Pushes by each in turn, to a new registry each time.
pub fn run(engines: &Engines, place: &Place, count: usize) -> Result<()> {
    let (image, sizes) = pull::image()?;
    let receiver = |docker: Option<Arc<Docker>>| {
        let address = place.path(if docker.is_some() { "receiver-docker" } else { "receiver" });
        Arc::new(Receiver { registry: Mutex::new(None), docker, address, config: image.id() })
    };
    let mut peers = peers(engines, place, &image, &receiver(None))?;
    if let Some(docker) = Docker::find(engines, &image, "bench/files", TAG) {
        let docker = Arc::new(docker);
        docker::docker(&["pull", "--quiet", &docker.name])?;
        peers.push(docker_peer(&docker, &receiver(Some(Arc::clone(&docker)))));
    }
    drop(image);
    let result = rounds(&peers, None, count, 1)?;
    table::print(&format!("push of {sizes} to an empty registry on loopback"), &result, None);
    measure::print_peaks(place, &peers)?;
    targets(&result);
    // With them goes the last registry.
    drop(peers);
    for engine in [Form::Directories.word(), "podman"] {
        let (root, run) = pull::homes(place, engine);
        pull::clear(Path::new(&root), Path::new(&run))?;
    }
    Ok(())
}

/// All that can push, each with the image in its storage.
fn peers(engines: &Engines, place: &Place, image: &Image, receiver: &Arc<Receiver>) -> Result<Vec<Peer>> {
    let source = Registry::start();
    source.push(image, "bench/files", TAG);
    let name = format!("{}/bench/files:{TAG}", source.host());
    plain(&pull::brig(place, Form::Directories, &["pull", "--quiet", &name]))?;
    let push = pull::brig(place, Form::Directories, &["push", "--quiet", &name]);
    let mut peers = vec![peer("brig", &push, "", receiver)];
    if installed("skopeo") {
        let layout = place.path("layout");
        image.write_layout(&layout, TAG);
        let from = format!("oci:{}:{TAG}", layout.display());
        let copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &from];
        peers.push(peer("skopeo copy", &words(&[&copy]), "docker://", receiver));
    } else {
        println!("missing: skopeo (apt-get install skopeo)");
    }
    if engines.podman {
        plain(&pull::podman(place, &["pull", "--quiet", "--tls-verify=false", &format!("docker://{name}")]))?;
        let push = pull::podman(place, &["push", "--quiet", "--tls-verify=false", &name]);
        peers.push(peer("podman push", &push, "docker://", receiver));
    }
    Ok(peers)
}

/// A push whose destination, with what precedes it, is the last word of the command.
fn peer(title: &str, push: &[String], scheme: &str, receiver: &Arc<Receiver>) -> Peer {
    let script =
        format!("read -r host < \"$1\" && scheme=$2 && shift 2 && exec \"$@\" \"$scheme$host/{REPOSITORY}:{TAG}\"");
    let address = receiver.address.display().to_string();
    let mut command = words(&[&["sh", "-c", &script, "sh", &address, scheme]]);
    command.extend_from_slice(push);
    let mut peer = Peer::new(title, command, 0);
    let (renewed, checked) = (Arc::clone(receiver), Arc::clone(receiver));
    peer.before = Box::new(move || renewed.renew());
    peer.after = Box::new(move || checked.check());
    peer
}

/// A push by docker, which takes the destination from the image's name.
fn docker_peer(docker: &Arc<Docker>, receiver: &Arc<Receiver>) -> Peer {
    let script = "read -r host < \"$1\" && exec docker push --quiet \"$host/$2\"";
    let (address, target) = (receiver.address.display().to_string(), format!("{REPOSITORY}:{TAG}"));
    let mut peer = Peer::new("docker push", words(&[&["sh", "-c", script, "sh", &address, &target]]), 0);
    peer.counts_cpu = false;
    let name = |receiver: &Receiver| {
        let host = std::fs::read_to_string(&receiver.address)?;
        anyhow::Ok(format!("{}/{REPOSITORY}:{TAG}", host.trim()))
    };
    let (source, renewed, checked) = (docker.name.clone(), Arc::clone(receiver), Arc::clone(receiver));
    peer.before = Box::new(move || {
        renewed.renew()?;
        docker::docker(&["tag", &source, &name(&renewed)?]).map(drop)
    });
    peer.after = Box::new(move || {
        checked.check()?;
        docker::docker(&["rmi", &name(&checked)?]).map(drop)
    });
    peer
}

/// Says what was wanted, and what came out.
fn targets(all: &[Series]) {
    if let (Some(brig), Some(other)) = (all.iter().find(|s| s.name == "brig"), pull::fastest_other(all.iter())) {
        Target::at_least(&format!("{} against brig push", other.name), pull::times(other, brig), 2.0).print();
    }
}
