//! Memory for a program that lives for milliseconds: taken from the front of one block, and given back all at once by its end.
//!
//! ```text
//! | given out ........................ | top -> free ............... | then the C library's allocator
//!                      the last one ^ can grow, and be given back
//! ```
//!
//! The block is part of the program's zeroed memory: a page of it costs nothing until it is used, and no system call then. Whoever
//! lives long leaves this alone, and has the C library's allocator for everything.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

const SIZE: usize = 1 << 20;

#[repr(align(4096))]
struct Block(UnsafeCell<[u8; SIZE]>);

// SAFETY: each of its bytes belongs to whoever was given it; what is given out is decided by one atomic number.
unsafe impl Sync for Block {}

static BLOCK: Block = Block(UnsafeCell::new([0; SIZE]));
/// How much of the block is given out, bytes; all of it while this is not in use.
static TOP: AtomicUsize = AtomicUsize::new(SIZE);

/// From now on memory comes from the block, as long as it lasts. To be called once, by a program that ends soon.
pub fn begin() {
    TOP.store(0, Ordering::Relaxed);
}

/// The allocator of a program that may call [`begin`].
#[derive(Debug)]
pub struct Allocator;

fn first() -> usize {
    BLOCK.0.get() as usize
}

/// Where in the block this lies, if it does.
fn offset(pointer: *const u8) -> Option<usize> {
    pointer.addr().checked_sub(first()).filter(|at| *at < SIZE)
}

/// Moves the end of what is given out from `from` to `to`, unless somebody else has moved it.
fn move_top(from: usize, to: usize) -> bool {
    TOP.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

// SAFETY: what is given out lies between an old and a new top, which one exchange moves, so that no two callers have the same bytes;
// it is aligned as asked for, since the block is aligned to a page and larger alignments go to the system's allocator, as does all that
// does not fit. What lies outside the block came from there, and goes back there.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= 4096 {
            loop {
                let top = TOP.load(Ordering::Relaxed);
                let start = top.next_multiple_of(layout.align());
                let end = start.saturating_add(layout.size());
                if end > SIZE || top == SIZE {
                    break;
                }
                if move_top(top, end) {
                    return BLOCK.0.get().cast::<u8>().wrapping_add(start);
                }
            }
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match offset(pointer) {
            Some(at) => drop(move_top(at + layout.size(), at)),
            // SAFETY: as the caller promises, and it came from there.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    // SAFETY: what the block gives is zero only the first time: it is zeroed here, as `GlobalAlloc` does by itself.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(at) = offset(pointer) else {
            // SAFETY: as the caller promises, and it came from there.
            return unsafe { System.realloc(pointer, layout, size) };
        };
        let grown = at.saturating_add(size);
        if grown <= SIZE && move_top(at + layout.size(), grown) || size <= layout.size() {
            return pointer;
        }
        // SAFETY: the caller promises that this layout is valid, and the old place has as many bytes as are copied.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(pointer, layout.size());
                self.dealloc(pointer, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// One test, because there is one block.
    #[test]
    fn every_byte_has_one_owner_and_the_rest_comes_from_elsewhere() {
        let inside = |pointer: *mut u8| offset(pointer).is_some();
        // SAFETY: every layout has a size, is freed once, and as it was asked for or grown to.
        unsafe {
            let before = Allocator.alloc(layout(64, 8));
            assert!(!inside(before), "it is not in use");
            begin();
            let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
            let sizes = [1, 7, 4096, 24, 65536, 3, 100, 8];
            for round in 0..3000_usize {
                let layout = layout(sizes[round % 8] + round % 5, 1 << (round % 13));
                let mark = u8::try_from(round % 251).unwrap();
                let pointer = Allocator.alloc(layout);
                assert!(!pointer.is_null() && pointer.addr().is_multiple_of(layout.align()));
                pointer.write_bytes(mark, layout.size());
                held.push((pointer, layout, mark));
                if round % 3 == 0 {
                    let at = round * 7 % held.len();
                    let (pointer, old, mark) = held.swap_remove(at);
                    let size = (old.size() + 50).saturating_sub(round % 100).max(1);
                    let pointer = Allocator.realloc(pointer, old, size);
                    let same = std::slice::from_raw_parts(pointer, size.min(old.size()));
                    assert!(same.iter().all(|byte| *byte == mark), "round {round}");
                    pointer.write_bytes(mark, size);
                    held.push((pointer, self::layout(size, old.align()), mark));
                }
                if round % 2 == 0 {
                    let (pointer, layout, mark) = held.pop().unwrap();
                    let same = std::slice::from_raw_parts(pointer, layout.size());
                    assert!(same.iter().all(|byte| *byte == mark), "round {round}");
                    Allocator.dealloc(pointer, layout);
                }
            }
            assert!(held.iter().any(|one| inside(one.0)) && held.iter().any(|one| !inside(one.0)), "it went full");
            for (pointer, layout, mark) in held {
                let same = std::slice::from_raw_parts(pointer, layout.size());
                assert!(same.iter().all(|byte| *byte == mark));
                Allocator.dealloc(pointer, layout);
            }
            Allocator.dealloc(before, layout(64, 8));

            begin();
            let (a, b) = (Allocator.alloc(layout(100, 1)), Allocator.alloc(layout(100, 1)));
            assert_eq!(Allocator.realloc(b, layout(100, 1), 5000), b, "the last one grows where it is");
            Allocator.dealloc(b, layout(5000, 1));
            assert_eq!(Allocator.alloc(layout(10, 1)), b, "and is given back");
            assert_ne!(Allocator.realloc(a, layout(100, 1), 200), a);
            assert!(!inside(Allocator.alloc(layout(SIZE + 1, 1))));
        }
    }
}
