//! What a long operation tells its caller, and how the caller stops it.

use brig_spec::digest::Digest;

/// One thing that happened during a long operation.
///
/// There are at most two `Downloading` events for each MiB, and a handful of others for each layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Layers are known; those that are already here have `present` set.
    Layer {
        /// The layer's blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// Whether nothing needs to be done for it.
        present: bool,
    },
    /// Another process is fetching this layer; this one waits for it.
    Waiting {
        /// The layer's blob.
        digest: Digest,
    },
    /// So many bytes of a blob are here, those of an earlier attempt included.
    Downloading {
        /// The layer's blob.
        digest: Digest,
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A layer is fetched, verified and unpacked.
    Unpacked {
        /// The layer's blob.
        digest: Digest,
        /// Its unpacked size in bytes.
        size: u64,
    },
    /// Everything is being flushed to disk.
    Flushing,
    /// A step of publishing is about to be taken; a crash before or after it must do no harm.
    Step(&'static str),
}

/// Receives progress and may ask to stop. Called from several threads.
pub trait Observer: Sync {
    /// Takes note of an event; must return soon.
    fn progress(&self, event: Progress);

    /// Tells whether the operation shall stop; asked at least once for each buffer of data.
    fn cancelled(&self) -> bool {
        false
    }
}

/// The observer that does not care.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn progress(&self, _event: Progress) {}
}
