//! Docker as a peer: the daemon on the socket that DOCKER_HOST names, whose network may be another namespace.
//!
//! ```text
//!   this process            socket            dockerd                 a thread of this process
//!   docker pull NAME  ----------------->  127.0.0.1:PORT  <------  registry, in dockerd's network namespace
//! ```
//!
//! The work is the daemon's, so that of its CPU time nothing is known.

use super::measure::{Peer, plain};
use super::peers::{Engines, words};
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

type Job = Box<dyn FnOnce() + Send>;

/// Docker's daemon with a registry in its reach; the registry ends with the value.
pub struct Docker {
    /// The image in that registry.
    pub name: String,
    /// Where the daemon keeps what it has.
    pub root: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    registry: Option<Registry>,
}

impl Docker {
    /// Reaches the daemon if one answers; says why not, if it answers and cannot be used.
    pub fn find(engines: &Engines, image: &Image, repository: &str, tag: &str) -> Option<Self> {
        let docker = engines.docker.then(|| Self::reach(image, repository, tag));
        docker.transpose().unwrap_or_else(|error| {
            println!("docker is not asked: {error:#}");
            None
        })
    }

    /// Starts a registry where the daemon can reach it by loopback, and pushes the image.
    fn reach(image: &Image, repository: &str, tag: &str) -> Result<Self> {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let Some(path) = host.strip_prefix("unix://").map(PathBuf::from) else {
            bail!("{host} is no socket of this machine");
        };
        let socket = UnixStream::connect(&path).with_context(|| format!("cannot connect to {}", path.display()))?;
        let daemon = rustix::net::sockopt::socket_peercred(&socket)?.pid.as_raw_nonzero();
        let network = File::open(format!("/proc/{daemon}/ns/net"))?;
        let root = docker(&["info", "--format", "{{.DockerRootDir}}"])?.trim().to_owned();
        let (jobs, list) = mpsc::channel::<Job>();
        let (ready, moved) = mpsc::channel();
        // A registry dies with the thread that started it, so this one stays.
        let thread = std::thread::spawn(move || {
            let _ = ready.send(move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)));
            list.iter().for_each(|job| job());
        });
        moved.recv()?.context("cannot enter dockerd's network namespace")?;
        let mut docker = Self { name: String::new(), root, jobs: Some(jobs), thread: Some(thread), registry: None };
        let (image, place, name) = (image.clone(), repository.to_owned(), tag.to_owned());
        let registry = docker.inside(move || {
            let registry = Registry::start();
            registry.push(&image, &place, &name);
            registry
        })?;
        docker.name = format!("{}/{repository}:{tag}", registry.host());
        docker.registry = Some(registry);
        Ok(docker)
    }

    /// Does something in the daemon's network, by a thread that lives as long as this.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (answer, done) = mpsc::channel();
        let jobs = self.jobs.as_ref().context("docker has been let go")?;
        jobs.send(Box::new(move || drop(answer.send(work())))).ok().context("the thread beside dockerd has ended")?;
        done.recv().context("what was to be done beside dockerd broke down")
    }

    /// A command of docker, with all of the daemon's file system on the disk if `flush`.
    pub fn peer(&self, title: &str, command: &[&str], flush: bool) -> Peer {
        let command = words(&[&["docker"], command]);
        let command = if flush { super::pull::flushed(&self.root, &command) } else { command };
        let mut peer = Peer::new(title, command, 0);
        peer.counts_cpu = false;
        peer
    }

    /// A pull, after the image of the one before was removed; with `flush`, until all of it lies on the disk.
    pub fn pull(&self, title: &str, flush: bool) -> Peer {
        let mut peer = self.peer(title, &["pull", "--quiet", &self.name], flush);
        let name = self.name.clone();
        peer.before = Box::new(move || {
            remove(&name)?;
            rustix::fs::sync();
            Ok(())
        });
        // A pull that brought nothing would be a fast one.
        let name = self.name.clone();
        peer.after = Box::new(move || docker(&["image", "inspect", &name]).context("docker pulled nothing").map(drop));
        peer
    }

    /// The removal of what a pull brings, until that lies on the disk.
    pub fn removal(&self, title: &str) -> Peer {
        let mut peer = self.peer(title, &["rmi", "--force", &self.name], true);
        let name = self.name.clone();
        peer.before = Box::new(move || {
            docker(&["pull", "--quiet", &name])?;
            rustix::fs::sync();
            Ok(())
        });
        let name = self.name.clone();
        peer.after = Box::new(move || {
            let left = docker(&["images", "--quiet", &name])?;
            if left.trim().is_empty() { Ok(()) } else { bail!("docker did not remove {name}") }
        });
        peer
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = remove(&self.name);
        self.registry.take();
        self.jobs.take();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Runs docker, outside of any measurement.
pub fn docker(command: &[&str]) -> Result<String> {
    plain(&words(&[&["docker"], command]))
}

/// Removes the image if it is there, and sees to it that its layers go too.
pub fn remove(name: &str) -> Result<()> {
    let there = docker(&["images", "--quiet", name])?;
    if !there.trim().is_empty() {
        let told = docker(&["rmi", "--force", name])?;
        if !told.contains("Deleted:") {
            bail!("`docker rmi {name}` removed no layer, so that the next pull would bring none: {told}");
        }
    }
    Ok(())
}
