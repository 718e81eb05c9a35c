//! Layers that were mounted while their image was in memory ([`brig_store::mount_layer_warm`]), until they cool down.
//!
//! ```text
//!   pull -> first start: mounted warm, <run>/mnt/warm/<id> -> a start ten seconds later or more: cooled, the mark removed
//! ```
//!
//! A program reads most of what it needs when it starts. By then those pages are the container's, and the image's own are a
//! second copy that nobody needs any more.

use crate::config::Config;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a mount stays warm at least.
const WARM: Duration = Duration::from_secs(10);

fn marks(config: &Config) -> PathBuf {
    config.run.join("mnt/warm")
}

/// Notes that a layer is about to be mounted warm. The lock must be held.
pub(super) fn mark(config: &Config, name: &OsStr) -> io::Result<()> {
    super::make_directory(&marks(config))?;
    std::fs::write(marks(config).join(name), "")
}

/// Takes a layer's mark away, if it has one. The lock must be held.
pub(super) fn unmark(config: &Config, name: &OsStr) -> io::Result<()> {
    match std::fs::remove_file(marks(config).join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => super::remove_empty(&marks(config)),
    }
}

/// Cools the layers that have been mounted warm for long enough. Where there are none, it costs one look.
///
/// It only gives memory back: a failure leaves a layer warm, and is tried again at the next start.
pub fn cool(config: &Config) {
    let Ok(entries) = std::fs::read_dir(marks(config)) else { return };
    // A clock that was set back makes no mark younger than it can be.
    let old = |path: &Path| {
        let modified = path.metadata().and_then(|metadata| metadata.modified()).ok();
        modified.is_some_and(|time| time.elapsed().map_or(true, |age| age >= WARM))
    };
    let names: Vec<_> = entries.flatten().filter(|entry| old(&entry.path())).map(|entry| entry.file_name()).collect();
    if names.is_empty() {
        return;
    }
    let Ok(_lock) = super::lock(config) else { return };
    for name in names {
        let mounted = config.run.join("mnt/layers").join(&name);
        let image = brig_store::layer_content(&config.root.join("layers").join(&name));
        if !super::is_mounted(&mounted) || brig_store::cool_layer(&mounted, &image).is_ok() {
            let _ = unmark(config, &name);
        }
    }
}
