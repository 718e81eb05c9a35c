//! Credentials from a file of Docker's form: `{"auths": {"host": {"auth": base64("user:password")}}}`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::Error;

/// The most bytes that the file may have.
const FILE_MAX: u64 = 1 << 20;
/// The key under which Docker keeps the credentials of its own registry.
const DOCKER_KEY: &str = "index.docker.io";

/// A secret; it prints as nothing.
#[derive(Clone, Deserialize, Default)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a registry may be told about the user.
#[derive(Debug, Clone)]
pub(crate) enum Credentials {
    /// User and password.
    Basic(String, Secret),
    /// A token to be exchanged for others.
    Identity(Secret),
}

#[derive(Debug, Default, Deserialize)]
struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
}

/// Finds the credentials for a host; a file that is not there has none.
pub(crate) fn find(path: &Path, host: &str) -> Result<Option<Credentials>, Error> {
    let fail = |reason: String| Error::Credentials { path: path.display().to_string(), reason };
    match path.metadata() {
        Ok(metadata) if metadata.len() > FILE_MAX => return Err(fail("it is too large".to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error.to_string())),
    }
    let text = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    // The parser's message would quote the text around the mistake; line and column are enough.
    let file: ConfigFile = serde_json::from_slice(&text)
        .map_err(|error| fail(format!("line {}, column {}", error.line(), error.column())))?;
    let wanted = if host == "docker.io" { DOCKER_KEY } else { host };
    let Some((_, entry)) = file.auths.iter().find(|(key, _)| host_of(key) == wanted) else { return Ok(None) };
    if let Some(token) = entry.identitytoken.clone().filter(|token| !token.0.is_empty()) {
        return Ok(Some(Credentials::Identity(token)));
    }
    if let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.0.is_empty()) {
        let bad = || fail(format!("the entry for `{host}` is not base64 of user:password"));
        let bytes = STANDARD.decode(auth.0.trim()).map_err(|_| bad())?;
        let text = String::from_utf8(bytes).map_err(|_| bad())?;
        let (user, password) = text.split_once(':').ok_or_else(bad)?;
        return Ok(Some(Credentials::Basic(user.to_owned(), Secret(password.trim_end_matches('\0').to_owned()))));
    }
    Ok(entry.username.clone().zip(entry.password.clone()).map(|(user, password)| Credentials::Basic(user, password)))
}

/// Cuts a key of the file down to its host.
fn host_of(key: &str) -> &str {
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_entry_of_the_host_and_hides_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(
            &path,
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnc="},"localhost:5000":{"identitytoken":"t0k"},
                "plain.example":{"username":"a","password":"b"},"bad.example":{"auth":"***"}},"credsStore":"x"}"#,
        )
        .unwrap();
        let Some(Credentials::Basic(user, password)) = find(&path, "docker.io").unwrap() else { panic!("no entry") };
        assert_eq!((user.as_str(), password.0.as_str()), ("u", "p:w"));
        assert!(matches!(find(&path, "localhost:5000").unwrap(), Some(Credentials::Identity(_))));
        assert!(find(&path, "localhost").unwrap().is_none());
        let text = format!("{:?}", find(&path, "plain.example").unwrap());
        assert!(!text.contains("\"b\""), "{text}");
        assert!(find(&path, "bad.example").is_err());
        assert!(find(&dir.path().join("none"), "docker.io").unwrap().is_none());
    }
}
