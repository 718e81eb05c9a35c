//! Starting again what should be running and is not: after a reboot, nobody else does.
//!
//! ```text
//!   policy            the last run                                              due
//!   no, on-failure    however it ended                                          no
//!   always,           never began                                               no
//!   unless-stopped    a person stopped or killed it (`stopped`, exit record)    no
//!                     else: it ended, or went with the machine (no record)      yes
//! ```
//!
//! No daemon remembers what ran: the exit record of a container is removed when it starts, so one that has a plan and neither
//! a process nor an exit record was running when the machine went down.

use super::{hold, status};
use crate::config::{Config, RestartPolicy};
use crate::error::{Error, Kind, Result};
use crate::record::Record;
use brig_monitor::state::{EXIT_FILE, Exit};

/// What became of one container that was due.
#[derive(Debug)]
pub struct Revived {
    /// The container.
    pub record: Record,
    /// Its program runs, with these warnings; or why it does not.
    pub result: Result<Vec<String>>,
}

/// Starts every container that is due, the oldest first. One that joins another's namespaces waits for it: what fails is
/// tried again as long as others have been started meanwhile.
pub fn start_due(config: &Config) -> Result<Vec<Revived>> {
    let mut waiting: Vec<Record> = super::list(config)?
        .entries
        .into_iter()
        .filter(|entry| is_due(config, &entry.record, &entry.status))
        .map(|entry| entry.record)
        .collect();
    waiting.reverse();
    let mut done = Vec::new();
    loop {
        let mut failed = Vec::new();
        let before = waiting.len();
        for mut record in std::mem::take(&mut waiting) {
            match super::start(config, &mut record, 0) {
                Ok(started) => done.push(Revived { record, result: Ok(started.warnings) }),
                // Another command was faster, to start or to remove it.
                Err(_) if !is_due(config, &record, &status::of(config, &record)) && is_settled(config, &record) => {}
                Err(error) => failed.push((record, error)),
            }
        }
        if failed.is_empty() || failed.len() == before {
            done.extend(failed.into_iter().map(|(record, error)| Revived { record, result: Err(error) }));
            return Ok(done);
        }
        waiting = failed.into_iter().map(|(record, _)| record).collect();
    }
}

/// Says whether a container is active, or gone.
fn is_settled(config: &Config, record: &Record) -> bool {
    status::of(config, record).is_active() || !crate::record::exists(config, &record.id)
}

/// Says whether a container should run by its policy, and does not.
pub fn is_due(config: &Config, record: &Record, status: &status::Status) -> bool {
    matches!(record.config.restart, RestartPolicy::Always | RestartPolicy::UnlessStopped)
        && status.phase == status::Phase::Exited
        && !status.stopped
        && !brig_monitor::run::is_monitored(&record.run_dir(config))
}

/// Notes that a person wants a container that is due to stay down.
pub(super) fn keep_down(config: &Config, record: &Record) -> Result<()> {
    let _held = match hold(config, &record.id, "stop") {
        Err(error) if error.kind == Kind::NotFound => return Ok(()),
        held => held?,
    };
    if !is_due(config, record, &status::of(config, record)) {
        return Ok(());
    }
    let path = record.dir(config).join(EXIT_FILE);
    let exit = Exit { stopped: true, ..Exit::read(&record.dir(config)).unwrap_or_else(Exit::unknown) };
    brig_monitor::records::write_json(&path, &exit, record.durable())
        .map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
}
