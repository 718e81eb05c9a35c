//! Who is measured, and by which command.

use super::measure::{Peer, plain};
use super::place::{IMAGE, Place, UNIFIED};
use super::recipe::{self, Kind, STATUS};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Limits that every engine is given alike: podman's own are refused where hard limits are low.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"];

/// The engines that are there.
pub struct Engines {
    /// Whether podman is, by itself and with what it needs.
    pub podman: bool,
    runc: bool,
    crun: bool,
    /// Whether a dockerd answers.
    pub docker: bool,
    /// What is not, in words.
    pub missing: Vec<String>,
}

/// Joins words to a command.
pub fn words(parts: &[&[&str]]) -> Vec<String> {
    parts.iter().flat_map(|p| p.iter()).map(|w| (*w).to_owned()).collect()
}

/// Brig, as the pair of programs or as the one file.
pub fn brig(place: &Place, kind: &str, rest: &[&str]) -> Vec<String> {
    let (program, root, run) = (place.text(&format!("{kind}/brig")), place.text("brig"), place.text("brig-run"));
    words(&[&[&program, "--root", &root, "--run", &run], rest])
}

/// Podman with a storage of its own, on overlay, with Debian's runc, as crun refuses a hybrid layout.
pub fn podman(place: &Place, rest: &[&str]) -> Vec<String> {
    let (root, run) = (place.text("podman"), place.text("podman-run"));
    let own = ["--root", &root, "--runroot", &run, "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs"];
    words(&[&["podman"], &own, &["--runtime", "/usr/sbin/runc"], rest])
}

/// Containers that run while something else is measured.
pub struct Running {
    end: Vec<Vec<String>>,
}

impl Running {
    /// Ends them all.
    pub fn end(self) -> Result<()> {
        self.end.iter().try_for_each(|command| plain(command).map(drop))
    }
}

/// Whether a program is in the PATH.
pub fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').any(|directory| Path::new(directory).join(program).exists())
}

/// Whether a directory has no entries, hidden ones aside, or is not there.
pub fn is_empty(directory: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(directory) else { return true };
    !entries.any(|e| e.is_ok_and(|e| !e.file_name().as_encoded_bytes().starts_with(b".")))
}

/// The interfaces of this network namespace.
fn interfaces() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let mut names: Vec<String> =
        text.lines().filter_map(|l| l.split_once(':')).map(|(n, _)| n.trim().to_owned()).collect();
    names.sort();
    names
}

impl Engines {
    /// Looks who is there, gives each the image, and makes bundle and recipes from one container of brig.
    pub fn prepare(place: &Place) -> Result<Self> {
        let docker = installed("docker") && plain(&words(&[&["docker", "info"]])).is_ok();
        let mut engines = Self {
            podman: installed("podman") && installed("conmon") && installed("runc"),
            runc: installed("runc"),
            crun: installed("crun"),
            docker,
            missing: Vec::new(),
        };
        for (there, what) in [
            (engines.podman, "podman (apt-get install podman conmon runc)"),
            (engines.runc, "runc (apt-get install runc)"),
            (engines.crun, "crun (apt-get install crun)"),
            (engines.docker, "docker (no dockerd answers)"),
        ] {
            if !there {
                engines.missing.push(what.to_owned());
            }
        }
        let archive = place.text("archive.tar");
        plain(&brig(place, "pair", &["load", "-i", &archive]))?;
        if engines.podman {
            plain(&podman(place, &["load", "-i", &archive]))?;
        }
        if engines.docker {
            plain(&words(&[&["docker", "load", "-i", &archive]]))?;
        }
        let spec = take_configuration(place)?;
        recipe::write_bundle(place, &spec, "bundle")?;
        let mut unfiltered = spec.clone();
        unfiltered["linux"]["seccomp"] = Value::Null;
        recipe::write_bundle(place, &unfiltered, "unfiltered")?;
        for kind in [Kind::Overlay, Kind::Plain, Kind::Unfiltered, Kind::Warm] {
            recipe::write(place, &spec, kind)?;
        }
        for directory in recipe::parents()? {
            std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        if installed("strace") {
            let (program, recipe, to) =
                (place.text("bench-bare"), place.text(Kind::Overlay.file()), place.text("bare.strace"));
            let command = words(&[&[
                "sh",
                "-c",
                "strace -f -r -o \"$1\" \"$2\" \"$3\"; [ $? = 42 ]",
                "sh",
                &to,
                &program,
                &recipe,
            ]]);
            plain(&command)?;
        }
        Ok(engines)
    }

    /// What runs right before each measured command, so that the kernel is in the same state for all.
    pub fn warm(place: &Place) -> Peer {
        bare(place, "warm", Kind::Warm)
    }

    /// Without a network: the kernel alone, runtimes, engines.
    pub fn run_none(&self, place: &Place) -> Vec<Peer> {
        let mut peers = vec![
            bare(place, "kernel alone", Kind::Overlay),
            bare(place, "kernel alone, plain root", Kind::Plain),
            bare(place, "kernel alone, plain, unfiltered", Kind::Unfiltered),
            brig_run(place, "pair", "none"),
            brig_run(place, "single", "none"),
        ];
        for (there, name, bundle, title) in [
            (self.crun, "crun", "unfiltered", "crun run, unfiltered"),
            (self.crun, "crun", "bundle", "crun run"),
            (self.runc, "runc", "bundle", "runc run"),
        ] {
            if there {
                let (root, directory) = (place.text(name), place.text(bundle));
                let command = words(&[&[name, "--root", &root, "run", "--bundle", &directory, bundle]]);
                let mut peer = Peer::new(title, command, 42);
                peer.without_unified = name == "crun" && Path::new(UNIFIED).exists();
                let records = PathBuf::from(root);
                peer.gone = Box::new(move || is_empty(&records));
                peers.push(peer);
            }
        }
        self.add_engines(place, "none", &mut peers);
        peers
    }

    /// With the default bridge.
    pub fn run_bridge(&self, place: &Place) -> Result<Vec<Peer>> {
        let mut peers = vec![brig_run(place, "pair", "bridge")];
        self.add_engines(place, "bridge", &mut peers);
        // The bridges stay when the first container has gone, so they belong to what was there before.
        for peer in &peers {
            super::measure::once(peer).with_context(|| peer.name.clone())?;
        }
        let before = interfaces();
        for peer in &mut peers {
            let (gone, before) = (std::mem::replace(&mut peer.gone, Box::new(|| true)), before.clone());
            peer.gone = Box::new(move || gone() && interfaces() == before);
        }
        Ok(peers)
    }

    fn add_engines(&self, place: &Place, network: &str, peers: &mut Vec<Peer>) {
        // Podman's and docker's default network is what they call it; asked for by name it would be the same.
        let mut run = vec!["run", "--rm"];
        if network == "none" {
            run.extend(["--network", "none"]);
        }
        let rest = words_of(&run, &LIMITS, &[IMAGE, "/bin/noop", STATUS]);
        if self.podman {
            let mut peer = Peer::new("podman run --rm", podman(place, &rest), 42);
            let storage = place.path("podman/overlay-containers");
            peer.gone = Box::new(move || {
                // One directory a container beside the lists.
                let Ok(entries) = std::fs::read_dir(&storage) else { return true };
                !entries.flatten().any(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            });
            peers.push(peer);
        }
        if self.docker {
            let mut peer = Peer::new("docker run --rm", words(&[&["docker"], &rest]), 42);
            peer.counts_cpu = false;
            peers.push(peer);
        }
    }

    /// A command in a container that runs already.
    pub fn exec(&self, place: &Place) -> Result<(Vec<Peer>, Running)> {
        let mut peers = Vec::new();
        let mut end = Vec::new();
        let start =
            words_of(&["run", "-d", "--name", "idle", "--network", "none"], &LIMITS, &[IMAGE, "/bin/noop", "idle"]);
        let exec = ["exec", "idle", "/bin/noop", STATUS];
        let (force, bundle) = (["rm", "-f", "idle"], place.text("idle"));
        plain(&brig(place, "pair", &start))?;
        peers.push(Peer::new("brig", brig(place, "pair", &exec), 42));
        peers.push(Peer::new("brig, the single file", brig(place, "single", &exec), 42));
        end.push(brig(place, "pair", &force));
        if self.runc {
            let mut spec: Value = serde_json::from_slice(&std::fs::read(place.path("bundle/config.json"))?)?;
            spec["process"]["args"] = serde_json::json!(["/bin/noop", "idle"]);
            spec["linux"]["cgroupsPath"] = serde_json::json!(format!("/{}/idle", recipe::CGROUP));
            std::fs::create_dir_all(&bundle)?;
            std::fs::write(place.path("idle/config.json"), serde_json::to_vec(&spec)?)?;
            let root = place.text("runc");
            let runc = |rest: &[&str]| words(&[&["runc", "--root", &root], rest]);
            plain(&runc(&["run", "--detach", "--bundle", &bundle, "idle"]))?;
            peers.push(Peer::new("runc exec", runc(&exec), 42));
            end.push(runc(&["delete", "--force", "idle"]));
        }
        if self.podman {
            plain(&podman(place, &start))?;
            peers.push(Peer::new("podman exec", podman(place, &exec), 42));
            end.push(podman(place, &["rm", "-f", "-t", "0", "idle"]));
        }
        if self.docker {
            plain(&words(&[&["docker"], &start]))?;
            let mut peer = Peer::new("docker exec", words(&[&["docker"], &exec]), 42);
            peer.counts_cpu = false;
            peers.push(peer);
            end.push(words(&[&["docker"], &force]));
        }
        Ok((peers, Running { end }))
    }
}

fn words_of<'a>(first: &[&'a str], second: &[&'a str], third: &[&'a str]) -> Vec<&'a str> {
    [first, second, third].concat()
}

/// Starts one container of brig and reads what it is made of.
fn take_configuration(place: &Place) -> Result<Value> {
    let start =
        words_of(&["run", "-d", "--name", "model", "--network", "none"], &LIMITS, &[IMAGE, "/bin/noop", "idle"]);
    plain(&brig(place, "pair", &start))?;
    let mut plans = Vec::new();
    for entry in std::fs::read_dir(place.path("brig/containers"))?.flatten() {
        let plan = entry.path().join("plan");
        if plan.exists() {
            plans.push(plan);
        }
    }
    let [plan] = plans.as_slice() else { bail!("one container has {} plans", plans.len()) };
    let spec = recipe::configuration(place, plan);
    plain(&brig(place, "pair", &["rm", "-f", "model"]))?;
    super::measure::wait_for_children()?;
    spec
}

/// Removes every container of the engines' own storages, after a failure too.
pub fn remove_containers(place: &Place) {
    for entry in std::fs::read_dir(place.path("brig/containers")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(id) = name.to_str().filter(|n| !n.starts_with('.')) {
            let _ = plain(&brig(place, "pair", &["rm", "-f", id]));
        }
    }
    if place.path("podman").exists() {
        let _ = plain(&podman(place, &["rm", "-f", "-t", "0", "--all"]));
    }
    if place.path("runc/idle").exists() {
        let _ = plain(&words(&[&["runc", "--root", &place.text("runc"), "delete", "--force", "idle"]]));
    }
}

fn bare(place: &Place, title: &str, kind: Kind) -> Peer {
    Peer::new(title, words(&[&[&place.text("bench-bare"), &place.text(kind.file())]]), 42)
}

/// One container of brig from start to end.
fn brig_run(place: &Place, kind: &str, network: &str) -> Peer {
    let run = ["run", "--rm", "--network", network];
    let command = brig(place, kind, &words_of(&run, &LIMITS, &[IMAGE, "/bin/noop", STATUS]));
    let mut peer = Peer::new(if kind == "pair" { "brig" } else { "brig, the single file" }, command, 42);
    let (records, runtime) = (place.path("brig/containers"), place.path("brig-run/containers"));
    peer.gone = Box::new(move || is_empty(&records) && is_empty(&runtime) && is_empty(&records.join(".names")));
    peer
}
