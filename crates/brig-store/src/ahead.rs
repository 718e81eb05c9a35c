//! What is written goes to the disk while more is still being made, so that the flush at the end finds little left.

use std::os::fd::AsFd;

use brig_sys::page_cache::begin_writing;

/// How much is collected before the disk is asked to take it, in bytes.
const STEP: u64 = 1 << 20;
/// The disk takes whole pages of this size or less; one that is still being filled waits for the next time.
const PAGE: u64 = 64 << 10;

/// How far the disk was asked to take a file that is written front to back, in bytes.
pub(crate) struct Ahead(u64);

impl Ahead {
    /// Begins at a place of a file; what is before it is somebody else's.
    pub(crate) fn from(start: u64) -> Self {
        Self(start)
    }

    /// Tells that everything before `end` is written.
    pub(crate) fn reached(&mut self, file: impl AsFd, end: u64) {
        let end = end - end % PAGE;
        if end >= self.0 + STEP {
            begin_writing(file.as_fd(), self.0, end - self.0);
            self.0 = end;
        }
    }
}
