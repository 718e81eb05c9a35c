//! The policy file: which addresses answer for a registry, how they are spoken to, and what must be signed.
//!
//! ```text
//!   default = "registry.example.com"            where a name without a registry lies
//!   connections = 8                             how many blobs one pull or push has under way
//!   [aliases]               debian = "registry.example.com/base/debian"
//!   [registry."docker.io"]  mirrors, fallback, blocked, insecure, skip-verify, ca, client-cert, client-key, ...
//!   [policy."*"]            signed-by = ["/etc/brig/keys/release.pub"]
//! ```
//!
//! A key of `registry` or `policy` is a host, a host with the beginning of a repository, `*.domain`, or `*`. Of several
//! that fit, the longest counts, and it alone. An unknown word is an error: a misspelt rule must not be no rule.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Error;

/// The most bytes that the file may have.
const FILE_MAX: u64 = 1 << 20;

/// What the policy file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Policy {
    /// The registry, or the beginning of a repository in it, of names that name none.
    pub default: Option<String>,
    /// How many blobs a pull or push has under way at the same time.
    pub connections: Option<usize>,
    /// Short names and what they stand for.
    pub aliases: BTreeMap<String, String>,
    /// Rules for registries.
    pub registry: BTreeMap<String, Rule>,
    /// What must be signed, and by whom.
    pub policy: BTreeMap<String, Signing>,
    /// The file and what is wrong with it, if it could not be read: then nothing is asked of any registry.
    #[serde(skip)]
    broken: Option<(String, String)>,
}

/// The rule for one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "RuleText")]
pub struct Rule {
    /// Addresses that are asked before the registry itself, in this order.
    pub mirrors: Vec<Mirror>,
    /// Whether the registry itself is asked when no mirror has it; yes by default.
    pub fallback: Option<bool>,
    /// Whether nothing may be asked of it.
    pub blocked: bool,
    /// How it is spoken to.
    pub transport: Transport,
    /// The program `docker-credential-<this>` that keeps its credentials.
    pub credential_helper: Option<String>,
    /// How many blobs may be under way with it at the same time.
    pub connections: Option<usize>,
}

/// A rule as it is written. (Unknown words are found only where every word stands in one struct.)
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct RuleText {
    mirrors: Vec<Mirror>,
    fallback: Option<bool>,
    blocked: bool,
    insecure: bool,
    skip_verify: bool,
    ca: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    credential_helper: Option<String>,
    connections: Option<usize>,
}

impl From<RuleText> for Rule {
    fn from(text: RuleText) -> Self {
        Self {
            mirrors: text.mirrors,
            fallback: text.fallback,
            blocked: text.blocked,
            transport: Transport {
                insecure: text.insecure,
                skip_verify: text.skip_verify,
                ca: text.ca,
                client_cert: text.client_cert,
                client_key: text.client_key,
            },
            credential_helper: text.credential_helper,
            connections: text.connections,
        }
    }
}

/// How a host is spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Transport {
    /// Whether it may be spoken to over plain HTTP.
    pub insecure: bool,
    /// Whether its certificate is believed without a check.
    pub skip_verify: bool,
    /// A file of certificates, PEM, that are trusted for it beside the machine's.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown to it, PEM.
    pub client_cert: Option<PathBuf>,
    /// The key of that certificate, PEM; if missing, it is in the same file.
    pub client_key: Option<PathBuf>,
}

/// An address that answers for a registry: `host[:port][/beginning/of/repositories]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "MirrorText")]
pub struct Mirror {
    /// The address.
    pub location: String,
    /// How it is spoken to.
    pub transport: Transport,
}

/// The two ways to write a mirror.
#[derive(Deserialize)]
#[serde(untagged)]
enum MirrorText {
    Text(String),
    Table(MirrorTable),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    skip_verify: bool,
    ca: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
}

impl From<MirrorText> for Mirror {
    fn from(text: MirrorText) -> Self {
        match text {
            MirrorText::Text(location) => Self { location, transport: Transport::default() },
            MirrorText::Table(table) => Self {
                location: table.location,
                transport: Transport {
                    insecure: table.insecure,
                    skip_verify: table.skip_verify,
                    ca: table.ca,
                    client_cert: table.client_cert,
                    client_key: table.client_key,
                },
            },
        }
    }
}

/// What must be signed, and by whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Signing {
    /// Public keys, PEM files; a signature by any one of them is enough. None: no signature is wanted.
    pub signed_by: Vec<PathBuf>,
    /// Whether nothing may be pulled at all.
    pub reject: bool,
}

impl Policy {
    /// Reads the file; one that is not there says nothing.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let fail = |reason: String| Error::Policy { path: path.display().to_string(), reason };
        match path.metadata() {
            Ok(metadata) if metadata.len() > FILE_MAX => return Err(fail("it is too large".to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(fail(error.to_string())),
        }
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        Self::parse(&text).map_err(fail)
    }

    /// Reads the file; what is wrong with it is told when a registry is to be asked, so that what is here stays usable.
    pub fn read_for_later(path: &Path) -> Self {
        Self::read(path).unwrap_or_else(|error| match error {
            Error::Policy { path, reason } => Self { broken: Some((path, reason)), ..Self::default() },
            other => Self { broken: Some((path.display().to_string(), other.to_string())), ..Self::default() },
        })
    }

    /// Tells what is wrong with the file.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.broken.clone() {
            Some((path, reason)) => Err(Error::Policy { path, reason }),
            None => Ok(()),
        }
    }

    /// Parses the text of the file. The error tells line and reason.
    pub fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = toml::from_str(text).map_err(|error| toml_reason(&error, text))?;
        for key in policy.registry.keys().chain(policy.policy.keys()) {
            let bare = key.strip_prefix("*.").unwrap_or(key);
            if key != "*" && (bare.is_empty() || bare.contains('*') || bare.contains("://") || bare.ends_with('/')) {
                return Err(format!("`{key}` is not a host, a host with a repository, `*.domain` or `*`"));
            }
        }
        for (key, rule) in &policy.registry {
            if rule.fallback == Some(false) && rule.mirrors.is_empty() {
                return Err(format!("registry `{key}` has neither mirrors nor itself to be asked"));
            }
            if let Some(mirror) = rule.mirrors.iter().find(|m| m.location.is_empty() || m.location.contains("://")) {
                return Err(format!("`{}` is not a mirror of the form host[:port][/path]", mirror.location));
            }
        }
        if policy.connections == Some(0) || policy.registry.values().any(|rule| rule.connections == Some(0)) {
            return Err("without a connection nothing can be fetched".to_owned());
        }
        Ok(policy)
    }

    /// Returns the rule for a repository of a host; the default rule if no key fits.
    pub fn rule(&self, host: &str, repository: &str) -> Rule {
        longest(&self.registry, host, repository).cloned().unwrap_or_default()
    }

    /// Returns what must be signed in a repository of a host.
    pub fn signing(&self, host: &str, repository: &str) -> Signing {
        longest(&self.policy, host, repository).cloned().unwrap_or_default()
    }

    /// Returns the name that a short name stands for: an alias, or one in the default registry; else none.
    ///
    /// A name is short when its first component is no host; an alias stands for the name without tag and digest.
    pub fn expand(&self, typed: &str) -> Option<String> {
        let end = typed.find('@').unwrap_or(typed.len());
        let colon = typed[..end].rfind(':').filter(|at| !typed[*at..end].contains('/'));
        let (name, suffix) = typed.split_at(colon.unwrap_or(end));
        if let Some(meant) = self.aliases.get(name) {
            return Some(format!("{meant}{suffix}"));
        }
        let first = name.split_once('/').map(|(first, _)| first);
        let has_host = first.is_some_and(|first| {
            first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
        });
        let default = self.default.as_deref().filter(|_| !has_host)?;
        Some(format!("{default}/{name}{suffix}"))
    }
}

/// Finds the value of the longest key that fits.
fn longest<'a, T>(map: &'a BTreeMap<String, T>, host: &str, repository: &str) -> Option<&'a T> {
    let name = format!("{host}/{repository}");
    let fits = |key: &str| match key.strip_prefix('*') {
        Some("") => true,
        Some(domain) => host.split(':').next().is_some_and(|bare| bare.ends_with(domain)),
        None => name.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    };
    // A plain host is nearer than any pattern, however long that is.
    map.iter().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| (!key.starts_with('*'), key.len())).map(|(_, v)| v)
}

/// Tells what is wrong with a TOML text in one line.
pub(crate) fn toml_reason(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message().replace('\n', ", ");
    line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = r#"
        default = "registry.example.com/base"
        connections = 3
        [aliases]
        tools = "quay.example/team/tools"
        [registry."docker.io"]
        mirrors = ["mirror.example:5000/hub", { location = "10.0.0.1:5000", insecure = true }]
        fallback = false
        [registry."*.corp.example"]
        ca = "/etc/ca.pem"
        client-cert = "/etc/c.pem"
        client-key = "/etc/k.pem"
        credential-helper = "pass"
        [registry."evil.example"]
        blocked = true
        [policy."*"]
        [policy."registry.example.com/prod"]
        signed-by = ["/etc/brig/release.pub"]
    "#;

    #[test]
    fn the_longest_key_counts() {
        let policy = Policy::parse(TEXT).unwrap();
        let hub = policy.rule("docker.io", "library/debian");
        assert_eq!((hub.mirrors.len(), hub.fallback), (2, Some(false)));
        assert_eq!(hub.mirrors[0].location, "mirror.example:5000/hub");
        assert!(hub.mirrors[1].transport.insecure && !hub.mirrors[0].transport.insecure);
        let corp = policy.rule("a.corp.example:5000", "x");
        assert_eq!(corp.transport.ca.as_deref(), Some(Path::new("/etc/ca.pem")));
        assert_eq!(policy.rule("corp.example", "x"), Rule::default());
        assert!(policy.rule("evil.example", "x").blocked && !policy.rule("evil.example.org", "x").blocked);
        assert_eq!(policy.signing("registry.example.com", "prod/app").signed_by.len(), 1);
        assert!(policy.signing("registry.example.com", "production").signed_by.is_empty());
        assert!(policy.signing("other.example", "prod").signed_by.is_empty());
    }

    #[test]
    fn short_names_are_expanded_and_others_are_not() {
        let policy = Policy::parse(TEXT).unwrap();
        let expand = |typed: &str| policy.expand(typed);
        assert_eq!(expand("tools").unwrap(), "quay.example/team/tools");
        assert_eq!(expand("tools:2").unwrap(), "quay.example/team/tools:2");
        assert_eq!(expand("debian:12").unwrap(), "registry.example.com/base/debian:12");
        assert_eq!(expand("me/app@sha256:00").unwrap(), "registry.example.com/base/me/app@sha256:00");
        for own in ["docker.io/debian", "localhost/a", "localhost:5000/a:1", "Host/a"] {
            assert_eq!(expand(own), None, "{own}");
        }
        assert_eq!(Policy::default().expand("debian"), None);
    }

    #[test]
    fn a_misspelt_rule_is_an_error_that_names_its_line() {
        for (text, said) in [
            ("\nconections = 3", "line 2: unknown field `conections`"),
            ("[registry.\"x\"]\nblocked = \"yes\"", "line 2"),
            ("connections = 0", "without a connection"),
            ("[registry.\"x\"]\nfallback = false", "neither mirrors nor itself"),
            ("[registry.\"https://x\"]", "is not a host"),
            ("[registry.\"x\"]\nmirrors = [\"http://y\"]", "is not a mirror"),
            ("[policy.\"x\"]\nsigned = []", "unknown field `signed`"),
        ] {
            let error = Policy::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", host in "[a-z.*:]{0,9}") {
            let _ = Policy::parse(&text);
            let _ = Policy::parse(TEXT).unwrap().rule(&host, &text);
            let _ = Policy::parse(TEXT).unwrap().expand(&text);
        }
    }
}
