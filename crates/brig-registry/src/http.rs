//! One request: sent to the addresses that answer for a registry, authorised, redirected with care, tried again within
//! bounds.
//!
//! ```text
//!   send            every address in turn, until one has it
//!    `- send_to     again after a pause, where the failure may pass      (5xx, 408, 429 with Retry-After, broken connections)
//!        `- by      by plain HTTP or TLS; on 401 with what is asked for  (tokens.rs)
//!            `- follow   redirects; the authorisation stays with the host that it is for
//! ```

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use crate::auth::{Authorization, Challenge};
use crate::client::Options;
use crate::credentials::Keyring;
use crate::error::Error;
use crate::hosts::{Action, Endpoint, endpoints, trust_elsewhere};
use crate::notice::Notice;
use crate::tokens::Tokens;
use crate::transport::Clients;

/// The most redirects that one request may take.
const REDIRECTS_MAX: usize = 5;
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// The longest wait that a registry may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// How many times the wait for one piece of it a whole small document may take.
const DOCUMENT_PATIENCE: u32 = 4;
/// The most bytes of an error's text that are read.
const ERROR_MAX: u64 = 8 << 10;

/// The asynchronous inside of a client.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) options: Options,
    pub(crate) clients: Clients,
    pub(crate) tokens: Tokens,
    pub(crate) keyring: Keyring,
    /// Addresses that may be spoken to plainly, and turned out to want TLS.
    secure: Mutex<HashSet<String>>,
    /// Mirrors that could not be reached; they are not asked again.
    dead: Mutex<HashSet<String>>,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Below `/v2/<repository>/`.
    Repository(String),
    /// Below `/v2/`.
    Root(String),
    /// A path from the root of the host.
    Host(String),
    /// An address that the registry gave.
    Url(Url),
}

/// A request to be made, as often as it takes.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    /// The registry's host as the reference names it.
    pub(crate) host: &'a str,
    /// The repository, for the scope of a token; empty for requests about the registry.
    pub(crate) repository: &'a str,
    /// A repository of the same registry that must be readable too.
    pub(crate) also: Option<&'a str>,
    pub(crate) action: Action,
    pub(crate) method: Method,
    pub(crate) target: Target,
    /// The `Accept` header, or nothing.
    pub(crate) accept: &'a str,
    /// The first byte that is wanted, and the last one if not all are.
    pub(crate) range: Option<(u64, Option<u64>)>,
    /// A small body with its media type.
    pub(crate) body: Option<(String, Bytes)>,
    /// What is asked for, in words, for errors.
    pub(crate) what: String,
}

impl<'a> Request<'a> {
    /// Describes a GET for something below a repository.
    pub(crate) fn get(host: &'a str, repository: &'a str, path: String, what: String) -> Self {
        Self {
            host,
            repository,
            also: None,
            action: Action::Pull,
            method: Method::GET,
            target: Target::Repository(path),
            accept: "",
            range: None,
            body: None,
            what,
        }
    }

    /// The scopes of a token for it at an address.
    pub(crate) fn scopes(&self, endpoint: &Endpoint) -> Vec<String> {
        if self.repository.is_empty() {
            return Vec::new();
        }
        let may = if self.action == Action::Push { "pull,push" } else { "pull" };
        let mut scopes = vec![format!("repository:{}{}:{may}", endpoint.prefix, self.repository)];
        scopes.extend(self.also.map(|also| format!("repository:{also}:pull")));
        scopes
    }

    fn url(&self, endpoint: &Endpoint, scheme: &str) -> Result<Url, Error> {
        let (address, root, prefix) = (&endpoint.address, &endpoint.root, &endpoint.prefix);
        let text = match &self.target {
            Target::Repository(path) => format!("{scheme}://{address}{root}/{prefix}{}/{path}", self.repository),
            Target::Root(path) => format!("{scheme}://{address}{root}/{path}"),
            Target::Host(path) => format!("{scheme}://{address}/{path}"),
            Target::Url(url) => return Ok(url.clone()),
        };
        Url::parse(&text).map_err(|_| bad(self.host, "its name makes no URL"))
    }
}

/// An answer, and who gave it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) response: Response,
    /// Who gave it, for errors about the rest of it.
    pub(crate) host: String,
}

impl Http {
    pub(crate) fn new(options: Options, keyring: Keyring) -> Self {
        Self {
            options,
            clients: Clients::default(),
            tokens: Tokens::default(),
            keyring,
            secure: Mutex::default(),
            dead: Mutex::default(),
        }
    }

    /// Makes the request; successes come back, everything else is an error.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Result<Reply, Error> {
        let mut addresses = endpoints(&self.options, request.host, request.repository, request.action)?;
        if addresses.len() > 1
            && let Ok(dead) = self.dead.lock()
        {
            let final_one = addresses.last().map(|endpoint| endpoint.address.clone());
            addresses.retain(|one| !dead.contains(&one.address) || Some(&one.address) == final_one.as_ref());
        }
        let count = addresses.len();
        for (index, endpoint) in addresses.iter().enumerate() {
            let last = index + 1 == count;
            let retries = if last { self.options.retries } else { 0 };
            let host = if endpoint.own { request.host.to_owned() } else { endpoint.address.clone() };
            let error = match self.send_to(request, endpoint, &host, retries).await {
                Ok(response) => return Ok(Reply { response, host }),
                Err(error) if last => return Err(error),
                Err(error) => error,
            };
            if matches!(error, Error::Unreachable { .. } | Error::Silent { .. })
                && let Ok(mut dead) = self.dead.lock()
            {
                dead.insert(endpoint.address.clone());
            }
            if !matches!(error, Error::NotFound { .. }) {
                self.options.notices.tell(&Notice::Mirror { host, reason: error.to_string() });
            }
        }
        Err(bad(request.host, "it has no address"))
    }

    /// Asks one address, again where that may help.
    async fn send_to(
        &self,
        request: &Request<'_>,
        endpoint: &Endpoint,
        host: &str,
        retries: u32,
    ) -> Result<Response, Error> {
        let mut attempt = 0;
        loop {
            let error = match self.send_authorised(request, endpoint, host).await {
                Ok(response) => match self.judge(request, host, response).await {
                    Ok(response) => return Ok(response),
                    Err(refusal) => refusal,
                },
                Err(error) => error,
            };
            if attempt >= retries || !error.is_transient() {
                return Err(error);
            }
            let pause = match &error {
                // A longer wait than this is the user's to decide about.
                Error::RateLimited { after: Some(after), .. } if *after > RETRY_AFTER_MAX => return Err(error),
                Error::RateLimited { after, .. } => {
                    let wait = after.unwrap_or_else(|| backoff(attempt + 2));
                    self.options.notices.tell(&Notice::RateLimited { host: host.to_owned(), wait });
                    wait
                }
                _ => backoff(attempt),
            };
            tracing::debug!(host, attempt, "registry request failed, trying again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Sends by the scheme that the host wants: one that may be spoken to plainly can still have TLS, and says so by 400.
    async fn send_authorised(&self, request: &Request<'_>, endpoint: &Endpoint, host: &str) -> Result<Response, Error> {
        if self.wants_tls(endpoint) {
            return self.by(request, endpoint, host, "https").await;
        }
        let plain = self.by(request, endpoint, host, "http").await?;
        if plain.status() != StatusCode::BAD_REQUEST || !matches!(request.method, Method::GET | Method::HEAD) {
            return Ok(plain);
        }
        match self.by(request, endpoint, host, "https").await {
            Ok(response) => {
                if let Ok(mut secure) = self.secure.lock() {
                    secure.insert(endpoint.address.clone());
                }
                Ok(response)
            }
            // A certificate that is not trusted is the thing to tell; no TLS at all means that 400 meant something else.
            Err(error) if error.is_certificate() => Err(error),
            Err(_) => Ok(plain),
        }
    }

    fn wants_tls(&self, endpoint: &Endpoint) -> bool {
        !endpoint.plain || self.secure.lock().is_ok_and(|secure| secure.contains(&endpoint.address))
    }

    /// Sends with what was granted before; on 401, gets what is asked for and sends once more.
    async fn by(
        &self,
        request: &Request<'_>,
        endpoint: &Endpoint,
        host: &str,
        scheme: &str,
    ) -> Result<Response, Error> {
        let url = request.url(endpoint, scheme)?;
        let scopes = request.scopes(endpoint);
        let known = self.tokens.known(&endpoint.address, &scopes);
        let response = self.follow(request, endpoint, host, &url, known.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(challenge) = challenge_of(&response) else { return Ok(response) };
        let (repository, what) = (request.repository, &request.what);
        let asker = crate::tokens::Asker { http: self, endpoint, host, repository, what, scheme };
        let Some(authorization) = asker.authorise(challenge, &scopes, known.as_ref()).await? else {
            return Ok(response);
        };
        self.follow(request, endpoint, host, &url, Some(&authorization)).await
    }

    /// Sends one request and follows its redirects; the authorisation stays with the host that it is for.
    async fn follow(
        &self,
        request: &Request<'_>,
        endpoint: &Endpoint,
        host: &str,
        start: &Url,
        authorization: Option<&Authorization>,
    ) -> Result<Response, Error> {
        let mut url = start.clone();
        let mut method = request.method.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut builder = self.builder(endpoint, method.clone(), &url, host, authorization)?;
            if !request.accept.is_empty() {
                builder = builder.header(ACCEPT, request.accept);
            }
            match request.range {
                None | Some((0, None)) => {}
                Some((from, None)) => builder = builder.header(RANGE, format!("bytes={from}-")),
                Some((from, Some(to))) => builder = builder.header(RANGE, format!("bytes={from}-{to}")),
            }
            if let Some((media_type, body)) = request.body.as_ref().filter(|_| method == request.method) {
                builder = builder.header(CONTENT_TYPE, media_type).body(body.clone());
            }
            let response = self.wait(host, builder.send()).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            if !matches!(response.status().as_u16(), 307 | 308) && method != Method::HEAD {
                method = Method::GET;
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| bad(host, "it redirects to no valid URL"))?;
            // The question was whether it is there; where it is kept, a signature may be for GET alone.
            if method == Method::HEAD && next.origin() != url.origin() {
                return Ok(response);
            }
            let downgrade = url.scheme() == "https" && next.scheme() != "https";
            if downgrade || !matches!(next.scheme(), "http" | "https") {
                return Err(bad(host, "it redirects away from HTTPS"));
            }
            url = next;
        }
        Err(bad(host, "it redirects too often"))
    }

    /// Begins a request to the registry's address, or to another that it named: that one gets neither the authorisation
    /// nor the headers, and is believed by its own certificates only.
    pub(crate) fn builder(
        &self,
        endpoint: &Endpoint,
        method: Method,
        url: &Url,
        host: &str,
        authorization: Option<&Authorization>,
    ) -> Result<RequestBuilder, Error> {
        let scheme = url.scheme();
        let own =
            Url::parse(&format!("{scheme}://{}", endpoint.address)).map_err(|_| bad(host, "its name makes no URL"))?;
        let at_home = own.origin() == url.origin();
        let trust = if at_home {
            endpoint.trust.clone()
        } else {
            let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
            trust_elsewhere(&self.options, &format!("{}{port}", url.host_str().unwrap_or_default()))?
        };
        let mut builder = self.clients.get(&self.options, &trust)?.request(method, url.clone());
        if at_home {
            for (name, value) in &endpoint.headers {
                builder = builder.header(name, &value.0);
            }
            for (name, value) in self.keyring.headers() {
                builder = builder.header(name, &value.0);
            }
            if let Some(authorization) = authorization {
                builder = builder.header(AUTHORIZATION, &authorization.header.0);
            }
        }
        Ok(builder)
    }

    /// Waits for an answer's head, with a bound.
    pub(crate) async fn wait(
        &self,
        host: &str,
        answer: impl Future<Output = Result<Response, reqwest::Error>>,
    ) -> Result<Response, Error> {
        match tokio::time::timeout(self.options.read_timeout, answer).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Error::Unreachable { host: host.to_owned(), source: error.without_url() }),
            Err(_) => Err(Error::Silent { host: host.to_owned(), after: self.options.read_timeout }),
        }
    }

    /// Reads the next piece of a body, with a bound on the wait.
    pub(crate) async fn chunk(&self, host: &str, response: &mut Response) -> Result<Option<Bytes>, Error> {
        match tokio::time::timeout(self.options.read_timeout, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(Error::Unreachable { host: host.to_owned(), source: error.without_url() }),
            Err(_) => Err(Error::Silent { host: host.to_owned(), after: self.options.read_timeout }),
        }
    }

    /// Reads a whole body of at most `limit` bytes, within a few times the wait for one piece of it.
    pub(crate) async fn body(
        &self,
        host: &str,
        what: &str,
        mut response: Response,
        limit: u64,
    ) -> Result<Vec<u8>, Error> {
        let too_large = || Error::TooLarge { host: host.to_owned(), what: what.to_owned(), limit };
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let read = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = self.chunk(host, &mut response).await? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 > limit {
                    return Err(too_large());
                }
            }
            Ok(bytes)
        };
        let bound = self.options.read_timeout * DOCUMENT_PATIENCE;
        let slow = |_| Error::Silent { host: host.to_owned(), after: bound };
        tokio::time::timeout(bound, read).await.map_err(slow)?
    }

    /// Turns an answer that is no success into an error.
    async fn judge(&self, request: &Request<'_>, host: &str, response: Response) -> Result<Response, Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(self.refusal(host, request.what.clone(), response).await)
    }

    /// Makes the error of an answer that is no success.
    pub(crate) async fn refusal(&self, host: &str, what: String, response: Response) -> Error {
        let status = response.status();
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let host = host.to_owned();
        match status {
            StatusCode::NOT_FOUND => Error::NotFound { host, what },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { host, what },
            StatusCode::TOO_MANY_REQUESTS => Error::RateLimited { host, after: wait.map(Duration::from_secs) },
            status => {
                let text = self.body(&host, &what, response, ERROR_MAX).await.unwrap_or_default();
                Error::Status { host, what, status: status.as_u16(), detail: detail(&text) }
            }
        }
    }
}

/// Reads what an answer of 401 asks for.
pub(crate) fn challenge_of(response: &Response) -> Option<Challenge> {
    let values = response.headers().get_all(WWW_AUTHENTICATE);
    values.iter().filter_map(|value| value.to_str().ok()).find_map(Challenge::parse)
}

/// Takes the message out of a registry's error document.
fn detail(text: &[u8]) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(text).ok();
    let message = document.as_ref().and_then(|d| d.pointer("/errors/0/message")?.as_str()).unwrap_or_default();
    message.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The pause before the next attempt: twice as long each time, and by up to a half longer, so that many do not come together.
fn backoff(attempt: u32) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    let base = Duration::from_millis(200 << attempt.min(7)).min(PAUSE_MAX);
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let share = u32::try_from(random % 512).unwrap_or_default();
    base + base * share / 1024
}

pub(crate) fn bad(host: &str, reason: &str) -> Error {
    Error::Protocol { host: host.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_bounds() {
        for attempt in 0..40 {
            let base = Duration::from_millis(200 << attempt.min(7)).min(PAUSE_MAX);
            let pause = backoff(attempt);
            assert!(pause >= base && pause <= base + base / 2, "{attempt}: {pause:?}");
        }
    }

    #[test]
    fn a_registrys_words_are_cut_and_cleaned() {
        assert_eq!(detail(br#"{"errors":[{"code":"X","message":"no\u001b[2J way"}]}"#), "no[2J way");
        assert_eq!(detail(format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "a".repeat(999)).as_bytes()).len(), 200);
        assert_eq!(detail(b"<html>"), "");
    }
}
