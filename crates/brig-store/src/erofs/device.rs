//! A block device for an image, where the kernel does not mount it from its file: a loop device that goes with its mount.
//!
//! ```text
//!   /dev/loop-control --GET_FREE--> N --open /dev/loopN, look what it is--> CONFIGURE(file, AUTOCLEAR) --> mount --> close
//!          ^                                                                   |
//!          `------------------- EBUSY: another process was first --------------'
//! ```
//!
//! The kernel lets go of the file with the last user of the device: first this descriptor, then the mount. So nothing has to be
//! undone, whatever ends this process at whatever step.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use brig_sys::loop_device::{self, AUTOCLEAR, DIRECT_IO, MAJOR, READ_ONLY};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::format::BLOCK;

const CONTROL: &str = "/dev/loop-control";
/// How often a device is asked for that another process then takes first.
const ATTEMPTS: u32 = 200;
/// The longest pause between two of these.
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// Why there is no loop device.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("cannot open `{0}` for a loop device")]
    Open(String, #[source] Errno),
    #[error("`{0}` is not the loop device {1}")]
    Other(String, u32),
    #[error("cannot find a free loop device")]
    Free(#[source] io::Error),
    #[error("cannot set up the loop device `{0}`")]
    Configure(String, #[source] io::Error),
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::other(fault)
    }
}

/// Puts a file behind a loop device, read-only; the device is free again when the descriptor and what is mounted by it are gone.
pub(super) fn attach(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let control = rustix::fs::open(CONTROL, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Fault::Open(CONTROL.to_owned(), error))?;
    let mut attempt = 0;
    loop {
        let number = loop_device::free_number(control.as_fd()).map_err(Fault::Free)?;
        let path = format!("/dev/loop{number}");
        let fault = match open(&path, number)? {
            Ok(device) => match configure(device.as_fd(), file) {
                Ok(()) => return Ok(device),
                Err(error) => Fault::Configure(path, error),
            },
            Err(error) => Fault::Open(path, error),
        };
        attempt += 1;
        if attempt == ATTEMPTS || !taken(&fault) {
            return Err(fault.into());
        }
        // Those who were second together are not to be second together again.
        let spread = Duration::from_micros(u64::from((attempt * 997 + std::process::id() * 131) % 1000));
        std::thread::sleep((spread * attempt).min(PAUSE_MAX));
    }
}

/// Tells whether another process was faster.
fn taken(fault: &Fault) -> bool {
    match fault {
        Fault::Configure(_, error) => error.raw_os_error() == Some(Errno::BUSY.raw_os_error()),
        // Removed again.
        Fault::Open(_, error) => *error == Errno::NXIO,
        Fault::Other(..) | Fault::Free(_) => false,
    }
}

/// Opens a loop device after having seen that it is one; what the kernel said, if it could not be opened.
fn open(path: &str, number: u32) -> Result<Result<OwnedFd, Errno>, Fault> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(node) => node,
        Err(error) => return Ok(Err(error)),
    };
    let stat = rustix::fs::fstat(&node).map_err(|error| Fault::Open(path.to_owned(), error))?;
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice || device != (MAJOR, number) {
        return Err(Fault::Other(path.to_owned(), number));
    }
    let node = format!("/proc/self/fd/{}", node.as_raw_fd());
    Ok(rustix::fs::open(node, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))
}

fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    let block = u32::try_from(BLOCK).map_err(io::Error::other)?;
    // Past the page cache of the file where its file system can: the pages of what is mounted are enough.
    match loop_device::configure(device, file, block, READ_ONLY | AUTOCLEAR | DIRECT_IO) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            loop_device::configure(device, file, block, READ_ONLY | AUTOCLEAR)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::os::linux::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    /// What the kernel says of the devices that have a file.
    fn users(file: &Path) -> Vec<PathBuf> {
        let devices = std::fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path().join("loop"));
        devices
            .filter(|place| {
                let text = std::fs::read_to_string(place.join("backing_file")).unwrap_or_default();
                Path::new(text.trim_end()) == file
            })
            .collect()
    }

    #[test]
    fn a_device_goes_with_its_descriptor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        std::fs::write(&path, vec![7; 3 * BLOCK]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let device = attach(file.as_fd()).unwrap();
        // A process that is killed here closes both.
        drop(file);
        let found = users(&path);
        assert_eq!(found.len(), 1);
        let word = |name: &str| std::fs::read_to_string(found[0].join(name)).unwrap().trim_end().to_owned();
        assert_eq!((word("autoclear"), word("partscan"), word("offset")), ("1".into(), "0".into(), "0".into()));
        let block = found[0].parent().unwrap();
        assert_eq!(std::fs::read_to_string(block.join("ro")).unwrap(), "1\n");
        assert_eq!(std::fs::read_to_string(block.join("queue/logical_block_size")).unwrap(), "4096\n");
        let mut bytes = vec![0; 4 * BLOCK];
        assert_eq!(rustix::io::pread(&device, &mut bytes[..], 0).unwrap(), 3 * BLOCK);
        assert!(bytes[..3 * BLOCK].iter().all(|byte| *byte == 7));
        drop(device);
        assert_eq!(users(&path), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_node_that_is_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink("/dev/loop0", at("link")).unwrap();
        let node = |name: &str, kind, device: (u32, u32)| {
            let device = rustix::fs::makedev(device.0, device.1);
            rustix::fs::mknodat(rustix::fs::CWD, at(name), kind, Mode::RUSR, device).unwrap();
        };
        node("other", FileType::BlockDevice, (MAJOR, 1));
        node("character", FileType::CharacterDevice, (MAJOR, 0));
        node("disk", FileType::BlockDevice, (8, 0));
        node("fifo", FileType::Fifo, (0, 0));
        for name in ["file", "link", "other", "character", "disk", "fifo"] {
            let refused = open(&at(name), 0);
            assert!(matches!(refused, Err(Fault::Other(..))), "{name}: {refused:?}");
        }
        node("right", FileType::BlockDevice, (MAJOR, 0));
        let right = open(&at("right"), 0).unwrap().unwrap();
        assert_eq!(rustix::fs::fstat(&right).unwrap().st_rdev, std::fs::metadata(at("right")).unwrap().st_rdev());
        assert_eq!(open(&at("none"), 0).unwrap().unwrap_err(), Errno::NOENT);
    }
}
