//! Files and the memory that the kernel keeps of them: what is there, and when it goes to the disk.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Asks the kernel to begin writing a piece of a file to the disk, and does not wait for it: sync_file_range(2). A later flush
/// has less to do then. Offset and length are in bytes; nothing is promised, so nothing can fail.
pub fn begin_writing(file: BorrowedFd<'_>, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else { return };
    // SAFETY: numbers only.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Tells how many bytes of a file are in the page cache, in whole pages: cachestat(2). Errors: `ENOSYS` before Linux 6.5, `EOPNOTSUPP` for a
/// file that has no pages.
pub fn cached(file: BorrowedFd<'_>) -> io::Result<u64> {
    /// `cachestat`, linux/mman.h: counts of pages.
    #[repr(C)]
    #[derive(Default)]
    struct Counts {
        cache: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    // `SYS_cachestat` is the same number on all machines.
    const CACHESTAT: libc::c_long = 451;
    // Offset and length; no length means up to the end.
    let range: [u64; 2] = [0, 0];
    let mut counts = Counts::default();
    // SAFETY: the kernel reads two words from `range` and writes five to `counts`; both live until it returns.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), &raw mut counts, 0u32) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(counts.cache * page_size()) }
}

/// Returns the size of a page in bytes.
fn page_size() -> u64 {
    // SAFETY: sysconf may be called at any time.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // It never fails for this name.
    size.try_into().unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsFd;

    #[test]
    fn what_was_written_is_cached() {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR).unwrap();
        if super::cached(file.as_fd()).is_err_and(|error| error.raw_os_error() == Some(libc::ENOSYS)) {
            // As it is said above, and only there.
            let release = rustix::system::uname().release().to_str().unwrap().to_owned();
            let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
            assert!((numbers.next(), numbers.next()) < (Some(6), Some(5)), "cachestat is missing in {release}");
            return;
        }
        assert_eq!(super::cached(file.as_fd()).unwrap(), 0);
        let page = super::page_size();
        let bytes = vec![1; 3 * usize::try_from(page).unwrap() + 1];
        assert_eq!(rustix::io::write(&file, &bytes).unwrap(), bytes.len());
        assert_eq!(super::cached(file.as_fd()).unwrap(), 4 * page);
    }
}
