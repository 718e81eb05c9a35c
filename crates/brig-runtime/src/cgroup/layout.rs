//! Which hierarchies this machine has, and where they are mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const CGROUP2_MAGIC: i64 = 0x6367_7270;

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

/// All hierarchies of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The hierarchies: the v2 one alone, or the v1 ones with the v2 one last.
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Looks at the machine. Errors: nothing is mounted where every distribution mounts it, and mountinfo has none either.
    pub fn detect() -> io::Result<Self> {
        let base = Path::new("/sys/fs/cgroup");
        if is_cgroup2(base) {
            return Ok(Self { hierarchies: vec![unified(base)] });
        }
        let text = fs::read_to_string("/proc/self/cgroup")?;
        let mut hierarchies = Vec::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(number), Some(names)) = (fields.next(), fields.next()) else { continue };
            if number == "0" {
                continue;
            }
            let controllers: Vec<String> = names.split(',').map(str::to_owned).collect();
            let Some(mount) = v1_mount(base, names) else { continue };
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
        self.hierarchies.iter().find(|h| {
            h.controllers.iter().any(|c| c == controller)
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
}

fn unified(mount: &Path) -> Hierarchy {
    let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    let controllers = controllers.split_ascii_whitespace().map(str::to_owned).collect();
    Hierarchy { mount: mount.to_owned(), controllers, unified: true }
}

/// `cpu,cpuacct` is mounted under that name, under one of its parts, or under the name of `name=NAME`.
fn v1_mount(base: &Path, names: &str) -> Option<PathBuf> {
    let name = names.strip_prefix("name=").unwrap_or(names);
    let all = base.join(name);
    if all.join("cgroup.procs").exists() {
        return Some(all);
    }
    names.split(',').map(|part| base.join(part)).find(|path| path.join("cgroup.procs").exists())
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
    }
}
