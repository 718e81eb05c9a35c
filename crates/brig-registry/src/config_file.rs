//! Docker's `config.json`: read leniently, changed without losing what is not understood, replaced in one step.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::credentials::{Credentials, Secret, key_of};
use crate::error::Error;

/// The most bytes that the file may have.
const FILE_MAX: u64 = 1 << 20;

/// The file's content.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    content: Map<String, Value>,
}

impl ConfigFile {
    /// Reads the file; one that is not there is empty.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let fail = |reason: String| Error::Credentials { path: path.display().to_string(), reason };
        let empty = Self { path: path.to_owned(), content: Map::new() };
        match path.metadata() {
            Ok(metadata) if metadata.len() > FILE_MAX => return Err(fail("it is too large".to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(empty),
            Err(error) => return Err(fail(error.to_string())),
        }
        let text = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(empty);
        }
        // The parser's message would quote the text around the mistake; line and column are enough.
        let content = serde_json::from_slice(&text)
            .map_err(|error| fail(format!("line {}, column {}", error.line(), error.column())))?;
        Ok(Self { content, ..empty })
    }

    fn fail(&self, reason: String) -> Error {
        Error::Credentials { path: self.path.display().to_string(), reason }
    }

    /// Returns the name of the helper that keeps a host's credentials.
    pub(crate) fn helper(&self, host: &str) -> Option<String> {
        let own = self.content.get("credHelpers").and_then(Value::as_object).and_then(|helpers| {
            helpers.iter().find(|(key, _)| host_of(key) == host_of(key_of(host))).map(|(_, name)| name)
        });
        let name = own.or_else(|| self.content.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// Returns the headers for every request.
    pub(crate) fn headers(&self) -> Vec<(String, Secret)> {
        let headers = self.content.get("HttpHeaders").and_then(Value::as_object);
        let pairs = headers.into_iter().flatten();
        pairs.filter_map(|(name, value)| Some((name.clone(), Secret(value.as_str()?.to_owned())))).collect()
    }

    /// Finds the credentials for a repository of a host: podman's files have some for the beginnings of repositories only.
    pub(crate) fn find(&self, host: &str, repository: &str) -> Result<Option<Credentials>, Error> {
        let name = format!("{}/{repository}", host_of(key_of(host)));
        let fits = |key: &str| name.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let auths = self.content.get("auths").and_then(Value::as_object).into_iter().flatten();
        let fitting = auths.filter(|(key, _)| fits(place_of(key)));
        let Some((_, entry)) = fitting.max_by_key(|(key, _)| place_of(key).len()) else { return Ok(None) };
        let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credentials::Identity(Secret(token.to_owned()))));
        }
        if let Some(auth) = text("auth") {
            let bad = || self.fail(format!("the entry for `{host}` is not base64 of user:password"));
            let bytes = STANDARD.decode(auth.trim()).map_err(|_| bad())?;
            let text = String::from_utf8(bytes).map_err(|_| bad())?;
            let (user, password) = text.split_once(':').ok_or_else(bad)?;
            return Ok(Some(Credentials::Basic(user.to_owned(), Secret(password.trim_end_matches('\0').to_owned()))));
        }
        Ok(text("username")
            .zip(text("password"))
            .map(|(user, password)| Credentials::Basic(user.to_owned(), Secret(password.to_owned()))))
    }

    /// Puts credentials for a host in, or, where a helper keeps them, an empty entry.
    pub(crate) fn put(&mut self, host: &str, credentials: Option<&Credentials>) -> Result<(), Error> {
        let entry = match credentials {
            None => json!({}),
            Some(Credentials::Basic(user, password)) => {
                json!({ "auth": STANDARD.encode(format!("{user}:{}", password.0)) })
            }
            Some(Credentials::Identity(token)) => {
                json!({ "auth": STANDARD.encode("00000000-0000-0000-0000-000000000000:"), "identitytoken": token.0 })
            }
        };
        self.remove(host)?;
        self.auths()?.insert(key_of(host).to_owned(), entry);
        Ok(())
    }

    /// Takes every entry for a host out; tells whether there was one.
    pub(crate) fn remove(&mut self, host: &str) -> Result<bool, Error> {
        let wanted = host_of(key_of(host)).to_owned();
        let auths = self.auths()?;
        let before = auths.len();
        auths.retain(|key, _| host_of(key) != wanted);
        Ok(auths.len() != before)
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>, Error> {
        let path = self.path.display().to_string();
        let auths = self.content.entry("auths").or_insert_with(|| json!({}));
        if auths.is_null() {
            *auths = json!({});
        }
        auths.as_object_mut().ok_or_else(|| Error::Credentials { path, reason: "its `auths` is no object".to_owned() })
    }

    /// Replaces the file in one step, readable by its owner alone. A link stays one; what it leads to is replaced.
    pub(crate) fn write(&self) -> Result<(), Error> {
        let path = match std::fs::read_link(&self.path) {
            Ok(target) => self.path.parent().map_or_else(|| target.clone(), |directory| directory.join(&target)),
            Err(_) => self.path.clone(),
        };
        let fail = |error: std::io::Error| self.fail(format!("it cannot be written: {error}"));
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fail)?;
        let mut text = serde_json::to_vec_pretty(&self.content).map_err(|error| self.fail(error.to_string()))?;
        text.push(b'\n');
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = directory.join(format!(".{name}.{}", std::process::id()));
        let _ = std::fs::remove_file(&temporary);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .and_then(|()| File::open(directory)?.sync_all());
        written.map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            fail(error)
        })
    }
}

/// Cuts a key of the file down to what it is for: a host, or, of podman's keys, the beginning of a repository too.
fn place_of(key: &str) -> &str {
    let host = host_of(key);
    if key.contains("://") || key.ends_with('/') || key.ends_with("/v1") || key.ends_with("/v2") { host } else { key }
}

/// Cuts a key of the file down to its host.
fn host_of(key: &str) -> &str {
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn written(directory: &Path, text: &str) -> ConfigFile {
        let path = directory.join("config.json");
        std::fs::write(&path, text).unwrap();
        ConfigFile::read(&path).unwrap()
    }

    #[test]
    fn finds_the_entry_of_the_host_and_hides_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = written(
            directory.path(),
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnc="},"localhost:5000":{"identitytoken":"t0k"},
                "plain.example":{"username":"a","password":"b"},"bad.example":{"auth":"***"}},"credsStore":"x",
                "credHelpers":{"h.example":"y"},"HttpHeaders":{"X-Meta":"z"}}"#,
        );
        let Some(Credentials::Basic(user, password)) = file.find("docker.io", "").unwrap() else { panic!("no entry") };
        assert_eq!((user.as_str(), password.0.as_str()), ("u", "p:w"));
        assert!(matches!(file.find("localhost:5000", "a").unwrap(), Some(Credentials::Identity(_))));
        assert!(file.find("localhost", "").unwrap().is_none());
        let text = format!("{:?}", file.find("plain.example", "").unwrap());
        assert!(!text.contains("\"b\""), "{text}");
        assert!(file.find("bad.example", "").is_err());
        assert_eq!(file.helper("h.example").unwrap(), "y");
        assert_eq!(file.helper("docker.io").unwrap(), "x");
        assert_eq!(file.headers().len(), 1);
        let none = ConfigFile::read(&directory.path().join("none")).unwrap();
        assert!(none.find("docker.io", "").unwrap().is_none() && none.helper("x").is_none());
    }

    proptest! {
        #[test]
        fn no_file_panics_or_is_lost(text in "\\PC*", kind in 0..5_usize) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("config.json");
            let own = serde_json::to_string(&text).unwrap();
            let values = [own.clone(), format!("{{{own}:{own}}}"), format!("{{\"h\":{{\"auth\":{own}}}}}"), "null".to_owned(), "[1]".to_owned()];
            let value = &values[kind];
            std::fs::write(&path, format!("{{\"auths\":{value},\"credHelpers\":{value},\"HttpHeaders\":{value},\"mine\":{own}}}")).unwrap();
            let mut file = ConfigFile::read(&path).unwrap();
            let _ = (file.find("h", &text), file.helper("h"), file.headers());
            if file.put("h", Some(&Credentials::Identity(Secret(text.clone())))).is_ok() {
                file.write().unwrap();
            }
            let again = ConfigFile::read(&path).unwrap();
            prop_assert_eq!(again.content["mine"].as_str().unwrap(), text.as_str());
            std::fs::write(&path, &text).unwrap();
            let _ = ConfigFile::read(&path);
        }
    }

    #[test]
    fn the_beginning_of_a_repository_can_have_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let file = written(
            directory.path(),
            r#"{"auths":{"q.example/team":{"identitytoken":"t"},"q.example":{"identitytoken":"h"},
                "only.example/team/app":{"identitytoken":"o"},"https://u.example/v2/":{"identitytoken":"u"}}}"#,
        );
        for (host, repository, found) in [
            ("q.example", "team/app", Some("t")),
            ("q.example", "teams", Some("h")),
            ("q.example", "", Some("h")),
            ("only.example", "team/app", Some("o")),
            ("only.example", "team", None),
            ("u.example", "any", Some("u")),
        ] {
            let token = found.map(|text| Credentials::Identity(Secret(text.to_owned())));
            assert_eq!(file.find(host, repository).unwrap(), token, "{host}/{repository}");
        }
    }

    #[test]
    fn a_change_keeps_everything_else_and_hides_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut file =
            written(directory.path(), r#"{"psFormat":"x","auths":{"https://r.example/v2/":{"auth":"b2xk"}}}"#);
        let path = directory.path().join("config.json");
        let link = directory.path().join("link.json");
        std::os::unix::fs::symlink("config.json", &link).unwrap();
        let secret = Credentials::Basic("me".to_owned(), Secret("pw".to_owned()));
        file.put("r.example", Some(&secret)).unwrap();
        file.put("docker.io", Some(&Credentials::Identity(Secret("t".to_owned())))).unwrap();
        file.path.clone_from(&link);
        file.write().unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mut again = ConfigFile::read(&link).unwrap();
        assert_eq!(again.find("r.example", "x").unwrap().unwrap(), secret);
        assert!(matches!(again.find("docker.io", "").unwrap(), Some(Credentials::Identity(_))));
        assert_eq!(again.content["psFormat"], "x");
        assert_eq!(again.content["auths"].as_object().unwrap().len(), 2);
        assert!(again.remove("r.example").unwrap() && !again.remove("r.example").unwrap());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file stays");
        let made = directory.path().join("new/dir/config.json");
        ConfigFile::read(&made).unwrap().write().unwrap();
        assert_eq!(made.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
