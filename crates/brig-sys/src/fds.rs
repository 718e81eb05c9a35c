//! Descriptors in bulk: what a container's process must not inherit.

use crate::{Result, check};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Marks every descriptor from `first` on close-on-exec, close_range(2) with `CLOSE_RANGE_CLOEXEC` (Linux 5.11).
pub fn cloexec_from(first: RawFd) -> Result<()> {
    let first = libc::c_uint::try_from(first).unwrap_or(3);
    // SAFETY: close_range with CLOEXEC closes nothing now; it touches no memory.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Closes every descriptor from `first` on, close_range(2): for a fresh program that was handed more than it asked for.
///
/// The caller owns no descriptor in that range.
pub fn close_from(first: RawFd) -> Result<()> {
    let first = libc::c_uint::try_from(first).unwrap_or(3);
    // SAFETY: called at the start of a program, before anything owns a descriptor of the range.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) }).map(drop)
}

/// Closes every descriptor from `first` on but those `kept`, which are sorted by number; close_range(2): for a process between
/// clone and exec or `_exit`, in which nothing that owned one of the others is used or dropped any more.
pub fn close_all_but(first: RawFd, kept: &[BorrowedFd<'_>]) -> Result<()> {
    use std::os::fd::AsRawFd;
    let number = |fd: RawFd| libc::c_uint::try_from(fd).unwrap_or(3);
    let mut next = number(first);
    let ends = kept.iter().map(|fd| number(fd.as_raw_fd())).filter(|fd| *fd >= number(first));
    for end in ends.map(Some).chain([None]) {
        let last = end.map_or(libc::c_uint::MAX, |end| end.saturating_sub(1));
        if next <= last && end != Some(0) {
            // SAFETY: the caller's process is a clone that uses none of the descriptors any more, and ends without dropping.
            check(unsafe { libc::syscall(libc::SYS_close_range, next, last, 0) })?;
        }
        next = end.map_or(next, |end| end + 1);
    }
    Ok(())
}

/// Closes a clone's own copy of a descriptor whose owner lives on in the process that it was cloned from; close(2).
///
/// The clone never drops that owner: it ends by exec or `_exit`.
pub fn close_copy(fd: BorrowedFd<'_>) {
    use std::os::fd::AsRawFd;
    // SAFETY: by the above nothing in this process uses the number any more.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Takes over a descriptor that the starter of this program passed by number; none when it is not open.
pub fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: fcntl with F_GETFD only looks at the descriptor table.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: the descriptor is open, and by the protocol between starter and program this process is its owner.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Puts a copy of `fd` at `number`, which will survive an exec; dup3(2). What was open there is closed.
pub fn place(fd: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    use std::os::fd::AsRawFd;
    if fd.as_raw_fd() == number {
        // SAFETY: F_SETFD changes one flag of an open descriptor.
        return check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: dup2 replaces `number`; callers use it in a child between clone and exec, for the standard descriptors.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}
