//! What registries may be told about the user, and where it is found.
//!
//! ```text
//!   policy file     credential-helper = "name"  -------.
//!   config.json     credHelpers: {host: name} ---------+--> docker-credential-<name>
//!                   credsStore: name ------------------'
//!                   auths: {host: {auth: base64(user:password), identitytoken}}
//!   auth.json       the same form, of podman and skopeo; only read
//! ```
//!
//! The first that has something for the host counts. What was found is kept for the life of the client.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, OnceLock};

use serde::Deserialize;

use crate::client::Options;
use crate::config_file::ConfigFile;
use crate::error::Error;
use crate::helper::Helper;

/// The key under which Docker keeps the credentials of its own registry.
pub(crate) const DOCKER_KEY: &str = "https://index.docker.io/v1/";
/// Headers of the user's file that would change what a request means.
const RESERVED: &[&str] =
    &["authorization", "host", "content-length", "content-type", "transfer-encoding", "connection", "range", "accept"];

/// A secret; it prints as nothing.
#[derive(Clone, Deserialize, Default, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(pub(crate) String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a registry may be told about the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password.
    Basic(String, Secret),
    /// A token to be exchanged for others.
    Identity(Secret),
}

/// Returns the key under which Docker keeps what belongs to a host.
pub(crate) fn key_of(host: &str) -> &str {
    if host == "docker.io" { DOCKER_KEY } else { host }
}

/// The credentials that were found so far.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    /// Those that are to be used for every host.
    given: Option<Credentials>,
    found: Mutex<HashMap<(String, String), Option<Credentials>>>,
    headers: OnceLock<Vec<(String, Secret)>>,
}

impl Keyring {
    /// Takes the headers that the user wants in every request from the user's file; one that is unreadable is told by [`Self::find`].
    pub(crate) fn new(options: &Options) -> Self {
        let keyring = Self::default();
        let mut headers = Vec::new();
        if let Some(path) = &options.credentials
            && let Ok(file) = ConfigFile::read(path)
        {
            headers = file.headers();
            headers.retain(|(name, value)| {
                let plain = |text: &str| !text.bytes().any(|b| b < b' ' || b == 127);
                !RESERVED.contains(&name.to_ascii_lowercase().as_str()) && plain(name) && plain(&value.0)
            });
        }
        let _ = keyring.headers.set(headers);
        keyring
    }

    /// Knows nothing but these.
    pub(crate) fn of(credentials: Credentials) -> Self {
        Self { given: Some(credentials), ..Self::default() }
    }

    /// Tells whether it was given what is to be used, as at a login.
    pub(crate) fn is_given(&self) -> bool {
        self.given.is_some()
    }

    /// Returns the headers that the user wants in every request to a registry.
    pub(crate) fn headers(&self) -> &[(String, Secret)] {
        self.headers.get().map_or(&[], Vec::as_slice)
    }

    /// Finds the credentials for a repository of a host.
    pub(crate) fn find(&self, options: &Options, host: &str, repository: &str) -> Result<Option<Credentials>, Error> {
        if self.given.is_some() {
            return Ok(self.given.clone());
        }
        let key = (host.to_owned(), repository.to_owned());
        if let Some(found) = self.found.lock().ok().and_then(|found| found.get(&key).cloned()) {
            return Ok(found);
        }
        let credentials = look_for(options, host, repository)?;
        if let Ok(mut found) = self.found.lock() {
            found.insert(key, credentials.clone());
        }
        Ok(credentials)
    }
}

fn look_for(options: &Options, host: &str, repository: &str) -> Result<Option<Credentials>, Error> {
    if let Some(name) = options.policy.rule(host, "").credential_helper
        && let Some(found) = Helper::new(&name, options.helper_patience)?.get(key_of(host))?
    {
        return Ok(Some(found));
    }
    for path in options.credentials.iter().chain(&options.more_credentials) {
        let file = ConfigFile::read(path)?;
        if let Some(name) = file.helper(host)
            && let Some(found) = Helper::new(&name, options.helper_patience)?.get(key_of(host))?
        {
            return Ok(Some(found));
        }
        if let Some(found) = file.find(host, repository)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
