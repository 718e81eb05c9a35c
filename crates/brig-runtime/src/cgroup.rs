//! Control groups: where a container's processes are limited, counted, frozen and found; cgroups(7).
//!
//! ```text
//! pure v2    /sys/fs/cgroup/brig/<id>                     one directory; the child is born in it
//! v1         /sys/fs/cgroup/<controller>/brig/<id>        one directory a hierarchy; the child is moved
//! hybrid     as v1, and /sys/fs/cgroup/unified/brig/<id>  for the controllers that v2 has
//! ```
//!
//! A [`Cgroup`] is a path below every hierarchy. Nothing of it is kept in memory: whoever has the path (or its [`Record`]),
//! after a crash of everything else too, can count, freeze, kill and remove.

mod check;
mod create;
mod devices;
pub(crate) mod file;
mod layout;
mod metrics;
mod oom;
mod place;
mod stats;
mod systemd;
mod v1;
mod v2;

pub use create::{Made, Stage};
use create::{number_of_pids, plain_name, set_rdma, shares_in_range};
pub use devices::DEFAULT_RULES as DEFAULT_DEVICE_RULES;
pub use layout::{Hierarchy, Layout};
pub use metrics::{
    BlockIo, BlockIoEntry, Cpu, CpuUsage, Cpuset, HugePages, Memory, MemoryEntry, Metrics, NetworkInterface, Pids,
    Pressure, PressureShare, Rdma, RdmaDevice, Throttling,
};
pub use oom::{OomEvent, OomWatch};
pub use place::{Driver, Record, SubCgroups};
pub use stats::{DeviceIo, Stats};
pub use systemd::Bus;

use crate::error::{Context, Error};
use place::Place;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long processes may take to leave a cgroup that is being removed.
const REMOVE_TRIES: u32 = 500;
const REMOVE_PAUSE: Duration = Duration::from_millis(2);

/// How often a process is offered to a cgroup while it is only just being born.
const MOVE_TRIES: u32 = 5;
const MOVE_PAUSE: Duration = Duration::from_millis(30);

/// One container's cgroup, in every hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroup {
    layout: Arc<Layout>,
    place: Place,
    rootless: bool,
    chosen: bool,
    exclusive: bool,
    owner: Option<u32>,
    unit: Option<Arc<systemd::Unit>>,
}

impl Cgroup {
    fn at(layout: Arc<Layout>, place: Place) -> Self {
        Self { layout, place, rootless: false, chosen: false, exclusive: false, owner: None, unit: None }
    }

    /// Names the cgroup at `path` (absolute below each hierarchy, such as `/brig/<id>`); it need not exist.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let layout = Layout::of_machine().step(|| "find the cgroup hierarchies".into())?;
        let relative = path.strip_prefix("/").unwrap_or(path);
        let plain = relative.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if !plain || relative.as_os_str().is_empty() {
            return Err(Error::invalid(
                "use the cgroup path",
                format!("`{}` is not a path below the root", path.display()),
            ));
        }
        Ok(Self::at(layout, Place::Same(relative.to_owned())))
    }

    /// Names the cgroup of a container by its configuration's `linux.cgroupsPath`; without one the identifier is the path.
    pub fn of_container(cgroups_path: Option<&Path>, id: &str, driver: &Driver) -> Result<Self, Error> {
        let layout = Layout::of_machine().step(|| "find the cgroup hierarchies".into())?;
        let chosen = cgroups_path.is_some_and(|path| !path.as_os_str().is_empty());
        match driver {
            Driver::Cgroupfs => {
                let place = place::find(&layout, cgroups_path, id)?;
                Ok(Self { chosen, ..Self::at(layout, place) })
            }
            Driver::Systemd(bus) => {
                let (unit, place) = systemd::find(cgroups_path, id, bus)?;
                Ok(Self { chosen, unit: Some(Arc::new(unit)), ..Self::at(layout, place) })
            }
        }
    }

    /// Lets the cgroup be missing, whole or in some hierarchies, where this user may not make it and no limit asks for it.
    #[must_use]
    pub fn rootless(self, rootless: bool) -> Self {
        Self { rootless, ..self }
    }

    /// Makes creation refuse a cgroup that is in use already, as [`Self::check_unused`] does but without looking at one
    /// that is new.
    #[must_use]
    pub fn exclusive(self, exclusive: bool) -> Self {
        Self { exclusive, ..self }
    }

    /// Gives the v2 cgroup to a user of the machine upon creation, who may then make cgroups below it: delegation, cgroups(7).
    #[must_use]
    pub fn owner(self, uid: Option<u32>) -> Self {
        Self { owner: uid, ..self }
    }

    /// The layout of this machine.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The path below the first hierarchy, and below every other unless `cgroupsPath` was relative, with a leading slash.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(self.place.below(0))
    }

    /// The directories of this cgroup, one a hierarchy, in the layout's order.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> + '_ {
        (0..self.layout.hierarchies.len()).map(|index| self.directory(index))
    }

    fn directory(&self, index: usize) -> PathBuf {
        self.layout.hierarchies[index].mount.join(self.place.below(index))
    }

    /// Says whether a container's process can be born in the cgroup: on pure v2, where systemd does not have to be given
    /// the process first. Elsewhere it is moved by [`Self::enclose`].
    pub fn takes_births(&self) -> bool {
        self.layout.is_pure_v2() && self.unit.is_none()
    }

    /// Opens the directory in which clone3(2) lets a child be born: on pure v2 only.
    pub fn birthplace(&self) -> Result<Option<OwnedFd>, Error> {
        self.birthplace_in(&SubCgroups::default())
    }

    /// The same below a sub-cgroup. Errors: it does not exist.
    pub fn birthplace_in(&self, sub: &SubCgroups) -> Result<Option<OwnedFd>, Error> {
        if !self.layout.is_pure_v2() {
            return Ok(None);
        }
        let path = sub.on_v2(&self.directory(0));
        open_directory(&path).map(Some).step(|| format!("open the cgroup {}", path.display()))
    }

    /// The same where the process `pid` is now: a container's first process may have moved into a cgroup below, and made
    /// the container's own one that takes no processes.
    pub fn birthplace_of(&self, pid: i32) -> Result<Option<OwnedFd>, Error> {
        if !self.layout.is_pure_v2() {
            return Ok(None);
        }
        let step = || format!("find the cgroup of process {pid}");
        let text = file::read(Path::new(&format!("/proc/{pid}/cgroup"))).step(step)?;
        let Some((_, path)) = layout::memberships(&text).find(|(names, _)| names.is_empty()) else {
            return Ok(None);
        };
        let directory = self.layout.hierarchies[0].mount.join(path.trim_start_matches('/'));
        open_directory(&directory).map(Some).step(|| format!("open the cgroup {}", directory.display()))
    }

    /// Moves a process here, in every hierarchy.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        self.add_to(pid, &SubCgroups::default())
    }

    /// Says whether the cgroup may be missing in a hierarchy: in one that limits nothing, or where the user may not do more.
    fn may_lack(&self, index: usize) -> bool {
        let hierarchy = &self.layout.hierarchies[index];
        self.rootless
            || (!self.layout.is_pure_v2()
                && (hierarchy.unified || hierarchy.controllers.iter().all(|c| c.starts_with("name="))))
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
            Some((directory, false)) => v1::is_frozen(&directory),
            Some((directory, true)) => v2::is_frozen(&directory),
            None => false,
        }
    }

    /// Reads what the container has used.
    pub fn stats(&self) -> Stats {
        stats::read(self)
    }

    /// Reads everything that the kernel counts, in the form in which `events --stats` prints it.
    pub fn metrics(&self) -> Metrics {
        metrics::read(self)
    }

    /// Watches for the OOM killer. Errors: no hierarchy has the memory controller, or the cgroup does not exist.
    pub fn watch_oom(&self) -> Result<OomWatch, Error> {
        oom::watch(self)
    }

    /// Returns how many processes the OOM killer has ended here.
    pub fn oom_kills(&self) -> u64 {
        let Some((directory, unified)) = self.controller("memory") else { return 0 };
        let file = directory.join(if unified { "memory.events" } else { "memory.oom_control" });
        stats::keyed(&file).into_iter().find(|(key, _)| key == "oom_kill").map_or(0, |(_, value)| value)
    }

    /// Returns the pids of all processes here and below.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        let main = self.layout.index("devices").into_iter();
        for index in main.chain(0..self.layout.hierarchies.len()) {
            let directory = self.directory(index);
            if directory.exists() {
                collect_pids(&directory, &mut pids);
                break;
            }
        }
        pids
    }

    /// Kills every process here and below, frozen ones too.
    pub fn kill_all(&self) -> Result<(), Error> {
        if let Some((directory, true)) = self.controller("freezer") {
            // cgroup.kill (Linux 5.14) takes all at once, frozen ones and those being born too.
            if file::try_write(&directory.join("cgroup.kill"), "1").is_ok() {
                return Ok(());
            }
        }
        for _ in 0..REMOVE_TRIES {
            let pids = self.pids();
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                let _ = brig_sys::signals::send(pid, rustix::process::Signal::KILL.as_raw());
            }
            // A process in a frozen v1 cgroup dies only when it is thawed.
            let _ = self.thaw();
            std::thread::sleep(REMOVE_PAUSE);
        }
        Ok(())
    }

    /// Removes the directories where that takes no more than a call each; false if there is more to be done than that.
    pub fn remove_if_empty(&self) -> bool {
        let gone = |directory: PathBuf| matches!(rustix::fs::rmdir(directory), Ok(()) | Err(Errno::NOENT));
        self.unit.is_none() && self.directories().all(gone)
    }

    /// Removes the unit, if it is one, and the directories, those below first. Processes that are dying get a bounded time; one that stays is an error.
    pub fn remove(&self) -> Result<(), Error> {
        let stopped = self.unit.as_ref().map_or(Ok(()), |unit| unit.stop());
        for (index, directory) in self.directories().enumerate() {
            match remove_tree(&directory) {
                Ok(()) => {}
                // What is read-only says so even of a directory that was never made.
                Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) if self.may_lack(index) || !directory.exists() => {}
                Err(errno) => return Err(errno).step(|| format!("remove the cgroup {}", directory.display())),
            }
        }
        stopped
    }

    /// Returns the directory that holds `controller`, and whether it is a v2 one.
    pub(crate) fn controller(&self, controller: &str) -> Option<(PathBuf, bool)> {
        let index = self.layout.index(controller)?;
        Some((self.directory(index), self.layout.hierarchies[index].unified))
    }
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Writes a pid into `cgroup.procs`. A process that is only just being born is refused with EINVAL for a moment.
fn move_process(directory: &Path, pid: i32) -> rustix::io::Result<()> {
    let (file, pid) = (directory.join("cgroup.procs"), pid.to_string());
    for _ in 1..MOVE_TRIES {
        match file::try_write(&file, &pid) {
            Err(Errno::INVAL) => std::thread::sleep(MOVE_PAUSE),
            other => return other,
        }
    }
    file::try_write(&file, &pid)
}

fn collect_pids(directory: &Path, pids: &mut Vec<i32>) {
    let text = file::read_if_there(&directory.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for child in directories_in(directory) {
        collect_pids(&child, pids);
    }
}

fn directories_in(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path())
}

fn remove_tree(directory: &Path) -> rustix::io::Result<()> {
    let mut tries = 0;
    loop {
        match rustix::fs::rmdir(directory) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) if tries < REMOVE_TRIES => {
                for child in directories_in(directory) {
                    remove_tree(&child)?;
                }
                tries += 1;
                if tries > 1 {
                    std::thread::sleep(REMOVE_PAUSE);
                }
            }
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests;
