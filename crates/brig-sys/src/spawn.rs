//! Starting a program beside this one, as posix_spawn(3) does, without its 64 questions about signals.
//!
//! The child is made by clone(2) with `CLONE_VM` and `CLONE_VFORK`: no page table is copied, and this thread waits until the
//! program runs. Signal handlers end with the exec by themselves; until right before it every signal is blocked, and then the
//! child has the mask of its maker: no handler of a signal that this leaves open may rely on being in its own process.

use crate::exec::{StringList, execve};
use crate::{Error, Result, check, fds};
use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

/// Room for the child's few calls, bytes.
const STACK: usize = 64 * 1024;

struct Start<'a> {
    path: &'a CStr,
    argv: &'a StringList,
    envp: &'a StringList,
    stdio: [BorrowedFd<'a>; 3],
    mask: libc::sigset_t,
    failure: Option<Error>,
}

/// Starts the program at `path` with these standard descriptors, none of which is below 3, and with the signal mask of this thread.
/// Returns its pid. Errors: clone(2), and what keeps the program from being executed, execve(2).
pub fn spawn(path: &CStr, argv: &StringList, envp: &StringList, stdio: [BorrowedFd<'_>; 3]) -> Result<i32> {
    // SAFETY: sigset_t is plain data; sigfillset initialises the set given.
    let (all, mask) = unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        (all, std::mem::zeroed())
    };
    let mut start = Start { path, argv, envp, stdio, mask, failure: None };
    // SAFETY: both sets outlive the call, which fills the second.
    check(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut start.mask) }.into())?;
    let mut stack = vec![MaybeUninit::<u128>::uninit(); STACK / size_of::<u128>()];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack grows down from its end, which is aligned as a u128 is; with CLONE_VFORK this thread goes on when the child
    // has executed or ended, so that stack and `start` outlive it; `run` allocates nothing that it would leave behind.
    let made = check(
        unsafe { libc::clone(run, stack.as_mut_ptr_range().end.cast(), flags, (&raw mut start).cast::<c_void>()) }
            .into(),
    );
    // SAFETY: the set was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const start.mask, std::ptr::null_mut()) };
    let pid = c_int::try_from(made?).unwrap_or(-1);
    if let Some(failure) = start.failure {
        // SAFETY: waitpid with a null status only reaps the child, which is ending.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        return Err(failure);
    }
    Ok(pid)
}

extern "C" fn run(start: *mut c_void) -> c_int {
    // SAFETY: the caller passes its own `Start`, which nobody else touches until this process has executed or ended.
    let start = unsafe { &mut *start.cast::<Start<'_>>() };
    let placed = (0..).zip(start.stdio).try_for_each(|(number, fd)| fds::place(fd, number));
    // SAFETY: the set is one that the kernel filled.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const start.mask, std::ptr::null_mut()) };
    start.failure = Some(match placed {
        Ok(()) => execve(start.path, start.argv, start.envp),
        Err(error) => error,
    });
    // SAFETY: _exit takes any value and does not return.
    unsafe { libc::_exit(127) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn list(words: &[&str]) -> StringList {
        StringList::new(words).unwrap()
    }

    #[test]
    fn the_program_has_what_it_was_given_and_nothing_else() {
        let (mut out, end) = std::io::pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let stdio = [null.as_fd(), end.as_fd(), end.as_fd()];
        let script = "echo \"$A\" \"$HOME\"; echo err >&2; exit 7";
        let pid = spawn(c"/bin/sh", &list(&["sh", "-c", script]), &list(&["A=1"]), stdio).unwrap();
        drop(end);
        let mut said = String::new();
        out.read_to_string(&mut said).unwrap();
        assert_eq!(said, "1 \nerr\n");
        let mut status = 0;
        // SAFETY: the status is an int that outlives the call.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(libc::WEXITSTATUS(status), 7);
    }

    #[test]
    fn what_cannot_be_executed_is_told_and_leaves_no_child() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let stdio = [null.as_fd(); 3];
        let error = spawn(c"/nowhere/at-all", &list(&["x"]), &list(&[]), stdio).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        // SAFETY: the set is plain data that the call fills.
        let blocked = unsafe {
            let mut set = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set);
            libc::sigismember(&raw const set, libc::SIGTERM)
        };
        assert_eq!(blocked, 0);
    }
}
