//! `images`: what is here.

use brig_store::{Line, Listing};

use super::{Images, failure};
use crate::error::Result;

impl Images<'_> {
    /// Lists all images, newest first, and what could not be read.
    pub fn list(&self) -> Result<Listing> {
        self.store.images().map_err(|error| failure::store("cannot list images", error))
    }

    /// Lists all images under all of their names, newest first: what a plain listing shows, and what could not be read.
    pub fn lines(&self) -> Result<(Vec<Line>, Vec<brig_store::Error>)> {
        self.store.lines().map_err(|error| failure::store("cannot list images", error))
    }
}
