//! What is taken back when a container goes: one list, written into the plan for the monitor, and replayed by `brig rm`.

use super::status;
use crate::config::{Config, MountKind};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::{disk, idpool};
use brig_monitor::plan::Undo;
use brig_monitor::undo::FILE;

/// Lists the steps. `volumes`: the anonymous volumes go too.
pub fn list(config: &Config, record: &Record, volumes: bool) -> Vec<Undo> {
    let mut steps = Vec::new();
    if let Some(network) = &record.network {
        steps.push(Undo::Network(Box::new(network.clone())));
        steps.push(Undo::Lease {
            dir: config.networks_dir(),
            address: network.address,
            container: record.id.as_str().to_owned(),
        });
    }
    steps.push(Undo::Cgroup(cgroup(config, record)));
    if let Some(first) = record.first_id
        && owns_ids(record)
    {
        steps.push(Undo::File(idpool::path(config, first)));
    }
    if volumes {
        for volume in record.volumes.iter().filter(|v| v.anonymous) {
            steps.push(Undo::Directory(config.volumes_dir().join(&volume.name)));
        }
    }
    steps.push(Undo::Directory(record.run_dir(config)));
    steps.push(Undo::File(config.names_dir().join(&record.name)));
    steps.push(Undo::Directory(record.dir(config)));
    steps
}

/// Tells the monitor of an active `--rm` container that its list is another one now; the record has been written.
///
/// Returns false when it came too late: the monitor reads the list once its program has ended, and may have gone by the old
/// one if that does not run any more.
pub(super) fn amend(config: &Config, record: &Record) -> Result<bool> {
    if !record.config.remove || !status::of(config, record).is_active() {
        return Ok(true);
    }
    let steps = serde_json::to_vec(&list(config, record, true))
        .map_err(|error| Error::internal("cannot encode the undo list").because(error))?;
    disk::write(&record.dir(config).join(FILE), &steps, false)?;
    Ok(status::of(config, record).is_running())
}

/// The cgroup path of a container, below every hierarchy.
pub fn cgroup(config: &Config, record: &Record) -> String {
    format!("{}/{}", config.cgroup_parent, record.id.as_str())
}

/// Says whether the block of ids is this container's own, and not that of the one it joined.
fn owns_ids(record: &Record) -> bool {
    record.config.userns == crate::config::UserMode::Auto
}

/// Says whether a mount is an anonymous volume.
pub(crate) fn is_anonymous(kind: &MountKind) -> bool {
    matches!(kind, MountKind::Volume { name: None, .. })
}
