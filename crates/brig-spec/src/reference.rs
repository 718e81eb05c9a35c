//! Image references as people type them, and as registries want them.
//!
//! ```text
//!   debian                        docker.io/library/debian:latest
//!   me/tool:1                     docker.io/me/tool:1
//!   localhost:5000/a/b@sha256:..  localhost:5000 / a/b, that digest
//!   ^ host ^       ^ repository
//! ```
//!
//! The first component is a host when it holds a dot or a colon, is `localhost`, or has an upper-case letter; else the
//! whole is a repository of docker.io, below `library/` if it has one component. This is the grammar of Docker's users.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError};

const DEFAULT_HOST: &str = "docker.io";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A validated reference to an image: host, repository, and a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The reason why a text is not an image reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("image reference is empty")]
    Empty,
    /// The name is longer than 255 bytes.
    #[error("image name is longer than 255 characters")]
    TooLong,
    /// The host part is not a host name with an optional port.
    #[error("image reference `{0}` has an invalid registry host")]
    BadHost(String),
    /// The repository has a character or a form that registries refuse; upper case is the usual one.
    #[error("image reference `{0}` has an invalid repository name")]
    BadRepository(String),
    /// The tag has a character or a length that registries refuse.
    #[error("image reference `{0}` has an invalid tag")]
    BadTag(String),
    /// What follows the `@` is no digest.
    #[error("image reference `{text}` has an invalid digest")]
    BadDigest {
        /// The text that was given.
        text: String,
        /// What is wrong with the digest.
        source: DigestError,
    },
    /// The name is 64 hexadecimal digits, which would be taken for an image id.
    #[error("image reference `{0}` looks like an image id")]
    LooksLikeId(String),
}

impl Reference {
    /// Returns the registry host with its port, `docker.io` by default.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the repository at that host, such as `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if the reference is pinned.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the name without tag and digest in full, such as `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// Returns the name without tag and digest as people write it, such as `debian`.
    pub fn familiar_name(&self) -> String {
        if self.host == DEFAULT_HOST {
            let bare = self.repository.strip_prefix("library/").filter(|rest| !rest.contains('/'));
            bare.unwrap_or(&self.repository).to_owned()
        } else {
            self.name()
        }
    }

    /// Returns the whole reference as people write it, such as `debian:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// Returns a copy that points at `digest` and has no tag.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Returns what stands at the end of a manifest's URL: the digest if there is one, else the tag.
    pub fn identifier(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let shown = || text.chars().take(300).collect::<String>();
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|source| ReferenceError::BadDigest { text: shown(), source })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(ReferenceError::LooksLikeId(shown()));
        }
        let (host, path) = split_host(name);
        if !valid_host(host) {
            return Err(ReferenceError::BadHost(shown()));
        }
        if path.is_empty() || !path.split('/').all(valid_component) {
            return Err(ReferenceError::BadRepository(shown()));
        }
        if tag.is_some_and(|tag| !valid_tag(tag)) {
            return Err(ReferenceError::BadTag(shown()));
        }
        let repository =
            if host == DEFAULT_HOST && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        if host.len() + 1 + repository.len() > NAME_MAX {
            return Err(ReferenceError::TooLong);
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self { host: host.to_owned(), repository, tag, digest })
    }
}

/// Splits a name into host and path by the rule of the header.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, path))
            if host.contains(['.', ':']) || host == "localhost" || host.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (if host == "index.docker.io" { DEFAULT_HOST } else { host }, path)
        }
        _ => (DEFAULT_HOST, name),
    }
}

fn valid_host(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(valid_port));
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    port.is_none_or(valid_port)
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn valid_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Checks `[a-z0-9]+ ((. | _ | __ | -+) [a-z0-9]+)*`.
fn valid_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let mut at = 0;
    loop {
        let start = at;
        while bytes.get(at).copied().is_some_and(word) {
            at += 1;
        }
        if at == start {
            return false;
        }
        match &bytes[at..] {
            [] => return true,
            [b'_', b'_', ..] => at += 2,
            [b'_' | b'.', ..] => at += 1,
            [b'-', ..] => {
                while bytes.get(at) == Some(&b'-') {
                    at += 1;
                }
            }
            _ => return false,
        }
    }
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

impl fmt::Display for Reference {
    /// Writes the full form, such as `docker.io/library/debian:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_names_become_full_and_back() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (typed, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("me/tool", "docker.io/me/tool:latest", "me/tool:latest"),
            ("library/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("ghcr.io/a/b__c/d--e.f", "ghcr.io/a/b__c/d--e.f:latest", "ghcr.io/a/b__c/d--e.f:latest"),
        ] {
            let reference: Reference = typed.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
        }
        let pinned: Reference = format!("debian@{digest}").parse().unwrap();
        assert_eq!(pinned.tag(), None);
        assert_eq!(pinned.familiar(), format!("debian@{digest}"));
        let both: Reference = format!("debian:12@{digest}").parse().unwrap();
        assert_eq!(both.tag(), Some("12"));
        assert_eq!(both.identifier(), digest);
    }

    #[test]
    fn refuses_what_no_registry_takes() {
        for bad in [
            "",
            "Debian",
            "a//b",
            "a/",
            "/a",
            "a:",
            "a:-x",
            "a@sha256:00",
            "a@",
            "..",
            "a/../b",
            "a b",
            "a\0b",
            "-a",
            "a___b",
            "a..b",
            "host.:5/x",
            "host:port/x",
            "host:0/x",
            "http://host/x",
            "[::g]/x",
            "café",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        assert_eq!("ab".repeat(32).parse::<Reference>(), Err(ReferenceError::LooksLikeId("ab".repeat(32))));
        assert_eq!("a".repeat(250).parse::<Reference>(), Err(ReferenceError::TooLong));
    }

    proptest! {
        #[test]
        fn full_and_familiar_forms_parse_back(text in "([a-zA-Z0-9.:-]{1,9}/)?[a-z0-9._/-]{1,20}(:[\\w.-]{1,6})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
                prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
                prop_assert!(!reference.repository().contains(".."));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<Reference>();
        }
    }
}
