//! Layers that are images ([`brig_store::is_image`]): mounted once a machine, for all containers.
//!
//! ```text
//!   <root>/layers/<id>/image.erofs ---mount--> <run>/mnt/layers/<id>/ ---lower layer---> overlay of each container
//!                                              `-- in <run>/mnt: a private mount of its own
//! ```
//!
//! Each mount of an image is a file system of its own with a page cache of its own; so there is one, and every overlay that
//! has it as a lower layer reads through the same pages. A start makes the mount where it is missing: the first one, and the
//! first one after a reboot. [`sweep`] takes back what no layer on disk needs any more, [`unmount_unused`] what no container
//! runs on. The lock `<run>/mnt.lock` is held over every change, so that two starts make one mount, and a sweep takes away none
//! that is just being made.

mod warm;

pub use warm::cool;

use crate::config::Config;
use crate::disk;
use crate::error::{Error, Result};
use brig_sys::mounts::{Attributes, set_attributes};
use rustix::fs::{AtFlags, CWD, FlockOperation, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `MS_PRIVATE`, mount(2).
const PRIVATE: u64 = 1 << 18;
/// How long a start waits for others that mount or sweep.
const WAIT: Duration = Duration::from_secs(30);

/// Returns the directories that overlay takes for a container's layers, and mounts those that are images.
pub fn lowers(config: &Config, layers: &[PathBuf]) -> Result<Vec<PathBuf>> {
    layers
        .iter()
        .map(|layer| if brig_store::is_image(layer) { place(config, layer) } else { Ok(layer.clone()) })
        .collect()
}

/// Opens the root of one layer for as long as the descriptor is open, without a place for it on the machine.
pub fn open(layer: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if brig_store::is_image(layer) {
        return Ok(rustix::fs::openat(brig_store::mount_layer(layer)?, ".", flags, Mode::empty())?);
    }
    Ok(rustix::fs::open(layer, flags, Mode::empty())?)
}

/// Returns where a layer that is an image is mounted; mounts it if it is not.
fn place(config: &Config, layer: &Path) -> Result<PathBuf> {
    let failed = |error: io::Error| {
        Error::io(format!("cannot mount the layer {}", layer.display()), error)
            .hint("`brig doctor` tells whether this machine mounts layers that are images; otherwise remove the image, and pull it with `--layers directories`")
    };
    let name = name(layer).ok_or_else(|| failed(Errno::INVAL.into()))?;
    let mnt = config.run.join("mnt");
    let target = mnt.join("layers").join(name);
    if is_mounted(&target) {
        return Ok(target);
    }
    let _lock = lock(config)?;
    (|| {
        own_mount(&mnt)?;
        make_directory(&target)?;
        if !is_mounted(&target) {
            let (mount, warm) = brig_store::mount_layer_warm(layer)?;
            if warm {
                warm::mark(config, name)?;
            }
            attach(mount.as_fd(), &target)?;
        }
        Ok(())
    })()
    .map_err(failed)?;
    Ok(target)
}

/// Unmounts the images whose layer is no longer on disk. What a container still has mounted stays with the container.
pub fn sweep(config: &Config) -> Result<()> {
    unmount_if(config, |name| !config.root.join("layers").join(name).exists())
}

/// Unmounts all layers but those of containers that run: their monitors start them again from the same place.
pub fn unmount_unused(config: &Config) -> Result<()> {
    let listing = crate::containers::list(config)?;
    let active = listing.entries.iter().filter(|entry| entry.status.is_active() || entry.status.monitor_pid != 0);
    let used: HashSet<&OsStr> =
        active.flat_map(|entry| entry.record.image.layers.iter().filter_map(|l| name(l))).collect();
    unmount_if(config, |name| !used.contains(name))
}

/// The name of a layer's directory.
fn name(layer: &Path) -> Option<&OsStr> {
    layer.parent().and_then(Path::file_name)
}

fn unmount_if(config: &Config, goes: impl Fn(&OsStr) -> bool) -> Result<()> {
    let mnt = config.run.join("mnt");
    if !mnt.join("layers").is_dir() {
        return Ok(());
    }
    let failed = |error: io::Error| Error::io(format!("cannot unmount layers below {}", mnt.display()), error);
    let _lock = lock(config)?;
    for entry in std::fs::read_dir(mnt.join("layers")).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if !goes(&name) {
            continue;
        }
        unmount(&entry.path()).map_err(failed)?;
        remove_empty(&entry.path()).map_err(failed)?;
        warm::unmark(config, &name).map_err(failed)?;
    }
    remove_empty(&mnt.join("layers")).map_err(failed)?;
    leave(config).map_err(failed)
}

/// Takes `<run>/mnt` away when nothing is left below it. The lock must be held.
pub(crate) fn leave(config: &Config) -> io::Result<()> {
    let mnt = config.run.join("mnt");
    if std::fs::read_dir(&mnt)?.next().is_none() {
        unmount(&mnt)?;
        remove_empty(&mnt)?;
    }
    Ok(())
}

/// Takes the lock on `<run>/mnt`; what is below changes only under it.
pub(crate) fn lock(config: &Config) -> Result<File> {
    disk::make_directory(&config.run)?;
    let path = config.run.join("mnt.lock");
    let failed = |error: io::Error| Error::io(format!("cannot lock {}", path.display()), error);
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(failed)?;
    let start = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) if start.elapsed() < WAIT => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
}

/// Makes `<run>/mnt` a mount of its own that tells nobody of what is mounted below it.
pub(crate) fn own_mount(mnt: &Path) -> io::Result<()> {
    make_directory(mnt)?;
    if is_mounted(mnt) {
        return Ok(());
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = rustix::mount::open_tree(CWD, mnt, flags)?;
    attach(clone.as_fd(), mnt)?;
    set_attributes(clone.as_fd(), &Attributes { propagation: PRIVATE, ..Attributes::default() }, false)?;
    Ok(())
}

pub(crate) fn attach(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Tells whether something is mounted right at a path: statx(2), `STATX_ATTR_MOUNT_ROOT`.
pub(crate) fn is_mounted(path: &Path) -> bool {
    rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)
        .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // It is not mounted here.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(crate) fn remove_empty(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir(path) {
        Err(error) if !matches!(error.raw_os_error(), Some(2 | 16 | 39)) => Err(error),
        _ => Ok(()),
    }
}
