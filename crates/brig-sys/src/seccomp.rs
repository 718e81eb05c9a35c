//! Installing a compiled filter, seccomp(2).

use crate::{Error, Result, check};
use std::os::fd::{FromRawFd, OwnedFd};

/// One instruction of classic BPF, `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// How far to jump when the comparison holds.
    pub jt: u8,
    /// How far to jump when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Installs `filter` for the calling thread with `flags` (`SECCOMP_FILTER_FLAG_*`); with `NEW_LISTENER` the
/// notification descriptor is returned.
pub fn install(filter: &[Instruction], flags: u64) -> Result<Option<OwnedFd>> {
    const NEW_LISTENER: u64 = 1 << 3;
    let length = u16::try_from(filter.len()).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
    let program = Program { length, instructions: filter.as_ptr() };
    // SAFETY: `program` has the layout of struct sock_fprog and points at `length` instructions that outlive the call;
    // the kernel copies and verifies them.
    let value =
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) })?;
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = i32::try_from(value).map_err(|_| Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: with NEW_LISTENER the call returns a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}
