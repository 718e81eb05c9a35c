//! `search`: what a registry has.

use brig_registry::Found;

use super::{Images, failure};
use crate::error::{Error, Result};
use crate::registries;

impl Images<'_> {
    /// Looks for repositories by `[host/]words`, at most `limit`; the names that are returned are whole ones.
    pub fn search(&self, term: &str, limit: usize) -> Result<Vec<Found>> {
        let (host, words) = match term.split_once('/') {
            Some((host, words)) if host.contains(['.', ':']) || host == "localhost" => (registries::host(host), words),
            _ => {
                let default = self.options.policy.default.as_deref().unwrap_or("docker.io");
                (registries::host(default), term)
            }
        };
        let probe = format!("{host}/x").parse::<brig_spec::reference::Reference>();
        if words.is_empty() || !probe.is_ok_and(|reference| reference.host() == host) {
            return Err(Error::invalid(format!("`{term}` is nothing to search for")).hint("write `[REGISTRY/]WORD`"));
        }
        let found = self.client()?.search(host, words, limit);
        let mut found = found.map_err(|error| failure::registry(format!("cannot search registry `{host}`"), error))?;
        if host != "docker.io" {
            found.iter_mut().for_each(|one| one.name = format!("{host}/{}", one.name));
        }
        Ok(found)
    }
}
