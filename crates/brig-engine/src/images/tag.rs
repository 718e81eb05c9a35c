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

    /// Takes names away from an image, all of them if none is given; the image stays. Returns the names.
    pub fn untag(&self, name_or_id: &str, names: &[String]) -> Result<Vec<Reference>> {
        let message = || format!("cannot untag image `{name_or_id}`");
        let parsed: std::result::Result<Vec<Reference>, _> = names.iter().map(|name| name.parse()).collect();
        let parsed =
            parsed.map_err(|error: brig_spec::reference::ReferenceError| Error::invalid(message()).because(error))?;
        self.store.untag(name_or_id, &parsed).map_err(|error| failure::store(message(), error))
    }
}
