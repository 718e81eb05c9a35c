//! Loop devices: a file as a block device, loop(4).

use crate::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The major number of loop devices.
pub const MAJOR: u32 = 7;

/// `LO_FLAGS_READ_ONLY`.
pub const READ_ONLY: u32 = 1;
/// `LO_FLAGS_AUTOCLEAR`: the file is let go with the last descriptor or mount of the device.
pub const AUTOCLEAR: u32 = 4;
/// `LO_FLAGS_DIRECT_IO`: the file is read past the page cache.
pub const DIRECT_IO: u32 = 16;

const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;

/// `struct loop_info64`; all but the flags stays zero.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names_and_keys: [u64; 22],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// Returns the number of a device that nobody uses, and makes one where all are used; `LOOP_CTL_GET_FREE` on
/// `/dev/loop-control`. Somebody else may take the device before the caller does.
pub fn free_number(control: BorrowedFd<'_>) -> Result<u32> {
    // SAFETY: the request takes no argument.
    let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) }.into())?;
    u32::try_from(number).map_err(crate::Error::other)
}

/// Puts a file behind a loop device in one step, with blocks of `block_size` bytes; `LOOP_CONFIGURE` (Linux 5.8).
///
/// Errors: `EBUSY`, it has a file already, or somebody has claimed it.
pub fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>, block_size: u32, flags: u32) -> Result<()> {
    let info = Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags,
        names_and_keys: [0; 22],
    };
    let fd = u32::try_from(file.as_raw_fd()).map_err(crate::Error::other)?;
    let config = Config { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: `config` has the layout of struct loop_config (repr(C), 304 bytes, asserted below); the kernel only reads it.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }.into()).map(drop)
}

const _: () = assert!(size_of::<Info>() == 232 && size_of::<Config>() == 304);
