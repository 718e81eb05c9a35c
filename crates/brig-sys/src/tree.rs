//! Removing a directory tree, whatever a container or an archive has made of it: however deep it is, with a bounded number of
//! descriptors and a bounded stack, and without following a link.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::{Errno, Result};
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// How many directories are open at a time.
const DEPTH_MAX: usize = 64;
/// How much of a directory is read at a time, bytes: room for seven names of the greatest length.
const LISTING: usize = 2048;

/// Removes a directory and all below it by its path. Errors: `ENOENT` when it is not there; unlink(2), rmdir(2).
pub fn remove_at(path: &Path) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL.into()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(remove(parent.as_fd(), name.as_encoded_bytes())?)
}

/// Removes what lies under `name`, of whatever kind; nothing there is fine.
pub fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    loop {
        let mut moved = 0;
        empty_directory(parent, name, parent, 0, &mut moved)?;
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY) if moved > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// Empties a directory; a subdirectory deeper than the bound is moved up into the top one, for the next round.
fn empty_directory(
    parent: BorrowedFd<'_>,
    name: &[u8],
    top: BorrowedFd<'_>,
    depth: usize,
    moved: &mut u64,
) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    };
    let mut children: Vec<(CString, FileType)> = Vec::new();
    let mut space = [MaybeUninit::uninit(); LISTING];
    let mut entries = RawDir::new(&fd, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            children.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    let top = if depth == 0 { fd.as_fd() } else { top };
    for (child, kind) in children {
        if kind != FileType::Directory {
            match rustix::fs::unlinkat(&fd, child.as_c_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
        }
        if depth >= DEPTH_MAX {
            move_up(fd.as_fd(), &child, top, moved)?;
            continue;
        }
        empty_directory(fd.as_fd(), child.as_bytes(), top, depth + 1, moved)?;
        match rustix::fs::unlinkat(&fd, child.as_c_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Moves a directory into the top one under a name that is free there.
fn move_up(from: BorrowedFd<'_>, name: &CString, top: BorrowedFd<'_>, moved: &mut u64) -> Result<()> {
    loop {
        *moved += 1;
        match rustix::fs::renameat_with(from, name.as_c_str(), top, format!(".up-{moved}"), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_and_than_all_descriptors_is_removed() {
        let base = std::env::temp_dir().join(format!("brig-tree-{}", std::process::id()));
        std::fs::create_dir(&base).unwrap();
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut fd = rustix::fs::open(&base, directory, Mode::empty()).unwrap();
        for depth in 0..5000 {
            for name in ["d", ".up-1"] {
                rustix::fs::mkdirat(&fd, name, Mode::RWXU).unwrap();
            }
            rustix::fs::symlinkat("/etc", &fd, "link").unwrap();
            let next = if depth % 2 == 0 { "d" } else { ".up-1" };
            fd = rustix::fs::openat(&fd, next, directory, Mode::empty()).unwrap();
        }
        drop(fd);
        remove_at(&base).unwrap();
        assert!(!base.exists());
        assert_eq!(remove_at(&base).unwrap_err().kind(), std::io::ErrorKind::NotFound);
        assert!(std::path::Path::new("/etc/passwd").exists());
    }
}
