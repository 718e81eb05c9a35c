//! Removing a container with all that belongs to it.

use super::{kill, status, undo, wait};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::record::Record;
use crate::{disk, names, record};
use brig_spec::id::ContainerId;
use std::time::{Duration, Instant};

/// How long a killed container has to end.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// Removes a container. `force`: one that runs is killed first, and one whose record cannot be read goes too.
/// `volumes`: its anonymous volumes go with it.
pub fn remove(config: &Config, text: &str, force: bool, volumes: bool) -> Result<ContainerId> {
    let id = names::find(config, text)?;
    let record = match Record::read(config, &id) {
        Ok(record) => record,
        Err(error) if error.kind == Kind::NotFound => {
            // A name without a container: its maker or its remover was killed.
            crate::recovery::half_made(config, &id)?;
            sweep_names(config)?;
            return Ok(id);
        }
        Err(_) if force => {
            remove_unreadable(config, &id)?;
            return Ok(id);
        }
        Err(error) => return Err(error),
    };
    let state = status::of(config, &record);
    if state.is_active() {
        if !force {
            return Err(Error::conflict(format!("cannot remove container `{}`", record.name))
                .reason(format!("it is {}", state.phase.as_str()))
                .hint(format!("stop it first with `brig stop {}`, or use `brig rm -f`", record.name)));
        }
        wait::served(config, &record, "remove")?;
        match kill::kill(config, &record, kill::SIGKILL) {
            Err(error) if error.kind != Kind::Conflict => return Err(error),
            _ => {}
        }
        if wait::wait_served(config, &record, Some(Instant::now() + KILL_WAIT), "remove")?.is_active() {
            return Err(Error::new(Kind::Unavailable, format!("cannot remove container `{}`", record.name))
                .reason("its first process does not end, though it was killed 30 seconds ago"));
        }
    }
    let held = match super::hold(config, &id, "remove") {
        // A `--rm` container is removed by its own monitor: whoever is first has done it.
        Err(error) if error.kind == Kind::NotFound => return Ok(id),
        other => other?,
    };
    end_monitor(config, &record, force)?;
    if status::of(config, &record).is_active() {
        return Err(
            Error::conflict(format!("cannot remove container `{}`", record.name)).reason("it was started meanwhile")
        );
    }
    let record = Record::read(config, &id).unwrap_or(record);
    take_apart(config, &record, volumes || record.config.remove)?;
    drop(held);
    Ok(id)
}

/// Waits for a monitor that is still at work: one whose starter was killed goes on starting the container, and one whose
/// container has ended is clearing up. `force`: what it starts is killed.
fn end_monitor(config: &Config, record: &Record, force: bool) -> Result<()> {
    let deadline = Instant::now() + KILL_WAIT;
    let run_dir = record.run_dir(config);
    while brig_monitor::run::is_monitored(&run_dir) && Instant::now() < deadline {
        if status::of(config, record).is_active() {
            if !force {
                return Ok(());
            }
            // It may end by itself meanwhile.
            let _ = kill::kill(config, record, kill::SIGKILL);
        }
        wait::served(config, record, "remove")?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Replays the undo list.
pub(crate) fn take_apart(config: &Config, record: &Record, volumes: bool) -> Result<()> {
    brig_monitor::undo::replay(&undo::list(config, record, volumes)).map_err(|error| {
        Error::internal(format!("cannot remove container `{}` wholly", record.name))
            .because(error)
            .hint("what is left is found again: try once more when the cause is gone")
    })
}

/// Removes what a container without a readable record left: its plan knows the network, the rest is found by the id.
fn remove_unreadable(config: &Config, id: &ContainerId) -> Result<()> {
    let dir = config.container_dir(id.as_str());
    let run_dir = config.run_dir(id.as_str());
    let mut steps = Vec::new();
    if let Ok(plan) = super::read_plan(&dir) {
        let network = |u: &brig_monitor::plan::Undo| {
            matches!(u, brig_monitor::plan::Undo::Network(_) | brig_monitor::plan::Undo::Lease { .. })
        };
        steps.extend(plan.undo.into_iter().filter(network));
    }
    let failed = |error| Error::internal(format!("cannot remove container {} wholly", id.short())).because(error);
    let cgroup = format!("{}/{}", config.cgroup_parent, id.as_str());
    brig_monitor::undo::replay(&[brig_monitor::plan::Undo::Cgroup(cgroup)]).map_err(failed)?;
    // Its processes are gone; its monitor writes that down, in the directories that are to go.
    let deadline = Instant::now() + KILL_WAIT;
    while brig_monitor::run::is_monitored(&run_dir) {
        if Instant::now() > deadline {
            return Err(Error::new(Kind::Unavailable, format!("cannot remove container {}", id.short()))
                .reason("its monitor does not end, though the container's processes were killed 30 seconds ago"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    steps.push(brig_monitor::plan::Undo::Directory(run_dir));
    steps.push(brig_monitor::plan::Undo::Directory(dir));
    brig_monitor::undo::replay(&steps).map_err(failed)?;
    // Names and ids that point nowhere are swept.
    sweep_names(config)?;
    crate::idpool::sweep(config)
}

/// Removes the names of containers that are gone.
pub(crate) fn sweep_names(config: &Config) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(config.names_dir()) else { return Ok(()) };
    for entry in entries.flatten() {
        let gone = match names::holder(&entry.path()) {
            Some(id) => !record::exists_or_is_made(config, &id),
            None => true,
        };
        if gone {
            disk::remove_file(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ContainerConfig, MountConfig, MountKind, NetworkMode};
    use crate::containers::{Source, create};
    use crate::disk::tests::Scratch;

    fn place() -> (Scratch, Config) {
        let dir = Scratch::new();
        let config = Config::new(dir.0.join("root"), dir.0.join("run"));
        disk::make_directory(&config.root).unwrap();
        (dir, config)
    }

    fn make(config: &Config, name: &str) -> Record {
        let anonymous = MountKind::Volume { name: None, no_copy: false, subpath: None };
        let container = ContainerConfig {
            image: "host:".into(),
            command: vec!["true".into()],
            name: Some(name.into()),
            network: NetworkMode::None,
            mounts: vec![MountConfig::new(anonymous, "/data")],
            ..ContainerConfig::default()
        };
        create(config, container, &Source::Host).unwrap().record
    }

    #[test]
    fn a_removed_container_leaves_nothing() {
        let (_dir, config) = place();
        make(&config, "one");
        let two = make(&config, "two");
        remove(&config, "one", false, true).unwrap();
        assert_eq!(remove(&config, "one", true, true).unwrap_err().kind, Kind::NotFound);
        assert_eq!(crate::volumes::list(&config).unwrap().len(), 1);
        remove(&config, &two.id.short()[..6], false, false).unwrap();
        assert!(record::ids(&config).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(config.names_dir()).unwrap().count(), 0);
        assert_eq!(crate::volumes::list(&config).unwrap().len(), 1, "without -v the volume stays");
    }

    #[test]
    fn a_container_whose_remover_was_killed_is_found_by_its_name() {
        let (_dir, config) = place();
        let one = make(&config, "one");
        std::fs::remove_file(config.names_dir().join("one")).unwrap();
        assert_eq!(remove(&config, "other", true, true).unwrap_err().kind, Kind::NotFound);
        assert_eq!(remove(&config, "one", false, true).unwrap(), one.id);
        assert!(!one.dir(&config).exists());
        // Another one that has taken the name since goes first.
        let old = make(&config, "two");
        std::fs::remove_file(config.names_dir().join("two")).unwrap();
        let new = make(&config, "two");
        assert_eq!(remove(&config, "two", false, true).unwrap(), new.id);
        assert_eq!(remove(&config, "two", false, true).unwrap(), old.id);
    }

    #[test]
    fn an_unreadable_container_goes_only_by_force() {
        let (_dir, config) = place();
        let record = make(&config, "one");
        std::fs::write(record.dir(&config).join(record::FILE), "garbage").unwrap();
        assert_eq!(remove(&config, "one", false, false).unwrap_err().kind, Kind::Internal);
        assert!(record.dir(&config).exists());
        remove(&config, "one", true, false).unwrap();
        assert!(!record.dir(&config).exists());
        assert_eq!(std::fs::read_dir(config.names_dir()).unwrap().count(), 0);
    }
}
