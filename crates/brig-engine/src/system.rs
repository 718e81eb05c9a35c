//! `system check` and `system df`: whether everything is as it should be, and what takes how much of the disk.

mod usage;

pub use usage::{ContainerUsage, ImageUsage, Usage, VolumeUsage, disk_usage};

use crate::config::Config;
use crate::containers;
use crate::error::Result;
use crate::images::failure;
use brig_store::{Observer, Repaired, Report, Store};

/// Looks at every record, blob and layer of the image store; `deep` unpacks each layer again and compares.
pub fn check(config: &Config, store: &Store, deep: bool, observer: &dyn Observer) -> Result<Report> {
    let users = || containers::in_use(config).map_err(Into::into);
    store.check(&users, deep, observer).map_err(|error| failure::store("cannot check the image store", error))
}

/// Removes what a check found wrong, and makes layers anew where their blobs are good.
pub fn repair(config: &Config, store: &Store, report: &Report, observer: &dyn Observer) -> Result<Repaired> {
    let users = || containers::in_use(config).map_err(Into::into);
    store.repair(report, &users, observer).map_err(|error| failure::store("cannot repair the image store", error))
}
