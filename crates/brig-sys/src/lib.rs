//! The kernel's doors, typed: what rustix lacks, or what brig needs in one piece. The only crate with `unsafe`.
//!
//! Nothing here decides anything: a function does one job of the kernel, returns what the kernel said, and names its
//! manual page. Everything that rustix already offers safely is used from there by the other crates.

pub mod bpf;
pub mod clone;
pub mod device_programs;
#[cfg(target_arch = "x86_64")]
pub mod early;
pub mod exec;
pub mod fds;
pub mod heap;
pub mod interface;
pub mod keyring;
pub mod loop_device;
pub mod memory;
pub mod mounts;
pub mod musl;
pub mod page_cache;
pub mod program;
pub mod root;
pub mod schedule;
pub mod seccomp;
pub mod signals;
pub mod spawn;
pub mod tree;
pub mod verity;

pub use std::io::{Error, Result};

/// Turns a system call's return value into a result.
pub(crate) fn check(value: libc::c_long) -> Result<libc::c_long> {
    if value < 0 { Err(Error::last_os_error()) } else { Ok(value) }
}
