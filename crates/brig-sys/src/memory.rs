//! Giving memory back: a monitor idles for months, and what its start needed must not stay with it.

/// Returns freed heap pages, the unused part of the main stack, and the pages of the program's own code to the kernel;
/// malloc_trim(3), madvise(2). Code that is needed again is mapped again from the page cache.
pub fn release() {
    // SAFETY: malloc_trim may be called at any time.
    unsafe { libc::malloc_trim(0) };
    crate::heap::release();
    release_stack();
    release_code();
}

/// Unmaps the program's code and constants from this process; they stay in the page cache, for all processes.
fn release_code() {
    /// The ELF header and a program header of 64 bits as far as they are of use here; elf(5).
    #[repr(C)]
    struct Header {
        _ident: [u64; 2],
        kind: u16,
        _machine_version_entry: [u16; 7],
        segments: usize,
        _sections: u64,
        _flags_and_sizes: [u32; 2],
        count: u16,
    }
    #[repr(C)]
    struct Segment {
        kind: u32,
        flags: u32,
        _offset: usize,
        address: usize,
        _physical: usize,
        _in_file: usize,
        size: usize,
        _align: usize,
    }
    unsafe extern "C" {
        // Set by the linker: the ELF header, where it is in memory.
        static __ehdr_start: Header;
    }
    const PAGE: usize = 4096;
    const ET_EXEC: u16 = 2;
    const PT_LOAD: u32 = 1;
    const PF_W: u32 = 2;
    let header = &raw const __ehdr_start;
    // SAFETY: the program runs from what its header describes. A read-only segment holds pages of the program's file, which no process
    // can have changed; a dropped one is read from the file again upon its next use, these very instructions included. At a fixed
    // address no relocation has written to them either.
    unsafe {
        if (*header).kind != ET_EXEC {
            return;
        }
        let segments = header.byte_add((*header).segments).cast::<Segment>();
        for number in 0..usize::from((*header).count) {
            let segment = &*segments.add(number);
            if segment.kind == PT_LOAD && segment.flags & PF_W == 0 {
                let start = segment.address & !(PAGE - 1);
                libc::madvise(start as *mut libc::c_void, segment.address + segment.size - start, libc::MADV_DONTNEED);
            }
        }
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
