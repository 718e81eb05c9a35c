//! Doors into a container's network namespace.
//!
//! A socket belongs to the namespace in which it was opened, for good. So the thread steps in, opens the socket (and
//! writes what only /proc/sys offers), steps back out, and goes on talking to it from outside.
//!
//! The step changes the calling thread alone. Callers that have other threads are not disturbed; callers that share
//! this thread with other work see their own namespace again when the call returns.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Error, Result};

/// Runs `work` inside the network namespace and returns to the former one.
pub(crate) fn inside<T>(netns: BorrowedFd<'_>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let enter = |fd: BorrowedFd<'_>, name: &str| {
        move_into_link_name_space(fd, Some(LinkNameSpaceType::Network))
            .map_err(|errno| Error::kernel("enter network namespace", name, errno))
    };
    let home = current().map_err(|errno| Error::kernel("open", "/proc/thread-self/ns/net", errno))?;
    enter(netns, "of the container")?;
    let result = work();
    enter(home.as_fd(), "of the host")?;
    result
}

/// Opens the calling thread's network namespace.
pub(crate) fn current() -> std::result::Result<OwnedFd, Errno> {
    open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}
