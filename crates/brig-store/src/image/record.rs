//! The record of one image on disk.

use std::path::PathBuf;

use brig_spec::digest::Digest;
use brig_spec::image::Descriptor;
use brig_spec::platform::Platform;
use brig_spec::reference::Reference;
use serde::{Deserialize, Serialize};

use super::changes::{Change, CommitLock};
use super::lines::Line;
use crate::error::{Error, Result};
use crate::{Store, disk};

/// The format of image records that this program writes.
pub(crate) const FORMAT: u32 = 1;
const RECORD_MAX: u64 = 4 << 20;
/// The most origins that a record keeps.
const ORIGINS_MAX: usize = 64;

/// Metadata of an image's root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootMetadata {
    /// Permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Default for RootMetadata {
    fn default() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0 }
    }
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The name of its directory below `layers`.
    pub name: String,
    /// The digest of its uncompressed tar.
    pub diff_id: Digest,
    /// Its blob as it was received.
    pub blob: Descriptor,
    /// Its unpacked size in bytes.
    pub size: u64,
}

/// What `images/<hex>.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) format: u32,
    pub(crate) id: Digest,
    pub(crate) manifest: Digest,
    pub(crate) manifest_type: Option<String>,
    pub(crate) manifest_size: u64,
    pub(crate) config_size: u64,
    pub(crate) origins: Vec<Reference>,
    pub(crate) created: Option<String>,
    pub(crate) added: u64,
    pub(crate) platform: Platform,
    pub(crate) size: u64,
    pub(crate) root: RootMetadata,
    pub(crate) layers: Vec<LayerRecord>,
}

/// A record that is written, but not in its place.
pub(crate) struct Draft {
    path: PathBuf,
    text: Vec<u8>,
}

impl Store {
    pub(crate) fn images_path(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Reads an image's record; `None` if there is no such image.
    pub(crate) fn read_image(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        let path = self.images_path().join(format!("{}.json", id.hex()));
        let Some(bytes) = disk::read_file(&path, RECORD_MAX)? else { return Ok(None) };
        let fail = |reason: String| Error::Record { path: path.display().to_string(), reason };
        // The format is looked at by itself only where the rest cannot be read.
        #[derive(Deserialize)]
        struct Probe {
            format: u32,
        }
        let newer = |format: u32| fail(format!("it has format {format}, which a newer brig wrote"));
        let record: ImageRecord =
            serde_json::from_slice(&bytes).map_err(|error| match serde_json::from_slice::<Probe>(&bytes) {
                Ok(Probe { format }) if format != FORMAT => newer(format),
                _ => fail(error.to_string()),
            })?;
        if record.format != FORMAT {
            return Err(newer(record.format));
        }
        if record.id != *id || record.layers.iter().any(|layer| layer.name.contains(['/', '.'])) {
            return Err(fail("it is not the record of this image".to_owned()));
        }
        Ok(Some(record))
    }

    /// Writes an image's record to `path`, aside, so that it can be flushed with all that it tells of.
    pub(crate) fn draft_image(&self, record: &ImageRecord, path: PathBuf) -> Result<Draft> {
        let (_, text) = self.with_origins(record)?;
        disk::write_new(&path, &text).map_err(Error::io("write", path.display()))?;
        Ok(Draft { path, text })
    }

    /// Puts an image's record in its place: the draft, unless another process has meanwhile written what it must keep.
    pub(crate) fn place_image(
        &self,
        commit: &CommitLock<'_>,
        record: &ImageRecord,
        draft: &Draft,
    ) -> Result<ImageRecord> {
        let (record, text) = self.with_origins(record)?;
        let name = format!("{}.json", record.id.hex());
        commit.change(|| {
            if text == draft.text {
                let path = self.images_path().join(name);
                std::fs::rename(&draft.path, &path).map_err(Error::io("write", path.display()))?;
            } else {
                disk::replace_file(&self.images_path(), &name, &text)?;
            }
            let line = Line::nameless(&record.id, record.size, record.created.as_deref());
            Ok((record, Change::Recorded(line)))
        })
    }

    /// Removes an image's record; none is fine. It is for good once the directory is flushed.
    pub(crate) fn remove_record(&self, commit: &CommitLock<'_>, id: &Digest) -> Result<()> {
        let path = self.images_path().join(format!("{}.json", id.hex()));
        commit.change(|| disk::remove_file(&path).map(|()| ((), Change::Gone(id.clone()))))
    }

    /// Adds to a record what one of the same image knows of its origins; returns it as a text, too.
    fn with_origins(&self, record: &ImageRecord) -> Result<(ImageRecord, Vec<u8>)> {
        let mut record = record.clone();
        if let Ok(Some(old)) = self.read_image(&record.id) {
            record.added = old.added;
            for origin in old.origins {
                if record.origins.len() < ORIGINS_MAX && !record.origins.contains(&origin) {
                    record.origins.push(origin);
                }
            }
        }
        let text = serde_json::to_vec(&record)
            .map_err(|error| Error::Record { path: record.id.to_string(), reason: error.to_string() })?;
        Ok((record, text))
    }

    /// Lists the ids of all images, readable or not.
    pub(crate) fn image_ids(&self) -> Result<Vec<Digest>> {
        let path = self.images_path();
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(Error::io("read", path.display()))? {
            let name = entry.map_err(Error::io("read", path.display()))?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(".json"));
            if let Some(id) = hex.and_then(|hex| Digest::from_sha256_hex(hex).ok()) {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }
}
