//! The directories of cgroup v2; Documentation/admin-guide/cgroup-v2.

mod limits;

pub(super) use limits::set as set_limits;
pub(super) use limits::{check_memory, io_weight, swap_alone, weight_of_shares};

use super::file::{self, write};
use super::{Hierarchy, v1};
use crate::error::{Context, Error};
use rustix::io::Errno;
use std::path::Path;
use std::time::Duration;

/// Makes the directory and hands `controllers` down to it. Returns whether it is new.
pub(super) fn create(hierarchy: &Hierarchy, directory: &Path, controllers: &[&str]) -> Result<bool, Error> {
    let step = |path: &Path| format!("make the cgroup {}", path.display());
    let parent = directory.parent().unwrap_or(&hierarchy.mount);
    match v1::make(directory) {
        Ok(new) => {
            if !handed_down(parent, controllers) {
                let above: Vec<&Path> = parent.ancestors().take_while(|path| *path != hierarchy.mount).collect();
                hand_down(&hierarchy.mount, controllers);
                above.into_iter().rev().for_each(|path| hand_down(path, controllers));
            }
            Ok(new)
        }
        Err(Errno::NOENT) => {
            let above: Vec<&Path> = directory.ancestors().take_while(|path| *path != hierarchy.mount).collect();
            hand_down(&hierarchy.mount, controllers);
            for path in above.into_iter().rev() {
                let new = v1::make(path).step(|| step(path))?;
                if path == directory {
                    return Ok(new);
                }
                hand_down(path, controllers);
            }
            Ok(false)
        }
        Err(errno) => Err(errno).step(|| step(directory)),
    }
}

fn handed_down(directory: &Path, controllers: &[&str]) -> bool {
    if controllers.is_empty() {
        return true;
    }
    let Some(text) = file::read_if_there(&directory.join("cgroup.subtree_control")) else { return false };
    controllers.iter().all(|c| text.split_ascii_whitespace().any(|t| t == *c))
}

/// Enables controllers for the cgroups below. One at a time where the whole list is refused: one controller that cannot be
/// had (real time processes forbid `cpu`) must not cost the others. Where the kernel takes none, because processes sit in
/// this very cgroup or it is not this user's, the file stays as it is, and a limit that then has no file says so by name.
fn hand_down(directory: &Path, controllers: &[&str]) {
    if handed_down(directory, controllers) {
        return;
    }
    let path = directory.join("cgroup.subtree_control");
    let all: Vec<String> = controllers.iter().map(|c| format!("+{c}")).collect();
    match file::try_write(&path, &all.join(" ")) {
        Ok(()) | Err(Errno::BUSY | Errno::ACCESS | Errno::PERM | Errno::ROFS) => {}
        Err(_) => {
            for one in &all {
                let _ = file::try_write(&path, one);
            }
        }
    }
}

/// Freezes or thaws, and waits until the kernel says so in `cgroup.events`.
pub(super) fn set_frozen(directory: &Path, frozen: bool) -> Result<(), Error> {
    write(&directory.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
    let events = directory.join("cgroup.events");
    let want = if frozen { "frozen 1" } else { "frozen 0" };
    for _ in 0..2000 {
        let text = file::read(&events).step(|| format!("read {}", events.display()))?;
        if text.lines().any(|line| line == want) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = write(&directory.join("cgroup.freeze"), "0");
    Err(Error::invalid("freeze the container", "a process did not stop within two seconds; it was let go on"))
}

/// Says whether the cgroup was frozen itself, not by one above it.
pub(super) fn is_frozen(directory: &Path) -> bool {
    file::read_if_there(&directory.join("cgroup.freeze")).is_some_and(|state| state.trim() == "1")
}
