//! `tag`: one more name for an image.

use brig_spec::reference::Reference;

use super::{Images, failure};
use crate::error::{Error, Result};

impl Images<'_> {
    /// Gives an image one more name; another image that had it loses it.
    pub fn tag(&self, name_or_id: &str, name: &str) -> Result<()> {
        let message = || format!("cannot tag image `{name_or_id}` as `{name}`");
        let reference: Reference = name
            .parse()
            .map_err(|error: brig_spec::reference::ReferenceError| Error::invalid(message()).because(error))?;
        if reference.digest().is_some() {
            return Err(Error::invalid(message()).reason("a digest is not given but follows from the content"));
        }
        self.store.tag(name_or_id, &reference).map_err(|error| failure::store(message(), error))
    }
}
