//! `import`: a tar of a root file system becomes an image of one layer.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use brig_spec::digest::{Algorithm, Digest};
use brig_spec::image::{Descriptor, ImageConfig, Manifest, ProcessConfig, RootFs, media_type};
use brig_spec::platform::Platform;
use brig_spec::reference::Reference;

use crate::Store;
use crate::archive::descriptor;
use crate::compression::{Compression, Decoder};
use crate::error::{Error, Result};
use crate::hash::{self, Hasher};
use crate::image::Image;
use crate::ingest::{BlobSource, NewImage, Opened};
use crate::observe::Observer;

/// What an imported image says about itself.
#[derive(Debug, Clone)]
pub struct Import {
    /// The platform that the root file system is for.
    pub platform: Platform,
    /// The defaults for a process.
    pub config: ProcessConfig,
    /// The time of creation, RFC 3339.
    pub created: Option<String>,
    /// A comment for the image's history.
    pub comment: Option<String>,
}

/// A blob whose bytes lie in a file, and another whose bytes lie in memory.
struct Pieces<'a> {
    file: &'a std::fs::File,
    layer: &'a Digest,
    config: &'a [u8],
}

impl BlobSource for Pieces<'_> {
    fn open_blob(&self, blob: &Descriptor, offset: u64) -> io::Result<Opened<'_>> {
        if blob.digest == *self.layer {
            return Ok(Opened { reader: Box::new(At(self.file, offset)), offset });
        }
        Ok(Opened { reader: Box::new(self.config), offset: 0 })
    }
}

/// A file read from a position of one's own.
struct At<'a>(&'a std::fs::File, u64);

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.0.read_at(buffer, self.1)?;
        self.1 += length as u64;
        Ok(length)
    }
}

/// A reader that hashes and keeps what passes.
struct Keep<'a, R> {
    inner: R,
    hash: &'a mut Hasher,
    file: &'a std::fs::File,
    size: &'a mut u64,
}

impl<R: Read> Read for Keep<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        self.file.write_all(&buffer[..length])?;
        *self.size += length as u64;
        Ok(length)
    }
}

impl Store {
    /// Takes in a root file system as a tar, plain or compressed, and gives the image `names`.
    ///
    /// The stream is read once, into a nameless file, while both digests are made; `name` is for error messages.
    pub fn import(
        &self,
        stream: impl Read,
        name: &str,
        import: &Import,
        names: &[Reference],
        observer: &dyn Observer,
    ) -> Result<Image> {
        // 1. The blob and its digests.
        let mut file = self.nameless_file()?;
        let mut blob_hash = Hasher::new(Algorithm::Sha256);
        let mut diff_hash = Hasher::new(Algorithm::Sha256);
        let mut size = 0;
        let keep = Keep { inner: stream, hash: &mut blob_hash, file: &file, size: &mut size };
        let mut decoder = Decoder::new(keep).map_err(Error::io("read", name))?;
        let compression = decoder.compression();
        let mut buffer = vec![0; 1 << 20];
        let mut total = 0_u64;
        loop {
            if observer.cancelled() {
                return Err(Error::Cancelled);
            }
            let length = decoder.read(&mut buffer).map_err(Error::io("read", name))?;
            if length == 0 {
                break;
            }
            diff_hash.update(&buffer[..length]);
            total += length as u64;
            if total > self.limits.layer_bytes {
                let reason = format!("it has more than {} bytes", self.limits.layer_bytes);
                return Err(Error::Archive { path: name.to_owned(), reason });
            }
        }
        decoder.drain_source().map_err(Error::io("read", name))?;
        file.seek(SeekFrom::Start(0)).map_err(Error::io("read", name))?;
        let (layer, diff_id) = (blob_hash.finish(), diff_hash.finish());
        // 2. The documents.
        let config = ImageConfig {
            created: import.created.clone(),
            architecture: import.platform.architecture.clone(),
            variant: import.platform.variant.clone(),
            os: import.platform.os.clone(),
            config: import.config.clone(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id] },
            history: vec![brig_spec::image::History {
                created: import.created.clone(),
                comment: import.comment.clone(),
                ..Default::default()
            }],
            author: None,
        };
        let fail = |error: serde_json::Error| Error::Archive { path: name.to_owned(), reason: error.to_string() };
        let config_raw = serde_json::to_vec(&config).map_err(fail)?;
        let media = match compression {
            Compression::None => media_type::OCI_LAYER,
            Compression::Gzip => media_type::OCI_LAYER_GZIP,
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config: descriptor(media_type::OCI_CONFIG, hash::sha256(&config_raw), config_raw.len() as u64),
            layers: vec![descriptor(media, layer.clone(), size)],
        };
        let manifest = serde_json::to_vec(&manifest).map_err(fail)?;
        // 3. The way of every image.
        let new = NewImage { manifest: &manifest, media_type: None, names, origins: &[] };
        self.add(&new, &Pieces { file: &file, layer: &layer, config: &config_raw }, observer)
    }
}
