//! Watching for the OOM killer.
//!
//! ```text
//! v1   an eventfd, registered in cgroup.event_control for memory.oom_control; rings for a removed cgroup too
//! v2   inotify on memory.events and cgroup.events; what rang is found by reading both
//! ```

use super::{Cgroup, file, stats};
use crate::error::{Context, Error};
use rustix::event::EventfdFlags;
use rustix::fs::{Mode, OFlags, inotify};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// What has happened since the last question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomEvent {
    /// Nothing that matters.
    Nothing,
    /// The OOM killer ended a process, or (v1, with the killer disabled) one waits for memory.
    Oom,
    /// The cgroup is empty or gone: nothing will happen any more.
    Gone,
}

/// A watch for the OOM killer; its descriptor becomes readable when [`Self::take`] has something to tell.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    directory: PathBuf,
    unified: bool,
    kills: u64,
    /// The kernel lets go of the registration when this is closed.
    _control: Option<OwnedFd>,
}

pub(super) fn watch(cgroup: &Cgroup) -> Result<OomWatch, Error> {
    let Some((directory, unified)) = cgroup.controller("memory") else {
        return Err(Error::invalid("watch for the OOM killer", "memory controller missing"));
    };
    let step = || format!("watch for the OOM killer in {}", directory.display());
    if unified {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).step(step)?;
        for name in ["memory.events", "cgroup.events"] {
            inotify::add_watch(&fd, directory.join(name), inotify::WatchFlags::MODIFY).step(step)?;
        }
        let kills = cgroup.oom_kills();
        return Ok(OomWatch { fd, directory, unified, kills, _control: None });
    }
    let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).step(step)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let control = rustix::fs::open(directory.join("memory.oom_control"), flags, Mode::empty()).step(step)?;
    let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
    file::write(&directory.join("cgroup.event_control"), &line)?;
    Ok(OomWatch { fd, directory, unified, kills: 0, _control: Some(control) })
}

impl OomWatch {
    /// Says what has happened since it was last asked; does not wait. Ask again until it is nothing: one ring of the
    /// descriptor may stand for several things.
    pub fn take(&mut self) -> Result<OomEvent, Error> {
        let mut buffer = [0u8; 4096];
        let rang = match rustix::io::read(&self.fd, &mut buffer) {
            Ok(_) => true,
            Err(Errno::AGAIN) => false,
            Err(errno) => return Err(errno).step(|| "hear from the OOM killer".into()),
        };
        if !self.unified {
            let there = self.directory.join("cgroup.event_control").exists();
            return Ok(match (there, rang) {
                (false, _) => OomEvent::Gone,
                (true, true) => OomEvent::Oom,
                (true, false) => OomEvent::Nothing,
            });
        }
        let number = |name: &str, key: &str| {
            stats::keyed(&self.directory.join(name)).into_iter().find(|(k, _)| k == key).map(|(_, value)| value)
        };
        if let Some(kills) = number("memory.events", "oom_kill").filter(|kills| *kills > self.kills) {
            self.kills = kills;
            return Ok(OomEvent::Oom);
        }
        Ok(match number("cgroup.events", "populated") {
            Some(1..) => OomEvent::Nothing,
            _ => OomEvent::Gone,
        })
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
