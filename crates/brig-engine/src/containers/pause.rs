//! Freezing a container's processes, and letting them go on: for good, or for as long as somebody needs.
//!
//! A person's pause is the cgroup's state alone. One that a verb needs for itself ([`Paused`]) is the monitor's, and ends with the
//! verb's process, however that ends (`brig_monitor::hold`).

use super::status::{self, Phase};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::record::Record;
use brig_monitor::client::Connection;
use brig_monitor::hold::Holder;
use brig_monitor::protocol::{HELLO_WAIT, VERSION_PAUSE};
use brig_monitor::state::State;
use brig_runtime::cgroup::Cgroup;
use std::path::Path;

/// Freezes a running container.
pub fn pause(config: &Config, record: &Record) -> Result<()> {
    let what = || format!("cannot pause container `{}`", record.name);
    // What a commit holds for a moment stays paused after it.
    let kept = brig_monitor::hold::keep(&record.run_dir(config));
    match status::of(config, record).phase {
        Phase::Running => {}
        Phase::Paused if kept => return Ok(()),
        Phase::Paused => return Err(Error::conflict(what()).reason("it is paused already")),
        _ => return Err(super::not_running(record)),
    }
    cgroup(config, record)?.freeze().map_err(|error| Error::internal(what()).because(error))
}

/// Lets a paused container go on.
pub fn unpause(config: &Config, record: &Record) -> Result<()> {
    let what = || format!("cannot unpause container `{}`", record.name);
    match status::of(config, record).phase {
        Phase::Paused => {}
        Phase::Running => return Err(Error::conflict(what()).reason("it is not paused")),
        _ => return Err(super::not_running(record)),
    }
    brig_monitor::hold::keep(&record.run_dir(config));
    cgroup(config, record)?.thaw().map_err(|error| Error::internal(what()).because(error))
}

/// A container that stands still until this is dropped, or its process is no more.
pub(super) struct Paused {
    holder: Holder,
    /// None where the monitor is too old, or gone: then it is this process that thaws, if it lives to do it.
    monitor: Option<Connection>,
}

impl Paused {
    /// Freezes a running container; none if it stands still already, which it then will afterwards too.
    pub(super) fn new(config: &Config, record: &Record) -> Result<Option<Self>> {
        let what = || format!("cannot pause container `{}`", record.name);
        let run_dir = record.run_dir(config);
        let holder = Holder::new(&run_dir, &cgroup(config, record)?);
        let speaks = State::read(&run_dir).map_or(0, |state| state.speaks);
        if speaks >= VERSION_PAUSE
            && let Ok(mut monitor) = super::connect(config, record, HELLO_WAIT)
        {
            let held = monitor.pause(true).map_err(|error| Error::io(what(), error))?;
            return Ok(held.then_some(Self { holder, monitor: Some(monitor) }));
        }
        let held = holder.begin().map_err(|error| Error::internal(what()).because(error))?;
        Ok(held.then_some(Self { holder, monitor: None }))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have been killed, or let go by somebody else.
        let let_go = self.monitor.take().is_some_and(|mut monitor| monitor.pause(false).is_ok());
        if !let_go {
            let _ = self.holder.end();
        }
    }
}

/// Opens a container's cgroup.
pub(super) fn cgroup(config: &Config, record: &Record) -> Result<Cgroup> {
    Cgroup::open(Path::new(&super::undo::cgroup(config, record))).map_err(|error| {
        Error::internal(format!("cannot use the cgroup of container `{}`", record.name)).because(error)
    })
}
