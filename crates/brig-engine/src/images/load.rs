//! `load`: every image of an archive comes in under its own names.

use std::io::Read;
use std::path::Path;

use brig_spec::platform::Platform;
use brig_store::{Archive, Image, Observer};

use super::{Images, failure};
use crate::error::Result;

impl Images<'_> {
    /// Loads an archive file of any known form, compressed or not.
    pub fn load(&self, path: &Path, platform: Option<&Platform>, observer: &dyn Observer) -> Result<Vec<Image>> {
        let name = path.display().to_string();
        let archive = self.store.open_archive(path).map_err(|error| failure::store(message(&name), error))?;
        self.load_opened(archive, &name, platform, observer)
    }

    /// Loads an archive from a stream such as standard input; `name` is for error messages.
    pub fn load_stream(
        &self,
        stream: impl Read,
        name: &str,
        platform: Option<&Platform>,
        observer: &dyn Observer,
    ) -> Result<Vec<Image>> {
        let archive = self.store.read_archive(stream, name).map_err(|error| failure::store(message(name), error))?;
        self.load_opened(archive, name, platform, observer)
    }

    fn load_opened(
        &self,
        mut archive: Archive,
        name: &str,
        platform: Option<&Platform>,
        observer: &dyn Observer,
    ) -> Result<Vec<Image>> {
        let host = Platform::host();
        let platform = platform.unwrap_or(&host);
        self.store.load(&mut archive, platform, observer).map_err(|error| failure::store(message(name), error))
    }
}

fn message(name: &str) -> String {
    format!("cannot load images from `{name}`")
}
