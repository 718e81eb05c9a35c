//! Signals as descriptors and masks: what a single-threaded poll loop needs, signalfd(2).

use crate::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The size of the kernel's own signal set, bytes: 64 signals.
const KERNEL_SET: usize = size_of::<u64>();

/// The kernel's set of these signals. That of the C library leaves out the ones that it keeps for itself: 32 and 33, musl 34 too.
fn set_of(signals: &[i32]) -> u64 {
    signals.iter().filter(|signal| (1..=64).contains(*signal)).fold(0, |set, signal| set | 1 << (signal - 1))
}

/// Sets the mask of the calling thread, by the kernel's own call: the C library's leaves out its signals here too.
fn set_mask(set: u64) -> Result<()> {
    // SAFETY: the set has the size that is passed along and outlives the call; no old set is asked for.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const set, std::ptr::null::<u64>(), KERNEL_SET)
    })
    .map(drop)
}

/// Blocks `signals` for the calling thread, and nothing else; sigprocmask(2).
pub fn block_only(signals: &[i32]) -> Result<()> {
    set_mask(set_of(signals))
}

/// Blocks `signals` and returns a non-blocking, close-on-exec descriptor from which they are read.
pub fn descriptor(signals: &[i32]) -> Result<OwnedFd> {
    block_only(signals)?;
    let (set, flags) = (set_of(signals), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
    // SAFETY: signalfd with -1 makes a new descriptor from a set of the given size that outlives the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const set, KERNEL_SET, flags) })?;
    // SAFETY: the descriptor is new and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}

/// Reads one pending signal's number; none when there is none.
pub fn next(fd: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: signalfd_siginfo is plain data, for which all zeroes is valid.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer has exactly the size that a read of a signalfd returns.
    let read = unsafe { libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size) };
    if read == isize::try_from(size).unwrap_or(0) { i32::try_from(info.ssi_signo).ok() } else { None }
}

/// Gives every signal its default action and unblocks all: the state in which a container's program starts.
pub fn reset() -> Result<()> {
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        set_action(signal, libc::SIG_DFL)?;
    }
    set_mask(0)
}

/// Sets an action that is no function, by the kernel's own call: the C library refuses its signals, but a caller that was made
/// otherwise may have them ignored, and the kernel passes that on.
fn set_action(signal: libc::c_int, handler: libc::sighandler_t) -> Result<()> {
    // The kernel's struct sigaction: handler, flags, restorer and mask, each eight bytes on x86-64. Other architectures order or
    // leave out some of the latter three, and all of them are zero here.
    let action = [handler, 0, 0, 0];
    // SAFETY: the action is at least as large as the kernel's structure and holds SIG_DFL or SIG_IGN, which are no code to be
    // called, without flags; no old action is asked for.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), std::ptr::null::<usize>(), KERNEL_SET)
    })
    .map(drop)
}

/// Lets `signals` end the process with 128 and the signal's number, even the first of a pid namespace, which others cannot end by
/// signals without a handler; pid_namespaces(7).
pub fn exit_on(signals: &[i32]) {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit takes any value, does not return, and is safe within a handler.
        unsafe { libc::_exit(128 + signal) }
    }
    for &signal in signals {
        // SAFETY: the handler calls nothing but _exit, and lives as long as the program.
        unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) };
    }
}

/// Ignores a signal from now on; nothing for one that cannot be ignored.
pub fn ignore(signal: i32) {
    let _ = set_action(signal, libc::SIG_IGN);
}

/// Sends `signal` to a process by pid, kill(2). For processes whose identity a pidfd holds, use that instead.
pub fn send(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill takes two numbers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Sends any signal, real-time ones included, to the process behind `pidfd`; pidfd_send_signal(2).
pub fn send_to(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: no siginfo is passed, so the call reads no memory.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    })
    .map(drop)
}
