//! `images`: what is here.

use brig_store::Listing;

use super::{Images, failure};
use crate::error::Result;

impl Images<'_> {
    /// Lists all images, newest first, and what could not be read.
    pub fn list(&self) -> Result<Listing> {
        self.store.images().map_err(|error| failure::store("cannot list images", error))
    }
}
