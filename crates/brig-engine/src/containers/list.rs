//! Listing containers. A record that cannot be read is listed as such, and hides no other.

use super::status::{self, Status};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::record::{self, Record};
use brig_spec::id::ContainerId;

/// One container of a listing.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its record.
    pub record: Record,
    /// What state it is in.
    pub status: Status,
}

/// All containers.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those that can be read, the newest first.
    pub entries: Vec<Entry>,
    /// Those that cannot.
    pub unreadable: Vec<(ContainerId, Error)>,
}

/// Lists all containers, and sweeps what crashes have left.
pub fn list(config: &Config) -> Result<Listing> {
    let mut listing = Listing::default();
    for id in record::ids(config)? {
        if !record::exists(config, &id) {
            crate::recovery::half_made(config, &id)?;
            continue;
        }
        match Record::read(config, &id) {
            Ok(record) => {
                let status = status::of(config, &record);
                if crate::recovery::lost(config, &record, &status)? {
                    continue;
                }
                listing.entries.push(Entry { record, status });
            }
            // Gone since the directory was read.
            Err(_) if !record::exists(config, &id) => {}
            Err(error) => listing.unreadable.push((id, error)),
        }
    }
    listing
        .entries
        .sort_by(|a, b| b.record.created_ns.cmp(&a.record.created_ns).then_with(|| a.record.id.cmp(&b.record.id)));
    Ok(listing)
}

/// Tells the image store what containers and mounts of images use, so that it keeps it: the store asks while it holds its lock. A record that cannot
/// be read stops every removal.
pub fn in_use(config: &Config) -> Result<brig_store::InUse> {
    let mut in_use = brig_store::InUse::default();
    for id in record::ids(config)? {
        if !record::exists(config, &id) {
            continue;
        }
        let record = match Record::read(config, &id) {
            // Gone since it was looked for.
            Err(_) if !record::exists(config, &id) => continue,
            record => record?,
        };
        if let Ok(digest) = record.image.id.parse() {
            in_use.images.push((digest, format!("container {}", record.name)));
        }
        // <root>/layers/<name>/tree
        let name = |path: &std::path::PathBuf| Some(path.parent()?.file_name()?.to_str()?.to_owned());
        in_use.layers.extend(record.image.layers.iter().filter_map(name));
    }
    crate::images::mount::add_mounts(config, &mut in_use)?;
    Ok(in_use)
}
