//! What crashes leave behind, and what is done about it.
//!
//! | found | meaning | done |
//! |---|---|---|
//! | a directory without a record that nobody holds | its maker was killed | removed, with its name, ids and volumes |
//! | a `--rm` container without process and monitor | its monitor was killed | removed as the monitor would have done |
//! | a container that runs without a monitor | its monitor was killed | a new monitor adopts it at the next attach, exec, stop |
//! | a stopped container with a host interface or cgroup | its monitor was killed | taken back at the next start or removal, or by a sweep |
//! | names, ids, leases whose container is gone | a removal was killed | freed |
//! | half-written records (`*.tmp`, see `brig_monitor::records`) | their writer was killed | removed |
//!
//! Listing commands call this as they go; nothing on the path of a start looks at other containers.

use crate::config::Config;
use crate::containers::status::{Phase, Status};
use crate::containers::undo;
use crate::error::Result;
use crate::record::{self, Record};
use crate::{containers, disk, idpool, networks};
use brig_monitor::plan::Undo;
use brig_spec::id::ContainerId;
use std::path::Path;

/// Removes a directory without a record, unless its maker is still at work; says whether it did.
pub fn half_made(config: &Config, id: &ContainerId) -> Result<bool> {
    let Ok(dir) = std::fs::File::open(config.container_dir(id.as_str())) else { return Ok(false) };
    // Whoever makes or removes it holds it.
    if rustix::fs::flock(&dir, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
        || record::exists(config, id)
    {
        return Ok(false);
    }
    disk::remove_tree(&config.run_dir(id.as_str()))?;
    disk::remove_tree(&config.container_dir(id.as_str()))?;
    containers::sweep_names(config)?;
    idpool::sweep(config)?;
    Ok(true)
}

/// Takes care of a container whose monitor was lost; says whether the container is gone now.
pub fn lost(config: &Config, record: &Record, status: &Status) -> Result<bool> {
    let over = status.phase == Phase::Exited && status.monitor_pid == 0;
    if !over || !record.config.remove {
        return Ok(false);
    }
    let Ok(dir) = std::fs::File::open(record.dir(config)) else { return Ok(true) };
    if rustix::fs::flock(&dir, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    // Another look, now that nobody else can start or remove it.
    let again = containers::status::of(config, record);
    if again.phase != Phase::Exited || again.monitor_pid != 0 {
        return Ok(false);
    }
    containers::take_apart(config, record)?;
    Ok(true)
}

/// Sweeps everything: half-made and lost containers, interfaces and cgroups of those that ended without a monitor, and names,
/// ids, leases and volumes without an owner.
pub fn sweep(config: &Config) -> Result<()> {
    for id in record::ids(config)? {
        if !record::exists(config, &id) {
            half_made(config, &id)?;
            continue;
        }
        half_written(&config.container_dir(id.as_str()))?;
        half_written(&config.run_dir(id.as_str()))?;
        let Ok(record) = Record::read(config, &id) else { continue };
        let status = containers::status::of(config, &record);
        if lost(config, &record, &status)? || status.is_active() || status.monitor_pid != 0 {
            continue;
        }
        let outside = |step: &Undo| matches!(step, Undo::Network(_) | Undo::Cgroup(_));
        let steps: Vec<Undo> = undo::list(config, &record, false).into_iter().filter(outside).collect();
        brig_monitor::undo::replay(&steps).map_err(|error| {
            crate::Error::internal(format!("cannot take back what container `{}` left", record.name)).because(error)
        })?;
    }
    containers::sweep_names(config)?;
    idpool::sweep(config)?;
    orphans(config)?;
    crate::layers::sweep(config)?;
    networks::sweep(config)
}

/// Removes the temporary files of writers that were killed.
fn half_written(directory: &Path) -> Result<()> {
    brig_monitor::records::sweep(directory)
        .map_err(|error| crate::Error::io(format!("cannot sweep {}", directory.display()), error))
}

/// Removes run directories and half-made volumes that belong to nothing.
fn orphans(config: &Config) -> Result<()> {
    for entry in std::fs::read_dir(config.run.join("containers")).into_iter().flatten().flatten() {
        let id = entry.file_name().to_str().and_then(|n| ContainerId::parse(n).ok());
        if id.is_some_and(|id| !record::exists_or_is_made(config, &id)) {
            disk::remove_tree(&entry.path())?;
        }
    }
    half_written(&config.networks_dir())?;
    for entry in std::fs::read_dir(config.volumes_dir()).into_iter().flatten().flatten() {
        half_written(&entry.path())?;
    }
    for entry in std::fs::read_dir(config.root.join("tmp")).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|n| n.starts_with("volume-")) {
            disk::remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::Scratch;
    use brig_spec::id::Name;

    #[test]
    fn what_a_killed_maker_left_is_swept_and_a_living_ones_is_not() {
        let dir = Scratch::new();
        let config = Config::new(dir.0.join("root"), dir.0.join("run"));
        let (dead, living) = (ContainerId::from_random([1; 32]), ContainerId::from_random([2; 32]));
        drop(record::claim(&config, &dead).unwrap());
        let held = record::claim(&config, &living).unwrap();
        crate::names::reserve(&config, &Name::parse("dead").unwrap(), &dead).unwrap();
        crate::names::reserve(&config, &Name::parse("living").unwrap(), &living).unwrap();
        let first = idpool::lend(&config, &dead).unwrap();
        // What a writer that was killed between its two steps left beside a record.
        let mut writer = std::process::Command::new("true").spawn().unwrap();
        writer.wait().unwrap();
        disk::make_directory(&config.networks_dir()).unwrap();
        let half = config.networks_dir().join(format!("bridge.{}-0.tmp", writer.id()));
        std::fs::write(&half, "{").unwrap();
        disk::make_directory(&config.run_dir(dead.as_str())).unwrap();
        sweep(&config).unwrap();
        assert_eq!(record::ids(&config).unwrap(), [living]);
        assert!(!config.names_dir().join("dead").is_symlink() && config.names_dir().join("living").is_symlink());
        assert!(!idpool::path(&config, first).is_symlink());
        assert!(!config.run_dir(dead.as_str()).exists() && !half.exists());
        drop(held);
        assert_eq!(containers::list(&config).unwrap().entries.len(), 0);
        assert!(record::ids(&config).unwrap().is_empty());
    }
}
