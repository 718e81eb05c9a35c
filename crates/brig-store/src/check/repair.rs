//! What a check has found wrong is removed, and made anew where the store itself has what is needed.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use brig_spec::image::{Descriptor, MANIFEST_MAX};

use super::{Object, Report};
use crate::collect::{AskUsers, Collected, InUse, ask};
use crate::error::{Error, Result};
use crate::image::{CommitLock, ImageRecord};
use crate::ingest::{BlobSource, NewImage, Opened};
use crate::observe::Observer;
use crate::{Silent, Store, disk};

/// What a repair has done.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What was removed.
    pub removed: Vec<Object>,
    /// Images whose layers were unpacked anew from their blobs.
    pub rebuilt: Vec<String>,
    /// What is wrong and had to stay, with the reason.
    pub kept: Vec<(Object, String)>,
    /// Images that are incomplete now: they must be pulled or loaded again.
    pub pull_again: Vec<String>,
}

/// The store's own blobs.
struct Own<'a>(&'a Store);

impl BlobSource for Own<'_> {
    fn open_blob(&self, blob: &Descriptor, _offset: u64) -> io::Result<Opened<'_>> {
        let file = self.0.open_blob(&blob.digest).map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
        Ok(Opened { reader: Box::new(file), offset: 0 })
    }
}

impl Store {
    /// Removes what a report finds wrong, and makes layers anew from blobs that are good.
    pub fn repair(&self, report: &Report, users: &AskUsers<'_>, observer: &dyn Observer) -> Result<Repaired> {
        let mut repaired = Repaired::default();
        let mut again: BTreeSet<String> = BTreeSet::new();
        // 1. Out of sight, in one step for each.
        {
            let commit = self.commit_lock(&Silent)?;
            let in_use = ask(users)?;
            for problem in &report.problems {
                if problem.newer {
                    repaired.kept.push((problem.object.clone(), "a newer brig may have made it".to_owned()));
                    continue;
                }
                if let Some(reason) = self.take_away(&commit, &problem.object, &in_use)? {
                    repaired.kept.push((problem.object.clone(), reason));
                    continue;
                }
                if !problem.missing {
                    repaired.removed.push(problem.object.clone());
                }
                match &problem.object {
                    Object::Name(name) => drop(again.insert(name.clone())),
                    // What only the record is wrong about cannot be found by it any more.
                    Object::Record(_) => again.extend(problem.images.iter().cloned()),
                    Object::Blob(_) | Object::Layer(_) => {}
                }
            }
        }
        // 2. Made anew, or given up.
        for id in self.image_ids()? {
            let Ok(Some(image)) = self.read_image(&id) else { continue };
            let named = self.names()?.into_iter().find(|(_, owner)| *owner == id);
            let called = named.map_or_else(|| id.short().to_owned(), |(name, _)| name.familiar());
            let blobs = image.layers.iter().map(|layer| &layer.blob.digest);
            let lost = blobs.chain([&image.id, &image.manifest]).any(|digest| !self.has_blob(digest));
            let unpacked = image.layers.iter().all(|layer| self.layer_path(&layer.name).is_dir());
            if lost {
                again.insert(called);
                // One that can still be run is worth keeping until then.
                if !unpacked || !self.has_blob(&image.id) || !self.has_blob(&image.manifest) {
                    let commit = self.commit_lock(&Silent)?;
                    self.remove_record(&commit, &id)?;
                    disk::sync_directory(&self.images_path())?;
                    repaired.removed.push(Object::Record(id));
                }
            } else if !unpacked {
                self.rebuild(&image, observer)?;
                repaired.rebuilt.push(called);
            }
        }
        self.sweep_temporary(Duration::MAX, &mut Collected::default())?;
        repaired.pull_again = again.into_iter().collect();
        Ok(repaired)
    }

    /// Takes one thing away; says why not, if it must stay.
    fn take_away(&self, commit: &CommitLock<'_>, object: &Object, in_use: &InUse) -> Result<Option<String>> {
        match object {
            Object::Record(id) => {
                self.remove_record(commit, id)?;
                disk::sync_directory(&self.images_path())?;
            }
            Object::Name(name) => self.unset_name_file(commit, name)?,
            Object::Blob(digest) => disk::remove_file(&self.blob_path(digest))?,
            Object::Layer(name) => {
                if in_use.layers.contains(name) {
                    return Ok(Some("a container uses it; remove the container, then repair again".to_owned()));
                }
                let trash = self.root.join("tmp").join(format!("trash-{}", disk::random_name()));
                match std::fs::rename(self.layer_path(name), &trash) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", name)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    /// Unpacks what is missing of an image from its own blobs.
    fn rebuild(&self, image: &ImageRecord, observer: &dyn Observer) -> Result<()> {
        let manifest = self.read_blob(&image.manifest, MANIFEST_MAX)?;
        let new = NewImage {
            manifest: &manifest,
            media_type: image.manifest_type.as_deref(),
            names: &[],
            origins: &image.origins,
        };
        self.add(&new, &Own(self), observer).map(drop)
    }
}
