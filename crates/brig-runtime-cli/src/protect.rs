//! The program against the container, for the commands that put a process into one: they go on from a read-only clone of the
//! mount that the program lies on (see `brig-monitor`'s `protect.rs`), so that nobody inside can ever write to the file
//! (CVE-2019-5736). As a rule `brig-sys`'s `early.rs` has seen to that before the program began; this makes sure of it, and
//! knows the way for those who may not mount.

use crate::failure::{Failure, Step};
use brig_sys::exec::{StringList, execve_fd};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const SELF: &str = "/proc/self/exe";

/// Goes on from a protected copy of this program, unless it is one already.
pub(crate) fn go_on_protected() -> Result<(), Failure> {
    let step = || "protect this program against its containers";
    #[cfg(target_arch = "x86_64")]
    if brig_sys::early::is_protected() {
        return Ok(());
    }
    let on_readonly = rustix::fs::statvfs(SELF).is_ok_and(|s| s.f_flag.contains(StatVfsMountFlags::RDONLY));
    if on_readonly || is_sealed() {
        return Ok(());
    }
    let protected = match brig_monitor::protect::open(Path::new(SELF)) {
        Ok(clone) => clone,
        // Whoever may not mount takes a sealed copy in memory.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => sealed_copy().step(step)?,
        Err(error) => return Err(Failure::step(step(), &error)),
    };
    let arguments = StringList::new(std::env::args_os().map(|a| a.as_bytes().to_vec())).step(step)?;
    let environment = std::env::vars_os().map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat());
    let environment = StringList::new(environment).step(step)?;
    Err(Failure::step(step(), &execve_fd(protected.as_fd(), &arguments, &environment)))
}

fn all_seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

fn is_sealed() -> bool {
    let readable = rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    readable.and_then(rustix::fs::fcntl_get_seals).is_ok_and(|seals| seals.contains(all_seals()))
}

fn sealed_copy() -> std::io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("brig-runtime", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = std::fs::File::from(memory);
    std::io::copy(&mut std::fs::File::open(SELF)?, &mut copy)?;
    rustix::fs::fcntl_add_seals(&copy, all_seals())?;
    Ok(copy.into())
}
