//! Content that is no image, and what refers to an image: OCI artifacts and their lists.
//!
//! ```text
//!   manifest { artifactType, config: {}, layers: [files, named by an annotation], subject: what it is about }
//!
//!   GET /v2/<name>/referrers/<digest>      what is about a digest, page by page; where a registry does not know that:
//!   GET /v2/<name>/manifests/sha256-<hex>  an index under that tag, which whoever pushes a referrer keeps up
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use brig_spec::digest::Digest;
use brig_spec::image::{Descriptor, MANIFEST_MAX, media_type};
use brig_spec::reference::Reference;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::client::Client;
use crate::error::Error;
use crate::http::{Request, Target, bad};
use crate::search::next_page;
use crate::upload::Content;

/// The media type of a configuration that there is none of.
pub const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// That configuration.
pub const EMPTY: &[u8] = b"{}";
/// The annotation that names a file.
pub const TITLE: &str = "org.opencontainers.image.title";
/// The media type of a file of which nothing is said.
pub const FILE_TYPE: &str = "application/octet-stream";
/// The type of an artifact of which nothing is said.
const UNKNOWN_TYPE: &str = "application/vnd.unknown.artifact.v1";
/// The most pages of a list of referrers.
const PAGES_MAX: usize = 50;
/// How often a list that others change too is looked at.
const LISTING_MAX: usize = 10;
/// The size of the pieces in which files are read and written, in bytes.
const PIECE: usize = 256 << 10;

/// Returns the sha256 digest of bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest::sha256(&sha2::Sha256::digest(bytes).into())
}

/// The manifest of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactManifest {
    /// Always 2.
    pub schema_version: u64,
    /// The media type of an OCI manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What kind of artifact it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// A configuration, mostly an empty one.
    pub config: Descriptor,
    /// The content.
    pub layers: Vec<Descriptor>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Something that refers to a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referrer {
    /// Its manifest, with its annotations.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// What kind of artifact it is.
    #[serde(rename = "artifactType", default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

/// A list of referrers, as registries and tags hold it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReferrerIndex {
    schema_version: u64,
    media_type: String,
    #[serde(default)]
    manifests: Vec<Referrer>,
}

/// A file that goes into an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its media type.
    pub media_type: String,
}

/// An artifact that is to be made.
#[derive(Debug, Clone, Default)]
pub struct NewArtifact {
    /// Its files.
    pub files: Vec<ArtifactFile>,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// What it is about, in the same repository.
    pub subject: Option<Descriptor>,
    /// Free annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The contents of an artifact that goes out.
struct Files(Vec<(Descriptor, Option<PathBuf>)>);

impl Content for Files {
    fn open(&self, blob: &Descriptor, offset: u64) -> io::Result<Box<dyn Read + Send + '_>> {
        let found = self.0.iter().find(|(known, _)| known.digest == blob.digest);
        match found.and_then(|(_, path)| path.as_ref()) {
            Some(path) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                Ok(Box::new(file))
            }
            None => Ok(Box::new(&EMPTY[usize::try_from(offset).unwrap_or(EMPTY.len()).min(EMPTY.len())..])),
        }
    }
}

impl Client {
    /// Pushes files as one artifact under the reference's tag, or by its digest if `by_digest`; returns its digest.
    pub fn push_artifact(&self, reference: &Reference, new: &NewArtifact, by_digest: bool) -> Result<Digest, Error> {
        let host = reference.host();
        let config = describe(EMPTY_TYPE, digest_of(EMPTY), EMPTY.len() as u64);
        let mut files = Files(vec![(config.clone(), None)]);
        for file in &new.files {
            let fail = |source| Error::Source { host: host.to_owned(), source };
            let mut layer = describe_file(file).map_err(fail)?;
            let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            layer.annotations.insert(TITLE.to_owned(), name);
            files.0.push((layer, Some(file.path.clone())));
        }
        // An artifact without files has the empty configuration as its content.
        let mut layers: Vec<Descriptor> = files.0.iter().skip(1).map(|(layer, _)| layer.clone()).collect();
        if layers.is_empty() {
            layers.push(config.clone());
        }
        for (blob, _) in &files.0 {
            self.push_blob(reference, blob, &Vec::new, &files)?;
        }
        let artifact_type = new.artifact_type.clone().unwrap_or_else(|| UNKNOWN_TYPE.to_owned());
        let manifest = ArtifactManifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: Some(artifact_type.clone()),
            config,
            layers,
            subject: new.subject.clone(),
            annotations: new.annotations.clone(),
        };
        let bytes = serde_json::to_vec(&manifest).map_err(|error| Error::Setup(error.to_string()))?;
        let digest = digest_of(&bytes);
        let name = if by_digest { reference.pinned(digest.clone()) } else { reference.clone() };
        let pushed = self.push_manifest(&name, media_type::OCI_MANIFEST, &bytes)?;
        if let Some(subject) = new.subject.as_ref().filter(|_| !pushed.lists_referrers) {
            let mut descriptor = describe(media_type::OCI_MANIFEST, digest.clone(), bytes.len() as u64);
            descriptor.annotations.clone_from(&new.annotations);
            let referrer = Referrer { descriptor, artifact_type: Some(artifact_type) };
            self.list_referrer(reference, &subject.digest, &referrer)?;
        }
        Ok(digest)
    }

    /// Lists what refers to a digest in a repository.
    pub fn referrers(&self, reference: &Reference, digest: &Digest) -> Result<Vec<Referrer>, Error> {
        let (host, what) = (reference.host(), format!("list of what refers to {digest}"));
        let mut list = Vec::new();
        let mut target = Target::Repository(format!("referrers/{digest}"));
        for _ in 0..PAGES_MAX {
            let request = Request {
                accept: media_type::OCI_INDEX,
                target,
                ..Request::get(host, reference.repository(), String::new(), what.clone())
            };
            let page = self.block_on(async {
                let reply = self.inner.http.send(&request).await?;
                let next = next_page(&reply.response);
                Ok((self.inner.http.body(&reply.host, &what, reply.response, MANIFEST_MAX).await?, next))
            });
            let (bytes, next) = match page {
                Ok(page) => page,
                // It does not know the question.
                Err(Error::NotFound { .. } | Error::Status { status: 400 | 405 | 501, .. }) if list.is_empty() => {
                    return self.tagged_referrers(reference, digest);
                }
                Err(error) => return Err(error),
            };
            list.extend(parse_referrers(host, &bytes)?);
            match next {
                Some(next) => target = Target::Url(next),
                None => break,
            }
        }
        Ok(list)
    }

    /// Lists what the index under the digest's tag knows.
    fn tagged_referrers(&self, reference: &Reference, digest: &Digest) -> Result<Vec<Referrer>, Error> {
        match self.manifest(&tagged(reference, &referrers_tag(digest))?) {
            Ok(found) => parse_referrers(reference.host(), &found.bytes),
            Err(Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Adds to the index under the digest's tag, for registries that keep no list of their own.
    ///
    /// A registry has no way to change a tag only if nobody else did. So it is looked at afterwards, and done again if the
    /// entry is gone; one that goes after that look stays gone, and its artifact is still there by digest.
    fn list_referrer(&self, reference: &Reference, subject: &Digest, referrer: &Referrer) -> Result<(), Error> {
        let tag = tagged(reference, &referrers_tag(subject))?;
        for _ in 0..LISTING_MAX {
            let mut manifests = self.tagged_referrers(reference, subject)?;
            if manifests.iter().any(|known| known.descriptor.digest == referrer.descriptor.digest) {
                return Ok(());
            }
            manifests.push(referrer.clone());
            let index = ReferrerIndex { schema_version: 2, media_type: media_type::OCI_INDEX.to_owned(), manifests };
            let bytes = serde_json::to_vec(&index).map_err(|error| Error::Setup(error.to_string()))?;
            self.push_manifest(&tag, media_type::OCI_INDEX, &bytes)?;
        }
        Err(bad(reference.host(), "its list of referrers changes all the time"))
    }

    /// Fetches a blob of at most `limit` bytes, and verifies it.
    pub fn small_blob(&self, reference: &Reference, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, Error> {
        let host = reference.host();
        if blob.size > limit {
            return Err(Error::TooLarge { host: host.to_owned(), what: blob.digest.to_string(), limit });
        }
        let mut bytes = Vec::new();
        let mut reader = self.blob(reference, blob, 0)?.take(blob.size + 1);
        reader.read_to_end(&mut bytes).map_err(|error| reader_error(host, error))?;
        verify(host, blob, &digest_as(&blob.digest, &bytes), bytes.len() as u64)?;
        Ok(bytes)
    }

    /// Writes a blob to a new file beside its place, verifies it, and puts it there.
    pub fn blob_to_file(&self, reference: &Reference, blob: &Descriptor, path: &Path) -> Result<(), Error> {
        let host = reference.host();
        let fail = |source: io::Error| Error::Write { path: path.display().to_string(), source };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        let mut file = File::options().write(true).create_new(true).open(&part).map_err(fail)?;
        let copied = (|| {
            let mut reader = self.blob(reference, blob, 0)?.take(blob.size.saturating_add(1));
            let (mut hash, mut size, mut piece) = (Hash::new(&blob.digest), 0, vec![0; PIECE]);
            loop {
                let count = reader.read(&mut piece).map_err(|error| reader_error(host, error))?;
                if count == 0 {
                    break;
                }
                hash.update(&piece[..count]);
                size += count as u64;
                file.write_all(&piece[..count]).map_err(fail)?;
            }
            verify(host, blob, &hash.finish(), size)?;
            file.sync_all().and_then(|()| std::fs::rename(&part, path)).map_err(fail)
        })();
        if copied.is_err() {
            let _ = std::fs::remove_file(&part);
        }
        copied
    }
}

/// A hash of the kind that a digest names.
enum Hash {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hash {
    fn new(digest: &Digest) -> Self {
        match digest.algorithm() {
            brig_spec::digest::Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            brig_spec::digest::Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::sha256(&hash.finalize().into()),
            Self::Sha512(hash) => Digest::sha512(&hash.finalize().into()),
        }
    }
}

fn digest_as(like: &Digest, bytes: &[u8]) -> Digest {
    let mut hash = Hash::new(like);
    hash.update(bytes);
    hash.finish()
}

/// Checks size and digest of what came.
fn verify(host: &str, blob: &Descriptor, found: &Digest, size: u64) -> Result<(), Error> {
    if size != blob.size {
        return Err(bad(host, &format!("blob {} has {size} bytes instead of {}", blob.digest, blob.size)));
    }
    if *found != blob.digest {
        return Err(Error::Digest { host: host.to_owned(), expected: blob.digest.clone(), found: found.clone() });
    }
    Ok(())
}

/// Takes a reader's error apart again.
fn reader_error(host: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(source) => Error::Source { host: host.to_owned(), source },
    }
}

/// Returns the tag that stands for what refers to a digest.
fn referrers_tag(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), &digest.hex()[..64])
}

/// Returns the repository of a reference with another tag.
pub(crate) fn tagged(reference: &Reference, tag: &str) -> Result<Reference, Error> {
    let name = format!("{}:{tag}", reference.name());
    name.parse().map_err(|_| bad(reference.host(), "its name takes no tag"))
}

fn parse_referrers(host: &str, bytes: &[u8]) -> Result<Vec<Referrer>, Error> {
    let index: ReferrerIndex =
        serde_json::from_slice(bytes).map_err(|_| bad(host, "its list of referrers is no index"))?;
    Ok(index.manifests)
}

fn describe(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest, size, platform: None, annotations: BTreeMap::new() }
}

/// Reads a file once for its digest.
fn describe_file(file: &ArtifactFile) -> io::Result<Descriptor> {
    let mut reader = File::open(&file.path)?;
    let (mut hash, mut size, mut piece) = (sha2::Sha256::new(), 0, vec![0; PIECE]);
    loop {
        let count = reader.read(&mut piece)?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
        size += count as u64;
    }
    Ok(describe(&file.media_type, Digest::sha256(&hash.finalize().into()), size))
}
