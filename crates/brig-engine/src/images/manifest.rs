//! `manifest`: lists of platforms, made here and pushed whole.
//!
//! ```text
//!   <root>/manifests/<digest of the name>.json    one list: its entries, and where each is if it is not in the store
//!       create, annotate  -->  push: what the entries point at, then the index under its tag
//! ```

use std::path::PathBuf;

use brig_registry::artifact::digest_of;
use brig_spec::digest::Digest;
use brig_spec::image::{CONFIG_MAX, Descriptor, Document, ImageConfig, Index, MANIFEST_MAX, media_type};
use brig_spec::platform::Platform;
use brig_spec::reference::Reference;
use brig_store::Observer;
use serde::{Deserialize, Serialize};

use super::push::{PushedImage, Transfer};
use super::{Images, failure};
use crate::disk;
use crate::error::{Error, Kind, Result};

/// The format of a list that this program writes.
const FORMAT: u32 = 1;

/// One list.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct List {
    format: u32,
    name: Reference,
    entries: Vec<Entry>,
}

/// One image of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    descriptor: Descriptor,
    /// Where it is, if not in the store.
    origin: Option<Reference>,
}

/// What a list says of an image's platform instead of what the image says.
#[derive(Debug, Clone, Default)]
pub struct PlatformChange {
    /// The operating system.
    pub os: Option<String>,
    /// The processor.
    pub architecture: Option<String>,
    /// The processor's variant.
    pub variant: Option<String>,
}

/// One image of a list, or an image by itself.
#[derive(Debug, Clone)]
pub struct ManifestOf {
    /// Its name, with the manifest's digest.
    pub name: Reference,
    /// What the list says of it, or what it says of itself.
    pub descriptor: Descriptor,
    /// Its manifest, as it is kept.
    pub bytes: Vec<u8>,
}

impl Images<'_> {
    /// Makes a list of images that are here or in registries; an existing one is added to with `amend`, else refused.
    pub fn create_list(&self, name: &str, images: &[String], amend: bool) -> Result<Reference> {
        let reference = self.destination(name)?;
        let mut list = match self.read_list(&reference)? {
            Some(list) if amend => list,
            Some(_) => {
                return Err(Error::conflict(format!("the list `{}` exists", reference.familiar()))
                    .hint("add to it with `--amend`, or remove it with `brig manifest rm`"));
            }
            None => List { format: FORMAT, name: reference.clone(), entries: Vec::new() },
        };
        for typed in images {
            for entry in self.entries_of(typed)? {
                list.entries.retain(|known| known.descriptor.digest != entry.descriptor.digest);
                list.entries.push(entry);
            }
        }
        self.write_list(&list)?;
        Ok(reference)
    }

    /// Changes what a list says of one of its images.
    pub fn annotate_list(&self, name: &str, image: &str, change: &PlatformChange) -> Result<()> {
        let mut list = self.list_named(name)?;
        let wanted = match image.parse::<Digest>() {
            Ok(digest) => vec![digest],
            Err(_) => self.entries_of(image)?.into_iter().map(|entry| entry.descriptor.digest).collect(),
        };
        let mut found = list.entries.iter_mut().filter(|entry| wanted.contains(&entry.descriptor.digest)).peekable();
        if found.peek().is_none() {
            return Err(Error::not_found(format!("the list `{name}` has no image `{image}`")));
        }
        for entry in found {
            let old = entry.descriptor.platform.clone().unwrap_or_else(Platform::host);
            let platform = Platform {
                os: change.os.clone().unwrap_or(old.os),
                architecture: change.architecture.clone().unwrap_or(old.architecture),
                variant: change.variant.clone().or(old.variant).filter(|variant| !variant.is_empty()),
            };
            let parsed: Platform =
                platform.to_string().parse().map_err(|error: brig_spec::platform::PlatformError| {
                    Error::invalid("cannot change the platform").because(error)
                })?;
            entry.descriptor.platform = Some(parsed);
        }
        self.write_list(&list)
    }

    /// Returns a list that was made here, or the manifest or index that a registry has, as JSON.
    pub fn inspect_manifest(&self, name: &str) -> Result<Vec<u8>> {
        let reference = self.remote(name)?;
        if let Some(list) = self.read_list(&reference)? {
            return to_json(&index_of(&list));
        }
        let found = self.client()?.manifest(&reference);
        let message = format!("cannot inspect manifest `{}`", reference.familiar());
        Ok(found.map_err(|error| failure::registry(message, error))?.bytes)
    }

    /// Describes each image that a list made here, or a name in a registry, means; one that is no list means itself.
    pub fn describe_manifest(&self, name: &str) -> Result<Vec<ManifestOf>> {
        let reference = self.remote(name)?;
        let message = || format!("cannot inspect manifest `{}`", reference.familiar());
        let entries = match self.read_list(&reference)? {
            Some(list) => list.entries,
            None => self.entries_there(&reference, &message)?,
        };
        let describe = |entry: Entry| {
            let digest = entry.descriptor.digest.clone();
            let bytes = if let Some(origin) = &entry.origin {
                let found = self.client()?.manifest(&origin.pinned(digest.clone()));
                found.map_err(|error| failure::registry(message(), error))?.bytes
            } else {
                let bytes = self.store.read_blob(&digest, MANIFEST_MAX);
                bytes.map_err(|error| failure::store(message(), error))?
            };
            Ok(ManifestOf { name: reference.pinned(digest), descriptor: entry.descriptor, bytes })
        };
        entries.into_iter().map(describe).collect()
    }

    /// Pushes a list with everything that it needs, as `destination` or under its own name.
    pub fn push_list(&self, name: &str, destination: Option<&str>, observer: &dyn Observer) -> Result<PushedImage> {
        let list = self.list_named(name)?;
        let reference = match destination {
            Some(destination) => self.destination(destination)?,
            None => list.name.clone(),
        };
        let refuse = |reason: String| Error::invalid(format!("cannot push list `{name}`")).reason(reason);
        if list.entries.is_empty() {
            return Err(refuse("it is empty".to_owned()));
        }
        let client = self.client()?;
        for entry in &list.entries {
            let mut transfer = Transfer::new(self.store(), client, &reference, observer);
            transfer.origin.clone_from(&entry.origin);
            transfer.entry(&entry.descriptor)?;
        }
        let index = index_of(&list);
        let bytes = to_json(&index)?;
        let media_type = index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX);
        let pushed =
            Transfer::new(self.store(), client, &reference, observer).document(&reference, media_type, &bytes)?;
        Ok(PushedImage { reference, digest: pushed.digest, size: bytes.len() as u64 })
    }

    /// Removes a list; its images stay.
    pub fn remove_list(&self, name: &str) -> Result<()> {
        let list = self.list_named(name)?;
        let path = self.list_path(&list.name);
        std::fs::remove_file(&path).map_err(|error| Error::io(format!("cannot remove list `{name}`"), error))
    }

    /// Describes what a name means: an image that is here, or everything that a registry has under it.
    fn entries_of(&self, typed: &str) -> Result<Vec<Entry>> {
        let message = || format!("cannot put `{typed}` into a list");
        if let Ok(image) = self.local(typed) {
            let bytes = self.store.read_blob(&image.manifest, MANIFEST_MAX);
            let bytes = bytes.map_err(|error| failure::store(message(), error))?;
            let media_type = manifest_type(&bytes).unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
            let descriptor = descriptor(media_type, image.manifest.clone(), bytes.len(), image.platform.clone());
            return Ok(vec![Entry { descriptor, origin: None }]);
        }
        self.entries_there(&self.remote(typed)?, &message)
    }

    /// Describes everything that a registry has under a name.
    fn entries_there(&self, reference: &Reference, message: &dyn Fn() -> String) -> Result<Vec<Entry>> {
        let client = self.client()?;
        let fail = |error| failure::registry(message(), error);
        let found = client.manifest(reference).map_err(fail)?;
        let origin = reference.pinned(found.digest.clone());
        match Document::parse(&found.bytes, Some(&found.media_type))
            .map_err(|error| Error::new(Kind::Unavailable, message()).because(error))?
        {
            Document::Index(index) => {
                let entry = |descriptor| Entry { descriptor, origin: Some(origin.clone()) };
                Ok(index.manifests.into_iter().map(entry).collect())
            }
            Document::Manifest(manifest) => {
                let config = client.small_blob(reference, &manifest.config, CONFIG_MAX).map_err(fail)?;
                let platform =
                    ImageConfig::parse(&config).map_or_else(|_| Platform::host(), |config| config.platform());
                let descriptor = descriptor(found.media_type, found.digest, found.bytes.len(), platform);
                Ok(vec![Entry { descriptor, origin: Some(origin) }])
            }
        }
    }

    fn lists_path(&self) -> PathBuf {
        self.store.root().join("manifests")
    }

    fn list_path(&self, name: &Reference) -> PathBuf {
        self.lists_path().join(format!("{}.json", digest_of(name.to_string().as_bytes()).hex()))
    }

    fn list_named(&self, name: &str) -> Result<List> {
        let reference = self.destination(name)?;
        self.read_list(&reference)?.ok_or_else(|| {
            Error::not_found(format!("there is no list `{}`", reference.familiar()))
                .hint("make one with `brig manifest create`")
        })
    }

    fn read_list(&self, name: &Reference) -> Result<Option<List>> {
        let path = self.list_path(name);
        let message = || format!("cannot read list `{}`", name.familiar());
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(message(), error)),
        };
        let list: List = serde_json::from_slice(&bytes).map_err(|error| Error::internal(message()).because(error))?;
        if list.format != FORMAT {
            return Err(Error::internal(message()).reason("a newer brig wrote it"));
        }
        Ok(Some(list))
    }

    fn write_list(&self, list: &List) -> Result<()> {
        let message = || format!("cannot keep list `{}`", list.name.familiar());
        let text = serde_json::to_vec(list).map_err(|error| Error::internal(message()).because(error))?;
        disk::make_directory(&self.lists_path())?;
        disk::write(&self.list_path(&list.name), &text, true)
    }
}

/// Makes the index of a list: Docker's kind if all of its images are.
fn index_of(list: &List) -> Index {
    let docker = list.entries.iter().all(|entry| entry.descriptor.media_type == media_type::DOCKER_MANIFEST);
    let media_type = if docker && !list.entries.is_empty() { media_type::DOCKER_LIST } else { media_type::OCI_INDEX };
    Index {
        schema_version: 2,
        media_type: Some(media_type.to_owned()),
        manifests: list.entries.iter().map(|entry| entry.descriptor.clone()).collect(),
    }
}

fn to_json(index: &Index) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(index).map_err(|error| Error::internal("cannot write a list").because(error))
}

/// The media type that a manifest gives itself.
fn manifest_type(bytes: &[u8]) -> Option<String> {
    match Document::parse(bytes, None) {
        Ok(Document::Manifest(manifest)) => manifest.media_type,
        _ => None,
    }
}

fn descriptor(media_type: String, digest: Digest, size: usize, platform: Platform) -> Descriptor {
    let annotations = std::collections::BTreeMap::new();
    Descriptor { media_type, digest, size: size as u64, platform: Some(platform), annotations }
}
