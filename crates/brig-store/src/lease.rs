//! A lease: what a running pull needs, known to the collector for as long as the pull lives.
//!
//! The lease is a directory below `tmp`, held by a flock that dies with the process, and it is made while the commit
//! lock is held: a collector, which holds the same lock while it decides, sees either the lease or nothing that the
//! pull could rely on. What the pull is making lies inside, so one removal takes all of it.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use brig_spec::digest::Digest;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::{Image, ImageRecord};
use crate::observe::Silent;
use crate::{Store, disk};

/// What the collector must leave alone on a lease's account.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Needs {
    pub(crate) blobs: Vec<Digest>,
    /// Names of layer directories.
    pub(crate) layers: Vec<String>,
}

impl Needs {
    /// Everything that an image has.
    pub(crate) fn of(record: &ImageRecord) -> Self {
        let mut blobs = vec![record.id.clone(), record.manifest.clone()];
        blobs.extend(record.layers.iter().map(|layer| layer.blob.digest.clone()));
        Self { blobs, layers: record.layers.iter().map(|layer| layer.name.clone()).collect() }
    }
}

/// A hold on an image: its layers and its blobs stay for as long as the value lives, whatever is removed and collected meanwhile.
pub struct Hold {
    _lease: Lease,
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hold")
    }
}

impl Store {
    /// Protects an image from the collector, until the caller has recorded that it uses it, or needs it no more.
    ///
    /// Fails with [`Error::NoSuchImage`] if it was removed since it was looked up.
    pub fn hold(&self, image: &Image) -> Result<Hold> {
        let gone = || Error::NoSuchImage(image.id.to_string());
        let record = self.read_image(&image.id)?.ok_or_else(gone)?;
        let lease = self.lease(&Needs::of(&record))?;
        let listed = self.read_image(&image.id)?.is_some();
        if listed && image.layers.iter().all(|layer| layer.symlink_metadata().is_ok()) {
            Ok(Hold { _lease: lease })
        } else {
            Err(gone())
        }
    }
}

/// A held lease; dropping it removes its directory with everything in it.
pub(crate) struct Lease {
    path: PathBuf,
    _lock: File,
}

impl Store {
    /// Takes a lease on blobs and layers.
    pub(crate) fn lease(&self, needs: &Needs) -> Result<Lease> {
        self.lease_on(|| Ok(((), needs.clone()))).map(|((), lease)| lease)
    }

    /// Takes a lease on what is found while nothing can be removed: what `find` names is there, and stays.
    pub(crate) fn lease_on<T>(&self, find: impl FnOnce() -> Result<(T, Needs)>) -> Result<(T, Lease)> {
        let path = self.root.join("tmp").join(format!("lease-{}-{}", std::process::id(), disk::random_name()));
        let commit = self.commit_lock(&Silent)?;
        // What a killed process held, its half-unpacked layers too, goes before more comes; a lease is made and locked
        // under the commit lock, so one that nobody holds is nobody's.
        let dead = self.dead_leases()?;
        disk::make_directory(&path)?;
        let lock = File::open(&path).map_err(Error::io("open", path.display()))?;
        rustix::fs::flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive)
            .map_err(Error::io("lock", path.display()))?;
        let lease = Lease { path, _lock: lock };
        let (found, needs) = find()?;
        lease.write(&needs)?;
        drop(commit);
        for left in dead {
            disk::remove_directory(&left)?;
        }
        Ok((found, lease))
    }

    /// Protects more by a lease that is held already; what it protected before must be among it.
    pub(crate) fn extend(&self, lease: &Lease, needs: &Needs) -> Result<()> {
        let _commit = self.commit_lock(&Silent)?;
        lease.write(needs)
    }

    fn dead_leases(&self) -> Result<Vec<PathBuf>> {
        let path = self.root.join("tmp");
        let entries = std::fs::read_dir(&path).map_err(Error::io("read", path.display()))?;
        let leases = entries.flatten().filter(|e| e.file_name().as_encoded_bytes().starts_with(b"lease-"));
        Ok(leases.map(|e| e.path()).filter(|p| !crate::collect::is_held(p)).collect())
    }
}

impl Lease {
    /// Writes what it protects. The commit lock must be held: a collector reads this under it.
    fn write(&self, needs: &Needs) -> Result<()> {
        let text = serde_json::to_vec(needs)
            .map_err(|error| Error::Record { path: self.path.display().to_string(), reason: error.to_string() })?;
        let (file, new) = (self.path.join("lease.json"), self.path.join(".lease.json"));
        // Not flushed: a power cut ends the holder too.
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &file))
            .map_err(Error::io("write", file.display()))
    }

    /// Returns the lease's directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // What is left here, the next collection removes.
        let _ = disk::remove_directory(&self.path);
    }
}
