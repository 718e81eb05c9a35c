//! `image prune`: images without a name go, and everything that no image needs.

use std::time::Duration;

use brig_spec::digest::Digest;
use brig_store::{AskUsers, Collected, ImageSummary};

use super::{ImageFilter, Images, failure};
use crate::error::Result;

impl Images<'_> {
    /// Removes unnamed images that no container uses, or with `all` every such image, of those that a filter passes, and
    /// collects; interrupted downloads go too.
    pub fn prune(&self, users: &AskUsers<'_>, all: bool, filter: &ImageFilter) -> Result<(Vec<Digest>, Collected)> {
        let fail = |error| failure::store("cannot prune images", error);
        // What cannot be told about is not removed.
        let pick = |image: &ImageSummary| {
            let names = image.names.iter().map(Some);
            let mut names: Vec<_> = if image.names.is_empty() { vec![None] } else { names.collect() };
            // An image with names goes as a whole: every one of them must be meant.
            names.drain(..).all(|name| filter.passes(self.store, image, name).unwrap_or(false))
        };
        let gone = self.store.remove_unused(users, all || filter.asks_for_named(), &pick).map_err(fail)?;
        let collected = self.store.collect(users, Duration::ZERO).map_err(fail)?;
        Ok((gone, collected))
    }
}
