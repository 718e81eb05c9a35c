//! Giving memory back: a monitor idles for months, and what its start needed must not stay with it.

/// Returns freed heap pages, the unused part of the main stack, and the pages of the program's own code to the kernel;
/// malloc_trim(3), madvise(2). Code that is needed again is mapped again from the page cache.
pub fn release() {
    // SAFETY: malloc_trim may be called at any time.
    unsafe { libc::malloc_trim(0) };
    release_stack();
    release_code();
}

/// Unmaps the program's code and constants from this process; they stay in the page cache, for all processes.
fn release_code() {
    unsafe extern "C" {
        // Set by the linker: the first byte of the program, and the end of its code; end(3).
        static __executable_start: u8;
        static etext: u8;
    }
    const PAGE: usize = 4096;
    let start = (&raw const __executable_start) as usize;
    let end = (&raw const etext) as usize & !(PAGE - 1);
    if start.is_multiple_of(PAGE) && start < end {
        // SAFETY: the range holds read-only pages of the program's file, which no process can have changed; a dropped one
        // is read from the file again upon its next use, these very instructions included.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// Drops the pages of the main stack below this frame. They read as zeroes when the stack grows there again.
#[inline(never)]
fn release_stack() {
    const PAGE: usize = 4096;
    const DEPTH: usize = 1 << 20;
    let here = 0u8;
    // Two pages are left alone: the red zone and the frames of madvise itself.
    let top = ((&raw const here) as usize & !(PAGE - 1)).saturating_sub(2 * PAGE);
    let start = top.saturating_sub(DEPTH);
    // SAFETY: everything below the present frame is dead; where nothing is mapped madvise answers ENOMEM after having
    // dropped what is, which is all that is wanted.
    unsafe { libc::madvise(start as *mut libc::c_void, top - start, libc::MADV_DONTNEED) };
}
