//! The bounds on what an image may ask of this machine.

use std::time::Duration;

/// Bounds on unpacking; the defaults let every sane image pass and stop bombs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The most entries of one layer.
    pub entries: u64,
    /// The most bytes of one uncompressed layer, also the largest size of one (sparse) file.
    pub layer_bytes: u64,
    /// The most by which a layer may grow in decompression, once it is larger than `ratio_floor`.
    pub ratio: u64,
    /// The uncompressed size in bytes up to which any ratio is allowed.
    pub ratio_floor: u64,
    /// How long to wait for another process that is fetching the same layer.
    pub lock_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            layer_bytes: 64 << 30,
            ratio: 200,
            ratio_floor: 1 << 30,
            lock_wait: Duration::from_secs(30 * 60),
        }
    }
}

impl Limits {
    /// Returns the most uncompressed bytes that a blob of `compressed` bytes may become.
    pub(crate) fn expanded(&self, compressed: u64) -> u64 {
        compressed.saturating_mul(self.ratio).max(self.ratio_floor).min(self.layer_bytes)
    }
}

/// Returns how many layers are fetched and unpacked at the same time. It takes some twenty system calls.
pub(crate) fn parallel() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(3, 8)
}
