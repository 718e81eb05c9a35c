//! Freezing a container's processes, and letting them go on.

use super::status::{self, Phase};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::record::Record;
use brig_runtime::cgroup::Cgroup;
use std::path::Path;

/// Freezes a running container.
pub fn pause(config: &Config, record: &Record) -> Result<()> {
    let what = || format!("cannot pause container `{}`", record.name);
    match status::of(config, record).phase {
        Phase::Running => {}
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
    cgroup(config, record)?.thaw().map_err(|error| Error::internal(what()).because(error))
}

/// Opens a container's cgroup.
pub(super) fn cgroup(config: &Config, record: &Record) -> Result<Cgroup> {
    Cgroup::open(Path::new(&super::undo::cgroup(config, record))).map_err(|error| {
        Error::internal(format!("cannot use the cgroup of container `{}`", record.name)).because(error)
    })
}
