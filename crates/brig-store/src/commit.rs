//! `commit`: what a container has written becomes one layer more on its image.
//!
//! ```text
//!   lease (image) -> upper --> blob and tree in the lease's directory          (snapshot.rs)
//!     -> configuration and manifest: those of the image, with a layer, a step and new defaults
//!     -> lease (image and what is new) -> publish, as every image
//! ```

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use brig_spec::digest::{Algorithm, Digest};
use brig_spec::image::{Document, ImageConfig, MANIFEST_MAX, Manifest, ProcessConfig, media_type};
use brig_spec::reference::Reference;
use serde_json::{Value, json};

use crate::ahead::Ahead;
use crate::archive::descriptor;
use crate::error::{Error, Result};
use crate::hash;
use crate::image::{Image, LayerRecord};
use crate::ingest::{Incoming, NewImage, write_record};
use crate::layers::{self, Census, Record, RootRecord};
use crate::lease::Needs;
use crate::observe::Observer;
use crate::pump::{Spout, pump};
use crate::snapshot::{self, PIECE, Rules, Taken};
use crate::stream::Ids;
use crate::{Store, disk};

/// What a commit is made of, and what it says about itself.
pub struct Commit<'a> {
    /// The image that the container was made of.
    pub base: &'a Image,
    /// The container's writable layer. Nobody may change it meanwhile; what changes nevertheless is taken as it is found.
    pub upper: BorrowedFd<'a>,
    /// How owners are kept in it.
    pub ids: Ids,
    /// Tells which paths, relative to the root, are not the container's doing.
    pub skip: &'a dyn Fn(&[u8]) -> bool,
    /// The defaults for a process.
    pub config: ProcessConfig,
    /// The maker; none: the image's.
    pub author: Option<String>,
    /// A comment for the history.
    pub comment: Option<String>,
    /// The time, RFC 3339.
    pub created: String,
    /// What was run, for the history.
    pub created_by: String,
    /// The names that the image gets.
    pub names: &'a [Reference],
}

impl std::fmt::Debug for Commit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit").field("base", &self.base.id).field("names", &self.names).finish_non_exhaustive()
    }
}

/// What a commit has made.
#[derive(Debug)]
pub struct Committed {
    /// The image.
    pub image: Image,
    /// Paths that a layer cannot hold, since their names begin with `.wh.`.
    pub omitted: Vec<String>,
}

/// The new layer, in the lease's directory.
struct Layer {
    taken: Taken,
    /// The digest of its tar, which is its blob.
    diff_id: Digest,
    size: u64,
    root: Option<RootRecord>,
}

impl Store {
    /// Makes an image of an image and what a container has written on it.
    pub fn commit(&self, commit: &Commit<'_>, observer: &dyn Observer) -> Result<Committed> {
        // 1. The image, protected from the collector while it is built upon.
        let base = self.read_image(&commit.base.id)?.ok_or_else(|| Error::NoSuchImage(commit.base.id.to_string()))?;
        let mut needs = Needs::of(&base);
        let lease = self.lease(&needs)?;
        if self.read_image(&base.id)?.is_none() {
            return Err(Error::NoSuchImage(base.id.to_string()));
        }
        let manifest = self.read_blob(&base.manifest, MANIFEST_MAX)?;
        // 2. The layer.
        let (staging, blob_path) = (lease.path().join("layer-0"), lease.path().join("blob"));
        let layer = take_layer(commit, &staging, &blob_path, observer)?;
        let is_new = layer.taken.entries > 0;
        // 3. The documents.
        let mut layers = base.layers.clone();
        let docker = base.manifest_type.as_deref() == Some(media_type::DOCKER_MANIFEST);
        if is_new {
            let media = if docker { media_type::DOCKER_LAYER } else { media_type::OCI_LAYER };
            layers.push(LayerRecord {
                name: layers::alone_name(&layer.diff_id),
                diff_id: layer.diff_id.clone(),
                blob: descriptor(media, layer.diff_id.clone(), layer.size),
                size: layer.taken.bytes,
            });
        }
        let config_raw = configuration(commit, is_new.then_some(&layer.diff_id))?;
        let config = ImageConfig::parse(&config_raw)
            .map_err(|source| Error::Document { digest: hash::sha256(&config_raw), source })?;
        let manifest = next_manifest(&manifest, &base.manifest, &config_raw, layers.last().filter(|_| is_new))?;
        let manifest_digest = hash::sha256(&manifest);
        let parsed = match Document::parse(&manifest, None) {
            Ok(Document::Manifest(parsed)) => parsed,
            Ok(Document::Index(_)) => return Err(malformed(&base.manifest, "it is an index")),
            Err(source) => return Err(Error::Document { digest: manifest_digest, source }),
        };
        // 4. Protected too, before anything of it has a name that a collector looks at.
        needs.blobs.extend([manifest_digest.clone(), parsed.config.digest.clone(), layer.diff_id.clone()]);
        needs.layers.push(layers::alone_name(&layer.diff_id));
        self.extend(&lease, &needs)?;
        // 5. Durable, then visible.
        let name = layers::alone_name(&layer.diff_id);
        let image = NewImage { manifest: &manifest, media_type: None, names: commit.names, origins: &[] };
        let root = RootRecord { mode: base.root.mode, uid: base.root.uid, gid: base.root.gid };
        let incoming = Incoming {
            image: &image,
            manifest_digest,
            manifest: &parsed,
            config: &config,
            config_raw: &config_raw,
            blobs: if is_new { vec![(blob_path, layer.diff_id)] } else { Vec::new() },
            trees: if is_new { vec![(staging, name)] } else { Vec::new() },
            layers,
            root: Some(layer.root.unwrap_or(root)),
            lease: &lease,
        };
        let record = self.publish(&incoming, observer)?;
        drop(incoming);
        drop(lease);
        Ok(Committed { image: self.assemble(record, config, config_raw), omitted: layer.taken.omitted })
    }
}

/// Reads the writable layer into `staging` and, as a tar, into the file `blob`.
fn take_layer(commit: &Commit<'_>, staging: &Path, blob: &Path, observer: &dyn Observer) -> Result<Layer> {
    let tree = staging.join("tree");
    disk::make_directory(&tree)?;
    let tree_fd = disk::open_directory(&tree)?;
    let stat = rustix::fs::fstat(commit.upper).map_err(Error::io("look at", "the writable layer"))?;
    let root = RootRecord {
        mode: stat.st_mode & 0o7777,
        uid: commit.ids.inside(stat.st_uid),
        gid: commit.ids.inside(stat.st_gid),
    };
    let old = commit.base.root;
    let root = Some(root).filter(|new| (new.mode, new.uid, new.gid) != (old.mode, old.uid, old.gid));
    let file = File::create_new(blob).map_err(Error::io("make", blob.display()))?;
    let (inlet, outlet) = pump(Algorithm::Sha256);
    let cancelled = || observer.cancelled();
    let rules = Rules { ids: commit.ids, skip: commit.skip, root: root.is_some(), cancelled: &cancelled };
    let mut size = 0;
    let (taken, diff_id) = std::thread::scope(|scope| {
        let hasher = scope.spawn(|| outlet.finish());
        let output = Blob {
            file: BufWriter::with_capacity(PIECE, &file),
            hash: inlet.into_writer(),
            size: &mut size,
            ahead: Ahead::from(0),
        };
        let taken = snapshot::take(commit.upper, tree_fd.as_fd(), &rules, output);
        (taken, hasher.join())
    });
    let diff_id = match diff_id {
        Ok(diff_id) => diff_id.map_err(Error::io("write", blob.display()))?,
        Err(_) => return Err(Error::Cancelled),
    };
    let taken = match taken {
        Err(_) if observer.cancelled() => return Err(Error::Cancelled),
        Err(source) => return Err(Error::Layer { layer: diff_id, source }),
        Ok(taken) => taken,
    };
    let census = Some(Census { directories: taken.directories, names: taken.names, bytes: taken.logical });
    let record = Record {
        format: layers::FORMAT,
        diff_id: diff_id.clone(),
        size: taken.bytes,
        entries: taken.entries,
        root,
        census,
        verity: None,
    };
    write_record(staging, &record)?;
    Ok(Layer { taken, diff_id, size, root })
}

/// The file of a blob in the making: another thread hashes what is written to it, and the disk gets it meanwhile.
struct Blob<'a> {
    file: BufWriter<&'a File>,
    hash: Spout,
    /// Bytes so far.
    size: &'a mut u64,
    ahead: Ahead,
}

impl Write for Blob<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = self.hash.write(bytes)?;
        self.file.write_all(&bytes[..length])?;
        *self.size += length as u64;
        // What is still in the buffer comes with the next piece.
        self.ahead.reached(*self.file.get_ref(), *self.size - self.file.buffer().len() as u64);
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()?;
        self.hash.flush()
    }
}

fn malformed(id: &Digest, reason: &str) -> Error {
    Error::Malformed { id: id.clone(), reason: reason.to_owned() }
}

/// The image's configuration with one step more; what this program knows nothing of stays in it.
fn configuration(commit: &Commit<'_>, diff_id: Option<&Digest>) -> Result<Vec<u8>> {
    let id = &commit.base.id;
    let bad = |_: serde_json::Error| malformed(id, "its configuration cannot be extended");
    let mut whole: Value = serde_json::from_slice(&commit.base.config_raw).map_err(bad)?;
    let Some(map) = whole.as_object_mut() else { return Err(malformed(id, "its configuration is no object")) };
    // Of the container that an old builder ran for the last step.
    for gone in ["container", "container_config", "id", "parent"] {
        map.remove(gone);
    }
    map.insert("created".to_owned(), json!(commit.created));
    if let Some(author) = &commit.author {
        map.insert("author".to_owned(), json!(author));
    }
    let mut config = match map.remove("config") {
        Some(Value::Object(old)) => old,
        _ => serde_json::Map::new(),
    };
    // Whatever the type knows is said anew, or left out.
    config.retain(|key, _| !PROCESS_KEYS.contains(&key.as_str()));
    if let Value::Object(new) = serde_json::to_value(&commit.config).map_err(bad)? {
        config.extend(new);
    }
    map.insert("config".to_owned(), Value::Object(config));
    let mut step = json!({ "created": commit.created, "created_by": commit.created_by });
    for (key, text) in [("author", &commit.author), ("comment", &commit.comment)] {
        if let Some(text) = text {
            step[key] = json!(text);
        }
    }
    match diff_id {
        None => step["empty_layer"] = json!(true),
        Some(diff_id) => match map.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids")) {
            Some(Value::Array(list)) => list.push(json!(diff_id)),
            _ => map["rootfs"] = json!({ "type": "layers", "diff_ids": [diff_id] }),
        },
    }
    match map.get_mut("history") {
        Some(Value::Array(list)) => list.push(step),
        _ => drop(map.insert("history".to_owned(), json!([step]))),
    }
    serde_json::to_vec(&whole).map_err(bad)
}

/// The fields of a process's defaults, as `ProcessConfig` writes them.
const PROCESS_KEYS: [&str; 12] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Shell",
    "Healthcheck",
    "OnBuild",
];

/// The image's manifest with another configuration and, if there is one, another layer.
fn next_manifest(raw: &[u8], id: &Digest, config_raw: &[u8], layer: Option<&LayerRecord>) -> Result<Vec<u8>> {
    let bad = |_: serde_json::Error| malformed(id, "its manifest cannot be extended");
    let mut manifest: Manifest = serde_json::from_slice(raw).map_err(bad)?;
    manifest.config = descriptor(&manifest.config.media_type, hash::sha256(config_raw), config_raw.len() as u64);
    manifest.layers.extend(layer.map(|layer| layer.blob.clone()));
    serde_json::to_vec(&manifest).map_err(bad)
}
