//! The program against the container: nobody inside can write to the file that monitors and execs run from.
//!
//! A process of the container can open /proc/PID/exe of the process that starts it, and wait until it may write
//! (CVE-2019-5736). So monitors are executed through a detached, read-only clone of the mount that the program lies on:
//! every way through /proc/PID/exe ends on that mount and is refused with EROFS, whoever asks. The clone has no name and
//! no place in any mount table, and goes with the last process that uses it. It costs two system calls and no memory;
//! the page cache stays shared, which a copy in memory would not.

use brig_sys::mounts::{Attributes, RDONLY, set_attributes};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::OpenTreeFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Opens `program` for execution on a read-only clone of its mount.
///
/// Where the program itself runs from such a clone already (brig inside brig), it is opened as it is.
pub fn open(program: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match rustix::mount::open_tree(CWD, program, flags) {
        Ok(clone) => {
            set_attributes(clone.as_fd(), &Attributes { set: RDONLY, ..Attributes::default() }, false)?;
            Ok(clone)
        }
        Err(rustix::io::Errno::INVAL) => {
            let fd = rustix::fs::open(program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let flags = rustix::fs::fstatvfs(&fd)?.f_flag;
            if flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
                Ok(fd)
            } else {
                Err(rustix::io::Errno::INVAL.into())
            }
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clone_runs_and_cannot_be_written_even_by_root() {
        let scratch = std::env::temp_dir().join(format!("brig-protect-{}", std::process::id()));
        std::fs::copy("/bin/true", &scratch).unwrap();
        let fd = open(&scratch).unwrap();
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        assert!(std::process::Command::new(&path).status().unwrap().success());
        let error = std::fs::OpenOptions::new().write(true).open(&path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(30), "EROFS");
        std::fs::remove_file(scratch).unwrap();
    }
}
