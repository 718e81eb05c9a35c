//! An image comes in: from a registry, a layout, an archive, or a plain tar; the path is the same for all.
//!
//! ```text
//!   manifest, config -> lease -> locks on missing layers, in the order of their digests (so nobody waits in a circle)
//!     -> side by side: fetch + verify + unpack, each in the lease's directory, each download in tmp/<digest>.part
//!     -> one after the other, bottom first: finish what needs the layers below
//!     -> one syncfs -> rename blobs -> rename layers -> record -> names
//! ```
//!
//! Until the syncfs nothing has a name that anybody reads; after it, whatever gets a name is complete and durable.

mod layer;
mod publish;
mod stream;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use brig_spec::digest::Digest;
use brig_spec::image::{CONFIG_MAX, Descriptor, Document, ImageConfig, Manifest};
use brig_spec::reference::Reference;

use crate::error::{Error, Result};
use crate::image::{Image, ImageRecord, LayerRecord};
use crate::layers::{self, LayerForm, Record};
use crate::lease::{Lease, Needs};
use crate::observe::{Observer, Progress};
use crate::unpack::Merged;
use crate::{Store, disk, hash};
use layer::Fetched;
pub(crate) use layer::write_record;
pub(crate) use publish::Incoming;

/// Where an image's blobs come from.
pub trait BlobSource: Sync {
    /// Opens a blob at `offset` bytes, or at zero if the source cannot start in the middle.
    fn open_blob(&self, blob: &Descriptor, offset: u64) -> io::Result<Opened<'_>>;
}

/// An opened blob.
pub struct Opened<'a> {
    /// The bytes from `offset` on.
    pub reader: Box<dyn Read + Send + 'a>,
    /// Where the reader really starts, in bytes.
    pub offset: u64,
}

/// What makes an image, apart from its blobs.
#[derive(Debug, Clone, Copy)]
pub struct NewImage<'a> {
    /// The manifest as it was received; its digest was checked by whoever fetched it.
    pub manifest: &'a [u8],
    /// The media type that was announced for the manifest.
    pub media_type: Option<&'a str>,
    /// The names that the image gets.
    pub names: &'a [Reference],
    /// Registry names with the digest of the manifest or of the index above it: the image can be pulled again by them.
    pub origins: &'a [Reference],
}

/// One layer of the image that is coming in.
struct Plan {
    blob: Descriptor,
    diff_id: Digest,
    chain_id: Digest,
    /// The layer on disk, if it is there.
    found: Option<(String, Record)>,
    has_blob: bool,
    /// The first layer of this image with the same blob, if this one repeats it.
    repeats: Option<usize>,
}

/// A layer that is complete: on disk already, or in the lease's directory.
struct Ready {
    name: String,
    record: Record,
    /// The directory that will be renamed to `layers/<name>`.
    staged: Option<PathBuf>,
}

impl Store {
    /// Takes an image in: fetches what is missing, unpacks, publishes, and names it.
    pub fn add(&self, image: &NewImage<'_>, source: &dyn BlobSource, observer: &dyn Observer) -> Result<Image> {
        // 1. The documents.
        let manifest_digest = hash::sha256(image.manifest);
        let manifest = parse_manifest(image, &manifest_digest)?;
        let config_raw = self.small_blob(&manifest.config, source)?;
        let config = ImageConfig::parse(&config_raw)
            .map_err(|source| Error::Document { digest: manifest.config.digest.clone(), source })?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let reason = format!(
                "the manifest has {} layers, the configuration {}",
                manifest.layers.len(),
                config.rootfs.diff_ids.len()
            );
            return Err(Error::Malformed { id: manifest_digest, reason });
        }
        // 2. From here on the collector leaves alone what this image needs.
        let chain_ids = layers::chain_ids(&config.rootfs.diff_ids);
        let lease = self.lease(&needs(&manifest_digest, &manifest, &config, &chain_ids))?;
        // 3. What is missing, and the locks on it.
        let mut plans = self.plan(&manifest, &config, &chain_ids)?;
        let locks = self.lock_missing(&mut plans, observer)?;
        for plan in &plans {
            let present = plan.found.is_some() && plan.has_blob || plan.repeats.is_some();
            observer.progress(Progress::Layer { digest: plan.blob.digest.clone(), size: plan.blob.size, present });
        }
        // 4. Side by side: fetch, verify, unpack.
        let new = plans.iter().any(|plan| plan.found.is_none());
        let form = if new { self.form_here() } else { LayerForm::Directories };
        let fetched = self.fetch_all(&plans, form, &lease, source, observer)?;
        // 5. In sequence: finish.
        let ready = self.finish_all(&plans, form, fetched, &lease)?;
        // 6. Durable, then visible.
        let missing = plans.iter().filter(|plan| plan.repeats.is_none() && !plan.has_blob);
        let once = |index: usize| !ready[..index].iter().any(|other| other.name == ready[index].name);
        let staged = ready.iter().enumerate().filter(|(index, _)| once(*index));
        let incoming = Incoming {
            image,
            manifest_digest,
            manifest: &manifest,
            config: &config,
            config_raw: &config_raw,
            blobs: missing.map(|plan| (self.part_path(&plan.blob.digest), plan.blob.digest.clone())).collect(),
            trees: staged.filter_map(|(_, ready)| Some((ready.staged.clone()?, ready.name.clone()))).collect(),
            layers: plans.iter().zip(&ready).map(layer_record).collect(),
            root: ready.iter().rev().find_map(|ready| ready.record.root),
            lease: &lease,
        };
        let record = self.publish(&incoming, observer)?;
        drop(locks);
        drop(lease);
        // Not looked up again: somebody may have removed it already, and it was here.
        Ok(self.assemble(record, config, config_raw))
    }

    /// Reads a configuration from the store or from the source, and verifies it.
    fn small_blob(&self, blob: &Descriptor, source: &dyn BlobSource) -> Result<Vec<u8>> {
        if self.has_blob(&blob.digest)
            && let Ok(bytes) = self.read_blob(&blob.digest, CONFIG_MAX)
        {
            return Ok(bytes);
        }
        fetch_small(blob, CONFIG_MAX, source)
    }

    fn plan(&self, manifest: &Manifest, config: &ImageConfig, chain_ids: &[Digest]) -> Result<Vec<Plan>> {
        let mut plans: Vec<Plan> = Vec::new();
        for ((blob, diff_id), chain_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids).zip(chain_ids) {
            let repeats = plans.iter().position(|other| other.blob.digest == blob.digest);
            plans.push(Plan {
                blob: blob.clone(),
                diff_id: diff_id.clone(),
                chain_id: chain_id.clone(),
                found: self.find_layer(diff_id, chain_id)?,
                has_blob: self.has_blob(&blob.digest),
                repeats,
            });
        }
        Ok(plans)
    }

    /// Returns where a blob is kept while it comes in, and the file that is the lock on it.
    fn part_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("tmp").join(format!("{}-{}.part", digest.algorithm().name(), digest.hex()))
    }

    /// Locks every layer that is not complete, and looks again: another process may have made it meanwhile.
    fn lock_missing(&self, plans: &mut [Plan], observer: &dyn Observer) -> Result<Vec<File>> {
        let mut order: Vec<usize> = (0..plans.len())
            .filter(|i| plans[*i].repeats.is_none() && !(plans[*i].found.is_some() && plans[*i].has_blob))
            .collect();
        order.sort_by(|a, b| plans[*a].blob.digest.cmp(&plans[*b].blob.digest));
        let mut locks = Vec::new();
        for index in order {
            let digest = plans[index].blob.digest.clone();
            let path = self.part_path(&digest);
            let waiting = || observer.progress(Progress::Waiting { digest: digest.clone() });
            let lock = disk::lock_file(&path, self.limits.lock_wait, observer, waiting)?;
            let plan = &mut plans[index];
            plan.found = self.find_layer(&plan.diff_id, &plan.chain_id)?;
            plan.has_blob = self.has_blob(&digest);
            if plan.has_blob {
                // The file is only a lock now; whoever waits for it will find that it has lost its name.
                let _ = std::fs::remove_file(&path);
            }
            locks.push(lock);
        }
        Ok(locks)
    }

    /// Runs the jobs of all layers that need one on a bounded number of threads; the first error stops all.
    fn fetch_all(
        &self,
        plans: &[Plan],
        form: LayerForm,
        lease: &Lease,
        source: &dyn BlobSource,
        observer: &dyn Observer,
    ) -> Result<Vec<Option<Fetched>>> {
        let mut jobs: Vec<usize> = (0..plans.len())
            .filter(|i| plans[*i].repeats.is_none() && !(plans[*i].found.is_some() && plans[*i].has_blob))
            .collect();
        // The largest first: the last one to start should be a short one.
        jobs.sort_by_key(|i| std::cmp::Reverse(plans[*i].blob.size));
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let error = Mutex::new(None);
        let results: Mutex<Vec<Option<Fetched>>> = Mutex::new(plans.iter().map(|_| None).collect());
        let run = || {
            while let Some(index) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let job = layer::Job { store: self, plan: &plans[*index], form, source, observer, stop: &stop };
                match job.run(&lease.path().join(format!("layer-{index}"))) {
                    Ok(fetched) => {
                        let digest = plans[*index].blob.digest.clone();
                        observer.progress(Progress::Unpacked { digest, size: fetched.size() });
                        if let Ok(mut results) = results.lock() {
                            results[*index] = Some(fetched);
                        }
                    }
                    Err(failure) => {
                        stop.store(true, Ordering::Relaxed);
                        if let Ok(mut error) = error.lock() {
                            // One that was only stopped is not the cause.
                            error.get_or_insert(failure);
                        }
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..crate::limits::parallel().min(jobs.len()) {
                scope.spawn(run);
            }
            run();
        });
        match error.into_inner() {
            Ok(None) => {}
            Ok(Some(error)) => return Err(error),
            Err(_) => return Err(Error::Cancelled),
        }
        Ok(results.into_inner().unwrap_or_default())
    }

    /// Finishes and seals the layers, bottom first.
    fn finish_all(
        &self,
        plans: &[Plan],
        form: LayerForm,
        fetched: Vec<Option<Fetched>>,
        lease: &Lease,
    ) -> Result<Vec<Ready>> {
        let mut ready: Vec<Ready> = Vec::new();
        let mut below = Merged::default();
        for (index, (plan, fetched)) in plans.iter().zip(fetched).enumerate() {
            if let Some((name, record)) = &plan.found {
                ready.push(Ready { name: name.clone(), record: record.clone(), staged: None });
                continue;
            }
            let fetched = if let Some(fetched) = fetched {
                fetched
            } else {
                let first = plan.repeats.unwrap_or(index);
                if let Some(same) = ready.get(first).filter(|same| same.name == layers::alone_name(&plan.diff_id)) {
                    let copy =
                        Ready { name: same.name.clone(), record: same.record.clone(), staged: same.staged.clone() };
                    ready.push(copy);
                    continue;
                }
                // The same blob again over other layers: it is unpacked anew, from what is here.
                let part = self.part_path(&plan.blob.digest);
                let path = if part.exists() { part } else { self.blob_path(&plan.blob.digest) };
                layer::unpack_file(self, plan, form, &path, &lease.path().join(format!("layer-{index}")))?
            };
            let Some(unpacked) = fetched.unpacked else { continue };
            if unpacked.needs_below() {
                // Each layer is opened once, when the first one above asks for those below.
                for layer in &ready[below.count()..] {
                    below.push(layers::open(&self.directory_of(layer))?);
                }
            }
            ready.push(unpacked.finish(plan, &below, self)?);
        }
        Ok(ready)
    }

    fn directory_of(&self, layer: &Ready) -> PathBuf {
        layer.staged.clone().unwrap_or_else(|| self.layer_path(&layer.name))
    }

    /// Unpacks a layer of an image that is here, from its blob and over the layers below, as a tree into `staging`.
    pub(crate) fn unpack_again(&self, image: &ImageRecord, index: usize, staging: &Path) -> Result<()> {
        let diff_ids: Vec<Digest> = image.layers[..=index].iter().map(|layer| layer.diff_id.clone()).collect();
        let layer = &image.layers[index];
        let plan = Plan {
            blob: layer.blob.clone(),
            diff_id: layer.diff_id.clone(),
            chain_id: layers::chain_ids(&diff_ids).pop().unwrap_or_else(|| layer.diff_id.clone()),
            found: None,
            has_blob: true,
            repeats: None,
        };
        let blob = self.blob_path(&layer.blob.digest);
        let fetched = layer::unpack_file(self, &plan, LayerForm::Directories, &blob, staging)?;
        let Some(unpacked) = fetched.unpacked else { return Ok(()) };
        let mut below = Merged::default();
        if unpacked.needs_below() {
            for layer in &image.layers[..index] {
                below.push(layers::open(&self.layer_path(&layer.name))?);
            }
        }
        unpacked.finish(&plan, &below, self).map(drop)
    }
}

impl layer::Staged {
    /// Finishes over the layers below if need be, seals, and writes the layer's record.
    fn finish(self, plan: &Plan, below: &Merged, store: &Store) -> Result<Ready> {
        let fail = |source| Error::Layer { layer: plan.blob.digest.clone(), source };
        let (name, mut record) = match self.state {
            layer::State::Sealed(record) => (layers::alone_name(&plan.diff_id), record),
            layer::State::Open(mut unpacked) => {
                unpacked.finish(below).map_err(fail)?;
                let record = layer::record(plan, self.form, &unpacked);
                unpacked.seal().map_err(fail)?;
                (layers::chained_name(&plan.chain_id), record)
            }
        };
        record.verity = store.seal_image(&self.path)?;
        layer::write_record(&self.path, &record)?;
        Ok(Ready { name, record, staged: Some(self.path) })
    }
}

fn layer_record((plan, ready): (&Plan, &Ready)) -> LayerRecord {
    LayerRecord {
        name: ready.name.clone(),
        diff_id: plan.diff_id.clone(),
        blob: plan.blob.clone(),
        size: ready.record.size,
    }
}

fn parse_manifest(image: &NewImage<'_>, digest: &Digest) -> Result<Manifest> {
    match Document::parse(image.manifest, image.media_type) {
        Ok(Document::Manifest(manifest)) => Ok(manifest),
        Ok(Document::Index(_)) => Err(Error::Malformed { id: digest.clone(), reason: "it is an index".to_owned() }),
        Err(source) => Err(Error::Document { digest: digest.clone(), source }),
    }
}

/// Lists what an image needs, by every name that its layers may get.
fn needs(manifest_digest: &Digest, manifest: &Manifest, config: &ImageConfig, chain_ids: &[Digest]) -> Needs {
    let mut needs = Needs::default();
    needs.blobs.push(manifest_digest.clone());
    needs.blobs.push(manifest.config.digest.clone());
    needs.blobs.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
    needs.layers.extend(config.rootfs.diff_ids.iter().map(layers::alone_name));
    needs.layers.extend(chain_ids.iter().map(layers::chained_name));
    needs
}

/// Fetches a blob of at most `limit` bytes into memory, and verifies it.
pub(crate) fn fetch_small(blob: &Descriptor, limit: u64, source: &dyn BlobSource) -> Result<Vec<u8>> {
    let size = |found| Error::Size { digest: blob.digest.clone(), expected: blob.size.min(limit), found };
    if blob.size > limit {
        return Err(size(blob.size));
    }
    let fail = |source| Error::Fetch { digest: blob.digest.clone(), source };
    let mut bytes = Vec::new();
    let opened = source.open_blob(blob, 0).map_err(fail)?;
    opened.reader.take(blob.size + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 != blob.size {
        return Err(size(bytes.len() as u64));
    }
    let found = hash::digest_as(blob.digest.algorithm(), &bytes);
    if found == blob.digest { Ok(bytes) } else { Err(Error::Digest { expected: blob.digest.clone(), found }) }
}
