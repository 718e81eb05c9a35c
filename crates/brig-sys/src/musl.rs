//! musl under a program whose Rust library was built for glibc.
//!
//! A static glibc asks the processor 160 questions (CPUID) about its caches when it begins, and on a virtual machine each is a trip
//! to the hypervisor: 0.15 ms, twice as much as the kernel needs for the exec. musl asks none. The Rust library for glibc runs on it
//! as well: what the two of them exchange has the same layout (`tools/musl-layout` compares it), the 64 in names such as `open64` is
//! left out by the linker (`tools/rustc-static`), and the rest is here. What they do differently beside that has to be avoided:
//!
//! ```text
//! signals 32 to 34       refused by musl's functions               signals.rs makes the system calls itself
//! abort after a clone    ends the parent: musl keeps thread ids    abort() below
//! texts of errors        other words                               the usual ones below: callers match on some
//! memory                 asked of the kernel for each kind         malloc below: all is in the one heap
//! a script without #!    is not given to sh by execvp(3)           as with runc
//! panics                 are not unwound and show no backtrace     release builds abort in any case
//! ```

use std::ffi::{CStr, c_char, c_int};

/// Defines the names that the Rust library expects, for a program with the entry point of [`crate::early`].
#[macro_export]
macro_rules! musl_bridge {
    () => {
        /// Where the unwinder finds a function's tables: nowhere.
        #[unsafe(no_mangle)]
        extern "C" fn _dl_find_object(
            _address: *const ::std::ffi::c_void,
            _found: *mut ::std::ffi::c_void,
        ) -> ::std::ffi::c_int {
            -1
        }

        /// The Rust library asks whether posix_spawn(3) tells of a failed exec, which musl's does: so does glibc since this version.
        #[unsafe(no_mangle)]
        extern "C" fn gnu_get_libc_version() -> *const ::std::ffi::c_char {
            c"2.24".as_ptr()
        }

        /// Gives nothing back: `heap.rs` does.
        #[unsafe(no_mangle)]
        extern "C" fn malloc_trim(_pad: usize) -> ::std::ffi::c_int {
            0
        }

        #[unsafe(no_mangle)]
        extern "C" fn malloc(size: usize) -> *mut ::std::ffi::c_void {
            $crate::heap::take(size, 1)
        }

        #[unsafe(no_mangle)]
        extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut ::std::ffi::c_void {
            $crate::heap::take(size, align)
        }

        #[unsafe(no_mangle)]
        extern "C" fn calloc(count: usize, size: usize) -> *mut ::std::ffi::c_void {
            $crate::heap::take_zeroes(count, size)
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn realloc(pointer: *mut ::std::ffi::c_void, size: usize) -> *mut ::std::ffi::c_void {
            // SAFETY: as the caller of realloc(3) promises.
            unsafe { $crate::heap::resize(pointer, size) }
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn free(pointer: *mut ::std::ffi::c_void) {
            // SAFETY: as the caller of free(3) promises.
            unsafe { $crate::heap::give_back(pointer) }
        }

        /// Calls what is to be called before `main`.
        #[unsafe(no_mangle)]
        extern "C" fn __libc_start_init() {
            $crate::musl::call_initialisers();
        }

        /// Ends this process, whoever made it.
        #[unsafe(no_mangle)]
        extern "C" fn abort() -> ! {
            $crate::musl::abort()
        }

        /// The text of an error.
        #[unsafe(no_mangle)]
        extern "C" fn __xpg_strerror_r(
            errno: ::std::ffi::c_int,
            place: *mut ::std::ffi::c_char,
            size: usize,
        ) -> ::std::ffi::c_int {
            // SAFETY: as the caller of strerror_r(3) promises.
            unsafe { $crate::musl::error_text(errno, place, size) }
        }
    };
}

type Initialiser = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

unsafe extern "C" {
    // Set by the linker: a list of functions, and its end.
    static __init_array_start: [Initialiser; 0];
    static __init_array_end: [Initialiser; 0];
}

/// Calls the initialisers of the program with the arguments that the kernel gave it. musl's own way has no arguments; glibc passes
/// those of `main`, which is how the Rust library learns the command line.
#[cfg(target_arch = "x86_64")]
pub fn call_initialisers() {
    let (first, end) = ((&raw const __init_array_start).cast::<Initialiser>(), (&raw const __init_array_end).cast());
    let stack = crate::early::stack();
    if stack.is_null() {
        abort(); // linked without its entry point
    }
    // SAFETY: between the two marks there are functions and nothing else; the kernel puts argc, argc pointers, a null and the
    // environment's pointers where the stack began, execve(2).
    unsafe {
        let count = stack.read();
        let arguments = stack.add(1).cast::<*const c_char>();
        let mut one = first;
        while one < end {
            one.read()(c_int::try_from(count).unwrap_or(0), arguments, arguments.add(count + 1));
            one = one.add(1);
        }
    }
}

/// Ends this process by SIGABRT. musl's abort(3) sends it to the thread that the C library takes this one for, which after a clone(2)
/// of our own is the parent's.
pub fn abort() -> ! {
    let _ = crate::signals::reset();
    // SAFETY: the calls take numbers; _exit does not return.
    unsafe {
        let (pid, thread) = (libc::syscall(libc::SYS_getpid), libc::syscall(libc::SYS_gettid));
        libc::syscall(libc::SYS_tgkill, pid, thread, libc::SIGABRT);
        libc::_exit(128 + libc::SIGABRT)
    }
}

/// The errors for which musl has other words than the runtimes that callers know, with the usual ones; strerror(3).
const TEXTS: [(c_int, &CStr); 32] = [
    (libc::EIO, c"Input/output error"),
    (libc::ECHILD, c"No child processes"),
    (libc::ENOMEM, c"Cannot allocate memory"),
    (libc::EBUSY, c"Device or resource busy"),
    (libc::EXDEV, c"Invalid cross-device link"),
    (libc::EMFILE, c"Too many open files"),
    (libc::ENOTTY, c"Inappropriate ioctl for device"),
    (libc::ESPIPE, c"Illegal seek"),
    (libc::EDOM, c"Numerical argument out of domain"),
    (libc::ERANGE, c"Numerical result out of range"),
    (libc::EDEADLK, c"Resource deadlock avoided"),
    (libc::ENAMETOOLONG, c"File name too long"),
    (libc::ELOOP, c"Too many levels of symbolic links"),
    (libc::ETIME, c"Timer expired"),
    (libc::EOVERFLOW, c"Value too large for defined data type"),
    (libc::EUSERS, c"Too many users"),
    (libc::ENOTSOCK, c"Socket operation on non-socket"),
    (libc::EMSGSIZE, c"Message too long"),
    (libc::EOPNOTSUPP, c"Operation not supported"),
    (libc::EADDRINUSE, c"Address already in use"),
    (libc::EADDRNOTAVAIL, c"Cannot assign requested address"),
    (libc::ENETUNREACH, c"Network is unreachable"),
    (libc::ENETRESET, c"Network dropped connection on reset"),
    (libc::ECONNABORTED, c"Software caused connection abort"),
    (libc::EISCONN, c"Transport endpoint is already connected"),
    (libc::ENOTCONN, c"Transport endpoint is not connected"),
    (libc::ETOOMANYREFS, c"Too many references: cannot splice"),
    (libc::ETIMEDOUT, c"Connection timed out"),
    (libc::EHOSTUNREACH, c"No route to host"),
    (libc::EINPROGRESS, c"Operation now in progress"),
    (libc::EUCLEAN, c"Structure needs cleaning"),
    (libc::EDQUOT, c"Disk quota exceeded"),
];

/// Writes the text of an error, as strerror_r(3) of POSIX does.
///
/// # Safety
/// There is room for `size` bytes at `place`.
pub unsafe fn error_text(errno: c_int, place: *mut c_char, size: usize) -> c_int {
    let known = TEXTS.iter().find(|(number, _)| *number == errno);
    // SAFETY: strerror returns a C string that stays; it is not the name that is defined here.
    let text = known.map_or_else(|| unsafe { CStr::from_ptr(libc::strerror(errno)) }, |(_, text)| text);
    let bytes = text.to_bytes_with_nul();
    if bytes.len() > size {
        return libc::ERANGE;
    }
    // SAFETY: the caller has room for `size` bytes, and the text has no more.
    unsafe { place.copy_from_nonoverlapping(bytes.as_ptr().cast(), bytes.len()) };
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone::clone_process;
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    /// The tests are linked with glibc, whose words these are.
    #[test]
    fn errors_have_the_usual_words() {
        for errno in 0..200 {
            let mut place = [1; 128];
            // SAFETY: the place has as many bytes.
            assert_eq!(unsafe { error_text(errno, place.as_mut_ptr(), place.len()) }, 0);
            // SAFETY: the text ends with a null, and strerror returns a C string.
            let (ours, usual) = unsafe { (CStr::from_ptr(place.as_ptr()), CStr::from_ptr(libc::strerror(errno))) };
            assert_eq!(ours, usual, "{errno}");
        }
        // SAFETY: the place has four bytes.
        assert_eq!(unsafe { error_text(libc::EBUSY, [0; 4].as_mut_ptr(), 4) }, libc::ERANGE);
    }

    #[test]
    fn an_abort_ends_the_process_that_calls_it() {
        // SAFETY: the child of the fork has one thread, as clone_process asks, and calls nothing that another thread may hold up.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let child = clone_process(0, None, || abort());
            let ended = child.and_then(|child| {
                Ok(waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&child.pidfd)), WaitIdOptions::EXITED)?)
            });
            let signal = ended.ok().flatten().and_then(|ended| ended.terminating_signal());
            // SAFETY: _exit takes any value and does not return.
            unsafe { libc::_exit(i32::from(signal != Some(libc::SIGABRT))) }
        }
        let mut status = -1;
        // SAFETY: the status is an int that outlives the call.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0);
    }
}
