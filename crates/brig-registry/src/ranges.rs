//! When a blob comes in several ranges at once.

use std::time::Duration;

/// When and how a blob is split. A single stream is the fastest way wherever it is fast: so every blob begins as one, and only
/// a large rest that trickles is fetched by several connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    /// The least rest, in bytes, that is worth it.
    pub least: u64,
    /// The rate of a single stream, in bytes a second, below which it is worth it.
    pub slow: u64,
    /// For how long a stream is watched before it is judged.
    pub watch: Duration,
    /// How many connections there are then.
    pub parallel: usize,
    /// How many bytes each of them fetches at a time; so much is held in memory for each.
    pub piece: u64,
}

impl Default for Ranges {
    fn default() -> Self {
        Self { least: 32 << 20, slow: 24 << 20, watch: Duration::from_millis(1500), parallel: 4, piece: 2 << 20 }
    }
}
