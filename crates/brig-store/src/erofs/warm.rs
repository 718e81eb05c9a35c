//! An image right after it was written: its pages are in memory already, and reading them again from the disk would be slow.
//!
//! ```text
//!   mounted directly (`directio`)   data:  disk ------------------> pages of the mounted files
//!   mounted warm                    data:  disk -> pages of the image -> pages of the mounted files
//! ```
//!
//! Warm, what a container reads is copied from memory, but is there twice from then on. So an image is mounted warm only
//! while it is in memory anyway, and [`cool`] changes the mount and lets the kernel have the image's own pages.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Advice, CWD};
use rustix::mount::FsPickFlags;

/// Mounts an image as [`super::mount`] does; warm if all but a sixteenth of it is in memory. Returns whether it is warm.
pub fn mount_warm(path: &Path) -> io::Result<(OwnedFd, bool)> {
    let file = super::open(path)?;
    // What was never written, where inodes were given room and none came, is no page either.
    let written = u64::try_from(rustix::fs::fstat(&file)?.st_blocks).unwrap_or(0) * 512;
    // A kernel that cannot tell mounts directly.
    let warm = brig_sys::page_cache::cached(file.as_fd()).is_ok_and(|cached| cached >= written - written / 16);
    let (mount, backing) = super::mount_file(file.as_fd(), !warm)?;
    // A loop device reads past the pages of the image if it can, and nothing changes that later.
    Ok((mount, warm && backing != super::Backing::LoopDevice))
}

/// Makes a mounted image that is warm read directly from now on, and forgets the pages of its file. What containers have
/// read stays in memory.
pub fn cool(mounted: &Path, path: &Path) -> io::Result<()> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_SYMLINK_NOFOLLOW;
    let context = rustix::mount::fspick(CWD, mounted, flags)?;
    rustix::mount::fsconfig_set_flag(context.as_fd(), super::DIRECT)?;
    rustix::mount::fsconfig_reconfigure(context.as_fd())?;
    rustix::fs::fadvise(super::open_unchecked(path)?, 0, None, Advice::DontNeed)?;
    Ok(())
}
