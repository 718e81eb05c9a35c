//! Which hierarchies this machine has, and where they are mounted. It is looked at once a process.

use super::file;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Where every distribution mounts the hierarchies.
const BASE: &str = "/sys/fs/cgroup";

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted on the machine.
    pub mount: PathBuf,
    /// Its controllers, as /proc/self/cgroup spells them; for v2 those of its root.
    pub controllers: Vec<String>,
    /// Whether it is the v2 hierarchy.
    pub unified: bool,
}

impl Hierarchy {
    /// Says whether the hierarchy has the controller `name`.
    pub fn has(&self, name: &str) -> bool {
        self.controllers.iter().any(|c| c == name)
    }
}

/// All hierarchies of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The hierarchies: the v2 one alone, or the v1 ones with the v2 one last.
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Returns the layout of this machine, which is looked at upon the first call.
    pub fn of_machine() -> io::Result<Arc<Self>> {
        static LAYOUT: OnceLock<Arc<Layout>> = OnceLock::new();
        if let Some(layout) = LAYOUT.get() {
            return Ok(Arc::clone(layout));
        }
        let layout = Arc::new(Self::detect()?);
        Ok(Arc::clone(LAYOUT.get_or_init(|| layout)))
    }

    /// Looks at the machine. Errors: no hierarchy is mounted where every distribution mounts them.
    pub fn detect() -> io::Result<Self> {
        let base = Path::new(BASE);
        if is_cgroup2(base) {
            return Ok(Self { hierarchies: vec![unified(base)] });
        }
        let mut hierarchies = Vec::new();
        for (names, _) in memberships(own_memberships()?) {
            if names.is_empty() {
                continue;
            }
            let Some(mount) = v1_mount(base, names) else { continue };
            let controllers = names.split(',').map(str::to_owned).collect();
            hierarchies.push(Hierarchy { mount, controllers, unified: false });
        }
        let two = base.join("unified");
        if is_cgroup2(&two) {
            hierarchies.push(unified(&two));
        }
        if hierarchies.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted below /sys/fs/cgroup"));
        }
        Ok(Self { hierarchies })
    }

    /// Whether v2 is all there is.
    pub fn is_pure_v2(&self) -> bool {
        matches!(self.hierarchies.as_slice(), [only] if only.unified)
    }

    /// Finds the hierarchy of a controller. On v2 the freezer and the device controller are always there.
    pub fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        self.index(controller).and_then(|at| self.hierarchies.get(at))
    }

    /// The place of a controller's hierarchy in the list.
    pub(super) fn index(&self, controller: &str) -> Option<usize> {
        self.hierarchies.iter().position(|h| {
            h.has(controller)
                || (h.unified && self.is_pure_v2() && matches!(controller, "freezer" | "devices" | "cpuacct"))
        })
    }

    /// The name that `brig info` prints.
    pub fn name(&self) -> &'static str {
        if self.is_pure_v2() {
            "v2"
        } else if self.hierarchies.iter().any(|h| h.unified) {
            "hybrid"
        } else {
            "v1"
        }
    }

    /// Returns the cgroups that this process is in, one a hierarchy, relative to where the hierarchy is mounted.
    pub(super) fn own_cgroups(&self) -> io::Result<Vec<PathBuf>> {
        let text = own_memberships()?;
        let mut own = Vec::with_capacity(self.hierarchies.len());
        let mut mountinfo = None;
        for hierarchy in &self.hierarchies {
            let found = memberships(text).find(|(names, _)| {
                if hierarchy.unified { names.is_empty() } else { names.split(',').eq(&hierarchy.controllers) }
            });
            let mut path = Path::new(found.map_or("/", |(_, path)| path));
            if path != Path::new("/") && !hierarchy.mount.join(path.strip_prefix("/").unwrap_or(path)).is_dir() {
                // Inside a container without a cgroup namespace only a part of the hierarchy is mounted.
                let text = match &mountinfo {
                    Some(text) => text,
                    None => mountinfo.insert(file::read(Path::new("/proc/self/mountinfo"))?),
                };
                path = mount_root(text, &hierarchy.mount).map_or(path, |root| path.strip_prefix(root).unwrap_or(path));
            }
            own.push(path.strip_prefix("/").unwrap_or(path).to_owned());
        }
        Ok(own)
    }
}

/// The cgroups of this process as they are upon the first call: the kernel works long on that text, and no process of ours moves
/// itself.
fn own_memberships() -> io::Result<&'static str> {
    static TEXT: OnceLock<String> = OnceLock::new();
    if let Some(text) = TEXT.get() {
        return Ok(text);
    }
    let text = file::read(Path::new("/proc/self/cgroup"))?;
    Ok(TEXT.get_or_init(|| text))
}

/// The lines of /proc/PID/cgroup: controllers (none for v2), path.
pub(super) fn memberships(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

/// The part of its file system that is mounted at `mount`: field 4 of mountinfo, proc_pid_mountinfo(5).
fn mount_root<'a>(mountinfo: &'a str, mount: &Path) -> Option<&'a Path> {
    let mut lines = mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    });
    lines.rfind(|(_, at)| OsStr::new(at) == mount.as_os_str()).map(|(root, _)| Path::new(root))
}

fn unified(mount: &Path) -> Hierarchy {
    let controllers = file::read_if_there(&mount.join("cgroup.controllers")).unwrap_or_default();
    let controllers = controllers.split_ascii_whitespace().map(str::to_owned).collect();
    Hierarchy { mount: mount.to_owned(), controllers, unified: true }
}

/// `cpu,cpuacct` is mounted under that name, under one of its parts, or under the name of `name=NAME`.
fn v1_mount(base: &Path, names: &str) -> Option<PathBuf> {
    let all = base.join(names.strip_prefix("name=").unwrap_or(names));
    let is_mounted = |path: &Path| rustix::fs::access(path.join("cgroup.procs"), rustix::fs::Access::EXISTS).is_ok();
    if is_mounted(&all) {
        return Some(all);
    }
    names.split(',').map(|part| base.join(part)).find(|path| is_mounted(path))
}

fn is_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type == CGROUP2_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_pids_somewhere() {
        let layout = Layout::detect().unwrap();
        assert!(layout.hierarchy("memory").is_some(), "{layout:?}");
        assert!(layout.hierarchy("pids").is_some());
        assert!(layout.hierarchy("freezer").is_some());
        assert_eq!(layout.is_pure_v2(), layout.name() == "v2");
        assert_eq!(*Layout::of_machine().unwrap(), layout);
    }

    #[test]
    fn the_own_cgroups_exist_and_hold_this_process() {
        let layout = Layout::detect().unwrap();
        for (hierarchy, own) in layout.hierarchies.iter().zip(layout.own_cgroups().unwrap()) {
            let directory = hierarchy.mount.join(own);
            let pids = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap();
            let me = std::process::id().to_string();
            assert!(pids.lines().any(|pid| pid == me), "{}", directory.display());
        }
    }

    #[test]
    fn the_last_mount_of_a_place_counts() {
        let text = "31 23 0:29 /docker/x /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                    32 23 0:29 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n";
        assert_eq!(mount_root(text, Path::new("/sys/fs/cgroup/cpu")), Some(Path::new("/docker/x")));
        assert_eq!(mount_root(text, Path::new("/sys/fs/cgroup/cpuset")), None);
        let lines: Vec<_> = memberships("8:cpu,cpuacct:/a:b\n0::/c\n").collect();
        assert_eq!(lines, [("cpu,cpuacct", "/a:b"), ("", "/c")]);
    }
}
