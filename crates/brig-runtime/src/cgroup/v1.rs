//! The directories of cgroup v1, one hierarchy at a time; Documentation/admin-guide/cgroup-v1.

mod limits;

pub(super) use limits::set as set_limits;

use super::Hierarchy;
use super::file::{self, write};
use crate::error::{Context, Error};
use brig_spec::runtime::LinuxCpu;
use rustix::fs::Mode;
use rustix::io::Errno;
use std::path::Path;
use std::time::Duration;

/// Makes the directory, and the ones that lead to it. Returns whether it is new.
pub(super) fn create(hierarchy: &Hierarchy, directory: &Path, cpu: Option<&LinuxCpu>) -> Result<bool, Error> {
    let step = || format!("make the cgroup {}", directory.display());
    let cpuset = hierarchy.has("cpuset");
    let new = match make(directory) {
        Err(Errno::NOENT) => {
            make_parents(hierarchy, directory)?;
            make(directory).step(step)?
        }
        other => other.step(step)?,
    };
    if cpuset {
        fill_cpuset(&hierarchy.mount, directory, new, cpu)?;
    }
    Ok(new)
}

/// Makes one directory; false if it was there.
pub(super) fn make(directory: &Path) -> rustix::io::Result<bool> {
    match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Makes the directories above, the upper ones first. New ones of the cpuset hierarchy hand their CPUs and memory nodes to
/// each child that is born below them, so that the container's own needs not be filled by hand.
fn make_parents(hierarchy: &Hierarchy, directory: &Path) -> Result<(), Error> {
    let above: Vec<&Path> = directory.ancestors().skip(1).take_while(|path| *path != hierarchy.mount).collect();
    for path in above.into_iter().rev() {
        let new = make(path).step(|| format!("make the cgroup {}", path.display()))?;
        if new && hierarchy.has("cpuset") {
            // Filled first: whoever is born below while this goes on gets both halves, or none and fills itself.
            cpuset_of(&hierarchy.mount, path)?;
            write(&path.join("cgroup.clone_children"), "1")?;
        }
    }
    Ok(())
}

/// A new cpuset is empty and takes no process before it has CPUs and memory nodes: those asked for, or its parent's.
fn fill_cpuset(mount: &Path, directory: &Path, new: bool, cpu: Option<&LinuxCpu>) -> Result<(), Error> {
    let (cpus, mems) = (directory.join("cpuset.cpus"), directory.join("cpuset.mems"));
    let parent = directory.parent().unwrap_or(mount);
    // Directories that brig made hand theirs down. The root, as a rule, does not, and is not asked.
    let empty = new && parent == mount;
    let has_cpus = !empty && !is_empty(&cpus)?;
    if has_cpus && (new || !is_empty(&mems)?) {
        return Ok(()); // a child that got its parent's cpuset at birth got both halves
    }
    let asked = |list: Option<&String>| list.filter(|l| !l.is_empty()).cloned();
    let asked_cpus = asked(cpu.map(|c| &c.cpus));
    let asked_mems = asked(cpu.map(|c| &c.mems));
    let (parent_cpus, parent_mems) = match (&asked_cpus, &asked_mems) {
        (Some(_), Some(_)) => (String::new(), String::new()),
        _ => cpuset_of(mount, parent)?,
    };
    if !has_cpus {
        write(&cpus, &asked_cpus.unwrap_or(parent_cpus))?;
    }
    if empty || is_empty(&mems)? {
        write(&mems, &asked_mems.unwrap_or(parent_mems))?;
    }
    Ok(())
}

fn is_empty(file: &Path) -> Result<bool, Error> {
    Ok(list(file)?.is_empty())
}

fn list(file: &Path) -> Result<String, Error> {
    Ok(file::read(file).step(|| format!("read {}", file.display()))?.trim().to_owned())
}

/// Reads the cpuset of a directory, and fills it from the ones above where it is empty.
fn cpuset_of(mount: &Path, directory: &Path) -> Result<(String, String), Error> {
    let (cpus_file, mems_file) = (directory.join("cpuset.cpus"), directory.join("cpuset.mems"));
    let (mut cpus, mut mems) = (list(&cpus_file)?, list(&mems_file)?);
    if directory == mount || !(cpus.is_empty() || mems.is_empty()) {
        return Ok((cpus, mems));
    }
    let (parent_cpus, parent_mems) = cpuset_of(mount, directory.parent().unwrap_or(mount))?;
    for (file, own, parents) in [(cpus_file, &mut cpus, parent_cpus), (mems_file, &mut mems, parent_mems)] {
        if own.is_empty() {
            write(&file, &parents)?;
            *own = parents;
        }
    }
    Ok((cpus, mems))
}

/// Freezes or thaws. Freezing may stay FREEZING while a process cannot be stopped; writing again helps the kernel on.
pub(super) fn set_frozen(directory: &Path, frozen: bool) -> Result<(), Error> {
    let path = directory.join("freezer.state");
    if !frozen {
        return write(&path, "THAWED");
    }
    for round in 1..=1000 {
        if round % 50 == 0 {
            // Processes that keep being born are met again when all could run for a moment.
            write(&path, "THAWED")?;
            std::thread::sleep(Duration::from_millis(10));
        }
        write(&path, "FROZEN")?;
        if file::read(&path).step(|| format!("read {}", path.display()))?.trim() == "FROZEN" {
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(if round < 20 { 20 } else { 1000 }));
    }
    let _ = write(&path, "THAWED");
    Err(Error::invalid("freeze the container", "a process did not stop within a second; it was let go on"))
}

/// Says whether the cgroup was frozen itself, not by one above it.
pub(super) fn is_frozen(directory: &Path) -> bool {
    file::read_if_there(&directory.join("freezer.state")).is_some_and(|state| state.trim() != "THAWED")
        && file::read_if_there(&directory.join("freezer.self_freezing")).is_none_or(|own| own.trim() != "0")
}
