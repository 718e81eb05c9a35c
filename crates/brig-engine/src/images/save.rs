//! `save`: images go out as one archive.

use std::io::Write;

use brig_store::SaveFormat;

use super::{Images, failure};
use crate::error::Result;

impl Images<'_> {
    /// Writes images, by name or id, as one archive.
    pub fn save(&self, images: &[&str], format: SaveFormat, output: impl Write) -> Result<()> {
        let message = || format!("cannot save image `{}`", images.join("`, `"));
        self.store.save(images, format, output).map_err(|error| failure::store(message(), error))
    }
}
