//! Removing every container that does not run.

use super::{list, remove};
use crate::config::Config;
use crate::error::{Error, Result};

/// Removes the containers that were only made or have ended; returns their ids, and what could not be removed.
pub fn prune(config: &Config) -> Result<(Vec<String>, Vec<Error>)> {
    crate::recovery::sweep(config)?;
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for entry in list(config)?.entries {
        if entry.status.is_active() {
            continue;
        }
        match remove(config, entry.record.id.as_str(), false, true) {
            Ok(id) => removed.push(id.as_str().to_owned()),
            Err(error) => failed.push(error),
        }
    }
    Ok((removed, failed))
}
