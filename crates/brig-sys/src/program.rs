//! How a small program of brig begins: without what the Rust library does before `main`, and, where it is to be had, on musl.
//!
//! ```text
//! kernel ──> early.rs ──> _start of the C library ──> main of `program!` ──> the program's own function
//! ```
//!
//! The Rust library looks for the bounds of the main thread's stack before `main`, to tell an overflow of it from other faults; it
//! reads a file or makes thirty system calls for that, and a runtime begins ten thousand times a day. What it does beside that is
//! done here: standard descriptors that are closed are opened on /dev/null, and SIGPIPE is ignored.
//!
//! A static glibc asks the processor 160 questions (CPUID) about its caches when it begins, and on a virtual machine each is a trip
//! to the hypervisor: 0.15 ms, twice as much as the kernel needs for the exec. musl asks none. The Rust library for glibc runs on it
//! as well, since what the two of them exchange has the same layout on Linux (`tools/musl-layout` compares it); the few names that
//! musl lacks are in [`musl_bridge`].

use std::ffi::c_int;

/// Defines `main`: `$run` is a function without arguments that returns the exit status.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        #[cfg(not(test))]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            _count: ::std::ffi::c_int,
            _arguments: *const *const ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            $crate::program::prepare();
            // Not by returning: this flushes what is buffered.
            ::std::process::exit($run())
        }

        #[cfg(test)]
        const _: fn() -> i32 = $run;

        #[cfg(not(test))]
        #[global_allocator]
        static ALLOCATOR: $crate::arena::Allocator = $crate::arena::Allocator;
    };
}

/// Defines the names that the Rust library for glibc expects, and that musl does not have; for a program with the entry point of
/// [`crate::early`].
#[macro_export]
macro_rules! musl_bridge {
    () => {
        /// The unwinder's quick way to a function's tables, which answers that there are none.
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

        /// Gives nothing back: musl returns freed pages by itself.
        #[unsafe(no_mangle)]
        extern "C" fn malloc_trim(_pad: usize) -> ::std::ffi::c_int {
            0
        }

        /// Calls what is to be called before `main`. musl's own does so without arguments; glibc passes those of `main`, which is how
        /// the Rust library learns the command line.
        #[unsafe(no_mangle)]
        extern "C" fn __libc_start_init() {
            $crate::program::call_initialisers();
        }
    };
}

/// What the Rust library does before `main` and a program relies on.
pub fn prepare() {
    let mut standard = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: poll fills the three structures that it is given.
    let asked = unsafe { libc::poll(standard.as_mut_ptr(), 3, 0) };
    for one in standard.iter().filter(|one| asked > 0 && one.revents & libc::POLLNVAL != 0) {
        // The lowest number that is free is this one, since those below it are open by now.
        // SAFETY: the path is a C string.
        let opened = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        if opened != one.fd {
            // A container's pipe or socket must never get one of these numbers.
            std::process::abort();
        }
    }
    // SAFETY: to ignore a signal runs no code of this program.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

type Initialiser = extern "C" fn(c_int, *const *const libc::c_char, *const *const libc::c_char);

unsafe extern "C" {
    // Set by the linker: a list of functions, and its end.
    static __init_array_start: [Initialiser; 0];
    static __init_array_end: [Initialiser; 0];
}

/// Calls the initialisers of the program with the arguments that the kernel gave it, as glibc does.
#[cfg(target_arch = "x86_64")]
pub fn call_initialisers() {
    let (first, end) = ((&raw const __init_array_start).cast::<Initialiser>(), (&raw const __init_array_end).cast());
    let stack = crate::early::stack();
    // SAFETY: between the two marks there are functions and nothing else; the kernel puts argc, argc pointers, a null and the
    // environment's pointers where the stack began, execve(2).
    unsafe {
        let count = stack.read();
        let arguments = stack.add(1).cast::<*const libc::c_char>();
        let mut one = first;
        while one < end {
            one.read()(c_int::try_from(count).unwrap_or(0), arguments, arguments.add(count + 1));
            one = one.add(1);
        }
    }
}
