//! Unpacked layers on disk: their names, their records, and the look-up of a layer that is already there.
//!
//! ```text
//!   layers/<diff hex>/          came out the same whatever lies below: any image with this layer uses it
//!   layers/chain-<chain hex>/   was finished over the layers below: only the same sequence uses it
//!       layer.json              written before the directory is renamed into place
//!       tree/                   the lower directory for overlay, or in its place
//!       image.erofs             the same as one file, to be mounted
//! ```
//!
//! Layers of both forms live side by side in one store, and one image may have some of each.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use brig_spec::digest::Digest;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::erofs::Backing;
use crate::error::{Error, Result};
use crate::{Store, disk, erofs, hash};

/// The format of `layer.json` beside a tree.
pub(crate) const FORMAT: u32 = 1;
/// The format of `layer.json` beside an image, which a brig that knows only trees leaves alone.
pub(crate) const FORMAT_IMAGE: u32 = 2;
const RECORD_MAX: u64 = 64 << 10;

/// The form of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerForm {
    /// Files and directories.
    Directories,
    /// One EROFS image.
    Erofs,
}

/// The form of the layers that are unpacked from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerChoice {
    /// Images where they are no slower than directories and take no more room in memory; else directories.
    #[default]
    Auto,
    /// The one that was asked for. Where images cannot be mounted, directories all the same.
    Always(LayerForm),
    /// Images, and each is sealed by fs-verity where the file system has it.
    Sealed,
}

impl std::fmt::Display for LayerChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Always(LayerForm::Directories) => "directories",
            Self::Always(LayerForm::Erofs) => "erofs",
            Self::Sealed => "erofs+verity",
        })
    }
}

/// A word that is no [`LayerChoice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("layers are kept as `directories`, `erofs` or `erofs+verity`, or as `auto` finds better")]
pub struct UnknownForm;

impl std::str::FromStr for LayerChoice {
    type Err = UnknownForm;

    fn from_str(text: &str) -> std::result::Result<Self, UnknownForm> {
        match text {
            "auto" => Ok(Self::Auto),
            "directories" => Ok(Self::Always(LayerForm::Directories)),
            "erofs" => Ok(Self::Always(LayerForm::Erofs)),
            "erofs+verity" => Ok(Self::Sealed),
            _ => Err(UnknownForm),
        }
    }
}

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
    /// What must be found in the tree, where that was simple to count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) census: Option<Census>,
    /// The fs-verity digest of the image, if that is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) verity: Option<Digest>,
}

/// How many things a tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Census {
    /// Directories, the root included.
    pub(crate) directories: u64,
    /// Names of everything else.
    pub(crate) names: u64,
    /// The sizes of all files, holes included.
    pub(crate) bytes: u64,
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

    /// Sets the form of the layers that are unpacked from now on.
    #[must_use]
    pub fn with_layers_as(mut self, choice: LayerChoice) -> Self {
        self.layers = choice;
        self
    }

    /// Tells from what EROFS images would be mounted here, by making and mounting one; the error says why they cannot be.
    pub fn probe_erofs(&self) -> std::io::Result<Backing> {
        erofs::probe(&self.root.join("tmp"))
    }

    /// Chooses the form of layers that are to be unpacked.
    pub(crate) fn form_here(&self) -> LayerForm {
        let images = match self.layers {
            LayerChoice::Auto => self.probe_erofs().is_ok_and(|backing| backing == Backing::File),
            LayerChoice::Always(LayerForm::Directories) => false,
            LayerChoice::Always(LayerForm::Erofs) | LayerChoice::Sealed => self.probe_erofs().is_ok(),
        };
        if images { LayerForm::Erofs } else { LayerForm::Directories }
    }

    /// Lists the unpacked layers that are here, by name, with their sizes in bytes; one that cannot be read counts nothing.
    pub fn layers_here(&self) -> Result<BTreeMap<String, u64>> {
        let path = self.root.join("layers");
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir(&path).map_err(Error::io("read", path.display()))? {
            let entry = entry.map_err(Error::io("read", path.display()))?;
            let size = read_record(&entry.path()).ok().flatten().map_or(0, |record| record.size);
            all.extend(entry.file_name().into_string().ok().map(|name| (name, size)));
        }
        Ok(all)
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
    if !matches!(record.format, FORMAT | FORMAT_IMAGE) {
        return Err(fail(format!("it has format {}, which a newer brig wrote", record.format)));
    }
    Ok(Some(record))
}

/// Returns what a layer's directory has: the tree, or the image that is to be mounted.
pub fn content(directory: &Path) -> PathBuf {
    let image = directory.join(erofs::NAME);
    if image.symlink_metadata().is_ok() { image } else { directory.join("tree") }
}

/// Opens the root of a layer; one that is an image is mounted for as long as the descriptor is open.
pub(crate) fn open(directory: &Path) -> Result<OwnedFd> {
    let content = content(directory);
    if is_image(&content) {
        // The descriptor of a mount alone cannot be read from.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = erofs::mount(&content).and_then(|mount| Ok(rustix::fs::openat(mount, ".", flags, Mode::empty())?));
        return root.map_err(Error::io("mount", content.display()));
    }
    disk::open_directory(&content)
}

/// Tells whether what [`crate::Image::layers`] names is an image, which [`crate::mount_layer`] mounts, and not a directory.
pub fn is_image(layer: &Path) -> bool {
    layer.file_name().is_some_and(|name| name == erofs::NAME)
}
