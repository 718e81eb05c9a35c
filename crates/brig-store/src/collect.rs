//! The collector: what no image record, no container and no running pull needs is removed.
//!
//! ```text
//!   commit lock held:  roots = records + leases of the living + what the caller's containers use (asked now)
//!                      everything else: rename to tmp/trash-..       (moments)
//!   lock released:     remove the trash, dead leases, old downloads  (as long as it takes)
//! ```
//!
//! Whoever makes a container records what it uses, waits for a collection that goes on ([`await_collection`]), and looks
//! whether its layers are there: a collection that asked before the record is over by then, and a later one sees it.
//!
//! If one record cannot be read, no blob and no layer is removed: it may name any of them.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use brig_spec::digest::Digest;
use rustix::fs::FlockOperation;

use crate::error::{Error, Result};
use crate::image::CommitLock;
use crate::lease::Needs;
use crate::limits::Limits;
use crate::{Silent, Store, disk};

const LEASE_MAX: u64 = 4 << 20;

/// What the caller's containers use.
#[derive(Debug, Clone, Default)]
pub struct InUse {
    /// Images, each with who uses it, such as `container web`, for the error's text.
    pub images: Vec<(Digest, String)>,
    /// Names of layers, as [`crate::Image::layer_names`] gave them.
    pub layers: Vec<String>,
}

impl InUse {
    /// Nothing is used, by nobody: an [`AskUsers`] where there are no containers.
    pub fn nobody() -> std::result::Result<Self, AskError> {
        Ok(Self::default())
    }
}

/// Why the caller cannot tell what its containers use.
pub type AskError = Box<dyn std::error::Error + Send + Sync>;

/// Asks the caller what its containers use; called while the commit lock is held.
pub type AskUsers<'a> = dyn Fn() -> std::result::Result<InUse, AskError> + 'a;

/// Calls it.
pub(crate) fn ask(users: &AskUsers<'_>) -> Result<InUse> {
    users().map_err(|source| Error::Users { source })
}

/// Waits until a collection that goes on in the store in `root` is over; what was recorded before is seen by the next one.
///
/// Errors: it takes longer than the limit for locks.
pub fn await_collection(root: &Path) -> Result<()> {
    let path = root.join("images/.lock");
    let file = match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(Error::io("open", path.display()))?,
    };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok()
        || disk::lock_within(file.as_fd(), Limits::default().lock_wait, &Silent, || {})?
    {
        return Ok(());
    }
    Err(Error::Busy(path.display().to_string()))
}

/// What a collection has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// The number of blobs.
    pub blobs: u64,
    /// The number of unpacked layers.
    pub layers: u64,
    /// The number of abandoned downloads, leases and other things below `tmp`.
    pub leftovers: u64,
    /// The bytes of the blobs and the files in the layers.
    pub bytes: u64,
}

impl Store {
    /// Removes everything that nobody needs; downloads younger than `keep_downloads` are kept to be resumed.
    pub fn collect(&self, users: &AskUsers<'_>, keep_downloads: Duration) -> Result<Collected> {
        let mut collected = Collected::default();
        {
            let commit = self.commit_lock(&Silent)?;
            let in_use = ask(users)?;
            let mut blobs: HashSet<Digest> = HashSet::new();
            let mut layers: HashSet<String> = in_use.layers.iter().cloned().collect();
            let complete = self.mark_records(&mut blobs, &mut layers)? && self.mark_leases(&mut blobs, &mut layers)?;
            for (image, _) in &in_use.images {
                blobs.insert(image.clone());
            }
            if complete {
                self.sweep_blobs(&blobs, &mut collected)?;
                self.sweep_layers(&layers, &mut collected)?;
            }
            self.sweep_names(&commit)?;
        }
        self.sweep_temporary(keep_downloads, &mut collected)?;
        Ok(collected)
    }

    /// Marks what the image records need; false if one of them cannot be read.
    fn mark_records(&self, blobs: &mut HashSet<Digest>, layers: &mut HashSet<String>) -> Result<bool> {
        for id in self.image_ids()? {
            let Ok(record) = self.read_image(&id) else { return Ok(false) };
            let Some(record) = record else { continue };
            blobs.insert(record.id);
            blobs.insert(record.manifest);
            for layer in record.layers {
                blobs.insert(layer.blob.digest);
                layers.insert(layer.name);
            }
        }
        Ok(true)
    }

    /// Marks what running pulls need.
    fn mark_leases(&self, blobs: &mut HashSet<Digest>, layers: &mut HashSet<String>) -> Result<bool> {
        let path = self.root.join("tmp");
        for entry in std::fs::read_dir(&path).map_err(Error::io("read", path.display()))? {
            let entry = entry.map_err(Error::io("read", path.display()))?;
            if !entry.file_name().as_encoded_bytes().starts_with(b"lease-") || !is_held(&entry.path()) {
                continue;
            }
            // A holder writes its needs before it lets the commit lock go; without them it has just ended.
            let Some(bytes) = disk::read_file(&entry.path().join("lease.json"), LEASE_MAX)? else { continue };
            let Ok(needs) = serde_json::from_slice::<Needs>(&bytes) else { return Ok(false) };
            blobs.extend(needs.blobs);
            layers.extend(needs.layers);
        }
        Ok(true)
    }

    fn sweep_blobs(&self, needed: &HashSet<Digest>, collected: &mut Collected) -> Result<()> {
        for algorithm in ["sha256", "sha512"] {
            let path = self.root.join("blobs").join(algorithm);
            for entry in std::fs::read_dir(&path).map_err(Error::io("read", path.display()))? {
                let entry = entry.map_err(Error::io("read", path.display()))?;
                let digest = format!("{algorithm}:{}", entry.file_name().to_string_lossy()).parse::<Digest>();
                if digest.is_ok_and(|digest| needed.contains(&digest)) {
                    continue;
                }
                collected.bytes += entry.metadata().map_or(0, |metadata| metadata.len());
                std::fs::remove_file(entry.path()).map_err(Error::io("remove", entry.path().display()))?;
                collected.blobs += 1;
            }
        }
        Ok(())
    }

    fn sweep_layers(&self, needed: &HashSet<String>, collected: &mut Collected) -> Result<()> {
        let path = self.root.join("layers");
        for entry in std::fs::read_dir(&path).map_err(Error::io("read", path.display()))? {
            let entry = entry.map_err(Error::io("read", path.display()))?;
            if entry.file_name().to_str().is_some_and(|name| needed.contains(name)) {
                continue;
            }
            if let Ok(Some(record)) = crate::layers::read_record(&entry.path()) {
                collected.bytes += record.size;
            }
            let trash = self.root.join("tmp").join(format!("trash-{}", disk::random_name()));
            std::fs::rename(entry.path(), &trash).map_err(Error::io("remove", entry.path().display()))?;
            collected.layers += 1;
        }
        Ok(())
    }

    /// Removes names whose image is gone, and what an interrupted write left beside records and names.
    fn sweep_names(&self, commit: &CommitLock<'_>) -> Result<()> {
        let ids: HashSet<Digest> = self.image_ids()?.into_iter().collect();
        for (name, owner) in self.names()? {
            if !ids.contains(&owner) {
                self.unset_name(commit, &name)?;
            }
        }
        for directory in ["images", "images/names"] {
            let path = self.root.join(directory);
            for entry in std::fs::read_dir(&path).map_err(Error::io("read", path.display()))? {
                let entry = entry.map_err(Error::io("read", path.display()))?;
                let name = entry.file_name();
                if name.as_encoded_bytes().starts_with(b".") && name != ".lock" {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
        Ok(())
    }

    /// Empties `tmp` of what no living process holds.
    pub(crate) fn sweep_temporary(&self, keep_downloads: Duration, collected: &mut Collected) -> Result<()> {
        let path = self.root.join("tmp");
        let directory = disk::open_directory(&path)?;
        for entry in std::fs::read_dir(&path).map_err(Error::io("read", path.display()))? {
            let entry = entry.map_err(Error::io("read", path.display()))?;
            let name = entry.file_name();
            let mut bytes = name.as_encoded_bytes();
            if bytes.ends_with(b".part") && is_young(&entry.path(), keep_downloads) {
                continue;
            }
            let (_held, trash);
            if bytes.starts_with(b"lease-") {
                // A lease is locked only after it is made; the commit lock is held over both.
                let _commit = self.commit_lock(&Silent)?;
                let Some(held) = seize(&entry.path()) else { continue };
                trash = format!("trash-{}", disk::random_name());
                match rustix::fs::renameat(&directory, bytes, &directory, trash.as_str()) {
                    Err(rustix::io::Errno::NOENT) => continue,
                    renamed => renamed.map_err(Error::io("remove", entry.path().display()))?,
                }
                bytes = trash.as_bytes();
                _held = held;
            } else {
                // Held until it is gone: whoever opens it meanwhile waits, and then finds that it has lost its name.
                let Some(held) = seize(&entry.path()) else { continue };
                _held = held;
            }
            crate::sweep::remove(directory.as_fd(), bytes).map_err(Error::io("remove", entry.path().display()))?;
            collected.leftovers += 1;
        }
        Ok(())
    }
}

/// Takes the lock on something below `tmp` that no living process holds; none if one does, or if it is gone.
fn seize(path: &Path) -> Option<std::fs::File> {
    let file = std::fs::File::open(path).ok()?;
    rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).ok()?;
    let (held, named) = (file.metadata().ok()?, path.symlink_metadata().ok()?);
    ((held.dev(), held.ino()) == (named.dev(), named.ino())).then_some(file)
}

/// Tells whether a living process holds the lock on a file or directory.
pub(crate) fn is_held(path: &Path) -> bool {
    let Ok(file) = std::fs::File::open(path) else { return false };
    rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).is_err()
}

/// Tells whether a download that has content was written to lately.
fn is_young(path: &Path, keep: Duration) -> bool {
    let Ok(metadata) = path.symlink_metadata() else { return false };
    let age = metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    metadata.size() > 0 && age.is_none_or(|age| age < keep)
}
