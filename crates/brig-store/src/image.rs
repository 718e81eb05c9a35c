//! Images by name and id: their records, how they are found, listed, named and removed.
//!
//! A record is immutable but for its origins; a name is a symbolic link that is never followed: its target is the text
//! `<hex> <name>`, so that one readlink tells what a name means, one rename changes it, and nothing is ever half written.

mod changes;
mod lines;
mod names;
mod record;
mod remove;

use std::collections::HashMap;
use std::path::PathBuf;

use brig_spec::digest::Digest;
use brig_spec::image::{CONFIG_MAX, ImageConfig};
use brig_spec::platform::Platform;
use brig_spec::reference::Reference;

pub(crate) use changes::CommitLock;
pub use lines::Line;
pub(crate) use record::{FORMAT, ImageRecord};
pub use record::{LayerRecord, RootMetadata};
pub use remove::Removed;

use crate::Store;
use crate::error::{Error, Result};

/// An image, ready to be used by a container.
#[derive(Debug, Clone)]
pub struct Image {
    /// The image's id: the digest of its configuration.
    pub id: Digest,
    /// Names with the manifest's digest, under which it can be pulled again.
    pub origins: Vec<Reference>,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its configuration as it was received.
    pub config_raw: Vec<u8>,
    /// The trees or images ([`crate::is_image`]) of its layers, bottom first: the topmost layer is last. overlay wants them
    /// the other way round.
    pub layers: Vec<PathBuf>,
    /// The names of the same layers, as [`crate::InUse`] wants them from whoever uses them.
    pub layer_names: Vec<String>,
    /// The metadata of `/`: overlay takes it from the topmost directory, so a container's upper must be made like this.
    pub root: RootMetadata,
    /// The unpacked size in bytes.
    pub size: u64,
    /// When the image was made, RFC 3339, as its maker wrote it.
    pub created: Option<String>,
    /// When it came into this store, in seconds since the epoch.
    pub added: u64,
    /// The platform that it is for.
    pub platform: Platform,
}

/// One line of a listing: what is known without opening the configuration.
#[derive(Debug, Clone)]
pub struct ImageSummary {
    /// The image's id.
    pub id: Digest,
    /// Its names, sorted; empty for an image that lost its last name to another.
    pub names: Vec<Reference>,
    /// Names with the manifest's digest.
    pub origins: Vec<Reference>,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The unpacked size in bytes.
    pub size: u64,
    /// When the image was made, RFC 3339.
    pub created: Option<String>,
    /// When it came into this store, in seconds since the epoch.
    pub added: u64,
    /// The platform that it is for.
    pub platform: Platform,
    /// Its layers, bottom first.
    pub layers: Vec<LayerRecord>,
}

/// All images, and the records that could not be read.
#[derive(Debug, Default)]
pub struct Listing {
    /// The images, newest first.
    pub images: Vec<ImageSummary>,
    /// What is wrong with the others; they are left alone.
    pub unreadable: Vec<Error>,
}

impl Store {
    /// Finds an image by name, by id, or by a prefix of its id that fits no other.
    pub fn image(&self, name_or_id: &str) -> Result<Image> {
        let id = self.resolve(name_or_id)?;
        let record = self.read_image(&id)?.ok_or_else(|| Error::NoSuchImage(name_or_id.to_owned()))?;
        let config_raw = match self.read_blob(&record.id, CONFIG_MAX) {
            // Removed and collected since its record was read.
            Err(Error::Io { .. }) if matches!(self.read_image(&id), Ok(None)) => {
                return Err(Error::NoSuchImage(name_or_id.to_owned()));
            }
            result => result?,
        };
        let config =
            ImageConfig::parse(&config_raw).map_err(|source| Error::Document { digest: record.id.clone(), source })?;
        Ok(self.assemble(record, config, config_raw))
    }

    /// Returns the names of an image, sorted. It looks at those of all images.
    pub fn names_of(&self, id: &Digest) -> Result<Vec<Reference>> {
        Ok(self.names()?.into_iter().filter(|(_, owner)| owner == id).map(|(name, _)| name).collect())
    }

    /// Puts an image together from its record and its configuration.
    pub(crate) fn assemble(&self, record: ImageRecord, config: ImageConfig, config_raw: Vec<u8>) -> Image {
        Image {
            config,
            config_raw,
            layers: record.layers.iter().map(|layer| crate::layers::content(&self.layer_path(&layer.name))).collect(),
            layer_names: record.layers.into_iter().map(|layer| layer.name).collect(),
            id: record.id,
            origins: record.origins,
            manifest: record.manifest,
            root: record.root,
            size: record.size,
            created: record.created,
            added: record.added,
            platform: record.platform,
        }
    }

    /// Lists all images; opens one file for each.
    pub fn images(&self) -> Result<Listing> {
        let mut names: HashMap<Digest, Vec<Reference>> = HashMap::new();
        for (name, owner) in self.names()? {
            names.entry(owner).or_default().push(name);
        }
        let mut listing = Listing::default();
        for id in self.image_ids()? {
            match self.read_image(&id) {
                Ok(None) => {}
                Ok(Some(record)) => listing.images.push(ImageSummary {
                    names: names.remove(&id).unwrap_or_default(),
                    id: record.id,
                    origins: record.origins,
                    manifest: record.manifest,
                    size: record.size,
                    created: record.created,
                    added: record.added,
                    platform: record.platform,
                    layers: record.layers,
                }),
                Err(error) => listing.unreadable.push(error),
            }
        }
        listing.images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(listing)
    }

    /// Gives an image one more name; the image that had it before loses it.
    pub fn tag(&self, name_or_id: &str, name: &Reference) -> Result<()> {
        let commit = self.commit_lock(&crate::Silent)?;
        let id = self.resolve(name_or_id)?;
        self.set_name(&commit, name, &id)
    }

    /// Takes names away from an image, or all that it has; the image stays. Returns the names that it has lost.
    pub fn untag(&self, name_or_id: &str, names: &[Reference]) -> Result<Vec<Reference>> {
        let commit = self.commit_lock(&crate::Silent)?;
        let id = self.resolve(name_or_id)?;
        let own = self.names_of(&id)?;
        if let Some(other) = names.iter().find(|name| !own.contains(name)) {
            return Err(Error::NoSuchImage(format!("{} among the names of {name_or_id}", other.familiar())));
        }
        let lost = if names.is_empty() { own } else { names.to_vec() };
        lost.iter().try_for_each(|name| self.unset_name(&commit, name))?;
        Ok(lost)
    }

    /// Returns the unpacked sizes of an image's layers in bytes, bottom first.
    pub fn layer_sizes(&self, id: &Digest) -> Result<Vec<u64>> {
        let record = self.read_image(id)?.ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        Ok(record.layers.iter().map(|layer| layer.size).collect())
    }

    /// Finds the id that a name, an id or a prefix of an id means.
    pub fn resolve(&self, name_or_id: &str) -> Result<Digest> {
        let missing = || Error::NoSuchImage(name_or_id.to_owned());
        let hex = name_or_id.strip_prefix("sha256:").unwrap_or(name_or_id);
        if let Ok(id) = Digest::from_sha256_hex(hex) {
            if self.read_image(&id)?.is_some() {
                return Ok(id);
            }
            return Err(missing());
        }
        if let Ok(reference) = name_or_id.parse::<Reference>()
            && let Some(id) = self.resolve_reference(&reference)?
        {
            return Ok(id);
        }
        if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(missing());
        }
        let mut fitting = self.image_ids()?.into_iter().filter(|id| id.hex().starts_with(hex));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(Error::Ambiguous(name_or_id.to_owned())),
            (None, _) => Err(missing()),
        }
    }

    /// Finds the image that a reference means here: by tag, or by the digest of its manifest.
    pub fn resolve_reference(&self, reference: &Reference) -> Result<Option<Digest>> {
        let Some(digest) = reference.digest() else { return self.name_owner(reference) };
        for id in self.image_ids()? {
            if let Ok(Some(record)) = self.read_image(&id) {
                let pinned = reference.pinned(digest.clone());
                if record.origins.contains(&pinned) || record.manifest == *digest && record.origins.is_empty() {
                    return Ok(Some(id));
                }
            }
        }
        Ok(None)
    }
}
