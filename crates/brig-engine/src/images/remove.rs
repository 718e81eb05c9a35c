//! `rmi`: a name goes, and with the last one the image and what only it needed.

use std::time::Duration;

use brig_store::{AskUsers, Removed};

use super::{Images, failure};
use crate::error::Result;

/// How long an interrupted download waits to be resumed.
pub(super) const KEEP_DOWNLOADS: Duration = Duration::from_secs(24 * 3600);

impl Images<'_> {
    /// Removes a name or an image; `users` tells what containers use.
    pub fn remove(&self, name_or_id: &str, users: &AskUsers<'_>, force: bool) -> Result<Removed> {
        let fail = |error| failure::store(format!("cannot remove image `{name_or_id}`"), error);
        let removed = self.store.remove(name_or_id, users, force).map_err(fail)?;
        if removed.deleted.is_some() {
            self.store.collect(users, KEEP_DOWNLOADS).map_err(fail)?;
        }
        Ok(removed)
    }
}
