//! mount_setattr(2), which rustix lacks, with constants as the manual page spells them.

use crate::{Result, check};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `MOUNT_ATTR_RDONLY`.
pub const RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub const NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`.
pub const NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`.
pub const NOEXEC: u64 = 0x8;
/// `MOUNT_ATTR__ATIME`: the mask of the access time settings.
pub const ATIME: u64 = 0x70;
/// `MOUNT_ATTR_NOATIME`.
pub const NOATIME: u64 = 0x10;
/// `MOUNT_ATTR_STRICTATIME`.
pub const STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NODIRATIME`.
pub const NODIRATIME: u64 = 0x80;
/// `MOUNT_ATTR_IDMAP`.
pub const IDMAP: u64 = 0x10_0000;
/// `MOUNT_ATTR_NOSYMFOLLOW`.
pub const NOSYMFOLLOW: u64 = 0x20_0000;

/// The change that [`set_attributes`] makes; the fields are those of `struct mount_attr`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Attributes {
    /// Flags to set.
    pub set: u64,
    /// Flags to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`; 0 leaves the propagation.
    pub propagation: u64,
    /// The user namespace whose maps an [`IDMAP`] mount uses.
    pub userns_fd: u64,
}

/// Changes the mount behind `fd` (with `recursive`, all below it), mount_setattr(2), Linux 5.12.
pub fn set_attributes(fd: BorrowedFd<'_>, attributes: &Attributes, recursive: bool) -> Result<()> {
    set_attributes_at(fd, c"", attributes, recursive)
}

/// Changes the mount at `path` below the directory `fd`; an empty path is the descriptor itself.
pub fn set_attributes_at(fd: BorrowedFd<'_>, path: &CStr, attributes: &Attributes, recursive: bool) -> Result<()> {
    let mut flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: `attributes` has the layout of struct mount_attr (repr(C), four u64) and its size is passed along.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<Attributes>(),
        )
    })
    .map(drop)
}
