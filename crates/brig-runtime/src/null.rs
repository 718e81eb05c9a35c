//! Standard descriptors that lead to the machine's null device lead to the container's own instead: what a process has open
//! should lie in its own mounts, or no checkpoint could say where it is to be found again.

use brig_sys::root::Root;
use rustix::fs::{FileType, OFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Opens the container's null device for each standard descriptor that is one. A container without it keeps what it has.
pub(crate) fn reopen(root: &Root) {
    let is_null = |fd: BorrowedFd<'_>| {
        rustix::fs::fstat(fd).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == rustix::fs::makedev(1, 3)
        })
    };
    let standard = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for (number, fd) in (0..).zip(standard) {
        if !is_null(fd) {
            continue;
        }
        let access = rustix::fs::fcntl_getfl(fd).unwrap_or(OFlags::RDWR) & OFlags::RWMODE;
        let flags = access | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // The image may have put something else there: a device is looked at before it is opened for use.
        let opened = root.locate_nofollow(Path::new("/dev/null")).ok().filter(|place| is_null(place.as_fd()));
        let opened = opened.and_then(|_| root.open(Path::new("/dev/null"), flags, rustix::fs::Mode::empty()).ok());
        let Some(null) = opened.filter(|null| is_null(null.as_fd())) else { continue };
        if rustix::fs::fcntl_setfl(&null, access).is_ok() {
            let _ = brig_sys::fds::place(null.as_fd(), number);
        }
    }
}
