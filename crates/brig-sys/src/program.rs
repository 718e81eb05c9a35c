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
//! Without it a panic names no thread, and an overflow of the stack is a plain SIGSEGV.

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
            ::std::process::exit(u8::try_from($run()).unwrap_or(1).into())
        }

        #[cfg(test)]
        const _: fn() -> i32 = $run;

        #[cfg(not(test))]
        #[global_allocator]
        static ALLOCATOR: $crate::heap::Allocator = $crate::heap::Allocator;
    };
}

/// Defines `main` of a program that does without the Rust library's part and without a heap: `$run` gets the arguments and returns
/// the exit status.
#[macro_export]
macro_rules! bare_program {
    ($run:path) => {
        #[cfg(not(test))]
        #[unsafe(no_mangle)]
        extern "C" fn main(count: ::std::ffi::c_int, arguments: *const *const ::std::ffi::c_char) -> ::std::ffi::c_int {
            let word = |at: usize| {
                // SAFETY: there are as many C strings as the C library says, and they stay.
                usize::try_from(count)
                    .is_ok_and(|count| at < count)
                    .then(|| unsafe { ::std::ffi::CStr::from_ptr(*arguments.add(at)) })
            };
            $run(word(1), word(2))
        }

        #[cfg(test)]
        const _: fn(Option<&'static ::std::ffi::CStr>, Option<&'static ::std::ffi::CStr>) -> i32 = $run;
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
