//! An OCI image layout in a directory: `oci-layout`, `index.json`, `blobs/<algorithm>/<hex>`.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use brig_spec::image::{Descriptor, Document, Index, MANIFEST_MAX, Manifest};
use brig_spec::platform::Platform;
use brig_spec::reference::Reference;

use crate::error::{Error, Result};
use crate::image::Image;
use crate::ingest::{BlobSource, NewImage, Opened, fetch_small};
use crate::observe::Observer;
use crate::{Store, disk};

/// The annotation that carries a tag in an index.
pub(crate) const TAG_ANNOTATION: &str = "org.opencontainers.image.ref.name";
/// The annotation in which containerd and Docker carry the full name.
pub(crate) const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// An OCI layout in a directory.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
}

impl Layout {
    /// Takes a directory that has an `index.json`.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.join("index.json").is_file() {
            let reason = "it has no index.json".to_owned();
            return Err(Error::Archive { path: path.display().to_string(), reason });
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Returns the index.
    fn index(&self) -> Result<Index> {
        let path = self.path.join("index.json");
        let bytes = disk::read_file(&path, MANIFEST_MAX)?.unwrap_or_default();
        parse_index(&bytes, &path.display().to_string())
    }

    /// Finds the manifest for a platform: that of a tag, or the only one there is.
    pub fn manifest(&self, tag: Option<&str>, platform: &Platform) -> Result<Vec<u8>> {
        select_manifest(self, &self.index()?, tag, platform, &self.path.display().to_string())
    }
}

impl BlobSource for Layout {
    fn open_blob(&self, blob: &Descriptor, offset: u64) -> io::Result<Opened<'_>> {
        let digest = &blob.digest;
        let mut file = File::open(self.path.join("blobs").join(digest.algorithm().name()).join(digest.hex()))?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Opened { reader: Box::new(file), offset })
    }
}

impl Store {
    /// Takes an image in from an OCI layout, and gives it `names`.
    pub fn add_layout(
        &self,
        layout: &Layout,
        tag: Option<&str>,
        platform: &Platform,
        names: &[Reference],
        observer: &dyn Observer,
    ) -> Result<Image> {
        let manifest = layout.manifest(tag, platform)?;
        self.add(&NewImage { manifest: &manifest, media_type: None, names, origins: &[] }, layout, observer)
    }
}

/// Parses an index of a layout or archive.
pub(crate) fn parse_index(bytes: &[u8], path: &str) -> Result<Index> {
    match Document::parse(bytes, None) {
        Ok(Document::Index(index)) => Ok(index),
        Ok(Document::Manifest(_)) => {
            Err(Error::Archive { path: path.to_owned(), reason: "its index.json is a manifest".to_owned() })
        }
        Err(error) => Err(Error::Archive { path: path.to_owned(), reason: error.to_string() }),
    }
}

/// Walks from an index to the manifest for a platform, through at most three nested indexes.
pub(crate) fn select_manifest(
    source: &dyn BlobSource,
    index: &Index,
    tag: Option<&str>,
    platform: &Platform,
    path: &str,
) -> Result<Vec<u8>> {
    let refuse = |reason: String| Error::Archive { path: path.to_owned(), reason };
    let mut entry = match tag {
        Some(tag) => {
            let named = |entry: &&Descriptor| {
                [TAG_ANNOTATION, NAME_ANNOTATION]
                    .iter()
                    .any(|key| entry.annotations.get(*key).is_some_and(|t| t == tag))
            };
            let entries: Vec<Descriptor> = index.manifests.iter().filter(named).cloned().collect();
            if entries.is_empty() {
                return Err(refuse(format!("it has no image with the tag `{tag}`")));
            }
            Index { manifests: entries, ..index.clone() }.select(platform).cloned()
        }
        None => index.select(platform).cloned(),
    };
    for _ in 0..4 {
        let Some(found) = entry else { return Err(refuse(format!("it has no image for {platform}"))) };
        let bytes = fetch_small(&found, MANIFEST_MAX, source)?;
        let announced = (!found.media_type.is_empty()).then_some(found.media_type.as_str());
        match Document::parse(&bytes, announced)
            .map_err(|source| Error::Document { digest: found.digest.clone(), source })?
        {
            Document::Manifest(Manifest { .. }) => return Ok(bytes),
            Document::Index(inner) => entry = inner.select(platform).cloned(),
        }
    }
    Err(refuse("its indexes are nested too deeply".to_owned()))
}
