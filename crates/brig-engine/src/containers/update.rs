//! Changing a container's limits and restart policy, also while it runs.

use super::status;
use crate::config::{Config, Resources, RestartPolicy};
use crate::error::{Error, Result};
use crate::oci;
use crate::record::Record;

/// Applies what `change` names: to the running container first, then to the record.
pub fn update(config: &Config, record: &Record, change: &Resources, restart: Option<RestartPolicy>) -> Result<()> {
    let _held = super::hold(config, &record.id, "update")?;
    let mut record = Record::read(config, &record.id)?;
    let what = || format!("cannot update container `{}`", record.name);
    let mut limits = record.config.resources.clone();
    limits.update(change);
    // More memory than memory and swap together: the old bound of both goes along, as it was twice the memory.
    if change.memory.is_some()
        && change.memory_swap.is_none()
        && limits.memory_swap.is_some_and(|s| s > 0 && s < limits.memory.unwrap_or(0))
    {
        return Err(Error::invalid(what())
            .reason("the memory limit would be above the limit of memory and swap")
            .hint("set `--memory-swap` as well"));
    }
    let mut wish = record.config.clone();
    wish.resources = limits.clone();
    let resources = oci::resources::linux(&limits, &crate::host::facts(&wish), Vec::new())?;
    if status::of(config, &record).is_running() {
        let cgroup = super::pause::cgroup(config, &record)?;
        cgroup.update(&resources).map_err(|error| Error::internal(what()).because(error))?;
    }
    record.config.resources = limits;
    if let Some(restart) = restart {
        if record.config.remove && restart != RestartPolicy::No {
            return Err(Error::invalid(what()).reason("`--rm` and a restart policy exclude each other"));
        }
        record.config.restart = restart;
    }
    record.write(config)
}
