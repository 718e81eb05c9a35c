//! Starting a program: execve(2) by path or by descriptor, with everything allocated before.

use crate::{Error, Result};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A list of strings in the form that execve(2) takes, made before the fork so that the child need not allocate.
#[derive(Debug)]
pub struct StringList {
    // Never read, but the pointers below point into it.
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl StringList {
    /// Makes a list. Errors: `EINVAL` when a string holds a NUL byte.
    pub fn new<T: AsRef<[u8]>>(strings: impl IntoIterator<Item = T>) -> Result<Self> {
        let strings = strings
            .into_iter()
            .map(|s| CString::new(s.as_ref()).map_err(|_| Error::from_raw_os_error(libc::EINVAL)))
            .collect::<Result<Vec<_>>>()?;
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { _strings: strings, pointers })
    }
}

/// Replaces the program by the file at `path`; returns only upon failure, execve(2).
pub fn execve(path: &CStr, argv: &StringList, envp: &StringList) -> Error {
    // SAFETY: path is NUL-terminated, and both lists end with a null pointer and point at strings they own.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    Error::last_os_error()
}

/// Replaces the program by the file behind `fd`; returns only upon failure, execveat(2) with `AT_EMPTY_PATH`.
pub fn execve_fd(fd: BorrowedFd<'_>, argv: &StringList, envp: &StringList) -> Error {
    // SAFETY: as for execve; the empty path is a NUL-terminated literal.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Error::last_os_error()
}
