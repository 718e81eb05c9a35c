//! `image prune`: images without a name go, and everything that no image needs.

use std::time::Duration;

use brig_spec::digest::Digest;
use brig_store::{AskUsers, Collected};

use super::{Images, failure};
use crate::error::Result;

impl Images<'_> {
    /// Removes unnamed images that no container uses, or with `all` every such image, and collects; interrupted
    /// downloads go too.
    pub fn prune(&self, users: &AskUsers<'_>, all: bool) -> Result<(Vec<Digest>, Collected)> {
        let fail = |error| failure::store("cannot prune images", error);
        let gone = self.store.remove_unused(users, all).map_err(fail)?;
        let collected = self.store.collect(users, Duration::ZERO).map_err(fail)?;
        Ok((gone, collected))
    }
}
