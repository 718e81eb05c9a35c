//! `push`: an image goes to a registry; of its blobs only those that are not there.
//!
//! ```text
//!   image  --> blobs side by side: there? mount it? else send it    --> manifest under the tag
//!   index  --> the same for every manifest of it, by digest         --> index under the tag
//!              what is not in the store comes from where the index was pulled
//! ```
//!
//! The bytes are those that were received: the store keeps blobs as they came, so digests stay what they were. Only layers of
//! images that came from no registry, and are plain tars, are compressed first.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use brig_registry::{Client, Content, Pushed, PushedManifest};
use brig_spec::digest::Digest;
use brig_spec::image::{Descriptor, Document, Index, MANIFEST_MAX, Manifest, media_type};
use brig_spec::reference::Reference;
use brig_store::{Observer, Progress, Store};

use super::{Images, failure};
use crate::error::{Error, Kind, Result};
use crate::registries;

/// The most blobs that are sent at the same time.
const PARALLEL_MAX: usize = 6;
/// How many repositories are tried for a blob before it is sent.
const MOUNTS_MAX: usize = 3;
/// How many indexes may point at one another before there must be a manifest.
const INDEXES_MAX: usize = 3;

/// What a push has done.
#[derive(Debug, Clone)]
pub struct PushedImage {
    /// Where it is now.
    pub reference: Reference,
    /// The digest of the manifest or index that the tag means there.
    pub digest: Digest,
    /// The size of that document in bytes.
    pub size: u64,
}

impl Images<'_> {
    /// Pushes an image, as `destination` or under its own name; with `all_platforms` the index that it came from, whole.
    pub fn push(
        &self,
        name: &str,
        destination: Option<&str>,
        all_platforms: bool,
        observer: &dyn Observer,
    ) -> Result<PushedImage> {
        // 1. What, and where to.
        let image = self.local(name)?;
        let reference = self.destination(destination.unwrap_or(name))?;
        let message = || format!("cannot push image `{}`", reference.familiar());
        // What was committed, imported or loaded as a plain tar travels compressed. What came from a registry keeps its digest.
        let made_here = Some(&image).filter(|image| image.origins.is_empty());
        let compressed = made_here.map(|image| self.store.compress(image, observer)).transpose();
        let compressed = compressed.map_err(|error| failure::store(message(), error))?.flatten();
        let image = compressed.unwrap_or(image);
        let _hold = self.store.hold(&image).map_err(|error| failure::store(message(), error))?;
        let client = self.client()?;
        let mut transfer = Transfer::new(self.store, client, &reference, observer);
        // 2. The document, and what it points at.
        let (bytes, media_type) = if all_platforms {
            let (origin, index) = self.index_of(&image.origins, &reference)?;
            transfer.origin = Some(origin);
            index
        } else {
            let bytes = self
                .store
                .read_blob(&image.manifest, MANIFEST_MAX)
                .map_err(|error| failure::store(message(), error))?;
            (bytes, String::new())
        };
        let media_type = transfer.contents(&bytes, &media_type, 0)?;
        // 3. The name.
        let pushed = transfer.document(&reference, &media_type, &bytes)?;
        Ok(PushedImage { reference, digest: pushed.digest, size: bytes.len() as u64 })
    }

    /// Lists the names that images here have in a repository, by its name without tag.
    pub fn tags_of(&self, repository: &str) -> Result<Vec<String>> {
        let reference = self.destination(repository)?;
        let typed = registries::expand(&self.options.policy, repository);
        if typed.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            return Err(
                Error::invalid(format!("`{repository}` has a tag")).hint("for all tags, name the repository alone")
            );
        }
        let mut names: Vec<String> = self
            .list()?
            .images
            .iter()
            .flat_map(|image| &image.names)
            .filter(|name| name.name() == reference.name())
            .map(ToString::to_string)
            .collect();
        names.sort();
        if names.is_empty() {
            return Err(Error::not_found(format!("no image here has a name in `{repository}`")));
        }
        Ok(names)
    }

    /// Finds an image that is here, by what was typed or by what it stands for.
    pub(super) fn local(&self, typed: &str) -> Result<brig_store::Image> {
        let full = registries::expand(&self.options.policy, typed);
        match self.store.image(typed) {
            Err(brig_store::Error::NoSuchImage(_)) if full != typed => self.store.image(&full),
            result => result,
        }
        .map_err(|error| failure::store(format!("cannot find image `{typed}`"), error))
    }

    /// Parses where something is to be pushed.
    pub(super) fn destination(&self, typed: &str) -> Result<Reference> {
        let full = registries::expand(&self.options.policy, typed);
        let bare = full.strip_prefix("docker://").unwrap_or(&full);
        let refuse = || Error::invalid(format!("`{typed}` is not a name to push to"));
        let reference: Reference = bare.parse().map_err(|error: brig_spec::reference::ReferenceError| {
            refuse().because(error).hint("say where to: `brig push IMAGE REGISTRY/NAME:TAG`")
        })?;
        if reference.digest().is_some() {
            return Err(refuse().reason("a digest is not given but follows from the content"));
        }
        Ok(reference)
    }

    /// Fetches the index that an image came from, nearest to where it goes first.
    fn index_of(&self, origins: &[Reference], near: &Reference) -> Result<(Reference, (Vec<u8>, String))> {
        let client = self.client()?;
        let mut origins: Vec<&Reference> = origins.iter().collect();
        origins.sort_by_key(|origin| (origin.name() != near.name(), origin.host() != near.host()));
        let mut failed = None;
        for origin in origins {
            match client.manifest(origin) {
                Ok(found) => {
                    if let Ok(Document::Index(_)) = Document::parse(&found.bytes, Some(&found.media_type)) {
                        return Ok((origin.clone(), (found.bytes, found.media_type)));
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        let message = format!("cannot push `{}` for all platforms", near.familiar());
        Err(match failed {
            Some(error) => failure::registry(message, error),
            None => Error::not_found(message)
                .reason("it was not made from a list of platforms")
                .hint("make one with `brig manifest create`"),
        })
    }
}

/// Things on their way to one repository.
pub(super) struct Transfer<'a> {
    store: &'a Store,
    client: &'a Client,
    destination: &'a Reference,
    /// Where what is not in the store comes from.
    pub(super) origin: Option<Reference>,
    observer: &'a dyn Observer,
    /// By blob, the repositories of the destination's registry that have it.
    repositories: OnceLock<HashMap<Digest, Vec<String>>>,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        store: &'a Store,
        client: &'a Client,
        destination: &'a Reference,
        observer: &'a dyn Observer,
    ) -> Self {
        Self { store, client, destination, origin: None, observer, repositories: OnceLock::new() }
    }

    fn fail(&self, error: brig_registry::Error) -> Error {
        let message = format!("cannot push image `{}`", self.destination.familiar());
        if self.observer.cancelled() {
            return Error::new(Kind::Cancelled, message);
        }
        failure::registry(message, error)
    }

    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::invalid(format!("cannot push image `{}`", self.destination.familiar())).reason(reason)
    }

    /// Brings everything that a document points at; returns the document's media type.
    pub(super) fn contents(&self, bytes: &[u8], announced: &str, depth: usize) -> Result<String> {
        let announced = Some(announced).filter(|text| !text.is_empty());
        let document = Document::parse(bytes, announced).map_err(|error| self.refuse(error.to_string()))?;
        match document {
            Document::Manifest(manifest) => {
                self.blobs(&manifest)?;
                let media_type = manifest.media_type.as_deref().or(announced).unwrap_or(media_type::OCI_MANIFEST);
                Ok(media_type.to_owned())
            }
            Document::Index(_) if depth >= INDEXES_MAX => Err(self.refuse("its indexes are nested too deeply")),
            Document::Index(index) => {
                self.manifests(&index, depth)?;
                let media_type = index.media_type.as_deref().or(announced).unwrap_or(media_type::OCI_INDEX);
                Ok(media_type.to_owned())
            }
        }
    }

    /// Brings every manifest of an index.
    fn manifests(&self, index: &Index, depth: usize) -> Result<()> {
        index.manifests.iter().try_for_each(|entry| self.entry_at(entry, depth + 1))
    }

    /// Brings one manifest by its digest, with everything that it points at.
    pub(super) fn entry(&self, entry: &Descriptor) -> Result<()> {
        self.entry_at(entry, 0)
    }

    fn entry_at(&self, entry: &Descriptor, depth: usize) -> Result<()> {
        let (bytes, announced) = self.fetch(entry)?;
        let media_type = self.contents(&bytes, &announced, depth)?;
        self.document(&self.destination.pinned(entry.digest.clone()), &media_type, &bytes)?;
        Ok(())
    }

    /// Reads a manifest from the store or from where it came from.
    fn fetch(&self, entry: &Descriptor) -> Result<(Vec<u8>, String)> {
        if self.store.has_blob(&entry.digest)
            && let Ok(bytes) = self.store.read_blob(&entry.digest, MANIFEST_MAX)
        {
            return Ok((bytes, entry.media_type.clone()));
        }
        let Some(origin) = &self.origin else { return Err(self.refuse(format!("{} is not here", entry.digest))) };
        let found = self.client.manifest(&origin.pinned(entry.digest.clone())).map_err(|error| self.fail(error))?;
        Ok((found.bytes, found.media_type))
    }

    /// Puts a document in the repository.
    pub(super) fn document(&self, name: &Reference, media_type: &str, bytes: &[u8]) -> Result<PushedManifest> {
        self.client.push_manifest(name, media_type, bytes).map_err(|error| self.fail(error))
    }

    /// Brings the blobs of an image, several at a time.
    fn blobs(&self, manifest: &Manifest) -> Result<()> {
        let mut blobs: Vec<&Descriptor> = Vec::new();
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            if !blobs.iter().any(|other| other.digest == blob.digest) && !is_foreign(&blob.media_type) {
                blobs.push(blob);
            }
        }
        // The largest first: the last one to start should be a short one.
        blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        let (next, stop, failed) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
        let run = || {
            while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = self.blob(blob) {
                    stop.store(true, Ordering::Relaxed);
                    if let Ok(mut failed) = failed.lock() {
                        failed.get_or_insert(error);
                    }
                }
            }
        };
        let parallel = self.client.connections(self.destination).min(PARALLEL_MAX).min(blobs.len());
        std::thread::scope(|scope| {
            for _ in 1..parallel {
                scope.spawn(run);
            }
            run();
        });
        match failed.into_inner() {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(error),
            Err(_) => Err(self.refuse("one of its blobs could not be sent")),
        }
    }

    fn blob(&self, blob: &Descriptor) -> Result<()> {
        let mounts = || self.repositories_with(&blob.digest);
        let pushed = self.client.push_blob(self.destination, blob, &mounts, self).map_err(|error| self.fail(error))?;
        let digest = blob.digest.clone();
        self.observer.progress(match pushed {
            Pushed::Sent => Progress::Unpacked { digest, size: blob.size },
            Pushed::Present | Pushed::Mounted(_) => Progress::Layer { digest, size: blob.size, present: true },
        });
        Ok(())
    }

    /// Lists other repositories of the registry that should have a blob: those that images with it came from or have names in.
    fn repositories_with(&self, digest: &Digest) -> Vec<String> {
        let map = self.repositories.get_or_init(|| {
            let mut map: HashMap<Digest, Vec<String>> = HashMap::new();
            for image in self.store.images().unwrap_or_default().images {
                let known = image.origins.iter().chain(&image.names);
                let here = known.filter(|name| name.host() == self.destination.host());
                let mut repositories: Vec<&str> = here.map(Reference::repository).collect();
                repositories.retain(|repository| *repository != self.destination.repository());
                for blob in image.layers.iter().map(|layer| &layer.blob.digest).chain([&image.id]) {
                    let list = map.entry(blob.clone()).or_default();
                    for repository in &repositories {
                        if list.len() < MOUNTS_MAX && !list.iter().any(|known| known == repository) {
                            list.push((*repository).to_owned());
                        }
                    }
                }
            }
            map
        });
        let mut list = map.get(digest).cloned().unwrap_or_default();
        if let Some(origin) = &self.origin
            && origin.host() == self.destination.host()
            && origin.repository() != self.destination.repository()
            && !list.iter().any(|known| known == origin.repository())
        {
            list.insert(0, origin.repository().to_owned());
        }
        list
    }
}

impl Content for Transfer<'_> {
    fn open(&self, blob: &Descriptor, offset: u64) -> io::Result<Box<dyn Read + Send + '_>> {
        if self.observer.cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        if offset == 0 {
            self.observer.progress(Progress::Layer { digest: blob.digest.clone(), size: blob.size, present: false });
        }
        if self.store.has_blob(&blob.digest) {
            let mut file = self.store.open_blob(&blob.digest).map_err(io::Error::other)?;
            file.seek(SeekFrom::Start(offset))?;
            return Ok(Box::new(file));
        }
        let Some(origin) = &self.origin else {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("blob {} is not here", blob.digest)));
        };
        let mut reader = self.client.blob(origin, blob, offset).map_err(io::Error::other)?;
        let begins = reader.offset();
        if begins < offset {
            io::copy(&mut reader.by_ref().take(offset - begins), &mut io::sink())?;
        }
        Ok(Box::new(reader))
    }

    fn sent(&self, blob: &Descriptor, bytes: u64) {
        let (digest, total) = (blob.digest.clone(), blob.size);
        self.observer.progress(Progress::Downloading { digest, done: bytes, total });
    }
}

/// Tells whether a layer is one that registries do not hand out.
pub(super) fn is_foreign(media_type: &str) -> bool {
    media_type.contains(".foreign.") || media_type.contains(".nondistributable.")
}
