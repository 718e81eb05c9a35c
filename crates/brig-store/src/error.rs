//! What can go wrong with the store.

use std::io;

use brig_spec::digest::Digest;
use brig_spec::image::DocumentError;

use crate::tarball::Fault;

/// The result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;

/// The reason why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {action} `{object}`")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file it was done to.
        object: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A blob could not be fetched from where the image comes from.
    #[error("cannot fetch {digest}")]
    Fetch {
        /// The blob.
        digest: Digest,
        /// What the source said.
        source: io::Error,
    },
    /// Content is not what its digest says.
    #[error("content has digest {found}, expected {expected}")]
    Digest {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// Content is longer or shorter than announced.
    #[error("content of {digest} has {found} bytes, expected {expected}")]
    Size {
        /// The blob.
        digest: Digest,
        /// The size that was announced, in bytes.
        expected: u64,
        /// The size that came, in bytes; one more than expected if it did not end there.
        found: u64,
    },
    /// A layer's tar stream is damaged or hostile.
    #[error("cannot unpack layer {layer}")]
    Layer {
        /// The layer's blob.
        layer: Digest,
        /// What is wrong with it.
        source: Fault,
    },
    /// A manifest or configuration is refused.
    #[error("cannot use {digest}")]
    Document {
        /// The document.
        digest: Digest,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// The parts of an image contradict each other, or are of a kind that is no container image.
    #[error("image {id} is malformed: {reason}")]
    Malformed {
        /// The image, by the digest of its manifest.
        id: Digest,
        /// What does not fit.
        reason: String,
    },
    /// An archive or layout is not of the form that it should have.
    #[error("cannot read image archive `{path}`: {reason}")]
    Archive {
        /// The archive.
        path: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// A tar inside an archive is damaged.
    #[error("cannot read image archive `{path}`")]
    ArchiveTar {
        /// The archive.
        path: String,
        /// What is wrong with it.
        source: Fault,
    },
    /// A record of the store is unreadable, or written by a newer brig.
    #[error("record `{path}` is unreadable: {reason}")]
    Record {
        /// The record.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No image has this name or id.
    #[error("no such image: {0}")]
    NoSuchImage(String),
    /// An id prefix fits more than one image.
    #[error("image id `{0}` is ambiguous")]
    Ambiguous(String),
    /// The image cannot be removed as asked.
    #[error("image `{image}` is in use: {reason}")]
    InUse {
        /// The image.
        image: String,
        /// Who or what needs it.
        reason: String,
    },
    /// The caller cannot tell what its containers use, so nothing is removed.
    #[error("cannot tell which images containers use")]
    Users {
        /// Why not.
        source: crate::collect::AskError,
    },
    /// Another process holds a lock for longer than the limit.
    #[error("another process is still busy with `{0}`")]
    Busy(String),
    /// The caller's observer asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Makes a function that wraps an I/O error with what was being done to what.
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, object: impl ToString) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { action, object: object.to_string(), source: source.into() }
    }
}
