//! The disk: image content, unpacked layers, image names, and the collection of what nobody needs any more.
//!
//! ```text
//!   <root>/blobs/sha256/<hex>        manifests, configurations and layers as they were received
//!   <root>/layers/<id>/tree          one unpacked layer, in overlay's form (whiteouts as 0:0, opaque as xattr),
//!                 or image.erofs     the same as one file
//!   <root>/layers/<id>/layer.json    its diff id, size, and the metadata of its root directory
//!   <root>/images/<hex>.json         one image: its layers, size, date and platform; the id is its config's digest
//!   <root>/images/names/<name>       a symbolic link whose target is `<hex> <name>`: replaced by one rename
//!   <root>/listing                   a copy of the plain listing, good while `images` is as it was
//!   <root>/images/.lock              held for moments by whoever changes names, publishes, or collects
//!   <root>/tmp/lease-<..>/           a running pull: what it needs (`lease.json`), and what it is unpacking
//!   <root>/tmp/<digest>.part         a download, kept when it breaks off, and the lock on that layer
//! ```
//!
//! Everything is either content-addressed and complete, or below `tmp`. Publishing is: sync, rename blobs, rename
//! layers, write the record, point the names. A crash between any two of these leaves content that no record names, which
//! [`Store::collect`] removes, and never a record without its content.

mod ahead;
mod archive;
mod blobs;
mod check;
mod collect;
mod commit;
mod compress;
mod compression;
mod disk;
mod erofs;
mod error;
mod export;
mod hash;
mod image;
mod ingest;
mod layers;
mod layout;
mod lease;
mod limits;
mod observe;
mod pump;
mod rootfs;
mod snapshot;
pub mod stream;
mod sweep;
mod tarball;
mod unpack;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use archive::{Archive, ArchiveImage};
pub use check::{Object, Problem, Repaired, Report};
pub use collect::{AskError, AskUsers, Collected, InUse, await_collection};
pub use commit::{Commit, Committed};
pub use erofs::{
    Backing, cool as cool_layer, mount as mount_layer, mount_from as mount_layer_from, mount_warm as mount_layer_warm,
    probe as probe_erofs, probe_verity,
};
pub use error::{Error, Result};
pub use export::SaveFormat;
pub use image::{Image, ImageSummary, LayerRecord, Line, Listing, Removed, RootMetadata};
pub use ingest::{BlobSource, NewImage, Opened};
pub use layers::{LayerChoice, LayerForm, UnknownForm, content as layer_content, is_image};
pub use layout::Layout;
pub use lease::Hold;
pub use limits::Limits;
pub use observe::{Observer, Progress, Silent};
pub use rootfs::Import;
pub use tarball::Fault;

/// An image store in one directory; several processes may use it at once.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    root_fd: OwnedFd,
    limits: Limits,
    layers: LayerChoice,
}

impl Store {
    /// Opens the store in `root`, and makes its directories (mode 0700) where they are missing.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, Limits::default())
    }

    /// Opens the store in `root` with limits of the caller's choice.
    pub fn open_with(root: &Path, limits: Limits) -> Result<Self> {
        // The last one is there only when all are.
        if !root.join("tmp").is_dir() {
            for path in ["", "blobs", "blobs/sha256", "blobs/sha512", "layers", "images", "images/names", "tmp"] {
                disk::make_directory(&root.join(path))?;
            }
        }
        let root_fd = disk::open_directory(root)?;
        Ok(Self { root: root.to_owned(), root_fd, limits, layers: LayerChoice::default() })
    }

    /// Returns the directory that the store was opened in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the limits that unpacking observes.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}
