//! `image prune`: images without a name go, and everything that no image needs.

use std::time::Duration;

use brig_spec::digest::Digest;
use brig_store::{Collected, InUse};

use super::{Images, failure};
use crate::error::Result;

impl Images<'_> {
    /// Removes unnamed images that no container uses, or with `all` every such image, and collects; interrupted
    /// downloads go too.
    pub fn prune(&self, in_use: &InUse, all: bool) -> Result<(Vec<Digest>, Collected)> {
        let fail = |error| failure::store("cannot prune images", error);
        let mut gone = self.store.remove_unnamed(in_use).map_err(fail)?;
        if all {
            for image in self.store.images().map_err(fail)?.images {
                if in_use.images.iter().all(|(used, _)| *used != image.id) {
                    self.store.remove(&image.id.to_string(), in_use, true).map_err(fail)?;
                    gone.push(image.id);
                }
            }
        }
        let collected = self.store.collect(in_use, Duration::ZERO).map_err(fail)?;
        Ok((gone, collected))
    }
}
