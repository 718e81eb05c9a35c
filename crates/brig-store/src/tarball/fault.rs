//! Why a tar stream is refused.

use std::io;

use rustix::io::Errno;

/// What is wrong with a layer, or what went wrong while it was unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The stream ends in the middle of an entry.
    #[error("the tar stream is cut short")]
    Truncated,
    /// A header block is damaged.
    #[error("the tar header at byte {at} has a bad {field}")]
    Header {
        /// Where the header is, in bytes of the uncompressed stream.
        at: u64,
        /// The field that is wrong.
        field: &'static str,
    },
    /// A pax header's records are damaged.
    #[error("the pax header at byte {at} has a bad {field}")]
    Pax {
        /// Where the header is, in bytes of the uncompressed stream.
        at: u64,
        /// The record that is wrong.
        field: &'static str,
    },
    /// A long name or a set of pax records is larger than any that is needed.
    #[error("the extension header at byte {at} has more than {limit} bytes")]
    ExtensionTooLong {
        /// Where it is, in bytes of the uncompressed stream.
        at: u64,
        /// The most bytes allowed.
        limit: u64,
    },
    /// An entry is of a type that has no meaning in a layer.
    #[error("entry `{path}` has unknown type `{kind}`")]
    EntryType {
        /// The entry.
        path: String,
        /// The type byte.
        kind: char,
    },
    /// A path would lead out of the layer, or is no path at all.
    #[error("entry `{path}` is refused: {reason}")]
    Path {
        /// The entry.
        path: String,
        /// What is wrong with its path.
        reason: &'static str,
    },
    /// A hard link's target would lead out of the layer, or is missing here and in the layers below.
    #[error("hard link `{path}` to `{target}` is refused: {reason}")]
    Link {
        /// The entry.
        path: String,
        /// What it points at.
        target: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The layer has more entries than the limit.
    #[error("the archive has more than {0} entries")]
    TooManyEntries(u64),
    /// The layer, or a file of it, is larger than the limit.
    #[error("the archive unpacks to more than {0} bytes")]
    TooLarge(u64),
    /// The stream could not be decompressed.
    #[error("the archive cannot be decompressed")]
    Decompress(#[source] io::Error),
    /// The stream could not be read to its end.
    #[error("the archive cannot be read")]
    Stream(#[source] io::Error),
    /// The file system refused an entry.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The entry.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Fault {
    /// Turns an error of the stream below into a fault, and unwraps one that a reader below passed through.
    pub(crate) fn from_stream(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(fault) => fault,
            Err(error) => match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => {
                    Self::Decompress(error)
                }
                _ => Self::Stream(error),
            },
        }
    }

    /// Makes a function that wraps a system call's error with the entry it was for.
    pub(crate) fn io(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Io { action, path: super::lossy(path), source: errno.into() }
    }

    /// Makes a refusal of a path.
    pub(crate) fn path(path: &[u8], reason: &'static str) -> Self {
        Self::Path { path: super::lossy(path), reason }
    }

    /// Makes a refusal of a hard link.
    pub(crate) fn link(path: &[u8], target: &[u8], reason: &'static str) -> Self {
        Self::Link { path: super::lossy(path), target: super::lossy(target), reason }
    }
}
