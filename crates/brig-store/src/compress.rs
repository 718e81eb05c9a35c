//! Layers that are kept as plain tars are compressed before they travel: the image stays what it is, its manifest is another.
//!
//! ```text
//!   config  ─ the same, and with it the image's id and its layers' trees
//!   layer   tar            (what a commit made, or an archive held)   --gzip-->   tar+gzip, another blob
//!   manifest, record       name that blob from now on; the tar is the collector's
//! ```
//!
//! It is done once: the next push finds nothing to do.

use std::fs::File;
use std::io::{BufWriter, Read, Write};

use brig_spec::digest::{Algorithm, Digest};
use brig_spec::image::{Document, ImageConfig, MANIFEST_MAX, Manifest, media_type};

use crate::Store;
use crate::archive::descriptor;
use crate::error::{Error, Result};
use crate::hash::{self, Hasher};
use crate::image::Image;
use crate::ingest::{Incoming, NewImage};
use crate::layers::RootRecord;
use crate::lease::Needs;
use crate::observe::Observer;

/// How much work goes into making layers small: about the middle of what zlib offers.
const LEVEL: u32 = 5;

/// The media types of plain layers, and what they are called in gzip.
const PLAIN: [(&str, &str); 2] =
    [(media_type::OCI_LAYER, media_type::OCI_LAYER_GZIP), (media_type::DOCKER_LAYER, media_type::DOCKER_LAYER_GZIP)];

fn in_gzip(plain: &str) -> Option<&'static str> {
    PLAIN.iter().find(|(known, _)| *known == plain).map(|(_, gzip)| *gzip)
}

impl Store {
    /// Compresses what an image has as plain tars; returns the image as it is then, or none if there is nothing to do.
    ///
    /// Errors: the image was removed meanwhile; the disk is full; it was cancelled.
    pub fn compress(&self, image: &Image, observer: &dyn Observer) -> Result<Option<Image>> {
        let gone = || Error::NoSuchImage(image.id.to_string());
        let record = self.read_image(&image.id)?.ok_or_else(gone)?;
        if !record.layers.iter().any(|layer| in_gzip(&layer.blob.media_type).is_some()) {
            return Ok(None);
        }
        // 1. What there is, protected from the collector.
        let mut needs = Needs::of(&record);
        let lease = self.lease(&needs)?;
        let record = self.read_image(&image.id)?.ok_or_else(gone)?;
        let raw = self.read_blob(&record.manifest, MANIFEST_MAX)?;
        let malformed = |reason: &str| Error::Malformed { id: record.manifest.clone(), reason: reason.to_owned() };
        let mut manifest: Manifest =
            serde_json::from_slice(&raw).map_err(|_| malformed("its manifest cannot be changed"))?;
        if manifest.layers.len() != record.layers.len() {
            return Err(malformed("it has not as many layers as its manifest"));
        }
        // 2. The layers.
        let (mut layers, mut blobs) = (record.layers.clone(), Vec::new());
        for (at, layer) in layers.iter_mut().enumerate() {
            let Some(gzip_type) = in_gzip(&layer.blob.media_type) else { continue };
            let path = lease.path().join(format!("gzip-{at}"));
            let plain = self.blob_path(&layer.blob.digest);
            let source = File::open(&plain).map_err(Error::io("open", plain.display()))?;
            let file = File::create_new(&path).map_err(Error::io("make", path.display()))?;
            let (digest, size) = gzip(Watched { source, observer }, &file).map_err(|error| {
                if observer.cancelled() { Error::Cancelled } else { Error::io("compress", path.display())(error) }
            })?;
            layer.blob = descriptor(gzip_type, digest.clone(), size);
            manifest.layers[at] = layer.blob.clone();
            blobs.push((path, digest));
        }
        // 3. The manifest, protected too before it has a name; then as every image.
        let bytes = serde_json::to_vec(&manifest).map_err(|_| malformed("its manifest cannot be changed"))?;
        let manifest_digest = hash::sha256(&bytes);
        let Ok(Document::Manifest(parsed)) = Document::parse(&bytes, record.manifest_type.as_deref()) else {
            return Err(malformed("it is no manifest"));
        };
        needs.blobs.push(manifest_digest.clone());
        needs.blobs.extend(blobs.iter().map(|(_, digest)| digest.clone()));
        self.extend(&lease, &needs)?;
        let config = ImageConfig::parse(&image.config_raw)
            .map_err(|source| Error::Document { digest: image.id.clone(), source })?;
        let new = NewImage { manifest: &bytes, media_type: record.manifest_type.as_deref(), names: &[], origins: &[] };
        let incoming = Incoming {
            image: &new,
            manifest_digest,
            manifest: &parsed,
            config: &config,
            config_raw: &image.config_raw,
            blobs,
            trees: Vec::new(),
            layers,
            root: Some(RootRecord { mode: record.root.mode, uid: record.root.uid, gid: record.root.gid }),
            lease: &lease,
        };
        let record = self.publish(&incoming, observer)?;
        Ok(Some(self.assemble(record, config, image.config_raw.clone())))
    }
}

/// Compresses a stream into a file; returns digest and size of what was written.
fn gzip(mut source: impl Read, file: &File) -> std::io::Result<(Digest, u64)> {
    let writer =
        Counted { file: BufWriter::with_capacity(256 << 10, file), hash: Hasher::new(Algorithm::Sha256), size: 0 };
    let mut encoder = flate2::write::GzEncoder::new(writer, flate2::Compression::new(LEVEL));
    std::io::copy(&mut source, &mut encoder)?;
    let mut writer = encoder.finish()?;
    writer.flush()?;
    Ok((writer.hash.finish(), writer.size))
}

/// A file that is read until the caller has had enough.
struct Watched<'a> {
    source: File,
    observer: &'a dyn Observer,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.observer.cancelled() {
            return Err(std::io::Error::other("cancelled"));
        }
        self.source.read(buffer)
    }
}

/// A writer that counts and hashes what passes.
struct Counted<'a> {
    file: BufWriter<&'a File>,
    hash: Hasher,
    size: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.hash.update(&bytes[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
