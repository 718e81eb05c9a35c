//! What registries have granted, and how it is asked for.
//!
//! A grant is kept for its (realm, service, scope) until it ends, and remembered for the address and the scopes that led
//! to it, so that later requests need no 401. Of several threads that are challenged at the same time, one asks.

use std::collections::HashMap;
use std::sync::Mutex;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Method, StatusCode, Url};

use crate::auth::{Authorization, Challenge, Grant, parse_token, token_query};
use crate::credentials::{Credentials, Secret};
use crate::error::Error;
use crate::hosts::{Endpoint, Trust};
use crate::http::{Http, bad};

/// The most bytes of a token server's answer.
const TOKEN_MAX: u64 = 1 << 20;

/// A token server, the service, the scopes, and the host whose credentials it was shown.
type Realm = (String, Option<String>, Vec<String>, String);

/// Everything that was granted.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    /// By address and scopes.
    by_scope: Mutex<HashMap<(String, Vec<String>), Authorization>>,
    by_realm: Mutex<HashMap<Realm, Authorization>>,
    /// The last token that was given for the asking of further ones.
    identity: Mutex<Option<Secret>>,
    /// Held while one is asked for.
    asking: tokio::sync::Mutex<()>,
}

impl Tokens {
    /// Returns what was granted at an address for these scopes, if it is still good.
    pub(crate) fn known(&self, address: &str, scopes: &[String]) -> Option<Authorization> {
        let map = self.by_scope.lock().ok()?;
        map.get(&(address.to_owned(), scopes.to_vec())).filter(|granted| granted.is_good()).cloned()
    }

    /// Returns the identity token that was given at a login.
    pub(crate) fn identity(&self) -> Option<Secret> {
        self.identity.lock().ok().and_then(|identity| identity.clone())
    }

    fn keep(&self, address: &str, scopes: &[String], realm: Option<Realm>, granted: &Authorization) {
        if let Ok(mut map) = self.by_scope.lock() {
            map.insert((address.to_owned(), scopes.to_vec()), granted.clone());
        }
        if let (Some(realm), Ok(mut map)) = (realm, self.by_realm.lock()) {
            map.insert(realm, granted.clone());
        }
    }
}

/// Somebody who was refused with 401.
pub(crate) struct Asker<'a> {
    pub(crate) http: &'a Http,
    pub(crate) endpoint: &'a Endpoint,
    /// The host, for errors and credentials.
    pub(crate) host: &'a str,
    /// The repository, for credentials.
    pub(crate) repository: &'a str,
    /// What was asked for, for errors.
    pub(crate) what: &'a str,
    pub(crate) scheme: &'a str,
}

impl Asker<'_> {
    /// Answers a challenge; `None` if there is nothing to answer with. `refused` is what did not suffice.
    pub(crate) async fn authorise(
        &self,
        challenge: Challenge,
        scopes: &[String],
        refused: Option<&Authorization>,
    ) -> Result<Option<Authorization>, Error> {
        let tokens = &self.http.tokens;
        let _one = tokens.asking.lock().await;
        let newer = |granted: &Authorization| refused.is_none_or(|old| old.header.0 != granted.header.0);
        if let Some(granted) = tokens.known(&self.endpoint.address, scopes).filter(newer) {
            return Ok(Some(granted));
        }
        let credentials = self.http.keyring.find(&self.http.options, self.host, self.repository)?;
        let (realm, service, asked) = match challenge {
            Challenge::Basic => {
                let Some(Credentials::Basic(user, password)) = credentials else { return Ok(None) };
                let granted = Authorization::basic(&user, &password);
                if !newer(&granted) {
                    return Ok(None);
                }
                tokens.keep(&self.endpoint.address, scopes, None, &granted);
                return Ok(Some(granted));
            }
            Challenge::Bearer { realm, service, scope } => (realm, service, scope),
        };
        let mut wanted = scopes.to_vec();
        for scope in asked.iter().flat_map(|text| text.split(' ')).filter(|scope| !scope.is_empty()) {
            if !wanted.iter().any(|own| covers(own, scope)) {
                wanted.push(scope.to_owned());
            }
        }
        let key = (realm.clone(), service.clone(), wanted.clone(), self.host.to_owned());
        let kept = tokens.by_realm.lock().ok().and_then(|map| map.get(&key).cloned());
        if let Some(granted) = kept.filter(|granted| granted.is_good() && newer(granted)) {
            tokens.keep(&self.endpoint.address, scopes, None, &granted);
            return Ok(Some(granted));
        }
        let grant = self.ask(&realm, service.as_deref(), &wanted, credentials.as_ref()).await?;
        if let (Some(identity), Ok(mut kept)) = (grant.identity, tokens.identity.lock()) {
            *kept = Some(identity);
        }
        tokens.keep(&self.endpoint.address, scopes, Some(key), &grant.authorization);
        Ok(Some(grant.authorization))
    }

    /// Asks a token server; at a login, for an identity token too.
    async fn ask(
        &self,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
        credentials: Option<&Credentials>,
    ) -> Result<Grant, Error> {
        let mut url = Url::parse(realm).map_err(|_| bad(self.host, "its token server has no valid URL"))?;
        // A registry that is spoken to over TLS may not have the password sent in the clear.
        let options = &self.http.options;
        let plain_ok = self.scheme == "http" && url.host_str().is_some_and(|host| options.is_plain(host));
        if url.scheme() != "https" && !(url.scheme() == "http" && plain_ok) {
            return Err(bad(self.host, "its token server is not reached by HTTPS"));
        }
        let (exchange, fields) = token_query(credentials, service, scopes, self.http.keyring.is_given());
        let client = self.http.clients.get(options, &self.trust(&url)?)?;
        let builder = if exchange {
            let body = Url::parse_with_params("http://x/", &fields)
                .map_err(|_| bad(self.host, "its token server has no valid URL"))?;
            let body = body.query().unwrap_or_default().to_owned();
            client.request(Method::POST, url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
        } else {
            url.query_pairs_mut().extend_pairs(&fields);
            let builder = client.get(url);
            match credentials {
                Some(Credentials::Basic(user, password)) => {
                    builder.header(AUTHORIZATION, &Authorization::basic(user, password).header.0)
                }
                _ => builder,
            }
        };
        let response = self.http.wait(self.host, builder.send()).await?;
        if !response.status().is_success() {
            let (host, what) = (self.host.to_owned(), self.what.to_owned());
            return Err(match response.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { host, what },
                _ => self.http.refusal(self.host, "a token".to_owned(), response).await,
            });
        }
        let bytes = self.http.body(self.host, "a token", response, TOKEN_MAX).await?;
        parse_token(self.host, &bytes)
    }

    /// The token server of a registry may have a certificate by the same authority; anything more is for the registry alone.
    fn trust(&self, url: &Url) -> Result<Trust, Error> {
        let own = self.endpoint.address.rsplit_once(':').map_or(self.endpoint.address.as_str(), |(name, _)| name);
        if url.host_str() == Some(own) || url.host_str() == Some(self.endpoint.address.as_str()) {
            return Ok(self.endpoint.trust.clone());
        }
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let address = format!("{}{port}", url.host_str().unwrap_or_default());
        let mut trust = crate::hosts::trust_elsewhere(&self.http.options, &address)?;
        trust.authorities.extend(self.endpoint.trust.authorities.iter().cloned());
        Ok(trust)
    }
}

/// Tells whether a scope allows everything that another one does: `repository:a:pull,push` covers `repository:a:pull`.
fn covers(own: &str, other: &str) -> bool {
    let (Some((own, may)), Some((other, wants))) = (own.rsplit_once(':'), other.rsplit_once(':')) else {
        return own == other;
    };
    own == other && wants.split(',').all(|want| may.split(',').any(|can| can == want))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_that_are_covered_are_not_asked_for_twice() {
        assert!(covers("repository:a/b:pull,push", "repository:a/b:pull"));
        assert!(covers("repository:h:5000/b:pull,push", "repository:h:5000/b:push,pull"));
        assert!(!covers("repository:a:pull", "repository:a:pull,push"));
        assert!(!covers("repository:a:pull", "repository:b:pull"));
        assert!(!covers("x", "registry:catalog:*"));
    }
}
