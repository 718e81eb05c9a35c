//! The use cases of images, one verb a file.
//!
//! ```text
//!   registry ----.                                       (and back: push)
//!   oci:DIR -----+--> manifest --> brig_store::Store::add --> Image { config, layers, .. }
//!   archives ----'                 (fetch, verify, unpack, publish)
//! ```
//!
//! The store knows no network and the registry client knows no disk; [`Images`] introduces them to one another.

mod artifact;
mod commit_changes;
mod diff;
mod ensure;
pub(crate) mod failure;
mod history;
mod import;
mod inspect;
mod list;
pub mod list_filter;
mod load;
mod login;
mod manifest;
pub mod mount;
mod prune;
mod pull;
mod push;
mod remove;
mod save;
mod search;
mod source;
mod tag;

use std::sync::OnceLock;

use brig_registry::{Client, Options};
use brig_store::Store;

pub use artifact::ArtifactPlan;
pub use commit_changes::apply_change;
pub use ensure::PullPolicy;
pub use history::Step;
pub use list_filter::{ImageFilter, LabelFilter};
pub use login::{login, logout};
pub use manifest::{ManifestOf, PlatformChange};
pub use pull::Pulled;
pub use push::PushedImage;
pub use source::Source;

use crate::error::Result;

/// The verbs on images, over a store and, when one of them needs it, a registry client.
#[derive(Debug)]
pub struct Images<'a> {
    store: &'a Store,
    options: Options,
    client: OnceLock<Client>,
}

impl<'a> Images<'a> {
    /// Takes a store, and the options of a registry client that is made when it is first needed.
    pub fn new(store: &'a Store, options: Options) -> Self {
        Self { store, options, client: OnceLock::new() }
    }

    /// Returns the store.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// Returns the registry client.
    fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client =
            Client::new(self.options.clone()).map_err(|error| failure::registry("cannot reach registries", error))?;
        Ok(self.client.get_or_init(|| client))
    }
}

#[cfg(test)]
mod tests;
