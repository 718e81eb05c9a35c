//! Signals as descriptors and masks: what a single-threaded poll loop needs, signalfd(2).

use crate::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigset_t is plain data; sigemptyset and sigaddset initialise and change only the set given.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Blocks `signals` for the calling thread, and nothing else; sigprocmask(2).
pub fn block_only(signals: &[i32]) -> Result<()> {
    let set = set_of(signals);
    // SAFETY: the set outlives the call and no old set is asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) }.into()).map(drop)
}

/// Blocks `signals` and returns a non-blocking, close-on-exec descriptor from which they are read.
pub fn descriptor(signals: &[i32]) -> Result<OwnedFd> {
    block_only(signals)?;
    let set = set_of(signals);
    // SAFETY: signalfd with -1 makes a new descriptor from a set that outlives the call.
    let fd = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }.into())?;
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
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        if HIDDEN.contains(&signal) {
            set_hidden(signal, libc::SIG_DFL)?;
            continue;
        }
        // SAFETY: SIG_DFL is a valid action for every signal that can be caught.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    unblock_all()
}

/// Signals that the C library keeps for itself: its functions refuse them and leave them out of masks. A caller that was made
/// otherwise may have them ignored or blocked, and the kernel passes that on.
const HIDDEN: [libc::c_int; 2] = [32, 33];

/// The size of the kernel's own signal set, bytes: 64 signals.
const KERNEL_SET: usize = 8;

fn set_hidden(signal: libc::c_int, handler: libc::sighandler_t) -> Result<()> {
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

/// Unblocks every signal, by the kernel's own call: the C library's leaves its two as they are.
fn unblock_all() -> Result<()> {
    let none = 0u64;
    // SAFETY: the set has the size that is passed along and outlives the call; no old set is asked for.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, std::ptr::null::<u64>(), KERNEL_SET)
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

/// Ignores a signal from now on.
pub fn ignore(signal: i32) {
    if HIDDEN.contains(&signal) {
        let _ = set_hidden(signal, libc::SIG_IGN);
        return;
    }
    // SAFETY: SIG_IGN is a valid action for every signal that can be caught.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
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
