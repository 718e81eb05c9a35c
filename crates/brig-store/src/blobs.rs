//! Content by digest: looked up, opened, read with a check.

use std::fs::File;
use std::path::PathBuf;

use brig_spec::digest::Digest;

use crate::error::{Error, Result};
use crate::{Store, disk, hash};

impl Store {
    /// Returns where a blob lies, or would lie.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Tells whether a blob is here.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).symlink_metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// Lists the blobs that are here with their sizes in bytes.
    pub fn blobs_here(&self) -> Result<Vec<(Digest, u64)>> {
        let mut all = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let path = self.root.join("blobs").join(algorithm);
            for entry in std::fs::read_dir(&path).map_err(Error::io("read", path.display()))? {
                let entry = entry.map_err(Error::io("read", path.display()))?;
                let digest = format!("{algorithm}:{}", entry.file_name().to_string_lossy()).parse::<Digest>();
                if let (Ok(digest), Ok(metadata)) = (digest, entry.metadata()) {
                    all.push((digest, metadata.len()));
                }
            }
        }
        all.sort();
        Ok(all)
    }

    /// Opens a blob for reading; the content was verified when it came in.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(Error::io("open", path.display()))
    }

    /// Reads a small blob of at most `limit` bytes, and verifies it again.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let bytes = disk::read_file(&path, limit)?.ok_or_else(|| Error::io("open", path.display())(missing()))?;
        let found = hash::digest_as(digest.algorithm(), &bytes);
        if found == *digest { Ok(bytes) } else { Err(Error::Digest { expected: digest.clone(), found }) }
    }
}
