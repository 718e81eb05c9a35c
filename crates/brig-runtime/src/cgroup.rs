//! Control groups: where a container's processes are limited, counted, frozen and found; cgroups(7).
//!
//! ```text
//! pure v2    /sys/fs/cgroup/brig/<id>                     one directory; the child is born in it
//! v1         /sys/fs/cgroup/<controller>/brig/<id>        one directory a hierarchy; the child is moved
//! hybrid     as v1, and /sys/fs/cgroup/unified/brig/<id>  for the controllers that v2 has
//! ```
//!
//! A [`Cgroup`] is a path below every hierarchy. Nothing of it is kept in memory: whoever has the path, after a crash of
//! everything else too, can count, freeze, kill and remove.

mod devices;
mod layout;
mod stats;
mod v1;
mod v2;

pub use devices::DEFAULT_RULES as DEFAULT_DEVICE_RULES;
pub use layout::{Hierarchy, Layout};
pub use stats::{DeviceIo, Stats};

use crate::error::{Context, Error};
use brig_spec::runtime::LinuxResources;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long processes may take to leave a cgroup that is being removed.
const REMOVE_TRIES: u32 = 500;
const REMOVE_PAUSE: Duration = Duration::from_millis(2);

/// One container's cgroup, in every hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroup {
    layout: Layout,
    path: PathBuf,
}

impl Cgroup {
    /// Names the cgroup at `path` (absolute below each hierarchy, such as `/brig/<id>`); it need not exist.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let layout = Layout::detect().step(|| "find the cgroup hierarchies".into())?;
        let relative = path.strip_prefix("/").unwrap_or(path);
        let plain = relative.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if !plain || relative.as_os_str().is_empty() {
            return Err(Error::invalid(
                "use the cgroup path",
                format!("`{}` is not a path below the root", path.display()),
            ));
        }
        Ok(Self { layout, path: relative.to_owned() })
    }

    /// The layout of this machine.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The path below every hierarchy, with a leading slash.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    /// The directories of this cgroup, one a hierarchy.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.layout.hierarchies.iter().map(|h| h.mount.join(&self.path))
    }

    /// Makes the directories and writes the limits. On v2 this precedes the clone; see [`Self::birthplace`].
    pub fn create(&self, resources: Option<&LinuxResources>) -> Result<(), Error> {
        for hierarchy in &self.layout.hierarchies {
            let result = if hierarchy.unified {
                v2::create(hierarchy, &self.path, !self.layout.is_pure_v2())
            } else {
                v1::create(hierarchy, &self.path)
            };
            result?;
        }
        let Some(resources) = resources else { return Ok(()) };
        let mut resources = resources.clone();
        if let Some(rules) = resources.devices().as_ref().filter(|rules| !rules.is_empty()) {
            let rules = devices::with_defaults(rules);
            resources.set_devices(Some(rules));
        }
        self.update(&resources)
    }

    /// Opens the directory in which clone3(2) lets a child be born: on pure v2 only.
    pub fn birthplace(&self) -> Result<Option<OwnedFd>, Error> {
        if !self.layout.is_pure_v2() {
            return Ok(None);
        }
        let path = self.layout.hierarchies[0].mount.join(&self.path);
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty()).map(Some).step(|| format!("open the cgroup {}", path.display()))
    }

    /// Moves a process here, in every hierarchy.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        for directory in self.directories() {
            write(&directory.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Writes the limits that `resources` names and leaves all others.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        for hierarchy in &self.layout.hierarchies {
            let directory = hierarchy.mount.join(&self.path);
            if hierarchy.unified {
                if self.layout.is_pure_v2() {
                    v2::update(&directory, resources)?;
                }
            } else {
                v1::update(hierarchy, &directory, resources)?;
            }
        }
        Ok(())
    }

    /// Stops every process of the cgroup until [`Self::thaw`]; returns when they stand still.
    pub fn freeze(&self) -> Result<(), Error> {
        self.set_frozen(true)
    }

    /// Lets the processes go on.
    pub fn thaw(&self) -> Result<(), Error> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), Error> {
        match self.controller("freezer") {
            Some((directory, false)) => v1::set_frozen(&directory, frozen),
            Some((directory, true)) => v2::set_frozen(&directory, frozen),
            None => Err(Error::invalid("freeze the container", "this machine has no freezer")),
        }
    }

    /// Says whether the cgroup is frozen, or on its way there.
    pub fn is_frozen(&self) -> bool {
        match self.controller("freezer") {
            Some((directory, false)) => {
                fs::read_to_string(directory.join("freezer.state")).is_ok_and(|s| s.trim() != "THAWED")
            }
            Some((directory, true)) => {
                fs::read_to_string(directory.join("cgroup.freeze")).is_ok_and(|s| s.trim() == "1")
            }
            None => false,
        }
    }

    /// Reads what the container has used.
    pub fn stats(&self) -> Stats {
        stats::read(self)
    }

    /// Returns how many processes the OOM killer has ended here.
    pub fn oom_kills(&self) -> u64 {
        let Some((directory, unified)) = self.controller("memory") else { return 0 };
        let file = directory.join(if unified { "memory.events" } else { "memory.oom_control" });
        stats::keyed(&file).into_iter().find(|(key, _)| key == "oom_kill").map_or(0, |(_, value)| value)
    }

    /// Returns the pids of all processes here and below.
    pub fn pids(&self) -> Vec<i32> {
        let Some(first) = self.directories().next() else { return Vec::new() };
        let mut pids = Vec::new();
        collect_pids(&first, &mut pids);
        pids
    }

    /// Kills every process here and below, frozen ones too.
    pub fn kill_all(&self) -> Result<(), Error> {
        if let Some((directory, true)) = self.controller("freezer") {
            // cgroup.kill (Linux 5.14) takes all at once, frozen ones and those being born too.
            if fs::write(directory.join("cgroup.kill"), "1").is_ok() {
                return Ok(());
            }
        }
        for _ in 0..REMOVE_TRIES {
            let pids = self.pids();
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                let _ = brig_sys::signals::send(pid, libc_sigkill());
            }
            // A process in a frozen v1 cgroup dies only when it is thawed.
            let _ = self.thaw();
            std::thread::sleep(REMOVE_PAUSE);
        }
        Ok(())
    }

    /// Removes the directories, those below first. Processes that are dying get a bounded time; one that stays is an error.
    pub fn remove(&self) -> Result<(), Error> {
        for directory in self.directories() {
            remove_tree(&directory).step(|| format!("remove the cgroup {}", directory.display()))?;
        }
        Ok(())
    }

    /// Returns the directory that holds `controller`, and whether it is a v2 one.
    pub(crate) fn controller(&self, controller: &str) -> Option<(PathBuf, bool)> {
        let hierarchy = self.layout.hierarchy(controller)?;
        Some((hierarchy.mount.join(&self.path), hierarchy.unified))
    }
}

fn libc_sigkill() -> i32 {
    rustix::process::Signal::KILL.as_raw()
}

fn collect_pids(directory: &Path, pids: &mut Vec<i32>) {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect_pids(&entry.path(), pids);
        }
    }
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(16) && tries < REMOVE_TRIES => {
                for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                    if entry.file_type().is_ok_and(|t| t.is_dir()) {
                        remove_tree(&entry.path())?;
                    }
                }
                tries += 1;
                if tries > 1 {
                    std::thread::sleep(REMOVE_PAUSE);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Writes one control file.
fn write(path: &Path, value: &str) -> Result<(), Error> {
    use rustix::fs::{Mode, OFlags};
    let step = || format!("write `{value}` to {}", path.display());
    let fd = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).step(step)?;
    rustix::io::write(&fd, value.as_bytes()).step(step).map(drop)
}
