//! Challenges and tokens: what a registry asks for with 401, and what it is given.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::credentials::{Credentials, Secret};
use crate::error::Error;

/// How long a token is good for if the registry does not say; the specification's default.
const DEFAULT_LIFE: u64 = 60;
/// The name that token servers know this program by.
const CLIENT: &str = "brig";
/// How many seconds before its end a token counts as over.
const MARGIN: u64 = 5;

/// What a `WWW-Authenticate` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Parses one header value; of several schemes in it, the first known one counts (RFC 9110, 11.6.1).
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = rest.trim_start();
        while let Some((key, after)) = rest.split_once('=') {
            let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
                let mut value = String::new();
                let mut escaped = false;
                let mut end = None;
                for (at, c) in quoted.char_indices() {
                    match c {
                        _ if escaped => {
                            value.push(c);
                            escaped = false;
                        }
                        '\\' => escaped = true,
                        '"' => {
                            end = Some(at + 1);
                            break;
                        }
                        c => value.push(c),
                    }
                }
                (value, &quoted[end?..])
            } else {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
            rest = after.trim_start_matches([',', ' ']);
        }
        Some(Self::Bearer { realm: realm?, service, scope })
    }
}

/// What goes into an `Authorization` header, and until when.
#[derive(Debug, Clone)]
pub(crate) struct Authorization {
    pub(crate) header: Secret,
    pub(crate) until: Option<Instant>,
}

impl Authorization {
    /// Makes the header for user and password.
    pub(crate) fn basic(user: &str, password: &Secret) -> Self {
        let text = STANDARD.encode(format!("{user}:{}", password.0));
        Self { header: Secret(format!("Basic {text}")), until: None }
    }

    /// Tells whether it can still be used.
    pub(crate) fn is_good(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// What a token server has granted.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) authorization: Authorization,
    /// A token by which further ones are granted.
    pub(crate) identity: Option<Secret>,
}

/// A token server's answer.
#[derive(Deserialize)]
struct Answer {
    token: Option<Secret>,
    /// The name that OAuth 2 has for the same.
    access_token: Option<Secret>,
    refresh_token: Option<Secret>,
    expires_in: Option<u64>,
}

/// Reads a token server's answer.
pub(crate) fn parse_token(host: &str, bytes: &[u8]) -> Result<Grant, Error> {
    let bad = |reason: &str| Error::Protocol { host: host.to_owned(), reason: reason.to_owned() };
    let answer: Answer = serde_json::from_slice(bytes).map_err(|_| bad("its token is not JSON"))?;
    let is_one = |token: &Secret| !token.0.is_empty() && token.0.bytes().all(|b| b.is_ascii_graphic());
    let token = answer.token.filter(|token| !token.0.is_empty()).or(answer.access_token);
    let token = token.ok_or_else(|| bad("it gave no token"))?;
    if !is_one(&token) {
        return Err(bad("its token is not one"));
    }
    let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).clamp(DEFAULT_LIFE, 86_400) - MARGIN;
    let authorization = Authorization {
        header: Secret(format!("Bearer {}", token.0)),
        until: Some(Instant::now() + Duration::from_secs(life)),
    };
    Ok(Grant { authorization, identity: answer.refresh_token.filter(is_one) })
}

/// Returns the form fields of a token request, and whether it is a POST: only an identity token needs one.
pub(crate) fn token_query(
    credentials: Option<&Credentials>,
    service: Option<&str>,
    scopes: &[String],
    offline: bool,
) -> (bool, Vec<(&'static str, String)>) {
    let exchange = matches!(credentials, Some(Credentials::Identity(_)));
    // OAuth 2 has one field with blanks, the older form one field for each scope.
    let mut fields: Vec<_> = if exchange && !scopes.is_empty() {
        vec![("scope", scopes.join(" "))]
    } else {
        scopes.iter().map(|scope| ("scope", scope.clone())).collect()
    };
    if let Some(service) = service {
        fields.push(("service", service.to_owned()));
    }
    match credentials {
        Some(Credentials::Identity(token)) => {
            fields.push(("grant_type", "refresh_token".to_owned()));
            fields.push(("client_id", CLIENT.to_owned()));
            fields.push(("refresh_token", token.0.clone()));
        }
        Some(Credentials::Basic(user, _)) if offline => {
            fields.push(("account", user.clone()));
            fields.push(("client_id", CLIENT.to_owned()));
            fields.push(("offline_token", "true".to_owned()));
        }
        _ => {}
    }
    (exchange, fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(
            Challenge::parse(r#"Bearer realm="https://a.example/token",service="r",scope="repository:a/b:pull,push""#),
            Some(bearer("https://a.example/token", Some("r"), Some("repository:a/b:pull,push")))
        );
        assert_eq!(
            Challenge::parse("bearer realm=https://a.example/t, service=r"),
            Some(bearer("https://a.example/t", Some("r"), None))
        );
        assert_eq!(Challenge::parse(r#"Bearer realm="a\"b""#), Some(bearer("a\"b", None, None)));
        assert_eq!(Challenge::parse("Bearer service=\"r\""), None);
        assert_eq!(Challenge::parse("Bearer realm=\"r"), None);
        assert_eq!(Challenge::parse("Negotiate"), None);
    }

    #[test]
    fn a_token_lives_as_long_as_it_says() {
        assert!(parse_token("h", br#"{"token":"t","expires_in":300}"#).unwrap().authorization.is_good());
        let grant = parse_token("h", br#"{"token":"","access_token":"t","refresh_token":"r"}"#).unwrap();
        assert!(grant.authorization.is_good() && grant.identity.unwrap().0 == "r");
        for bad in [&b"{}"[..], b"x", br#"{"token":""}"#, b"{\"token\":\"a\\nb\"}"] {
            assert!(parse_token("h", bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "\\PC*") {
            let _ = Challenge::parse(&text);
            let _ = Challenge::parse(&format!("Bearer {text}"));
        }

        #[test]
        fn what_is_quoted_is_read_back(realm in "[ -~]{0,40}", service in "[ -~]{0,40}") {
            let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"{}\",service=\"{}\"", quote(&realm), quote(&service));
            let expected = Challenge::Bearer { realm, service: Some(service), scope: None };
            prop_assert_eq!(Challenge::parse(&header), Some(expected));
        }

        #[test]
        fn no_token_panics_or_breaks_a_header(bytes in proptest::collection::vec(any::<u8>(), 0..99), token in "\\PC*", life in any::<i64>()) {
            let _ = parse_token("h", &bytes);
            let text = serde_json::json!({ "token": token, "expires_in": life }).to_string();
            if let Ok(grant) = parse_token("h", text.as_bytes()) {
                prop_assert!(grant.authorization.header.0.bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
            }
        }
    }
}
