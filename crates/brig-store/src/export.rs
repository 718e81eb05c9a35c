//! `save`: images become one tar that Docker, skopeo and brig can load.
//!
//! ```text
//!   oci-layout
//!   blobs/sha256/<hex>     each blob once: layers as they were received, configurations, manifests
//!   index.json             OCI: one manifest for each name
//!   manifest.json          Docker: the same blobs by path (left out of an oci-archive)
//! ```

use std::collections::BTreeSet;
use std::io::Write;

use brig_spec::digest::Digest;
use brig_spec::image::{Descriptor, Index, MANIFEST_MAX, media_type};
use brig_spec::reference::Reference;

use crate::Store;
use crate::archive::descriptor;
use crate::error::{Error, Result};
use crate::image::ImageRecord;
use crate::layout::{NAME_ANNOTATION, TAG_ANNOTATION};
use crate::lease::Needs;

/// The form of a saved archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveFormat {
    /// What `docker save` writes: readable by Docker of any age, skopeo, and OCI tools.
    Docker,
    /// An OCI layout in a tar.
    Oci,
}

impl Store {
    /// Writes images, by name or id, into one archive.
    ///
    /// A name keeps its image's other names out of the archive; an id saves the image without a name.
    pub fn save(&self, images: &[&str], format: SaveFormat, output: impl Write) -> Result<()> {
        let fail = |action| Error::io::<std::io::Error>(action, "the archive");
        // 1. What goes in, protected from the collector while it is being read.
        let mut chosen: Vec<(ImageRecord, Vec<Reference>)> = Vec::new();
        let mut needs = Needs::default();
        for name_or_id in images {
            let id = self.resolve(name_or_id)?;
            let record = self.read_image(&id)?.ok_or_else(|| Error::NoSuchImage((*name_or_id).to_owned()))?;
            let name = name_or_id.parse::<Reference>().ok().filter(|name| {
                name.tag().is_some() && self.name_owner(name).is_ok_and(|owner| owner.as_ref() == Some(&id))
            });
            needs.blobs.extend([record.manifest.clone(), record.id.clone()]);
            needs.blobs.extend(record.layers.iter().map(|layer| layer.blob.digest.clone()));
            match chosen.iter_mut().find(|(other, _)| other.id == id) {
                Some((_, names)) => names.extend(name),
                None => chosen.push((record, name.into_iter().collect())),
            }
        }
        let _lease = self.lease(&needs)?;
        for (record, _) in &chosen {
            // Removed, and perhaps collected, before the lease was there.
            self.read_image(&record.id)?.ok_or_else(|| Error::NoSuchImage(record.id.to_string()))?;
        }
        // 2. The blobs, each once.
        let mut tar = tar::Builder::new(std::io::BufWriter::with_capacity(1 << 20, output));
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(fail("write"))?;
        let mut written: BTreeSet<&Digest> = BTreeSet::new();
        for digest in &needs.blobs {
            if written.insert(digest) {
                let mut file = self.open_blob(digest)?;
                let size = file.metadata().map_err(Error::io("look at", digest))?.len();
                let mut header = header(size);
                tar.append_data(&mut header, blob_name(digest), &mut file).map_err(fail("write"))?;
            }
        }
        // 3. The indexes.
        let index = serde_json::to_vec(&self.saved_index(&chosen)?).map_err(|error| fail("write")(error.into()))?;
        append(&mut tar, "index.json", &index).map_err(fail("write"))?;
        if format == SaveFormat::Docker {
            let entries: Vec<_> = chosen
                .iter()
                .map(|(record, names)| {
                    serde_json::json!({
                        "Config": blob_name(&record.id),
                        "RepoTags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
                        "Layers": record.layers.iter().map(|layer| blob_name(&layer.blob.digest)).collect::<Vec<_>>(),
                    })
                })
                .collect();
            let text = serde_json::to_vec(&entries).map_err(|error| fail("write")(error.into()))?;
            append(&mut tar, "manifest.json", &text).map_err(fail("write"))?;
        }
        let mut output = tar.into_inner().map_err(fail("write"))?;
        output.flush().map_err(fail("write"))
    }

    /// Makes the index: one entry for each name, one for an image without a name.
    fn saved_index(&self, chosen: &[(ImageRecord, Vec<Reference>)]) -> Result<Index> {
        let mut manifests: Vec<Descriptor> = Vec::new();
        for (record, names) in chosen {
            let size = self.read_blob(&record.manifest, MANIFEST_MAX)?.len() as u64;
            let media = record.manifest_type.as_deref().unwrap_or(media_type::OCI_MANIFEST);
            let mut entry = descriptor(media, record.manifest.clone(), size);
            entry.platform = Some(record.platform.clone());
            if names.is_empty() {
                manifests.push(entry.clone());
            }
            for name in names {
                let mut entry = entry.clone();
                entry.annotations.insert(NAME_ANNOTATION.to_owned(), name.to_string());
                entry.annotations.insert(TAG_ANNOTATION.to_owned(), name.tag().unwrap_or("latest").to_owned());
                manifests.push(entry);
            }
        }
        Ok(Index { schema_version: 2, media_type: Some(media_type::OCI_INDEX.to_owned()), manifests })
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Makes a header without time and owner, so that the same images make the same archive.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    tar.append_data(&mut header(bytes.len() as u64), name, bytes)
}
