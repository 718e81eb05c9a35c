//! `pull`: an image comes from where it is, and is named.

use std::io;
use std::path::Path;

use brig_registry::Client;
use brig_spec::image::{Descriptor, Document, Manifest};
use brig_spec::platform::Platform;
use brig_spec::reference::Reference;
use brig_store::{BlobSource, Image, Layout, NewImage, Observer, Opened};

use super::push::is_foreign;
use super::{Images, Source, failure};
use crate::error::{Error, Kind, Result};
use crate::registries;

/// How many indexes may point at one another before there must be a manifest.
const INDEXES_MAX: usize = 3;

/// What a pull has done.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// The digest that the registry's tag points at: that of the index, where there is one.
    pub digest: Option<brig_spec::digest::Digest>,
    /// Whether the name means another image now than before.
    pub changed: bool,
}

/// A repository as a source of blobs.
struct Repository<'a> {
    client: &'a Client,
    reference: &'a Reference,
}

impl BlobSource for Repository<'_> {
    fn open_blob(&self, blob: &Descriptor, offset: u64) -> io::Result<Opened<'_>> {
        let reader = self.client.blob(self.reference, blob, offset).map_err(io::Error::other)?;
        let offset = reader.offset();
        Ok(Opened { reader: Box::new(reader), offset })
    }
}

impl Images<'_> {
    /// Pulls what `source` names, for `platform`, this machine's by default.
    pub fn pull(&self, source: &str, platform: Option<&Platform>, observer: &dyn Observer) -> Result<Pulled> {
        let host = Platform::host();
        let platform = platform.unwrap_or(&host);
        match Source::parse(&registries::expand(&self.options.policy, source))? {
            Source::Registry(reference) => self.pull_reference(&reference, platform, observer),
            Source::Layout(path, tag) => self.pull_layout(source, &path, tag.as_deref(), platform, observer),
            Source::Archive(path, tag) => self.pull_archive(source, &path, tag.as_deref(), platform, observer),
        }
    }

    /// Pulls from a registry.
    pub fn pull_reference(
        &self,
        reference: &Reference,
        platform: &Platform,
        observer: &dyn Observer,
    ) -> Result<Pulled> {
        let message = || format!("cannot pull image `{}`", reference.familiar());
        let before = self.store.resolve_reference(reference).ok().flatten();
        // 1. The manifest, through the index if there is one.
        let client = self.client()?;
        let mut found = client.manifest(reference).map_err(|error| failure::registry(message(), error))?;
        let first = found.digest.clone();
        let mut origins = vec![reference.pinned(first.clone())];
        for level in 0.. {
            let document = Document::parse(&found.bytes, Some(&found.media_type))
                .map_err(|error| Error::new(Kind::Unavailable, message()).because(error))?;
            let index = match document {
                Document::Index(index) => index,
                Document::Manifest(manifest) => {
                    refuse_foreign(&manifest).map_err(|reason| {
                        Error::new(Kind::Unsupported, message())
                            .reason(reason)
                            .hint("registries may not hand such layers out")
                    })?;
                    break;
                }
            };
            if level >= INDEXES_MAX {
                return Err(Error::new(Kind::Unavailable, message()).reason("its indexes are nested too deeply"));
            }
            let Some(entry) = index.select(platform) else {
                let offers: Vec<String> =
                    index.manifests.iter().filter_map(|m| Some(m.platform.as_ref()?.to_string())).collect();
                return Err(Error::not_found(message())
                    .reason(format!("it is not made for {platform}, only for: {}", offers.join(", ")))
                    .hint("choose one of them with `--platform`"));
            };
            let pinned = reference.pinned(entry.digest.clone());
            found = client.manifest(&pinned).map_err(|error| failure::registry(message(), error))?;
            origins.push(pinned);
        }
        // 2. Signed, if the policy file wants it.
        let digests: Vec<_> = origins.iter().filter_map(|origin| origin.digest().cloned()).collect();
        client.check_signature(reference, &digests).map_err(|error| failure::registry(message(), error))?;
        // 3. Its blobs.
        let image = NewImage {
            manifest: &found.bytes,
            media_type: Some(&found.media_type),
            names: std::slice::from_ref(reference),
            origins: &origins,
        };
        let repository = Repository { client, reference };
        let image = self.store.add(&image, &repository, observer).map_err(|error| failure::store(message(), error))?;
        Ok(Pulled { changed: before.as_ref() != Some(&image.id), image, digest: Some(first) })
    }

    fn pull_layout(
        &self,
        source: &str,
        path: &Path,
        tag: Option<&str>,
        platform: &Platform,
        observer: &dyn Observer,
    ) -> Result<Pulled> {
        let fail = |error| failure::store(format!("cannot load image from `{source}`"), error);
        let names: Vec<Reference> = name_for(path, tag).into_iter().collect();
        let before = names.first().and_then(|name| self.store.resolve_reference(name).ok().flatten());
        let layout = Layout::open(path).map_err(fail)?;
        let image = self.store.add_layout(&layout, tag, platform, &names, observer).map_err(fail)?;
        Ok(Pulled { changed: before.as_ref() != Some(&image.id), image, digest: None })
    }

    fn pull_archive(
        &self,
        source: &str,
        path: &Path,
        tag: Option<&str>,
        platform: &Platform,
        observer: &dyn Observer,
    ) -> Result<Pulled> {
        let message = || format!("cannot load image from `{source}`");
        let mut archive = self.store.open_archive(path).map_err(|error| failure::store(message(), error))?;
        let images = archive.images(platform).map_err(|error| failure::store(message(), error))?;
        let wanted = tag.and_then(|tag| tag.parse::<Reference>().ok());
        let fits = |names: &[Reference]| match (&wanted, tag) {
            (Some(wanted), Some(tag)) => names.iter().any(|name| name == wanted || name.tag() == Some(tag)),
            (None, Some(_)) => false,
            _ => true,
        };
        let Some(chosen) = images.iter().find(|image| fits(&image.names)) else {
            return Err(Error::not_found(message()).reason("the archive has no such image"));
        };
        let mut names = chosen.names.clone();
        if names.is_empty() {
            names.extend(name_for(path, tag));
        }
        let before = names.first().and_then(|name| self.store.resolve_reference(name).ok().flatten());
        let image = self
            .store
            .add_archived(&archive, chosen, &names, observer)
            .map_err(|error| failure::store(message(), error))?;
        Ok(Pulled { changed: before.as_ref() != Some(&image.id), image, digest: None })
    }
}

/// Refuses an image with a layer that registries do not hand out, by its name.
fn refuse_foreign(manifest: &Manifest) -> std::result::Result<(), String> {
    match manifest.layers.iter().find(|layer| is_foreign(&layer.media_type)) {
        Some(layer) => Err(format!("layer {} is a foreign one ({})", layer.digest, layer.media_type)),
        None => Ok(()),
    }
}

/// Makes a name for an image that has none where it lies: `localhost/<file stem>[:tag]`.
fn name_for(path: &Path, tag: Option<&str>) -> Option<Reference> {
    if let Some(tag) = tag.filter(|tag| tag.contains(['/', ':'])) {
        return tag.parse().ok();
    }
    let stem = path.file_stem()?.to_str()?.to_ascii_lowercase();
    format!("localhost/{stem}:{}", tag.unwrap_or("latest")).parse().ok()
}
