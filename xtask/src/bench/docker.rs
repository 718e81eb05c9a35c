//! Docker as a peer of pulls: the daemon on the socket that DOCKER_HOST names, whose network may be another namespace.
//!
//! ```text
//!   this process            socket            dockerd                 a thread of this process
//!   docker pull NAME  ----------------->  127.0.0.1:PORT  <------  registry, in dockerd's network namespace
//! ```

use super::measure::{Peer, plain};
use super::peers::words;
use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use testkit::image::Image;
use testkit::registry::Registry;

/// Docker's daemon with a registry in its reach; the registry ends with the value.
pub struct Docker {
    name: String,
    root: String,
    end: Option<mpsc::Sender<()>>,
    registry: Option<JoinHandle<()>>,
}

impl Docker {
    /// Starts a registry where the daemon can reach it by loopback, and pushes the image.
    pub fn reach(image: &Image) -> Result<Self> {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let Some(path) = host.strip_prefix("unix://").map(PathBuf::from) else {
            bail!("{host} is no socket of this machine");
        };
        let socket = UnixStream::connect(&path).with_context(|| format!("cannot connect to {}", path.display()))?;
        let daemon = rustix::net::sockopt::socket_peercred(&socket)?.pid.as_raw_nonzero();
        let network = File::open(format!("/proc/{daemon}/ns/net"))?;
        let root = plain(&words(&[&["docker", "info", "--format", "{{.DockerRootDir}}"]]))?.trim().to_owned();
        let (ready, host) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        // The registry dies with the thread that started it, so that one stays.
        let image = image.clone();
        let registry = std::thread::spawn(move || {
            let registry = move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).map(|()| {
                let registry = Registry::start();
                registry.push(&image, "bench/files", "latest");
                registry
            });
            let _ = ready.send(registry.as_ref().map(Registry::host).map_err(|error| *error));
            let _ = ended.recv();
        });
        let host = host.recv().context("the registry beside dockerd does not start")?;
        let host = host.context("cannot enter dockerd's network namespace")?;
        Ok(Self { name: format!("{host}/bench/files:latest"), root, end: Some(end), registry: Some(registry) })
    }

    /// A pull, after the image of the one before was removed; with `flush`, until all of it lies on the disk.
    pub fn pull(&self, title: &str, flush: bool) -> Peer {
        let script = if flush { "docker pull --quiet \"$1\" && sync -f \"$2\"" } else { "docker pull --quiet \"$1\"" };
        let mut peer = Peer::new(title, words(&[&["sh", "-c", script, "sh", &self.name, &self.root]]), 0);
        // The work is the daemon's.
        peer.counts_cpu = false;
        let name = self.name.clone();
        peer.before = Box::new(move || {
            remove(&name)?;
            rustix::fs::sync();
            Ok(())
        });
        peer
    }

    /// Removes the image, which must be there: a pull that brought nothing would be a fast one.
    pub fn finish(mut self) -> Result<()> {
        plain(&words(&[&["docker", "image", "inspect", &self.name]])).context("docker pulled nothing")?;
        remove(&self.name)?;
        self.end.take();
        let _ = self.registry.take().map(JoinHandle::join);
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if self.end.take().is_some() {
            let _ = remove(&self.name);
        }
        let _ = self.registry.take().map(JoinHandle::join);
    }
}

/// Removes the image if it is there, and sees to it that its layers go too.
fn remove(name: &str) -> Result<()> {
    let there = plain(&words(&[&["docker", "images", "--quiet", name]]))?;
    if !there.trim().is_empty() {
        let told = plain(&words(&[&["docker", "rmi", "--force", name]]))?;
        if !told.contains("Deleted:") {
            bail!("`docker rmi {name}` removed no layer, so that the next pull would bring none: {told}");
        }
    }
    Ok(())
}
