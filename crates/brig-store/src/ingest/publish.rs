//! What came in gets its names, in an order in which every prefix is harmless.

use std::path::{Path, PathBuf};

use brig_spec::digest::Digest;
use brig_spec::image::{ImageConfig, Manifest};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::NewImage;
use crate::Store;
use crate::error::{Error, Result};
use crate::image::{FORMAT, ImageRecord, LayerRecord, RootMetadata};
use crate::layers::RootRecord;
use crate::lease::Lease;
use crate::observe::{Observer, Progress};

/// Everything about an image whose layers are ready.
pub(crate) struct Incoming<'a> {
    pub(crate) image: &'a NewImage<'a>,
    pub(crate) manifest_digest: Digest,
    pub(crate) manifest: &'a Manifest,
    pub(crate) config: &'a ImageConfig,
    pub(crate) config_raw: &'a [u8],
    /// Files that become blobs.
    pub(crate) blobs: Vec<(PathBuf, Digest)>,
    /// Directories that become layers, by name.
    pub(crate) trees: Vec<(PathBuf, String)>,
    /// All layers of the image, bottom first.
    pub(crate) layers: Vec<LayerRecord>,
    /// The root directory, as the topmost layer that has it says.
    pub(crate) root: Option<RootRecord>,
    pub(crate) lease: &'a Lease,
}

impl Store {
    /// Flushes, renames, records and names an image.
    ///
    /// Two flushes, however many files: one makes the content durable before anything of it has a name, one makes the names
    /// durable. Between them the order of the renames suffices, since a file system with a journal keeps it over a power cut.
    pub(crate) fn publish(&self, incoming: &Incoming<'_>, observer: &dyn Observer) -> Result<ImageRecord> {
        let step = |name| observer.progress(Progress::Step(name));
        let flush = || rustix::fs::syncfs(&self.root_fd).map_err(Error::io("flush", self.root.display()));
        // 1. The small blobs and the record, beside the layers.
        let small = [
            (&incoming.manifest_digest, incoming.image.manifest),
            (&incoming.manifest.config.digest, incoming.config_raw),
        ];
        for (digest, bytes) in small {
            let path = incoming.lease.path().join(digest.hex());
            std::fs::write(&path, bytes).map_err(Error::io("write", path.display()))?;
        }
        let record = record(incoming);
        let draft = self.draft_image(&record, incoming.lease.path().join("record"))?;
        // 2. Everything to the disk at once.
        observer.progress(Progress::Flushing);
        step("flush");
        flush()?;
        // 3. Blobs.
        step("blobs");
        for (digest, _) in small {
            rename_new(&incoming.lease.path().join(digest.hex()), &self.blob_path(digest))?;
        }
        for (path, digest) in &incoming.blobs {
            step("blob");
            rename_new(path, &self.blob_path(digest))?;
        }
        // 4. Layers.
        for (path, name) in &incoming.trees {
            step("layer");
            rename_new(path, &self.layer_path(name))?;
        }
        // 5. The record, then the names.
        let commit = self.commit_lock(observer)?;
        step("record");
        let record = self.place_image(&commit, &record, &draft)?;
        for name in incoming.image.names {
            step("name");
            self.point_name(&commit, name, &record.id)?;
        }
        // Others need not wait for the disk: what they do about this image comes after it there, too.
        drop(commit);
        step("done");
        flush()?;
        Ok(record)
    }
}

/// Renames a file or directory to a name that, if it is taken, has the same content already.
fn rename_new(from: &Path, to: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(()),
        // Some file systems do not know the flag; for a directory, rename refuses a full target by itself.
        Err(Errno::INVAL) => match std::fs::rename(from, to) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
            result => result.map_err(Error::io("rename", from.display())),
        },
        Err(error) => Err(Error::io("rename", from.display())(error)),
    }
}

fn record(incoming: &Incoming<'_>) -> ImageRecord {
    let added = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    ImageRecord {
        format: FORMAT,
        id: incoming.manifest.config.digest.clone(),
        manifest: incoming.manifest_digest.clone(),
        manifest_type: incoming.manifest.media_type.clone().or(incoming.image.media_type.map(str::to_owned)),
        manifest_size: incoming.image.manifest.len() as u64,
        config_size: incoming.config_raw.len() as u64,
        origins: incoming.image.origins.to_vec(),
        created: incoming.config.created.clone(),
        added,
        platform: incoming.config.platform(),
        size: incoming.layers.iter().map(|layer| layer.size).sum(),
        root: incoming.root.map_or_else(RootMetadata::default, |root| RootMetadata {
            mode: root.mode,
            uid: root.uid,
            gid: root.gid,
        }),
        layers: incoming.layers.clone(),
    }
}
