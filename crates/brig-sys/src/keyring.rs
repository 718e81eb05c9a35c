//! The session keyring: a container gets one of its own, so that it cannot read its starter's keys.

use crate::{Result, check};
use std::ffi::CStr;

/// Joins a new session keyring of this name, keyctl(2) `KEYCTL_JOIN_SESSION_KEYRING`.
pub fn join_session(name: &CStr) -> Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the operation reads a NUL-terminated string, which outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr(), 0, 0, 0) }).map(drop)
}

/// Joins a new session keyring without a name, which nobody else can join.
pub fn new_session() -> Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: without a name the operation reads no memory of the caller.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0, 0, 0, 0) }).map(drop)
}
