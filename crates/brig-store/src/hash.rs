//! Hashing of streams by the algorithm that a digest names.

use brig_spec::digest::{Algorithm, Digest};
use sha2::Digest as _;

/// A running hash of one of the algorithms that digests know.
pub(crate) enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Starts a hash.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    /// Takes in bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// Ends the hash.
    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::sha256(&hash.finalize().into()),
            Self::Sha512(hash) => Digest::sha512(&hash.finalize().into()),
        }
    }
}

/// Returns the sha256 digest of bytes in memory.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    digest_as(Algorithm::Sha256, bytes)
}

/// Returns the digest of bytes in memory by the given algorithm.
pub(crate) fn digest_as(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hash = Hasher::new(algorithm);
    hash.update(bytes);
    hash.finish()
}
