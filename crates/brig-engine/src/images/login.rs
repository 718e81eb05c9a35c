//! `login` and `logout`: what a registry is told about the user, tried before it is kept.

use brig_registry::{Kept, Options, Secret};

use super::failure;
use crate::error::{Error, Kind, Result};
use crate::registries;

/// Tries user and password at a registry, and keeps them for later pulls and pushes.
pub fn login(options: &Options, server: &str, user: &str, password: String) -> Result<Kept> {
    let host = checked(server)?;
    if user.is_empty() || user.contains(':') {
        return Err(Error::invalid(format!("`{user}` is not a user name")).reason("it is empty or has a colon"));
    }
    brig_registry::login(options, host, user, Secret::from(password)).map_err(|error| {
        let message = format!("cannot log in to registry `{host}`");
        if matches!(error, brig_registry::Error::Denied { .. }) {
            return Error::new(Kind::PermissionDenied, message)
                .reason("it refuses this user name and password")
                .hint("check both; some registries want a token in the password's place");
        }
        failure::registry(message, error)
    })
}

/// Forgets what is kept for a registry; tells whether there was anything.
pub fn logout(options: &Options, server: &str) -> Result<bool> {
    let host = checked(server)?;
    brig_registry::logout(options, host)
        .map_err(|error| failure::registry(format!("cannot log out of registry `{host}`"), error))
}

/// Takes the host out of what was typed, if it is one.
fn checked(server: &str) -> Result<&str> {
    let host = registries::host(server);
    let probe = format!("{host}/x").parse::<brig_spec::reference::Reference>();
    match probe {
        Ok(reference) if reference.host() == host => Ok(host),
        _ => Err(Error::invalid(format!("`{server}` is not a registry"))
            .hint("a registry is a host name, with a port if need be")),
    }
}
