//! What takes how much of the disk, and how much of that nothing needs.

use crate::config::Config;
use crate::containers::{self, Status};
use crate::error::{Error, Result};
use crate::images::failure;
use crate::record::Record;
use crate::volumes::{self, Volume};
use brig_store::{ImageSummary, Store};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One image.
#[derive(Debug)]
pub struct ImageUsage {
    /// The image.
    pub image: ImageSummary,
    /// The bytes of its layers that other images have too.
    pub shared: u64,
    /// The bytes of its other layers.
    pub unique: u64,
    /// How many containers use it.
    pub containers: u64,
}

/// One container.
#[derive(Debug)]
pub struct ContainerUsage {
    /// Its record.
    pub record: Record,
    /// What state it is in.
    pub status: Status,
    /// The bytes that its writable layer takes.
    pub size: u64,
}

/// One volume.
#[derive(Debug)]
pub struct VolumeUsage {
    /// The volume.
    pub volume: Volume,
    /// How many containers use it.
    pub links: u64,
    /// The bytes that it takes.
    pub size: u64,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Usage {
    /// The images, newest first.
    pub images: Vec<ImageUsage>,
    /// The bytes of all unpacked layers, each once.
    pub layers: u64,
    /// The bytes of those that only images without a container need, and of those that nothing needs.
    pub layers_free: u64,
    /// The number of blobs, and their bytes.
    pub blobs: (u64, u64),
    /// The number of blobs that no image needs, and their bytes.
    pub blobs_free: (u64, u64),
    /// The containers, newest first.
    pub containers: Vec<ContainerUsage>,
    /// The volumes by name.
    pub volumes: Vec<VolumeUsage>,
    /// What could not be read.
    pub unreadable: Vec<Error>,
}

/// Measures images, containers and volumes.
pub fn disk_usage(config: &Config, store: &Store) -> Result<Usage> {
    let fail = |error| failure::store("cannot measure the images", error);
    let mut usage = Usage::default();
    // 1. Containers and what they use.
    let listing = containers::list(config)?;
    usage.unreadable.extend(listing.unreadable.into_iter().map(|(_, error)| error));
    for entry in listing.entries {
        let size = taken(&entry.record.dir(config).join("upper"));
        usage.containers.push(ContainerUsage { record: entry.record, status: entry.status, size });
    }
    // 2. Images: whose layers are shared, and which a container holds.
    let images = store.images().map_err(fail)?;
    usage.unreadable.extend(images.unreadable.into_iter().map(|e| failure::store("an image cannot be measured", e)));
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    let mut sizes: BTreeMap<String, u64> = store.layers_here().map_err(fail)?;
    for image in &images.images {
        for name in image.layers.iter().map(|layer| &layer.name).collect::<BTreeSet<_>>() {
            *users.entry(name.clone()).or_default() += 1;
        }
        for layer in &image.layers {
            sizes.insert(layer.name.clone(), layer.size);
        }
    }
    let mut held: HashSet<String> = HashSet::new();
    let mut needed: HashSet<String> = HashSet::new();
    for image in images.images {
        let id = image.id.to_string();
        let containers = usage.containers.iter().filter(|c| c.record.image.id == id).count() as u64;
        let (mut shared, mut unique) = (0, 0);
        for name in image.layers.iter().map(|layer| &layer.name).collect::<BTreeSet<_>>() {
            let size = sizes.get(name).copied().unwrap_or(0);
            if users.get(name).copied().unwrap_or(0) > 1 { shared += size } else { unique += size }
        }
        needed.extend([id.clone(), image.manifest.to_string()]);
        needed.extend(image.layers.iter().map(|layer| layer.blob.digest.to_string()));
        if containers > 0 {
            held.extend(image.layers.iter().map(|layer| layer.name.clone()));
        }
        usage.images.push(ImageUsage { image, shared, unique, containers });
    }
    let of_containers = usage.containers.iter().flat_map(|c| &c.record.image.layers);
    held.extend(of_containers.filter_map(|tree| Some(tree.parent()?.file_name()?.to_str()?.to_owned())));
    usage.layers = sizes.values().sum();
    usage.layers_free = sizes.iter().filter(|(name, _)| !held.contains(*name)).map(|(_, size)| size).sum();
    for (digest, size) in store.blobs_here().map_err(fail)? {
        usage.blobs = (usage.blobs.0 + 1, usage.blobs.1 + size);
        if !needed.contains(&digest.to_string()) {
            usage.blobs_free = (usage.blobs_free.0 + 1, usage.blobs_free.1 + size);
        }
    }
    // 3. Volumes.
    for volume in volumes::list(config)? {
        match volume {
            Err(error) => usage.unreadable.push(error),
            Ok(volume) => {
                let has_it = |c: &&ContainerUsage| c.record.volumes.iter().any(|used| used.name == volume.name);
                let links = usage.containers.iter().filter(has_it).count() as u64;
                let size = taken(&volume.data(config));
                usage.volumes.push(VolumeUsage { volume, links, size });
            }
        }
    }
    Ok(usage)
}

/// The bytes that a tree takes on the disk; a file with several names counts once. No link is followed.
pub(crate) fn taken(directory: &Path) -> u64 {
    let mut total = 0;
    let mut seen = HashSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                left.push(entry.path());
            } else if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
                total += metadata.blocks() * 512;
            }
        }
    }
    total
}
