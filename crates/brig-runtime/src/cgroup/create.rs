//! Making a cgroup with its limits, and changing them.

use super::file::write;
use super::layout::Hierarchy;
use super::{Cgroup, check, devices, v1, v2};
use crate::error::{Context, Error};
use brig_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// How far the making of a cgroup has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The directories exist.
    Exists,
    /// It is the caller's from here on, and to be removed if anything fails: its limits are written, or systemd has made it. What
    /// fails before takes the directories that are new away again.
    Yours,
}

/// What came of making a cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// The directories that this user may not make, and that no limit needed.
    pub missing: Vec<PathBuf>,
    /// Whether that is all of them: then the container has no cgroup of its own.
    pub nothing: bool,
}

impl Cgroup {
    /// Makes the directories and writes the limits. Where [`Self::takes_births`] this precedes the clone. Errors: a limit
    /// that the kernel refuses; a controller that is asked for and not there; no permission, unless the cgroup is a
    /// rootless one and nothing was asked for. Then nothing is left of it, and nothing need (or, where the cgroup was in use,
    /// may) be removed.
    pub fn create(&self, resources: Option<&LinuxResources>) -> Result<Made, Error> {
        if self.unit.is_some() {
            return Err(Error::invalid("make the systemd unit", "a scope needs a process to begin with"));
        }
        let nothing = LinuxResources::default();
        let resources = resources.unwrap_or(&nothing);
        self.check_asked(resources)?;
        self.make(resources, || Ok(()))
    }

    fn make(&self, resources: &LinuxResources, exists: impl FnOnce() -> Result<(), Error>) -> Result<Made, Error> {
        let mut new = Vec::with_capacity(self.layout.hierarchies.len());
        let result = self.make_all(resources, &mut new, exists);
        if result.is_err() && self.unit.is_none() {
            // Only what was made here: a cgroup that was there may be a stranger's.
            for (index, _) in new.iter().enumerate().filter(|(_, new)| **new == Some(true)) {
                let _ = rustix::fs::rmdir(self.directory(index));
            }
        }
        result
    }

    /// Makes the directories, then writes the limits. `new` tells of each whether it was not there before.
    fn make_all(
        &self,
        resources: &LinuxResources,
        new: &mut Vec<Option<bool>>,
        exists: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Made, Error> {
        let mut made = Made::default();
        for (index, hierarchy) in self.layout.hierarchies.iter().enumerate() {
            new.push(self.create_in(index, hierarchy, resources, &mut made)?);
        }
        made.nothing = made.missing.len() == new.len();
        if !made.missing.is_empty() {
            self.check_missing(&made, new, resources)?;
        }
        exists()?;
        for (index, hierarchy) in self.layout.hierarchies.iter().enumerate() {
            let Some(new) = new[index] else { continue };
            self.write_limits(index, hierarchy, resources, new)?;
            let rules = &resources.devices;
            self.write_devices(index, rules, new)?;
        }
        Ok(made)
    }

    /// Makes the cgroup, writes the limits and moves a process into it. A unit of systemd is made in this way only. `reached` is
    /// called at each stage; once the cgroup is the caller's, an error may leave the process in it, and when that is gone
    /// [`Self::remove`] removes what is left.
    pub fn enclose(
        &self,
        pid: i32,
        resources: Option<&LinuxResources>,
        mut reached: impl FnMut(Stage) -> Result<(), Error>,
    ) -> Result<Made, Error> {
        let nothing = LinuxResources::default();
        let resources = resources.unwrap_or(&nothing);
        self.check_asked(resources)?;
        let Some(unit) = &self.unit else {
            let made = self.make(resources, || reached(Stage::Exists))?;
            reached(Stage::Yours)?;
            if !made.nothing {
                self.add(pid)?;
            }
            return Ok(made);
        };
        if self.exclusive {
            self.check_unused()?;
        }
        let resources = self.start_unit(unit, pid, resources)?;
        reached(Stage::Yours)?;
        // What systemd has made now holds the process, and is no stranger's.
        let made = self.clone().exclusive(false).make(&resources, || reached(Stage::Exists))?;
        if !self.layout.is_pure_v2() {
            // Of v1's hierarchies systemd joins those that it uses itself.
            self.add(pid)?;
        }
        Ok(made)
    }

    /// Makes one directory; none if it had to be left out.
    fn create_in(
        &self,
        index: usize,
        hierarchy: &Hierarchy,
        resources: &LinuxResources,
        made: &mut Made,
    ) -> Result<Option<bool>, Error> {
        let directory = self.directory(index);
        let result = if hierarchy.unified {
            // In a hybrid layout v2 has what v1 has not; it is handed down when it is asked for.
            let asked = if self.layout.is_pure_v2() { Vec::new() } else { check::asked(resources) };
            let wanted = |name: &&String| self.layout.is_pure_v2() || asked.iter().any(|(_, asked)| asked == name);
            let names: Vec<&str> = hierarchy.controllers.iter().filter(wanted).map(String::as_str).collect();
            v2::create(hierarchy, &directory, &names)
        } else {
            v1::create(hierarchy, &directory, resources.cpu.as_ref())
        };
        match result {
            Ok(new) => {
                if !new && self.exclusive {
                    self.check_unused_in(index)?;
                }
                if hierarchy.unified && self.layout.is_pure_v2() {
                    self.give_away(&directory)?;
                }
                Ok(Some(new))
            }
            Err(error) if is_denied(&error) && self.may_lack(index) && !(self.rootless && self.chosen) => {
                made.missing.push(directory);
                Ok(None)
            }
            Err(error) if is_denied(&error) && self.rootless => {
                let why = format!("unable to apply cgroup configuration: {error}: permission denied");
                Err(Error::setup(
                    format!("make the cgroup {}", directory.display()),
                    io::Error::new(io::ErrorKind::PermissionDenied, why),
                ))
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses what this machine's controllers cannot do whatever the cgroup.
    fn check_asked(&self, resources: &LinuxResources) -> Result<(), Error> {
        if !self.layout.is_pure_v2() && !resources.unified.is_empty() {
            return Err(Error::invalid(
                "set the unified cgroup resources",
                "invalid configuration: cannot use unified on cgroup v1",
            ));
        }
        for (v1, v2) in check::asked(resources) {
            // v2 has no controller for packets' classes and priorities; they are left to the front door's firewall.
            let elsewhere = self.layout.is_pure_v2() && matches!(v1, "net_cls" | "net_prio");
            if !elsewhere && self.layout.hierarchy(v1).or_else(|| self.layout.hierarchy(v2)).is_none() {
                return Err(Error::invalid(
                    "limit the container",
                    format!("cannot set {v1} limit: this machine has no {v1} controller"),
                ));
            }
        }
        Ok(())
    }

    /// Refuses limits whose directory could not be made.
    fn check_missing(&self, made: &Made, new: &[Option<bool>], resources: &LinuxResources) -> Result<(), Error> {
        for (v1, v2) in check::asked(resources) {
            let there = |name| self.layout.index(name).is_some_and(|index| new[index].is_some());
            if !there(v1) && !there(v2) {
                let place = made.missing.first().map(|path| path.display().to_string()).unwrap_or_default();
                let why = if self.layout.is_pure_v2() {
                    "rootless needs no limits + no cgrouppath when no permission is granted for cgroups".to_owned()
                } else {
                    format!("cannot set {v1} limit: container could not join or create cgroup")
                };
                return Err(Error::invalid(format!("make the cgroup {place}"), why));
            }
        }
        Ok(())
    }

    /// Writes the limits that `resources` names and leaves all others.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        self.check_asked(resources)?;
        let told = match &self.unit {
            Some(unit) => Some(self.set_unit(unit, resources)?),
            None => None,
        };
        let resources = told.as_ref().unwrap_or(resources);
        for (index, hierarchy) in self.layout.hierarchies.iter().enumerate() {
            self.write_limits(index, hierarchy, resources, false)?;
            if !resources.devices.is_empty() {
                self.write_devices(index, &resources.devices, false)?;
            }
        }
        Ok(())
    }

    fn write_limits(
        &self,
        index: usize,
        hierarchy: &Hierarchy,
        resources: &LinuxResources,
        new: bool,
    ) -> Result<(), Error> {
        let directory = self.directory(index);
        if !hierarchy.unified {
            return v1::set_limits(hierarchy, &directory, resources, new);
        }
        let only = (!self.layout.is_pure_v2()).then_some(hierarchy.controllers.as_slice());
        v2::set_limits(&directory, resources, only)
    }

    fn write_devices(&self, index: usize, rules: &[LinuxDeviceCgroup], new: bool) -> Result<(), Error> {
        if self.layout.index("devices") != Some(index) {
            return Ok(());
        }
        let directory = self.directory(index);
        let result = if self.layout.hierarchies[index].unified {
            devices::set_v2(&directory, rules, new)
        } else {
            devices::plan_v1(&directory, rules, new).and_then(|plan| {
                // Between two of these writes everything is allowed: nothing may run meanwhile.
                let hold = plan.opens_meanwhile && !self.is_frozen() && self.freeze().is_ok();
                let result = plan.apply(&directory);
                if hold {
                    self.thaw()?;
                }
                result
            })
        };
        match result {
            Err(error) if self.rootless && is_denied(&error) => Ok(()),
            other => other,
        }
    }

    /// Gives the directory, and the files that the kernel says may go with it, to the owner.
    fn give_away(&self, directory: &Path) -> Result<(), Error> {
        let Some(uid) = self.owner else { return Ok(()) };
        let step = || format!("give the cgroup {} to user {uid}", directory.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(directory, flags, Mode::empty()).step(step)?;
        let list = super::file::read_if_there(Path::new("/sys/kernel/cgroup/delegate"));
        let list = list.as_deref().unwrap_or("cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n");
        let (user, group): (_, Option<Gid>) = (Some(Uid::from_raw(uid)), None);
        rustix::fs::fchown(&fd, user, group).step(step)?;
        for name in list.lines().filter(|name| !name.is_empty() && !name.contains('/')) {
            match rustix::fs::chownat(&fd, name, user, group, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).step(step),
            }
        }
        Ok(())
    }
}

/// Says whether the kernel refused for want of permission.
fn is_denied(error: &Error) -> bool {
    [Errno::ACCESS, Errno::PERM, Errno::ROFS].into_iter().any(|errno| super::file::is(error, errno))
}

/// The value of `pids.max`: systemd takes no 0, so that none is one everywhere, and less is no limit.
pub(super) fn number_of_pids(limit: i64) -> String {
    match limit {
        ..0 => "max".into(),
        0 => "1".into(),
        limit => limit.to_string(),
    }
}

/// Refuses shares that the kernel would cut to its range without a word.
pub(super) fn shares_in_range(shares: u64) -> Result<(), Error> {
    let (least, most) = (2, 262_144);
    let why = match shares {
        ..2 => format!("the minimum allowed cpu-shares is {least}"),
        262_145.. => format!("the maximum allowed cpu-shares is {most}"),
        _ => return Ok(()),
    };
    Err(Error::invalid(format!("set the CPU shares to {shares}"), why))
}

/// Refuses what is not one plain part of a file name.
pub(super) fn plain_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is not a plain name")));
    }
    Ok(())
}

/// Writes the limits of RDMA devices; the file is the same on both versions.
pub(super) fn set_rdma(directory: &Path, resources: &LinuxResources) -> Result<(), Error> {
    for (device, limit) in &resources.rdma {
        let mut line = device.clone();
        let numbers = [("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects)];
        for (key, value) in numbers.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            line.extend([" ", key, "=", &value.to_string()]);
        }
        write(&directory.join("rdma.max"), &line)?;
    }
    Ok(())
}
