//! Images sealed by fs-verity, where the file system has it: the kernel compares every block that it reads of the image with a
//! tree of hashes, and a block that is another one on the disk is an error (`EIO`) and not other content.
//!
//! ```text
//!   image.erofs written, closed --FS_IOC_ENABLE_VERITY--> the tree of hashes, behind the file's end
//!                               --FS_IOC_MEASURE_VERITY-> the tree's root, kept in layer.json: compared at each mount
//! ```
//!
//! Enabling reads the image once and drops its pages from memory, and an image that is sealed cannot be read past the pages of
//! its file. So it is done only if asked for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use brig_spec::digest::Digest;
use brig_sys::verity;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::{LayerChoice, Store, layers};

/// How often an image is tried to be sealed that somebody has open for writing.
const ATTEMPTS: u32 = 100;

/// Why an image is not mounted.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the image is not the one that was sealed: its fs-verity digest is {found}, and {expected} is on record")]
    Differs { expected: Digest, found: Digest },
    #[error("the image was sealed by fs-verity, and is not any more")]
    Open(#[source] io::Error),
    #[error("cannot read the record of what was sealed")]
    Record(#[source] Error),
}

impl Store {
    /// Seals the image in a layer's directory, if there is one and sealing was asked for; returns its digest.
    ///
    /// Nobody writes to it any more, and it has no record yet.
    pub(crate) fn seal_image(&self, directory: &Path) -> Result<Option<Digest>> {
        let content = layers::content(directory);
        if self.layers != LayerChoice::Sealed || !layers::is_image(&content) {
            return Ok(None);
        }
        seal(&content).map_err(Error::io("seal", content.display()))
    }

    /// Tells whether images could be sealed by fs-verity here; the error says why not.
    pub fn probe_verity(&self) -> io::Result<()> {
        probe(&self.root.join("tmp"))
    }
}

/// Seals an image, and returns its digest; `None` where the file system has no fs-verity.
fn seal(path: &Path) -> io::Result<Option<Digest>> {
    let file = super::open_unchecked(path)?;
    let mut attempt = 0;
    loop {
        match verity::enable(file.as_fd()) {
            Ok(()) => return verity::measure(file.as_fd()).map(|digest| Some(Digest::sha256(&digest))),
            Err(error) if is_absent(&error) => return Ok(None),
            // A program that is just being started by this one has our descriptors until its exec.
            Err(error) if error.raw_os_error() == Some(Errno::TXTBSY.raw_os_error()) && attempt < ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Compares an image with the record that lies beside it, if that says that it was sealed.
pub(super) fn compare(path: &Path, file: BorrowedFd<'_>) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    let record = layers::read_record(directory).map_err(|error| io::Error::other(Fault::Record(error)))?;
    let Some(expected) = record.and_then(|record| record.verity) else { return Ok(()) };
    let found = verity::measure(file).map_err(|error| io::Error::other(Fault::Open(error)))?;
    let found = Digest::sha256(&found);
    if found == expected { Ok(()) } else { Err(io::Error::other(Fault::Differs { expected, found })) }
}

/// Tells whether images that lie in a directory could be sealed; the error says why not.
pub fn probe(directory: &Path) -> io::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?;
    match verity::measure(file.as_fd()) {
        // It could be, and is not.
        Err(error) if error.raw_os_error() == Some(Errno::NODATA.raw_os_error()) => Ok(()),
        result => result.map(drop),
    }
}

fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::NOTTY, Errno::OPNOTSUPP].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|number| absent.contains(&number))
}
