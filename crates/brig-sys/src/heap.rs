//! The heap of a small program: the dlmalloc crate, with memory from the kernel a quarter of a megabyte at a time.
//!
//! musl's allocator, which such a program would have otherwise, asks the kernel for each kind of size and gives each back: 140 system
//! calls of a monitor's start, half a millisecond. What musl takes for itself comes from this heap, too (`musl.rs`): a single
//! realpath(3) would cost five.
//!
//! ```text
//! | used | free ........................ | used | free ... |
//!                                                           a request that nothing free is large enough for: Source
//!        | taken | ................. |taken|                release(): what is free is taken, bit by bit, emptied, and let go
//! ```

use dlmalloc::Dlmalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is asked of the kernel at a time, bytes.
const STEP: usize = 256 * 1024;
const PAGE: usize = 4096;
/// The size of the pieces that free memory is taken in when its pages are given back, bytes: halved as long as it holds a whole page.
const PIECES: [usize; 6] = [STEP / 2, STEP / 4, STEP / 8, STEP / 16, STEP / 32, 6 * 1024];

/// Whence the heap grows.
struct Source {
    /// Whether it is to make do with what it has.
    closed: AtomicBool,
}

// SAFETY: what mmap(2) returns is new memory, of zeroes; what is given back or moved was returned before, whole or as what is left of it.
unsafe impl dlmalloc::Allocator for Source {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        if self.closed.load(Ordering::Relaxed) {
            return (null_mut(), 0, 0);
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping touches none that is there.
        let new = unsafe { libc::mmap(null_mut(), size, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        if new == libc::MAP_FAILED { (null_mut(), 0, 0) } else { (new.cast(), size, 0) }
    }

    fn remap(&self, pointer: *mut u8, old: usize, new: usize, can_move: bool) -> *mut u8 {
        let flags = if can_move { libc::MREMAP_MAYMOVE } else { 0 };
        // SAFETY: the mapping is the heap's, which goes on with what this returns.
        let moved = unsafe { libc::mremap(pointer.cast(), old, new, flags) };
        if moved == libc::MAP_FAILED { null_mut() } else { moved.cast() }
    }

    fn free_part(&self, pointer: *mut u8, old: usize, new: usize) -> bool {
        // SAFETY: the end of the mapping is the heap's, and free.
        unsafe { libc::munmap(pointer.add(new).cast(), old - new) == 0 }
    }

    fn free(&self, pointer: *mut u8, size: usize) -> bool {
        // SAFETY: the mapping is the heap's, and free.
        unsafe { libc::munmap(pointer.cast(), size) == 0 }
    }

    fn can_release_part(&self, _flags: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE
    }
}

struct Heap {
    busy: AtomicBool,
    allocator: UnsafeCell<Dlmalloc<Source>>,
}

// SAFETY: whoever uses the allocator has set `busy`, and only one can.
unsafe impl Sync for Heap {}

static HEAP: Heap = Heap {
    busy: AtomicBool::new(false),
    allocator: UnsafeCell::new({
        let mut new = Dlmalloc::new_with_allocator(Source { closed: AtomicBool::new(false) });
        assert!(new.set_granularity(STEP));
        new
    }),
};

impl Heap {
    fn with<T>(&self, work: impl FnOnce(&mut Dlmalloc<Source>) -> T) -> T {
        // The programs have one thread, and no signal handler that allocates: as a rule nobody waits here.
        while self.busy.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::thread::yield_now();
        }
        // SAFETY: see above; nothing in here allocates by other ways.
        let done = work(unsafe { &mut *self.allocator.get() });
        self.busy.store(false, Ordering::Release);
        done
    }
}

/// Gives the kernel the pages back that nothing is in.
pub fn release() {
    HEAP.with(|heap| {
        empty_what_is_free(heap);
        // SAFETY: what is in use is not touched.
        unsafe { heap.trim(0) }
    });
}

fn empty_what_is_free(heap: &mut Dlmalloc<Source>) {
    heap.allocator().closed.store(true, Ordering::Relaxed);
    // Each piece has the address of the one before in its first word: there is nowhere else to keep a list.
    let mut taken: *mut u8 = null_mut();
    let mut number = [0usize; PIECES.len()];
    for (size, count) in PIECES.into_iter().zip(&mut number) {
        loop {
            // SAFETY: a piece is the caller's from here to `free`. Between its first word and its end nobody keeps anything, the
            // allocator neither; pages that lie in there whole read as zeroes after this.
            unsafe {
                let piece = heap.malloc(size, align_of::<*mut u8>());
                if piece.is_null() {
                    break;
                }
                let first = (piece.addr() + size_of::<*mut u8>()).next_multiple_of(PAGE);
                let end = (piece.addr() + size) & !(PAGE - 1);
                if first < end {
                    libc::madvise(piece.with_addr(first).cast(), end - first, libc::MADV_DONTNEED);
                }
                piece.cast::<*mut u8>().write_unaligned(taken);
                taken = piece;
            }
            *count += 1;
        }
    }
    for (size, count) in PIECES.into_iter().zip(number).rev() {
        for _ in 0..count {
            // SAFETY: the pieces were taken in the order of their sizes, and the list leads back.
            unsafe {
                let piece = taken;
                taken = piece.cast::<*mut u8>().read_unaligned();
                heap.free(piece, size, align_of::<*mut u8>());
            }
        }
    }
    heap.allocator().closed.store(false, Ordering::Relaxed);
}

/// Memory for the C library, as malloc(3) and aligned_alloc(3) return it: null, with `ENOMEM`, where there is none.
pub fn take(size: usize, align: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return refuse(libc::EINVAL);
    }
    // SAFETY: any size will do, and the alignment is a power of two.
    let taken = HEAP.with(|heap| unsafe { heap.c_memalign(align, size) });
    if taken.is_null() { refuse(libc::ENOMEM) } else { taken.cast() }
}

/// The same for calloc(3).
pub fn take_zeroes(count: usize, size: usize) -> *mut c_void {
    let Some(all) = count.checked_mul(size) else { return refuse(libc::ENOMEM) };
    // SAFETY: any size will do.
    let taken = HEAP.with(|heap| unsafe { heap.calloc(all, 1) });
    if taken.is_null() { refuse(libc::ENOMEM) } else { taken.cast() }
}

/// The same for realloc(3).
///
/// # Safety
/// `pointer` is null or memory of this heap that is in use.
pub unsafe fn resize(pointer: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: as the caller promises.
    let moved = HEAP.with(|heap| unsafe { heap.c_realloc(pointer.cast(), size) });
    if moved.is_null() { refuse(libc::ENOMEM) } else { moved.cast() }
}

/// The same for free(3).
///
/// # Safety
/// `pointer` is null or memory of this heap that is in use.
pub unsafe fn give_back(pointer: *mut c_void) {
    if !pointer.is_null() {
        // SAFETY: as the caller promises.
        HEAP.with(|heap| unsafe { heap.c_free(pointer.cast()) });
    }
}

fn refuse(errno: i32) -> *mut c_void {
    // SAFETY: the place is this thread's own.
    unsafe { *libc::__errno_location() = errno };
    null_mut()
}

/// The allocator of a program that has this heap.
#[derive(Debug)]
pub struct Allocator;

// SAFETY: every call goes to the one allocator, with the sizes and alignments that the caller has promised.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        HEAP.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        HEAP.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        HEAP.with(|heap| unsafe { heap.free(pointer, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        HEAP.with(|heap| unsafe { heap.realloc(pointer, layout.size(), layout.align(), size) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Whether the page at this address is in memory; mincore(2).
    fn is_in_memory(pointer: *mut u8) -> bool {
        let mut answer = 0u8;
        let page = pointer.with_addr(pointer.addr() & !(PAGE - 1));
        // SAFETY: the answer for one page is one byte; a page that is not mapped is an error.
        unsafe { libc::mincore(page.cast(), PAGE, &raw mut answer) == 0 && answer & 1 == 1 }
    }

    /// There is one heap.
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

    #[test]
    fn what_is_in_use_stays_and_the_pages_of_the_rest_go() {
        let _alone = ONE_AT_A_TIME.lock();
        let sizes = [1, 7, 4096, 24, 20_000, 3, 100, 300_000, 8];
        // SAFETY: every layout has a size, is freed once, and as it was asked for or grown to.
        unsafe {
            let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
            let check = |(pointer, layout, mark): (*mut u8, Layout, u8)| {
                let same = std::slice::from_raw_parts(pointer, layout.size());
                assert!(same.iter().all(|byte| *byte == mark));
                assert!(pointer.addr().is_multiple_of(layout.align()));
            };
            for round in 0..2000_usize {
                let layout = layout(sizes[round % 9] + round % 5, 1 << (round % 13));
                let mark = u8::try_from(round % 251).unwrap();
                let pointer = Allocator.alloc(layout);
                assert!(!pointer.is_null());
                pointer.write_bytes(mark, layout.size());
                held.push((pointer, layout, mark));
                if round % 3 != 0 {
                    let one = held.swap_remove(round * 7 % held.len());
                    check(one);
                    Allocator.dealloc(one.0, one.1);
                }
                if round % 5 == 0 {
                    let (pointer, old, mark) = held.swap_remove(round * 11 % held.len());
                    let size = (old.size() * 2 % 50_000).saturating_sub(round % 300).max(1);
                    let pointer = Allocator.realloc(pointer, old, size);
                    check((pointer, self::layout(size.min(old.size()), old.align()), mark));
                    pointer.write_bytes(mark, size);
                    held.push((pointer, self::layout(size, old.align()), mark));
                }
                if round % 100 == 0 {
                    release();
                }
            }
            for one in &held {
                check(*one);
            }

            // Between two that stay, much that goes.
            let (before, hole, after) =
                (Allocator.alloc(layout(64, 8)), Allocator.alloc(layout(100_000, 8)), Allocator.alloc(layout(64, 8)));
            hole.write_bytes(1, 100_000);
            before.write_bytes(2, 64);
            after.write_bytes(3, 64);
            let inside = hole.add(50_000);
            assert!(is_in_memory(inside));
            Allocator.dealloc(hole, layout(100_000, 8));
            assert!(is_in_memory(inside), "what is free stays at hand");
            release();
            assert!(!is_in_memory(inside), "until it is given back");
            check((before, layout(64, 8), 2));
            check((after, layout(64, 8), 3));
            held.extend([(before, layout(64, 8), 2), (after, layout(64, 8), 3)]);
            let zeroed = Allocator.alloc_zeroed(layout(100_000, 8));
            check((zeroed, layout(100_000, 8), 0));
            held.push((zeroed, layout(100_000, 8), 0));
            for one in held {
                check(one);
                Allocator.dealloc(one.0, one.1);
            }
        }
    }

    #[test]
    fn the_c_library_gets_what_its_functions_promise() {
        let _alone = ONE_AT_A_TIME.lock();
        // SAFETY: what is read was written or promised to be zero, and every block is given back once.
        unsafe {
            for align in [1, 8, 16, 64, 4096] {
                let block = take(100, align);
                assert!(!block.is_null() && block.addr().is_multiple_of(align.max(16)));
                block.cast::<u8>().write_bytes(7, 100);
                let larger = resize(block, 100_000).cast::<u8>();
                assert!(std::slice::from_raw_parts(larger, 100).iter().all(|byte| *byte == 7));
                give_back(larger.cast());
                let zeroes = take_zeroes(100, 1000);
                assert!(std::slice::from_raw_parts(zeroes.cast::<u8>(), 100_000).iter().all(|byte| *byte == 0));
                give_back(zeroes);
            }
            for size in [0, 1] {
                let block = resize(null_mut(), size);
                assert!(!block.is_null());
                give_back(block);
            }
            give_back(null_mut());
        }
        let refused = |block: *mut c_void| block.is_null().then(|| std::io::Error::last_os_error().raw_os_error());
        assert_eq!(refused(take_zeroes(usize::MAX / 2, 3)), Some(Some(libc::ENOMEM)));
        assert_eq!(refused(take(usize::MAX / 2, 1)), Some(Some(libc::ENOMEM)));
        assert_eq!(refused(take(8, 24)), Some(Some(libc::EINVAL)));
    }
}
