//! Giving memory back: a monitor idles for months, and what its start needed must not stay with it.

/// Returns freed heap pages and the unused part of the main stack to the kernel; malloc_trim(3), madvise(2).
pub fn release() {
    // SAFETY: malloc_trim may be called at any time.
    unsafe { libc::malloc_trim(0) };
    release_stack();
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
