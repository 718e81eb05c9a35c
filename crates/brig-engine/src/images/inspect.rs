//! `image inspect`: one image with its configuration.

use brig_store::Image;

use super::{Images, failure};
use crate::error::Result;

impl Images<'_> {
    /// Returns an image by name or id.
    pub fn inspect(&self, name_or_id: &str) -> Result<Image> {
        self.store
            .image(name_or_id)
            .map_err(|error| failure::store(format!("cannot inspect image `{name_or_id}`"), error))
    }
}
