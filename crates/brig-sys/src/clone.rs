//! A new process by clone3(2), or clone(2) where that is denied: with namespaces, a pidfd, and on cgroup v2 born in its cgroup.
//!
//! The caller must be single-threaded: only the calling thread exists in the child, and a lock that another thread
//! held would stay locked for ever. The monitor, the runtime and the helpers are; [`clone_process`] checks it.

use crate::{Error, Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Namespace and behaviour flags of clone3(2).
pub mod flags {
    /// A new mount namespace.
    pub const NEWNS: u64 = 0x0002_0000;
    /// A new cgroup namespace.
    pub const NEWCGROUP: u64 = 0x0200_0000;
    /// A new UTS namespace.
    pub const NEWUTS: u64 = 0x0400_0000;
    /// A new IPC namespace.
    pub const NEWIPC: u64 = 0x0800_0000;
    /// A new user namespace.
    pub const NEWUSER: u64 = 0x1000_0000;
    /// A new pid namespace.
    pub const NEWPID: u64 = 0x2000_0000;
    /// A new network namespace.
    pub const NEWNET: u64 = 0x4000_0000;
    /// A new time namespace; only for unshare(2), since clone3(2) uses the bit for the exit signal.
    pub const NEWTIME: u64 = 0x80;
    /// The child's parent is the caller's parent.
    pub const PARENT: u64 = 0x8000;
    pub(super) const PIDFD: u64 = 0x1000;
    pub(super) const INTO_CGROUP: u64 = 0x2_0000_0000;
}

/// A child that was just made.
#[derive(Debug)]
pub struct Child {
    /// Its pid as the caller sees it.
    pub pid: i32,
    /// A descriptor that refers to it for ever, pidfd_open(2).
    pub pidfd: OwnedFd,
}

/// Runs `child` in a new process made with `flags`, born in the cgroup v2 directory `cgroup` if one is given.
///
/// The child leaves by exec or `_exit` with the value that `child` returns; nothing of the caller's stack is unwound
/// and no exit handler runs. Errors: clone3(2), and `EBUSY` when the caller has several threads.
pub fn clone_process(flags: u64, cgroup: Option<BorrowedFd<'_>>, child: impl FnOnce() -> i32) -> Result<Child> {
    // In a container's mounts /proc does not show this process.
    if cfg!(debug_assertions) && thread_count().is_ok_and(|count| count != 1) {
        return Err(Error::from_raw_os_error(libc::EBUSY));
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain data, for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | self::flags::PIDFD;
    args.pidfd = (&raw mut pidfd) as u64;
    if flags & self::flags::PARENT == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(fd) = cgroup {
        args.flags |= self::flags::INTO_CGROUP;
        args.cgroup = u64::from(fd.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM the child gets a copy of the address space, as by fork(2); `args` outlives the call and
    // `pidfd` is an int, as clone3(2) asks.
    let made = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) });
    let pid = match made {
        // A container's seccomp profile denies clone3(2), whose flags it cannot look at; clone(2) does the same for them.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && cgroup.is_none() => {
            let flags = (args.flags | args.exit_signal).cast_signed();
            let nothing: libc::c_long = 0;
            // SAFETY: as above, without CLONE_VM and without a stack of its own; clone(2) stores the pidfd where its
            // third argument points, an int that outlives the call.
            check(unsafe { libc::syscall(libc::SYS_clone, flags, nothing, &raw mut pidfd, nothing, nothing) })?
        }
        other => other?,
    };
    if pid == 0 {
        let status = child();
        // SAFETY: _exit takes any value and does not return.
        unsafe { libc::_exit(status) }
    }
    // SAFETY: CLONE_PIDFD has stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: i32::try_from(pid).unwrap_or(-1), pidfd })
}

/// Ends the process at once, without exit handlers: for a child between clone and exec.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes any value and does not return.
    unsafe { libc::_exit(status) }
}

/// Enters the namespaces of the process behind `pidfd` that `flags` name, in one step; setns(2), Linux 5.8.
pub fn setns(pidfd: BorrowedFd<'_>, flags: u64) -> Result<()> {
    let flags = i32::try_from(flags).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: setns takes a descriptor and flags; it touches no memory of the caller.
    check(unsafe { libc::setns(pidfd.as_raw_fd(), flags) }.into()).map(drop)
}

/// Leaves the namespaces that `flags` name for new ones, unshare(2). The caller is single-threaded.
pub fn unshare(flags: u64) -> Result<()> {
    let flags = i32::try_from(flags).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the flags are namespace flags, which touch no memory; CLONE_FILES and the like are not offered.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

fn thread_count() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}
