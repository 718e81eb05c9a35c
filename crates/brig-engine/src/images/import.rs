//! `import`: a tar of a root file system becomes an image of one layer.

use std::io::Read;

use brig_spec::reference::Reference;
use brig_store::{Image, Import, Observer};

use super::{Images, failure};
use crate::error::{Error, Result};

impl Images<'_> {
    /// Imports a tar, plain or compressed, as `name`, or without a name; `origin` is for error messages.
    pub fn import(
        &self,
        stream: impl Read,
        origin: &str,
        name: Option<&str>,
        import: &Import,
        observer: &dyn Observer,
    ) -> Result<Image> {
        let message = || format!("cannot import `{origin}`");
        let names: Vec<Reference> = match name.map(str::parse::<Reference>).transpose() {
            Ok(name) => name.into_iter().collect(),
            Err(error) => return Err(Error::invalid(message()).because(error)),
        };
        self.store.import(stream, origin, import, &names, observer).map_err(|error| failure::store(message(), error))
    }
}
