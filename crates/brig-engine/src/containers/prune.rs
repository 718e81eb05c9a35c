//! Removing every container that does not run.

use super::{Entry, list, remove};
use crate::config::Config;
use crate::error::{Error, Result};

/// Removes the containers that were only made or have ended and that are picked; returns their ids, and what could not be
/// removed.
pub fn prune(config: &Config, pick: &dyn Fn(&Entry) -> bool) -> Result<(Vec<String>, Vec<Error>)> {
    crate::recovery::sweep(config)?;
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for entry in list(config)?.entries {
        if entry.status.is_active() || !pick(&entry) {
            continue;
        }
        match remove(config, entry.record.id.as_str(), false, true) {
            Ok(id) => removed.push(id.as_str().to_owned()),
            Err(error) => failed.push(error),
        }
    }
    Ok((removed, failed))
}
