//! Removing large trees: several directories at a time.
//!
//! To unlink a file is little work and much waiting (for the journal, for the disk), and it holds its directory meanwhile, but
//! no other. So a tree is taken apart from the top until there are enough directories for all threads, and they go side by side;
//! what is left of the tree goes at the end. Nothing is followed: the tree is somebody else's work.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::{Dir, FileType, Mode, OFlags};

use crate::disk;

/// How many threads remove.
const THREADS: usize = 8;
/// How many pieces of a tree are enough to keep them busy.
const PIECES: usize = 64;

/// A directory by its parent and its name.
type Piece = (Arc<OwnedFd>, CString);

/// Removes what lies under `name`, of whatever kind; nothing there is fine.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let pieces = take_apart(parent, name);
    let threads = THREADS.min(pieces.len() / 4);
    if threads > 1 {
        let queue = Mutex::new(pieces);
        let work = || {
            while let Some((parent, name)) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) {
                // What cannot be removed here, is tried and told below.
                let _ = disk::remove_any(parent.as_fd(), name.as_bytes());
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
    }
    disk::remove_any(parent, name)
}

/// Lists directories of a tree, none below another: as many as there is work for, or all that the tree's upper floors have.
fn take_apart(parent: BorrowedFd<'_>, name: &[u8]) -> VecDeque<Piece> {
    let mut pieces = VecDeque::new();
    let Ok(name) = CString::new(name) else { return pieces };
    let mut left = match inner(parent, &name) {
        Some(inner) => VecDeque::from(inner),
        None => return pieces,
    };
    // The first ones of a floor are replaced by what is in them; one without directories in it is a piece as it is.
    while let Some((parent, name)) = left.pop_front() {
        if left.len() + pieces.len() >= PIECES {
            left.push_front((parent, name));
            break;
        }
        match inner(parent.as_fd(), &name) {
            Some(inner) if !inner.is_empty() => left.extend(inner),
            _ => pieces.push_back((parent, name)),
        }
    }
    pieces.extend(left);
    pieces
}

/// The directories in a directory; none if it cannot be read.
fn inner(parent: BorrowedFd<'_>, name: &CString) -> Option<Vec<Piece>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = Arc::new(rustix::fs::openat(parent, name.as_c_str(), flags, Mode::empty()).ok()?);
    let mut all = Vec::new();
    for entry in Dir::read_from(&*fd).ok()? {
        let entry = entry.ok()?;
        if entry.file_type() == FileType::Directory && ![c".", c".."].contains(&entry.file_name()) {
            all.push((Arc::clone(&fd), entry.file_name().to_owned()));
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_wide_and_a_deep_tree_go_and_what_links_lead_to_stays() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("kept"), "kept").unwrap();
        let tree = place.path().join("tree");
        for a in 0..20 {
            for b in 0..10 {
                let directory = tree.join(format!("{a}/{b}/c/d"));
                fs::create_dir_all(&directory).unwrap();
                fs::write(directory.join("f"), "f").unwrap();
                symlink("../../../../../kept", directory.join("link")).unwrap();
                symlink("../../..", tree.join(format!("{a}/link{b}"))).unwrap();
            }
        }
        fs::create_dir_all(tree.join("x/".repeat(300))).unwrap();
        let parent = disk::open_directory(place.path()).unwrap();
        assert!(take_apart(parent.as_fd(), b"tree").len() >= PIECES);
        for name in ["tree", "nothing", "kept"] {
            remove(parent.as_fd(), name.as_bytes()).unwrap();
            assert!(!place.path().join(name).exists(), "{name}");
            fs::write(place.path().join("kept"), "kept").unwrap();
        }
    }
}
