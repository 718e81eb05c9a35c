//! What is kept of a container between two commands, and what the kernel says of it now.
//!
//! ```text
//! <root>/<id>/state.json    who it is: pid with start time, bundle, cgroup; written by temporary file and rename
//! <root>/<id>/config.json   the configuration as it was read
//! <root>/<id>/start         the door: a socket at which the first process listens until its program runs
//! ```
//!
//! `created` is what an answering door says, `running` and `stopped` what /proc says, `paused` what the freezer says. No word
//! of it is written down, so none can be stale.

use crate::criu::descriptors;
use crate::failure::{Failure, Step};
use brig_monitor::records;
use brig_monitor::state::{ProcessId, now_ns};
use brig_runtime::cgroup::{self, Cgroup};
use brig_runtime::hooks::Description;
use brig_spec::runtime::Spec;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The name of the record.
pub(crate) const STATE_FILE: &str = "state.json";
/// The name of the copy of the configuration.
pub(crate) const CONFIG_FILE: &str = "config.json";
/// The name of the door.
pub(crate) const DOOR: &str = "start";
/// The largest configuration that is read, bytes.
const MOST_CONFIG: u64 = 16 << 20;
const FORMAT: u32 = 1;

/// The record of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The format number.
    pub format: u32,
    /// The container's name.
    pub id: String,
    /// Its first process.
    pub init: ProcessId,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root file system on the machine.
    pub rootfs: PathBuf,
    /// When it was made, nanoseconds since 1970.
    pub created: u64,
    /// The user who made it.
    pub owner: u32,
    /// Its cgroup.
    pub cgroup: cgroup::Record,
    /// What its standard descriptors were when it was made; see `criu/descriptors.rs`.
    #[serde(default)]
    pub descriptors: Vec<String>,
}

impl Record {
    /// What is to be kept of a container whose first process is `pid`. `given`: it has standard descriptors of this process's.
    pub fn new(
        id: &str,
        pid: i32,
        bundle: &Path,
        rootfs: &Path,
        cgroup: &Cgroup,
        given: bool,
    ) -> Result<Self, Failure> {
        Ok(Self {
            format: FORMAT,
            id: id.into(),
            init: ProcessId::of(pid).step(|| "read the start time of the first process")?,
            bundle: bundle.into(),
            rootfs: rootfs.into(),
            created: now_ns(),
            owner: rustix::process::geteuid().as_raw(),
            cgroup: cgroup.to_record(),
            descriptors: if given { descriptors::own() } else { descriptors::null() },
        })
    }
}

/// A container that this command works on.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its directory below the root.
    pub directory: PathBuf,
    /// The same as a descriptor.
    directory_fd: OwnedFd,
    /// Its record.
    pub record: Record,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It waits for its start.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its first process is gone.
    Stopped,
}

impl Status {
    /// The specification's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// Checks a name that becomes a directory.
pub(crate) fn check_id(id: &str) -> Result<(), Failure> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
    if id.is_empty() {
        return Err(Failure::new("container id cannot be empty"));
    }
    if id == "." || id == ".." || id.len() > 1024 || !id.bytes().all(good) {
        return Err(Failure::new(format!(
            "invalid container ID format: {id:?} (letters, digits, `_`, `+`, `-` and `.` are allowed)"
        )));
    }
    Ok(())
}

impl Container {
    /// Finds a container. Errors: there is none of this name.
    pub fn load(root: &Path, id: &str) -> Result<Self, Failure> {
        check_id(id)?;
        let directory = root.join(id);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let missing = || Failure::new(format!("container does not exist: there is no `{id}` below {}", root.display()));
        let directory_fd = match rustix::fs::open(&directory, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing()),
            result => result.step(|| format!("open {}", directory.display()))?,
        };
        let bytes = match read(directory_fd.as_fd(), STATE_FILE) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
            result => result.step(|| format!("read the record of `{id}`"))?,
        };
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|e| Failure::step(format!("read the record of `{id}`"), &e))?;
        if record.format > FORMAT {
            return Err(Failure::new(format!("the record of `{id}` has a newer format than this program knows")));
        }
        Ok(Self { directory, directory_fd, record })
    }

    /// Makes the directory of a new container. Errors: the name is in use.
    pub fn reserve(root: &Path, id: &str) -> Result<(PathBuf, OwnedFd), Failure> {
        check_id(id)?;
        let directory = root.join(id);
        let made = match rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o700)) {
            Err(Errno::NOENT) => {
                make_root(root)?;
                rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o700))
            }
            made => made,
        };
        match made {
            Err(Errno::EXIST) => return Err(Failure::new(format!("container with given ID already exists: `{id}`"))),
            result => result.step(|| format!("make {}", directory.display()))?,
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&directory, flags, Mode::empty()).step(|| format!("open {}", directory.display()))?;
        Ok((directory, fd))
    }

    /// A container whose directory was reserved.
    pub fn new(directory: PathBuf, directory_fd: OwnedFd, record: Record) -> Self {
        Self { directory, directory_fd, record }
    }

    /// Writes the record.
    pub fn write(&self) -> Result<(), Failure> {
        let path = self.directory.join(STATE_FILE);
        records::write_json(&path, &self.record, false).step(|| format!("write {}", path.display()))
    }

    /// The directory as a descriptor.
    pub fn directory_fd(&self) -> BorrowedFd<'_> {
        self.directory_fd.as_fd()
    }

    /// Reads the configuration that it was made from.
    pub fn spec(&self) -> Result<Spec, Failure> {
        let step = || format!("read the configuration of `{}`", self.record.id);
        let bytes = read(self.directory_fd.as_fd(), CONFIG_FILE).step(step)?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::step(step(), &error))
    }

    /// Finds its cgroup.
    pub fn cgroup(&self) -> Result<Cgroup, Failure> {
        Ok(Cgroup::from_record(&self.record.cgroup)?)
    }

    /// Says what it is doing.
    pub fn status(&self) -> Status {
        if !self.record.init.is_alive() {
            return Status::Stopped;
        }
        if self.waits() {
            return Status::Created;
        }
        if self.cgroup().is_ok_and(|cgroup| cgroup.is_frozen()) { Status::Paused } else { Status::Running }
    }

    fn waits(&self) -> bool {
        brig_runtime::launch::is_answered(self.directory_fd(), DOOR)
    }

    /// Opens its first process. Errors: it has ended.
    pub fn pidfd(&self) -> Result<OwnedFd, Failure> {
        let gone = || Failure::new("container not running");
        let pid = rustix::process::Pid::from_raw(self.record.init.pid).ok_or_else(gone)?;
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Err(gone()),
            result => result.step(|| "open the container's first process")?,
        };
        // Only now can the pid no longer become another's.
        if self.record.init.is_alive() { Ok(pidfd) } else { Err(gone()) }
    }

    /// What its state says beside status and pid.
    pub fn description(&self, spec: &Spec) -> Description {
        Description::new(&self.record.id, &self.record.bundle, spec)
    }

    /// Removes its directory.
    pub fn forget(&self) -> Result<(), Failure> {
        for name in [STATE_FILE, CONFIG_FILE] {
            let _ = rustix::fs::unlinkat(&self.directory_fd, name, AtFlags::empty());
        }
        match rustix::fs::rmdir(&self.directory) {
            Ok(()) => Ok(()),
            Err(_) => forget(&self.directory),
        }
    }
}

/// Removes the directory of a container.
pub(crate) fn forget(directory: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.step(|| format!("remove {}", directory.display())),
    }
}

fn make_root(root: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
    made.step(|| format!("make {}", root.display()))
}

/// Reads a file of a container's directory.
fn read(directory: BorrowedFd<'_>, name: &str) -> std::io::Result<Vec<u8>> {
    let fd = rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    read_bounded(fd)
}

/// Reads a file to its end, unless it is larger than any configuration.
pub(crate) fn read_bounded(fd: OwnedFd) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let file = std::fs::File::from(fd);
    let mut bytes = Vec::new();
    let size = file.metadata().map_or(0, |m| m.len().min(MOST_CONFIG));
    bytes.reserve(usize::try_from(size).unwrap_or(0) + 1);
    file.take(MOST_CONFIG + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_CONFIG {
        return Err(std::io::Error::other(format!("it is larger than {} MiB", MOST_CONFIG >> 20)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::check_id;

    #[test]
    fn names_are_those_that_can_be_directories() {
        for good in ["a", "web-1", "a.b_c+d", "..."] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "a b", "ü", "a\n", &"x".repeat(2000)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }
}
