//! A layer as one image: EROFS, the kernel's read-only file system, written straight from the tar stream.
//!
//! ```text
//!   block 0          1024: superblock    1152: the root's inode
//!   blocks 1..       in the order of the stream, mixed:
//!                      data    the whole blocks of one file, one behind the other
//!                      chunk   64 KiB of inodes: [inode][attributes][tail of the data], none across a block's end
//!                    at the end, the same for directories: names sorted over blocks, the last one as a tail
//! ```
//!
//! An inode's number is its place in the file divided by 32, so inodes may lie anywhere, and nothing of a file but its name and
//! number is kept in memory. A small file is one inode with all of its data behind it. What is written depends on
//! the tar alone. Sizes and places are computed here and never taken from the archive; what would not fit is refused.
//!
//! Form: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of the kernel (uncompressed, no extra device). Nobody else
//! writes to these files: they lie in the store, and the kernel reads them only after this code has closed them.

mod device;
mod format;
mod place;
mod verity;
mod warm;
mod writer;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

pub(crate) use place::Image;
pub use verity::probe as probe_verity;
pub use warm::{cool, mount_warm};

use crate::unpack::{Attributes, Place};

/// The name of the image in a layer's directory.
pub(crate) const NAME: &str = "image.erofs";

/// The option by which data goes from the disk to the pages of the mounted files, and not through those of the image.
const DIRECT: &str = "directio";

/// What an image is mounted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Its file, read directly: Linux 6.12.
    File,
    /// Its file, through the pages of the image, so that what is read is in memory twice: kernels that do not know the option
    /// for it, and file systems that cannot read directly.
    FilePages,
    /// A loop device with the file behind it, which goes with the mount: every kernel.
    LoopDevice,
}

/// Mounts an image, read-only and detached: the mount goes with its descriptor, or is attached to a place.
///
/// From its file where the kernel can, else from a loop device. Errors: a kernel without EROFS, or without either way.
pub fn mount(path: &Path) -> io::Result<OwnedFd> {
    mount_file(open(path)?.as_fd(), true).map(|(mount, _)| mount)
}

/// Mounts an image as [`mount`] does, but in the one way that is asked for.
pub fn mount_from(path: &Path, backing: Backing) -> io::Result<OwnedFd> {
    let file = open(path)?;
    match backing {
        Backing::File | Backing::FilePages => from_file(file.as_fd(), backing == Backing::File).map(|(mount, _)| mount),
        Backing::LoopDevice => from_loop_device(file.as_fd()),
    }
}

/// Opens an image; one that is not the one that was sealed is refused.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let file = open_unchecked(path)?;
    verity::compare(path, file.as_fd())?;
    Ok(file)
}

fn open_unchecked(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Mounts an image in the way that works here; `direct`: read directly if that can be.
fn mount_file(file: BorrowedFd<'_>, direct: bool) -> io::Result<(OwnedFd, Backing)> {
    match from_file(file, direct) {
        Err(error) if error.raw_os_error() == Some(Errno::NOTBLK.raw_os_error()) => {
            Ok((from_loop_device(file)?, Backing::LoopDevice))
        }
        result => result,
    }
}

fn from_file(file: BorrowedFd<'_>, direct: bool) -> io::Result<(OwnedFd, Backing)> {
    let (context, direct) = context(file, direct)?;
    Ok((create(context.as_fd())?, if direct { Backing::File } else { Backing::FilePages }))
}

fn from_loop_device(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // From here on until the mount is there, the device lives by this descriptor.
    let device = device::attach(file)?;
    let (context, _) = context(device.as_fd(), false)?;
    create(context.as_fd())
}

/// Prepares a mount; tells whether it will read directly.
fn context(source: BorrowedFd<'_>, direct: bool) -> io::Result<(OwnedFd, bool)> {
    let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // By descriptor: a value may have 255 bytes, and the path is not resolved twice.
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", format!("/proc/self/fd/{}", source.as_raw_fd()))?;
    rustix::mount::fsconfig_set_flag(context.as_fd(), "ro")?;
    let direct = direct && rustix::mount::fsconfig_set_flag(context.as_fd(), DIRECT).is_ok();
    Ok((context, direct))
}

fn create(context: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    rustix::mount::fsconfig_create(context)?;
    Ok(rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// Tells from what images can be mounted that lie in a directory, by doing it with one that has no name; the error says why
/// they cannot.
pub fn probe(directory: &Path) -> io::Result<Backing> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?);
    let mut image = Image::new(file.try_clone()?);
    image.describe(b"", &Attributes::plain_directory(), true)?;
    image.close()?;
    let (mount, backing) = mount_file(file.as_fd(), true)?;
    let root = rustix::fs::openat(mount, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut value = [0; 4];
    let length = rustix::fs::fgetxattr(root, "trusted.overlay.opaque", &mut value[..])?;
    if value[..length] == *b"y" { Ok(backing) } else { Err(io::ErrorKind::Unsupported.into()) }
}
