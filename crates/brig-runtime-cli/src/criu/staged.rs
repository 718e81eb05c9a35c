//! The root file system as criu wants it: a mount of its own, with a mount point for each mount of the configuration.
//!
//! ```text
//! this process's own mount namespace (a slave of the machine's, gone with this process)
//!   <root>/<id>/criu-root     the root file system; criu makes the restored processes' mounts from it
//!   <root>/<id>/criu-binds/N  the bind of the configuration's mount number N
//! ```
//!
//! Root and binds are finished: read-only where they are to be, and with their id maps. criu's own copies have all of that from
//! them, whatever the images say, and it resolves no path of the configuration once more.
//!
//! Nothing of it ever appears in the machine's mount table. Mount points that are missing are made through
//! `openat2(RESOLVE_IN_ROOT)`; binds are mounted meanwhile, so that what lies within one is made there.

use super::externals::{clean, is_bind, is_cgroup};
use crate::failure::{Failure, Step};
use brig_spec::runtime::{Mount, Spec};
use brig_sys::clone::flags::NEWNS;
use brig_sys::mounts::{Attributes, RDONLY, set_attributes};
use brig_sys::root::Root;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The name of the directory below the container's.
const NAME: &str = "criu-root";
/// The name of the one with the binds.
const BINDS: &str = "criu-binds";

/// Moves this process to a mount namespace of its own. Directories that criu is to work in are opened afterwards: it mounts
/// in them too.
pub(crate) fn leave_machine() -> Result<(), Failure> {
    brig_sys::clone::unshare(NEWNS).step(|| "make a mount namespace for the restore")?;
    // What is mounted on the machine later reaches containers through here, as their configuration may ask.
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).step(|| "cut the mounts off from the machine's")
}

/// The mount, taken down with the value.
#[derive(Debug)]
pub(crate) struct Staged {
    path: PathBuf,
    mounted: bool,
    binds_path: PathBuf,
    binds: Vec<(PathBuf, PathBuf)>,
}

impl Staged {
    /// Mounts `rootfs` below `directory`, after [`leave_machine`].
    pub fn new(rootfs: &Path, directory: &Path, spec: &Spec) -> Result<Self, Failure> {
        let step = || format!("prepare the root file system {}", rootfs.display());
        let path = directory.join(NAME);
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)).step(|| format!("make {}", path.display()))?;
        let mut staged = Self { path, mounted: false, binds_path: directory.join(BINDS), binds: Vec::new() };
        let mount = clone_of(rootfs).step(step)?;
        let target = Root::open_directory(&staged.path).and_then(|at| at.locate(Path::new("."))).step(step)?;
        attach(mount.as_fd(), target.as_fd()).step(step)?;
        staged.mounted = true;
        staged.make_mount_points(spec)?;
        if spec.root.as_ref().is_some_and(|root| root.readonly) {
            let readonly = Attributes { set: RDONLY, ..Attributes::default() };
            set_attributes(mount.as_fd(), &readonly, false).step(step)?;
        }
        staged.mount_binds(spec)?;
        Ok(staged)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The binds by their destinations.
    pub fn binds(&self) -> &[(PathBuf, PathBuf)] {
        &self.binds
    }

    fn mount_binds(&mut self, spec: &Spec) -> Result<(), Failure> {
        let path = &self.binds_path;
        let step = || format!("mount the binds below {}", path.display());
        rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)).step(step)?;
        rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(c"mode=700")).step(step)?;
        let opened = brig_runtime::binds::open(spec)?;
        for (number, (mount, bind)) in spec.mounts.iter().zip(&opened).enumerate() {
            let Some(bind) = bind else { continue };
            let place = path.join(number.to_string());
            if is_directory(bind).step(step)? {
                rustix::fs::mkdir(&place, Mode::from_raw_mode(0o700)).step(step)?;
            } else {
                rustix::fs::mknodat(CWD, &place, FileType::RegularFile, Mode::from_raw_mode(0o600), 0).step(step)?;
            }
            let target = rustix::fs::open(&place, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            attach(bind.as_fd(), target.step(step)?.as_fd()).step(step)?;
            self.binds.push((clean(&mount.destination), place));
        }
        Ok(())
    }

    /// Makes what the mounts of the configuration are mounted on, as the making of a container does.
    fn make_mount_points(&self, spec: &Spec) -> Result<(), Failure> {
        let root = Root::open_directory(&self.path).step(|| format!("open {}", self.path.display()))?;
        let specified = &spec.mounts;
        let mut binds: Vec<OwnedFd> = Vec::new();
        let made = specified.iter().enumerate().try_for_each(|(at, mount)| {
            if is_cgroup(mount) || is_within_another(mount, &specified[..at]) {
                return Ok(());
            }
            binds.extend(make_mount_point(&root, mount)?);
            Ok(())
        });
        // What was mounted last lies on top.
        for bind in binds.iter().rev() {
            let path = format!("/proc/self/fd/{}", bind.as_raw_fd());
            rustix::mount::unmount(path, UnmountFlags::DETACH).step(|| "take a bind away again")?;
        }
        made
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.mounted {
            let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
        }
        let _ = rustix::fs::rmdir(&self.path);
        let _ = rustix::mount::unmount(&self.binds_path, UnmountFlags::DETACH);
        let _ = rustix::fs::rmdir(&self.binds_path);
    }
}

/// Says whether a mount lies in a file system that criu fills from the images, with all its mount points.
fn is_within_another(mount: &Mount, before: &[Mount]) -> bool {
    let destination = clean(&mount.destination);
    let covers = |other: &Mount| {
        let above = clean(&other.destination);
        !is_bind(other) && destination != above && destination.starts_with(&above)
    };
    before.iter().any(covers)
}

/// Makes one mount point; of a bind it is mounted there, and returned.
fn make_mount_point(root: &Root, mount: &Mount) -> Result<Option<OwnedFd>, Failure> {
    let destination = mount.destination.as_path();
    let step = || format!("make the mount point {}", destination.display());
    if !is_bind(mount) {
        root.make_directories(destination, Mode::from_raw_mode(0o755)).step(step)?;
        return Ok(None);
    }
    let source = mount.source.as_path();
    let clone = clone_of(source).step(|| format!("bind {} on {}", source.display(), destination.display()))?;
    let target = if is_directory(&clone).step(step)? {
        root.make_directories(destination, Mode::from_raw_mode(0o755))
    } else {
        root.make_file(destination, Mode::from_raw_mode(0o644))
    };
    attach(clone.as_fd(), target.step(step)?.as_fd()).step(step)?;
    Ok(Some(clone))
}

fn is_directory(fd: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

fn clone_of(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags)
}

fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}
