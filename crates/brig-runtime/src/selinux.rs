//! SELinux: the labels of a container's processes, of its session keyring and of what is mounted for it; config.md,
//! `process.selinuxLabel` and `linux.mountLabel`.
//!
//! ```text
//! process    attr/exec: tried when the container is made, so that a label which no policy knows is refused there; set last of all
//! keyring    attr/keycreate, while it is made
//! mounts     the option `context` of each new file system; proc, sysfs and cgroup keep the policy's, mqueue takes a label on its root
//! ```
//!
//! A kernel without SELinux refuses a label. One that has it and no policy yet would take any text and confine nothing: there the
//! label is left out, with a warning.

use crate::error::{Context, Error};
use crate::mounts::{Options, new_file_system};
use rustix::fs::{Mode, OFlags, ResolveFlags, XattrFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What SELinux does on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The kernel does not have it, or was booted without it.
    Absent,
    /// It waits for a policy.
    NoPolicy,
    /// A policy is loaded.
    Active,
}

/// Finds out what SELinux does: two small files are read.
pub fn state() -> State {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.lines().any(|line| line.ends_with("\tselinuxfs")) {
        return State::Absent;
    }
    // The name of the first initial identity, which stands for all until a policy gives it a context.
    let own = std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let own = own.trim_end_matches(['\0', '\n']);
    if own.is_empty() || own == "kernel" { State::NoPolicy } else { State::Active }
}

/// Takes a label of the configuration: none where it is empty, or where it would mean nothing, of which `warnings` tells then.
/// Errors: there is no SELinux.
pub(crate) fn take(label: &str, what: &str, warnings: &mut Vec<String>) -> Result<Option<String>, Error> {
    if label.is_empty() {
        return Ok(None);
    }
    match state() {
        State::Active => Ok(Some(label.to_owned())),
        State::NoPolicy => {
            warnings.push(format!("SELinux has no policy loaded: {what} is left without the label `{label}`"));
            Ok(None)
        }
        State::Absent => {
            // Callers know these words.
            let why = "selinux label is specified in config, but selinux is disabled or not supported";
            Err(Error::invalid(format!("set the security label `{label}` of {what}"), why))
        }
    }
}

/// Opens the first of these files of this process that exists, through a proc of our own: the container's could be a forgery.
pub(crate) fn open_attribute(paths: &[&str]) -> io::Result<OwnedFd> {
    let proc = new_file_system("proc", "proc", &Options::default())?;
    let mut last = Err(rustix::io::Errno::NOENT);
    for path in paths {
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        last = rustix::fs::openat2(&proc, *path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve);
        if last.is_ok() {
            break;
        }
    }
    Ok(last?)
}

/// Writes a label to a file of this process.
pub(crate) fn write(file: BorrowedFd<'_>, label: &str) -> Result<(), Error> {
    rustix::io::write(file, label.as_bytes())
        .map_err(explain)
        .step(|| format!("set the security label `{label}`"))
        .map(drop)
}

/// Takes a label back.
pub(crate) fn clear(file: BorrowedFd<'_>) -> Result<(), Error> {
    rustix::io::write(file, b"\n").step(|| "take the security label back".into()).map(drop)
}

/// While it lives, keyrings that this process makes have a label.
pub(crate) struct KeyLabel(OwnedFd);

impl KeyLabel {
    pub fn set(label: &str) -> Result<Self, Error> {
        let step = || format!("set the security label `{label}` of the session keyring");
        let file = open_attribute(&["thread-self/attr/keycreate"]).step(step)?;
        write(file.as_fd(), label)?;
        Ok(Self(file))
    }
}

impl Drop for KeyLabel {
    fn drop(&mut self) {
        let _ = clear(self.0.as_fd());
    }
}

/// Says whether a new file system of this type takes its label as an option.
pub(crate) fn labels_by_option(kind: &str) -> bool {
    // A superblock that all share cannot have two labels; the policy names those of these.
    !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2")
}

/// Labels the root of a mount. In a user namespace it may belong to the machine, and keeps what the policy gave it then.
pub(crate) fn label_root(mount: BorrowedFd<'_>, label: &str) -> io::Result<()> {
    let root = rustix::fs::openat(mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::fsetxattr(root, "security.selinux", label.as_bytes(), XattrFlags::empty()) {
        Err(rustix::io::Errno::PERM) => Ok(()),
        result => result.map_err(explain),
    }
}

/// The kernel's word for a label that the policy does not know is that of any wrong argument.
fn explain(errno: rustix::io::Errno) -> io::Error {
    match errno {
        rustix::io::Errno::INVAL => {
            io::Error::new(io::ErrorKind::InvalidInput, "Invalid argument: the loaded policy knows no such label")
        }
        other => other.into(),
    }
}
