//! Images in one tar file: what `docker save` writes, old and new, and OCI layouts in a tar.
//!
//! ```text
//!   docker, old     manifest.json -> <hex>.json, <hex>/layer.tar          (links between equal layers)
//!   docker, new     manifest.json -> blobs/sha256/<hex>, and index.json for the same blobs
//!   oci-archive     oci-layout, index.json, blobs/sha256/<hex>
//! ```
//!
//! The archive is indexed once, by reading its headers, and the blobs are then read from where they lie. A compressed
//! archive, or one from a pipe, is first written to a nameless file of the store.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use brig_spec::digest::{Algorithm, Digest};
use brig_spec::image::{CONFIG_MAX, Descriptor, ImageConfig, Index, MANIFEST_MAX, Manifest, media_type};
use brig_spec::platform::Platform;
use brig_spec::reference::Reference;
use serde::Deserialize;

use crate::compression::{Compression, Decoder, detect};
use crate::error::{Error, Result};
use crate::hash::{self, Hasher};
use crate::image::Image;
use crate::ingest::{BlobSource, NewImage, Opened};
use crate::layout::{NAME_ANNOTATION, TAG_ANNOTATION, parse_index, select_manifest};
use crate::observe::Observer;
use crate::tarball::{Kind, Tarball};
use crate::{Store, disk};

/// The most members that an archive may have.
const MEMBERS_MAX: usize = 100_000;
/// The most links between members that one name may lead through.
const LINKS_MAX: usize = 8;

/// Where a member of the archive lies.
#[derive(Debug, Clone)]
enum Member {
    /// Offset and length in bytes.
    File(u64, u64),
    /// The name of another member.
    Link(String),
}

/// An image archive, indexed.
#[derive(Debug)]
pub struct Archive {
    name: String,
    file: File,
    members: HashMap<String, Member>,
    /// Blobs of an old docker archive by digest; in a layout the digest is the name.
    digests: HashMap<Digest, String>,
}

/// One image of an archive.
#[derive(Debug, Clone)]
pub struct ArchiveImage {
    /// The manifest, as it lies in the archive or made up from what does.
    pub manifest: Vec<u8>,
    /// The names that the archive gives to the image.
    pub names: Vec<Reference>,
}

/// An entry of docker's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl Store {
    /// Opens an archive file.
    pub fn open_archive(&self, path: &Path) -> Result<Archive> {
        let file = File::open(path).map_err(Error::io("open", path.display()))?;
        let name = path.display().to_string();
        let mut start = [0; 6];
        let plain = file.read_at(&mut start, 0).is_ok_and(|n| matches!(detect(&start[..n]), Ok(Compression::None)))
            && file.metadata().is_ok_and(|metadata| metadata.is_file());
        if plain { Archive::index(file, name) } else { self.spool_archive(file, name) }
    }

    /// Reads an archive from a stream, such as standard input; `name` is for error messages.
    pub fn read_archive(&self, stream: impl Read, name: &str) -> Result<Archive> {
        self.spool_archive(stream, name.to_owned())
    }

    /// Copies a stream, decompressed, into a file that has no name.
    fn spool_archive(&self, stream: impl Read, name: String) -> Result<Archive> {
        let mut spool = self.nameless_file()?;
        let limit = self.limits.layer_bytes;
        let mut decoder = Decoder::new(stream).map_err(Error::io("read", &name))?;
        let copied = io::copy(&mut decoder.by_ref().take(limit + 1), &mut spool).map_err(Error::io("read", &name))?;
        if copied > limit {
            return Err(Error::Archive { path: name, reason: format!("it has more than {limit} bytes") });
        }
        Archive::index(spool, name)
    }

    /// Makes a file below `tmp` that is gone when it is closed.
    pub(crate) fn nameless_file(&self) -> Result<File> {
        let path = self.root.join("tmp").join(format!("spool-{}", disk::random_name()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::io("make", path.display()))?;
        std::fs::remove_file(&path).map_err(Error::io("remove", path.display()))?;
        Ok(file)
    }

    /// Takes in every image of an archive; returns them in the archive's order.
    pub fn load(&self, archive: &mut Archive, platform: &Platform, observer: &dyn Observer) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for image in archive.images(platform)? {
            images.push(self.add_archived(archive, &image, &image.names, observer)?);
        }
        Ok(images)
    }

    /// Takes in one image of an archive, with names of the caller's choice.
    pub fn add_archived(
        &self,
        archive: &Archive,
        image: &ArchiveImage,
        names: &[Reference],
        observer: &dyn Observer,
    ) -> Result<Image> {
        let new = NewImage { manifest: &image.manifest, media_type: None, names, origins: &[] };
        self.add(&new, archive, observer)
    }
}

impl Archive {
    fn index(mut file: File, name: String) -> Result<Self> {
        file.seek(SeekFrom::Start(0)).map_err(Error::io("read", &name))?;
        let mut members = HashMap::new();
        {
            let fault = |source| Error::ArchiveTar { path: name.clone(), source };
            let mut tarball = Tarball::new(BufReader::with_capacity(64 << 10, &file));
            while let Some(entry) = tarball.next_entry().map_err(fault)? {
                if members.len() >= MEMBERS_MAX {
                    let reason = format!("it has more than {MEMBERS_MAX} members");
                    return Err(Error::Archive { path: name, reason });
                }
                let Ok(path) = String::from_utf8(entry.path) else { continue };
                let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
                let (offset, length) = tarball.data_range();
                let member = match entry.kind {
                    Kind::File if entry.sparse.is_none() => Member::File(offset, length),
                    Kind::Symlink | Kind::HardLink => match String::from_utf8(entry.link) {
                        Ok(target) if entry.kind == Kind::HardLink => Member::Link(target),
                        Ok(target) => Member::Link(sibling(&path, &target)),
                        Err(_) => continue,
                    },
                    _ => continue,
                };
                members.insert(path, member);
                tarball.seek_past_data().map_err(fault)?;
            }
        }
        Ok(Self { name, file, members, digests: HashMap::new() })
    }

    /// Lists the images of the archive, each for `platform` where there is a choice.
    pub fn images(&mut self, platform: &Platform) -> Result<Vec<ArchiveImage>> {
        if self.members.contains_key("manifest.json") {
            return self.docker_images();
        }
        if self.members.contains_key("index.json") {
            return self.layout_images(platform);
        }
        Err(self.refuse("it has neither manifest.json nor index.json".to_owned()))
    }

    /// Lists the images of an OCI layout in a tar.
    fn layout_images(&mut self, platform: &Platform) -> Result<Vec<ArchiveImage>> {
        let index = parse_index(&self.read("index.json", MANIFEST_MAX)?, &self.name)?;
        let mut groups: Vec<(Vec<Reference>, Vec<Descriptor>)> = Vec::new();
        for entry in &index.manifests {
            let annotation = [NAME_ANNOTATION, TAG_ANNOTATION].iter().find_map(|key| entry.annotations.get(*key));
            // A bare tag such as `latest` names nothing by itself.
            let name =
                annotation.filter(|name| name.contains(['/', ':'])).and_then(|name| name.parse::<Reference>().ok());
            let names: Vec<Reference> = name.into_iter().collect();
            match groups.iter_mut().find(|(others, entries)| *others == names && entries[0].platform.is_some()) {
                Some((_, entries)) if entry.platform.is_some() => entries.push(entry.clone()),
                _ => groups.push((names, vec![entry.clone()])),
            }
        }
        let mut images: Vec<ArchiveImage> = Vec::new();
        for (names, manifests) in groups {
            let one = Index { manifests, ..index.clone() };
            let manifest = select_manifest(self, &one, None, platform, &self.name)?;
            match images.iter_mut().find(|image| image.manifest == manifest) {
                Some(image) => image.names.extend(names),
                None => images.push(ArchiveImage { manifest, names }),
            }
        }
        Ok(images)
    }

    /// Lists the images of docker's `manifest.json`, and makes a manifest for each.
    fn docker_images(&mut self) -> Result<Vec<ArchiveImage>> {
        let bytes = self.read("manifest.json", MANIFEST_MAX)?;
        let entries: Vec<DockerEntry> = serde_json::from_slice(&bytes)
            .map_err(|error| self.refuse(format!("its manifest.json is bad: {error}")))?;
        let mut images = Vec::new();
        for entry in entries {
            let config_raw = self.read(&entry.config, CONFIG_MAX)?;
            let config_digest = hash::sha256(&config_raw);
            let config = ImageConfig::parse(&config_raw)
                .map_err(|source| Error::Document { digest: config_digest.clone(), source })?;
            if config.rootfs.diff_ids.len() != entry.layers.len() {
                return Err(self.refuse("its manifest.json and its configuration disagree about layers".to_owned()));
            }
            self.digests.insert(config_digest.clone(), entry.config);
            let mut layers = Vec::new();
            for (member, diff_id) in entry.layers.iter().zip(&config.rootfs.diff_ids) {
                layers.push(self.layer(member, diff_id)?);
            }
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(media_type::OCI_MANIFEST.to_owned()),
                config: descriptor(media_type::OCI_CONFIG, config_digest, config_raw.len() as u64),
                layers,
            };
            let manifest =
                serde_json::to_vec(&manifest).map_err(|error| self.refuse(format!("no manifest: {error}")))?;
            let names = entry.repo_tags.unwrap_or_default();
            images.push(ArchiveImage { manifest, names: names.iter().filter_map(|name| name.parse().ok()).collect() });
        }
        Ok(images)
    }

    /// Describes a layer of a docker archive. Uncompressed, its digest is the diff id; else it must be read once.
    fn layer(&mut self, member: &str, diff_id: &Digest) -> Result<Descriptor> {
        let (offset, size) = self.locate(member)?;
        let mut start = [0; 6];
        let have = self.file.read_at(&mut start, offset).map_err(Error::io("read", &self.name))?;
        let kind =
            detect(&start[..have.min(usize::try_from(size).unwrap_or(6))]).map_err(Error::io("read", &self.name))?;
        let (media, digest) = match kind {
            Compression::None => (media_type::OCI_LAYER, diff_id.clone()),
            Compression::Gzip => (media_type::OCI_LAYER_GZIP, self.hash(offset, size)?),
            Compression::Zstd => (media_type::OCI_LAYER_ZSTD, self.hash(offset, size)?),
        };
        self.digests.insert(digest.clone(), member.to_owned());
        Ok(descriptor(media, digest, size))
    }

    fn hash(&self, offset: u64, size: u64) -> Result<Digest> {
        let mut hash = Hasher::new(Algorithm::Sha256);
        let mut reader = Section { file: &self.file, at: offset, end: offset + size };
        let mut buffer = vec![0; 1 << 20];
        loop {
            match reader.read(&mut buffer).map_err(Error::io("read", &self.name))? {
                0 => return Ok(hash.finish()),
                length => hash.update(&buffer[..length]),
            }
        }
    }

    /// Finds a member through links.
    fn locate(&self, member: &str) -> Result<(u64, u64)> {
        let mut name = member.trim_start_matches("./");
        for _ in 0..LINKS_MAX {
            match self.members.get(name) {
                Some(Member::File(offset, length)) => return Ok((*offset, *length)),
                Some(Member::Link(target)) => name = target,
                None => return Err(self.refuse(format!("it has no `{member}`"))),
            }
        }
        Err(self.refuse(format!("`{member}` leads through too many links")))
    }

    fn read(&self, member: &str, limit: u64) -> Result<Vec<u8>> {
        let (offset, length) = self.locate(member)?;
        if length > limit {
            return Err(self.refuse(format!("`{member}` has more than {limit} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, offset).map_err(Error::io("read", &self.name))?;
        Ok(bytes)
    }

    fn refuse(&self, reason: String) -> Error {
        Error::Archive { path: self.name.clone(), reason }
    }
}

impl BlobSource for Archive {
    fn open_blob(&self, blob: &Descriptor, offset: u64) -> io::Result<Opened<'_>> {
        let digest = &blob.digest;
        let name = match self.digests.get(digest) {
            Some(name) => name.clone(),
            None => format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()),
        };
        let (start, length) = self.locate(&name).map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
        let reader = Section { file: &self.file, at: start + offset.min(length), end: start + length };
        Ok(Opened { reader: Box::new(reader), offset: offset.min(length) })
    }
}

/// A piece of a file, read without moving the file's own position.
struct Section<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

/// Resolves the target of a symbolic link member, textually; what leads out of the archive is no member.
fn sibling(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Makes a descriptor.
pub(crate) fn descriptor(media: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media.to_owned(),
        digest,
        size,
        platform: None,
        annotations: std::collections::BTreeMap::new(),
    }
}
