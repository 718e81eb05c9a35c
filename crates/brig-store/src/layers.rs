//! Unpacked layers on disk: their names, their records, and the look-up of a layer that is already there.
//!
//! ```text
//!   layers/<diff hex>/          came out the same whatever lies below: any image with this layer uses it
//!   layers/chain-<chain hex>/   was finished over the layers below: only the same sequence uses it
//!       layer.json              written before the directory is renamed into place
//!       tree/                   the lower directory for overlay
//! ```

use std::path::{Path, PathBuf};

use brig_spec::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::{Store, disk, hash};

/// The format of `layer.json` that this program writes.
pub(crate) const FORMAT: u32 = 1;
const RECORD_MAX: u64 = 64 << 10;

/// The record of one unpacked layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) format: u32,
    pub(crate) diff_id: Digest,
    /// Bytes of file data.
    pub(crate) size: u64,
    pub(crate) entries: u64,
    /// The root directory's metadata, if the layer has an entry for it.
    pub(crate) root: Option<RootRecord>,
}

/// Metadata of a layer's root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootRecord {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Returns the chain ids of a sequence of diff ids, bottom first (image-spec, "Layer ChainID").
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => hash::sha256(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// Returns the directory name of a layer that stands alone.
pub(crate) fn alone_name(diff_id: &Digest) -> String {
    diff_id.hex().to_owned()
}

/// Returns the directory name of a layer that was finished over others.
pub(crate) fn chained_name(chain_id: &Digest) -> String {
    format!("chain-{}", chain_id.hex())
}

impl Store {
    /// Returns the directory of a layer by its name.
    pub(crate) fn layer_path(&self, name: &str) -> PathBuf {
        self.root.join("layers").join(name)
    }

    /// Finds a layer on disk: the one that stands alone, or the one of this very chain.
    pub(crate) fn find_layer(&self, diff_id: &Digest, chain_id: &Digest) -> Result<Option<(String, Record)>> {
        for name in [alone_name(diff_id), chained_name(chain_id)] {
            if let Some(record) = read_record(&self.layer_path(&name))? {
                return Ok(Some((name, record)));
            }
        }
        Ok(None)
    }
}

/// Reads a layer's record; `None` if the layer is not there.
pub(crate) fn read_record(directory: &Path) -> Result<Option<Record>> {
    let path = directory.join("layer.json");
    let Some(bytes) = disk::read_file(&path, RECORD_MAX)? else { return Ok(None) };
    let fail = |reason: String| Error::Record { path: path.display().to_string(), reason };
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
    if record.format != FORMAT {
        return Err(fail(format!("it has format {}, which a newer brig wrote", record.format)));
    }
    Ok(Some(record))
}
