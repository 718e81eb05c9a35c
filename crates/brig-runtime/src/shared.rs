//! A container in a mount namespace that others have too: one that is joined, or the maker's own.
//!
//! Nothing is mounted there, so nothing is to be taken away, and nobody there can touch what the container has. Its mounts are made
//! as every container's are, in a new mount namespace, and then taken along as a tree that lies in none:
//!
//! ```text
//! new namespace                                   the namespace of others
//!   root, mounts, devices, masks
//!   open_tree(CLONE, recursive) -> the tree
//!   setns  ------------------------------------->  fchdir(tree), chroot(".")
//!   (gone: nobody is left in it)                   execve closes the tree: it lives on as the root of the container's
//!                                                  processes, and goes with the last of them
//! ```
//!
//! No ".." leads out of the tree, whose root lies on nothing. What such a container does not have: its mounts are in nobody's
//! table, so /proc/self/mountinfo is empty and mount(2) is refused; the kernel takes the tree for a foreign one, whose set-user-id
//! bits and file capabilities count for nothing, and whose paths an AppArmor profile admits only with `attach_disconnected`. Who
//! has CAP_SYS_ADMIN and CAP_SYS_CHROOT can enter the namespace anew, and stands at its root then: this is what sharing it means.
//!
//! A container whose root is the namespace's own, and for which nothing is to be mounted, has simply that root.

use crate::error::{Context, Error};
use crate::mounts::{Mount, clone_of, clone_within};
use crate::settings::Settings;
use brig_spec::runtime::{LinuxNamespaceType, Spec};
use brig_sys::clone::{flags, setns};
use brig_sys::mounts::{Attributes, set_attributes};
use brig_sys::root::Root;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, OpenTreeFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Says whether a container runs in a mount namespace that others have too: the maker's, or one that is joined.
pub fn shares_mounts(spec: &Spec) -> bool {
    spec.namespace(LinuxNamespaceType::Mount).is_none_or(|namespace| namespace.joined().is_some())
}

/// Says whether nothing at all is to be mounted for a container whose root is the namespace's own.
pub(crate) fn is_bare(settings: &Settings, rootfs: Option<&Path>, spec: &Spec) -> bool {
    let nothing_hidden = settings.masked.is_empty() && settings.readonly.is_empty() && !settings.root_readonly;
    let nothing_made = spec.mounts.is_empty() && spec.linux.as_ref().is_none_or(|linux| linux.devices.is_empty());
    let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    settings.namespaces.mounts.shared().is_some()
        && rootfs == Some(Path::new("/"))
        && nothing_made
        && nothing_hidden
        && settings.root_propagation.is_none()
        && !terminal
}

/// Opens the root file system of a container as the joined namespace has it, as a detached mount.
pub(crate) fn open_root(namespace: BorrowedFd<'_>, path: &Path, settings: &Settings) -> Result<OwnedFd, Error> {
    let step = || format!("open the root file system {} in the mount namespace that is joined", path.display());
    let tree = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let root = clone_within(namespace, path, tree).step(step)?;
    let private = settings.propagation == MountPropagationFlags::PRIVATE;
    let propagation = if private { MountPropagationFlags::PRIVATE } else { MountPropagationFlags::DOWNSTREAM };
    let attributes = Attributes { propagation: propagation.bits().into(), ..Attributes::default() };
    set_attributes(root.as_fd(), &attributes, true).step(step)?;
    Ok(root)
}

/// Refuses what a tree of mounts cannot have.
pub(crate) fn check(mounts: &[Mount]) -> Result<(), Error> {
    const UNBINDABLE: MountPropagationFlags = MountPropagationFlags::UNBINDABLE;
    let unbindable =
        |mount: &&Mount| mount.options.propagation.is_some_and(|(kind, _)| kind == u64::from(UNBINDABLE.bits()));
    match mounts.iter().find(unbindable) {
        None => Ok(()),
        Some(mount) => Err(Error::invalid(
            format!("mount on {}", mount.destination.display()),
            "an unbindable mount needs a container with a mount namespace of its own",
        )),
    }
}

/// Enters the namespace with the container's tree of mounts as the root; `bare`: with the namespace's own. Returns the new root.
pub(crate) fn enter(namespace: BorrowedFd<'_>, root: BorrowedFd<'_>, bare: bool) -> Result<Root, Error> {
    let tree = clone_of(root, true).step(|| "take the container's mounts along".into())?;
    setns(namespace, flags::NEWNS)
        .step(|| "enter the mount namespace (the container's user namespace needs rights there)".into())?;
    if bare {
        return Root::open_directory(Path::new("/")).step(|| "open the root of the mount namespace".into());
    }
    change_root(tree.as_fd())?;
    Ok(Root::new(tree))
}

/// Makes a directory the root of this process.
pub(crate) fn change_root(root: BorrowedFd<'_>) -> Result<(), Error> {
    let step = || "make the root file system the root".to_owned();
    rustix::process::fchdir(root).step(step)?;
    rustix::process::chroot(".").step(step)?;
    rustix::process::chdir("/").step(step)
}

/// Opens the root of a container's first process: in a namespace of others it is not to be found there.
pub(crate) fn root_of(pid: i32, pidfd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let step = || "open the container's root".to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()).step(step)?;
    // Only now can the pid no longer have become another's.
    brig_sys::signals::send_to(pidfd, 0).step(step)?;
    Ok(root)
}
