//! Mounts of another mount namespace: only who is inside can clone them, so a short-lived child enters it.
//!
//! ```text
//! maker                               child
//!   clone  ------------------------>    setns; the path, by openat2 below that namespace's root; open_tree(CLONE)
//!   a detached mount  <-- Maps + fd --  ends
//! ```
//!
//! The namespace may be hostile: no path of it is resolved but below its own root and without magic links, so that one which
//! leads out (`/proc/1/root`) is refused whatever its proc shows.

use super::empty_path;
use crate::error::Error;
use crate::protocol::{Word, pair};
use brig_sys::clone::{clone_process, flags, setns};
use brig_sys::root::Root;
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Splits `/proc/PID/root/PATH` into the process and the path as that process sees it.
fn other_namespace(path: &Path) -> Option<(i32, PathBuf)> {
    let mut parts = path.strip_prefix("/proc").ok()?.components();
    let pid = parts.next()?.as_os_str().to_str()?.parse().ok()?;
    let rest = parts.as_path().strip_prefix("root").ok()?;
    Some((pid, Path::new("/").join(rest)))
}

/// Says whether a path names a file as another process sees it.
pub(super) fn is_named_by(path: &Path) -> bool {
    other_namespace(path).is_some()
}

/// Clones what `/proc/PID/root/PATH` names.
pub(super) fn clone_of_process(path: &Path, tree: OpenTreeFlags) -> io::Result<OwnedFd> {
    let (pid, inside) = other_namespace(path).ok_or(Errno::INVAL)?;
    let pidfd = pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
    clone_within(pidfd.as_fd(), &inside, tree)
}

/// Clones what a mount namespace has at a path, absolute or as seen from this process's directory. `namespace` is the namespace
/// itself, or a process in it.
pub(crate) fn clone_within(namespace: BorrowedFd<'_>, path: &Path, tree: OpenTreeFlags) -> io::Result<OwnedFd> {
    let path = std::path::absolute(path)?;
    let (ours, theirs) = pair().map_err(|error| error.source)?;
    let child = clone_process(0, None, || {
        let clone = || -> io::Result<OwnedFd> {
            setns(namespace, flags::NEWNS)?;
            let place = Root::open_directory(Path::new("/"))?.locate(&path)?;
            Ok(rustix::mount::open_tree(place.as_fd(), "", tree | empty_path())?)
        };
        match clone() {
            Ok(fd) => i32::from(theirs.send(Word::Maps, &[], &[fd.as_fd()]).is_err()),
            Err(error) => {
                let _ = theirs.send(Word::Failed, &Error::setup("clone the mount", error).to_bytes(), &[]);
                1
            }
        }
    })?;
    drop(theirs);
    let answer = ours.expect(Word::Maps).map_err(|error| error.source);
    let _ = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
    answer?.fds.into_iter().next().ok_or_else(|| Errno::BADF.into())
}
