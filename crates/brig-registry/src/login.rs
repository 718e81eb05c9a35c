//! Logging in and out: credentials are tried at the registry first, and kept only if they are good.

use std::path::PathBuf;

use crate::client::{Client, Options};
use crate::config_file::ConfigFile;
use crate::credentials::{Credentials, Keyring, Secret, key_of};
use crate::error::Error;
use crate::helper::Helper;
use crate::hosts::Action;
use crate::http::{Request, Target};

/// Where credentials are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In the user's file, in the clear.
    File(PathBuf),
    /// By the program `docker-credential-<this>`.
    Helper(String),
}

/// Tries user and password at a registry, and keeps them, or the token that is given for them, for later clients.
pub fn login(options: &Options, host: &str, user: &str, password: Secret) -> Result<Kept, Error> {
    let given = Credentials::Basic(user.to_owned(), password);
    let client = Client::with_keyring(options.clone(), Keyring::of(given.clone()))?;
    let request = Request {
        action: Action::Push,
        target: Target::Root(String::new()),
        ..Request::get(host, "", String::new(), format!("the login of `{user}`"))
    };
    client.block_on(client.inner.http.send(&request))?;
    let kept = client.inner.http.tokens.identity().map_or(given, Credentials::Identity);
    let mut file = ConfigFile::read(path_of(options)?)?;
    let helper = options.policy.rule(host, "").credential_helper.or_else(|| file.helper(host));
    let Some(name) = helper else {
        file.put(host, Some(&kept))?;
        file.write()?;
        return Ok(Kept::File(path_of(options)?.clone()));
    };
    Helper::new(&name, options.helper_patience)?.store(key_of(host), &kept)?;
    // Others look for an entry before they ask the program.
    file.put(host, None)?;
    file.write()?;
    Ok(Kept::Helper(name))
}

/// Forgets what is kept for a registry; tells whether there was anything.
pub fn logout(options: &Options, host: &str) -> Result<bool, Error> {
    options.policy.check()?;
    let mut file = ConfigFile::read(path_of(options)?)?;
    let mut known = false;
    if let Some(name) = options.policy.rule(host, "").credential_helper.or_else(|| file.helper(host)) {
        let helper = Helper::new(&name, options.helper_patience)?;
        known = helper.get(key_of(host)).is_ok_and(|found| found.is_some());
        helper.erase(key_of(host))?;
    }
    if file.remove(host)? {
        file.write()?;
        known = true;
    }
    Ok(known)
}

fn path_of(options: &Options) -> Result<&PathBuf, Error> {
    options.credentials.as_ref().ok_or_else(|| Error::Setup("there is no place to keep credentials".to_owned()))
}
