//! `image mount`: an image's files, read-only, at a place of the machine.
//!
//! ```text
//!   <run>/mnt/                         a private mount of its own (layers.rs)
//!     images/<hex>/                    the overlay of the image's layers
//!     images/.<hex>/                   its topmost layer: empty, with the mode and owner of the image's root directory
//!     images/.<hex>.layers             the names of the layers, which stay on the disk as long as the file lies there
//! ```
//!
//! One of the few mounts that outlive the process that made them: gone with `image unmount`, or with a reboot. An image that
//! is mounted is in use. [`sweep`] removes what a killed command has left half made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use brig_monitor::overlay::{self, Overlay, Upper};
use brig_spec::digest::Digest;
use brig_store::InUse;
use rustix::fs::{Gid, Mode, Uid};
use std::os::fd::AsFd;

use super::{Images, failure};
use crate::config::Config;
use crate::disk;
use crate::error::{Error, Result};
use crate::layers::{self, attach, is_mounted, own_mount, remove_empty, unmount};

/// An image that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageMount {
    /// The image.
    pub id: Digest,
    /// Where.
    pub path: PathBuf,
}

fn directory(config: &Config) -> PathBuf {
    config.run.join("mnt/images")
}

impl Images<'_> {
    /// Mounts an image, unless it is mounted already; returns where.
    pub fn mount(&self, config: &Config, name_or_id: &str) -> Result<PathBuf> {
        let what = || format!("cannot mount image `{name_or_id}`");
        let image = self.store.image(name_or_id).map_err(|error| failure::store(what(), error))?;
        // Until the mount is recorded, nobody collects its layers.
        let _hold = self.store.hold(&image).map_err(|error| failure::store(what(), error))?;
        let top_first: Vec<PathBuf> = image.layers.iter().rev().cloned().collect();
        let mut lowers = layers::lowers(config, &top_first)?;
        let _lock = layers::lock(config)?;
        let images = directory(config);
        let target = images.join(image.id.hex());
        if is_mounted(&target) {
            return Ok(target);
        }
        let failed = |error: io::Error| Error::io(what(), error);
        own_mount(&config.run.join("mnt")).map_err(failed)?;
        // An overlay shows owner and mode of its topmost root directory, and wants two layers at least.
        let top = images.join(format!(".{}", image.id.hex()));
        disk::make_directory(&target)?;
        disk::make_directory(&top)?;
        let owner = (Some(Uid::from_raw(image.root.uid)), Some(Gid::from_raw(image.root.gid)));
        rustix::fs::chown(&top, owner.0, owner.1).map_err(|error| failed(error.into()))?;
        rustix::fs::chmod(&top, Mode::from_raw_mode(image.root.mode & 0o7777)).map_err(|error| failed(error.into()))?;
        disk::write(&layers_file(&target), image.layer_names.join("\n").as_bytes(), false)?;
        lowers.insert(0, top);
        let mounted = overlay::mount(&Overlay { lowers: &lowers, upper: Upper::None, throwaway: false }, None)
            .map_err(|error| Error::internal(what()).because(error))
            .and_then(|mount| attach(mount.as_fd(), &target).map_err(failed));
        if mounted.is_err() {
            let _ = clear(&target);
        }
        mounted.map(|()| target)
    }

    /// Unmounts an image.
    pub fn unmount(&self, config: &Config, name_or_id: &str) -> Result<Digest> {
        let what = || format!("cannot unmount image `{name_or_id}`");
        let id = match self.store.resolve(name_or_id) {
            Ok(id) => id,
            Err(error) => {
                // One that was removed by force is still mounted, and has only its id.
                let hex = name_or_id.strip_prefix("sha256:").unwrap_or(name_or_id);
                let found = mounts(config).into_iter().find(|mount| hex.len() >= 12 && mount.id.hex().starts_with(hex));
                found.map(|mount| mount.id).ok_or_else(|| failure::store(what(), error))?
            }
        };
        {
            let _lock = layers::lock(config)?;
            let target = directory(config).join(id.hex());
            if !is_mounted(&target) {
                return Err(Error::not_found(what())
                    .reason("it is not mounted")
                    .hint("`brig image mount` lists what is"));
            }
            clear(&target).map_err(|error| Error::io(what(), error))?;
        }
        sweep(config)?;
        Ok(id)
    }
}

fn layers_file(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".layers");
    target.with_file_name(name)
}

/// Takes a mount back, or what there is of one. The record of the layers goes last.
fn clear(target: &Path) -> io::Result<()> {
    unmount(target)?;
    remove_empty(target)?;
    let record = layers_file(target);
    remove_empty(&record.with_extension(""))?;
    match fs::remove_file(&record) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Lists the images that are mounted.
pub fn mounts(config: &Config) -> Vec<ImageMount> {
    let entries = fs::read_dir(directory(config)).into_iter().flatten().flatten();
    let mut all: Vec<ImageMount> = entries
        .filter(|entry| is_mounted(&entry.path()))
        .filter_map(|entry| {
            let id = Digest::from_sha256_hex(entry.file_name().to_str()?).ok()?;
            Some(ImageMount { id, path: entry.path() })
        })
        .collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

/// Adds what mounts use to what containers use.
pub(crate) fn add_mounts(config: &Config, in_use: &mut InUse) -> Result<()> {
    for mount in mounts(config) {
        let path = layers_file(&mount.path);
        let layers = match fs::read_to_string(&path) {
            // Unmounted since it was looked for.
            Err(_) if !is_mounted(&mount.path) => continue,
            layers => layers
                .map_err(|error| Error::io(format!("cannot read which layers {} uses", mount.path.display()), error))?,
        };
        in_use.layers.extend(layers.lines().map(str::to_owned));
        in_use.images.push((mount.id, format!("the mount {}", mount.path.display())));
    }
    Ok(())
}

/// Removes what killed commands have left half made, and the whole place with the last mount.
pub fn sweep(config: &Config) -> Result<()> {
    let images = directory(config);
    if !images.is_dir() {
        return Ok(());
    }
    let failed = |error: io::Error| Error::io(format!("cannot sweep {}", images.display()), error);
    let _lock = layers::lock(config)?;
    for entry in fs::read_dir(&images).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let hex = name.to_string_lossy();
        if hex.ends_with(".tmp") {
            // A record that was being written: by nobody any more, since the lock is held here.
            fs::remove_file(images.join(&name)).map_err(failed)?;
            continue;
        }
        let target = images.join(hex.trim_start_matches('.').trim_end_matches(".layers"));
        if !is_mounted(&target) {
            clear(&target).map_err(failed)?;
        }
    }
    remove_empty(&images).map_err(failed)?;
    layers::leave(config).map_err(failed)?;
    Ok(())
}
