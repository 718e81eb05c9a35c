//! Taking a container apart: one list of steps, replayed by a monitor's end, by `brig rm` and by recovery alike.
//!
//! Every step may have been done already, wholly or in part. A step that fails does not keep the later ones from being
//! tried, but the record's own directory goes last and only when all else has gone, so that what is left can be found again.

use crate::chain::one_line;
use crate::plan::Undo;
use brig_runtime::Error;
use brig_runtime::cgroup::Cgroup;
use std::io;
use std::path::Path;

/// The name of a file that takes the place of the plan's list while a container runs: another list, as JSON.
pub const FILE: &str = "undo";

/// Reads the list that was written after the plan, if one was.
pub(crate) fn amended(container_dir: &Path) -> Option<Vec<Undo>> {
    serde_json::from_slice(&std::fs::read(container_dir.join(FILE)).ok()?).ok()
}

/// Replays the steps in order; returns the first failure after having tried all of them.
pub fn replay(steps: &[Undo]) -> Result<(), Error> {
    replay_each(steps, |_| true)
}

/// Replays the steps but for the network's, which a monitor has withdrawn already: waiting for the kernel to delete a pair
/// of interfaces that goes with its namespace anyway would take ten times as long as all the rest.
pub(crate) fn replay_after_withdrawal(steps: &[Undo]) -> Result<(), Error> {
    replay_each(steps, |step| !matches!(step, Undo::Network(_)))
}

fn replay_each(steps: &[Undo], wanted: impl Fn(&Undo) -> bool) -> Result<(), Error> {
    let mut first = None;
    for (at, step) in steps.iter().enumerate().filter(|(_, step)| wanted(step)) {
        if at + 1 == steps.len() && first.is_some() && matches!(step, Undo::Directory(_)) {
            break;
        }
        if let Err(error) = one(step) {
            first.get_or_insert(error);
        }
    }
    first.map_or(Ok(()), Err)
}

fn one(step: &Undo) -> Result<(), Error> {
    match step {
        Undo::Network(network) => {
            brig_net::detach(network).map_err(|e| Error::setup("detach the network", io::Error::other(one_line(&e))))
        }
        Undo::Lease { dir, address, container } => brig_net::lease::release(dir, *address, container)
            .map_err(|e| Error::setup(format!("return the address {address}"), io::Error::other(one_line(&e)))),
        Undo::Cgroup(path) => {
            let cgroup = Cgroup::open(Path::new(path))?;
            if cgroup.remove_if_empty() {
                return Ok(());
            }
            if !cgroup.pids().is_empty() {
                cgroup.kill_all()?;
            }
            cgroup.remove()
        }
        Undo::File(path) => match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::setup(format!("remove {}", path.display()), error))
            }
            _ => Ok(()),
        },
        Undo::Directory(path) => match remove_tree(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::setup(format!("remove {}", path.display()), error))
            }
            _ => Ok(()),
        },
    }
}

/// Removes a directory tree; files that are immutable or append-only inside a writable layer are freed first.
fn remove_tree(path: &Path) -> io::Result<()> {
    match brig_sys::tree::remove_at(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            clear_flags(path);
            brig_sys::tree::remove_at(path)
        }
        result => result,
    }
}

fn clear_flags(path: &Path) {
    use rustix::fs::{IFlags, Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::open(path, flags, Mode::empty()) else { return };
    if let Ok(present) = rustix::fs::ioctl_getflags(&fd)
        && present.intersects(IFlags::IMMUTABLE | IFlags::APPEND)
    {
        let _ = rustix::fs::ioctl_setflags(&fd, present - (IFlags::IMMUTABLE | IFlags::APPEND));
    }
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir() || t.is_file()) {
                clear_flags(&entry.path());
            }
        }
    }
}
