//! One request: authorised, redirected with care, tried again within bounds.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};

use crate::auth::{Authorization, Challenge, parse_token, token_query};
use crate::client::Options;
use crate::credentials::{self, Credentials};
use crate::error::Error;

/// The most redirects that one request may take.
const REDIRECTS_MAX: usize = 5;
/// The most bytes of a token server's answer.
const TOKEN_MAX: u64 = 1 << 20;
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// The asynchronous inside of a client.
#[derive(Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    pub(crate) options: Options,
    /// Hosts that may be spoken to plainly, and turned out to want TLS.
    secure: Mutex<HashSet<String>>,
    /// What was granted, by host and scope.
    granted: Mutex<HashMap<(String, String), Authorization>>,
}

/// A request to be made, as often as it takes.
pub(crate) struct Request<'a> {
    /// The registry's host as the reference names it.
    pub(crate) host: &'a str,
    /// The repository, for the scope of a token.
    pub(crate) repository: &'a str,
    /// What follows `/v2/<repository>/`.
    pub(crate) path: String,
    /// The `Accept` header, or nothing.
    pub(crate) accept: &'a str,
    /// The first byte that is wanted.
    pub(crate) offset: u64,
    /// What is asked for, in words, for errors.
    pub(crate) what: String,
}

impl Http {
    pub(crate) fn new(client: reqwest::Client, options: Options) -> Self {
        Self { client, options, secure: Mutex::default(), granted: Mutex::new(HashMap::new()) }
    }

    /// Makes the request; answers 200 and 206 come back, everything else is an error.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Result<Response, Error> {
        let mut attempt = 0;
        loop {
            let (error, wait) = match self.send_authorised(request).await {
                Ok(response) => match judge(request, response) {
                    Ok(response) => return Ok(response),
                    Err(refusal) => refusal,
                },
                Err(error) => (error, None),
            };
            if attempt >= self.options.retries || !error.is_transient() {
                return Err(error);
            }
            let pause = wait.unwrap_or(Duration::from_millis(200 << attempt.min(6))).min(PAUSE_MAX);
            tracing::debug!(host = request.host, attempt, "registry request failed, trying again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Sends by the scheme that the host wants: one that may be spoken to plainly can still have TLS, and says so by 400.
    async fn send_authorised(&self, request: &Request<'_>) -> Result<Response, Error> {
        let (address, scheme) = self.options.locate(request.host);
        if scheme == "https" || self.secure.lock().is_ok_and(|secure| secure.contains(&address)) {
            return self.send_by(request, &address, "https").await;
        }
        let plain = self.send_by(request, &address, "http").await?;
        if plain.status() != StatusCode::BAD_REQUEST {
            return Ok(plain);
        }
        match self.send_by(request, &address, "https").await {
            Ok(response) => {
                if let Ok(mut secure) = self.secure.lock() {
                    secure.insert(address);
                }
                Ok(response)
            }
            // A certificate that is not trusted is the thing to tell; no TLS at all means that 400 meant something else.
            Err(error) if error.is_certificate() => Err(error),
            Err(_) => Ok(plain),
        }
    }

    /// Sends with what was granted before; on 401, gets what is asked for and sends once more.
    async fn send_by(&self, request: &Request<'_>, address: &str, scheme: &str) -> Result<Response, Error> {
        let text = format!("{scheme}://{address}/v2/{}/{}", request.repository, request.path);
        let url = Url::parse(&text).map_err(|_| bad(request.host, "its name makes no URL"))?;
        let scope = format!("repository:{}:pull", request.repository);
        let key = (address.to_owned(), scope);
        let known =
            self.granted.lock().ok().and_then(|granted| granted.get(&key).cloned()).filter(Authorization::is_good);
        let response = self.follow(request, url.clone(), known.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let values = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = values.iter().filter_map(|value| value.to_str().ok()).find_map(Challenge::parse);
        let Some(challenge) = challenge else { return Ok(response) };
        let credentials = match &self.options.credentials {
            Some(path) => credentials::find(path, request.host)?,
            None => None,
        };
        let Some(authorization) = self.authorise(request, challenge, credentials, &key.1, scheme).await? else {
            return Ok(response);
        };
        let response = self.follow(request, url, Some(&authorization)).await?;
        if response.status() != StatusCode::UNAUTHORIZED
            && let Ok(mut granted) = self.granted.lock()
        {
            granted.insert(key, authorization);
        }
        Ok(response)
    }

    /// Answers a challenge; `None` if there is nothing to answer with.
    async fn authorise(
        &self,
        request: &Request<'_>,
        challenge: Challenge,
        credentials: Option<Credentials>,
        scope: &str,
        scheme: &str,
    ) -> Result<Option<Authorization>, Error> {
        let (realm, service, asked) = match challenge {
            Challenge::Basic => {
                let Some(Credentials::Basic(user, password)) = credentials else { return Ok(None) };
                return Ok(Some(Authorization::basic(&user, &password)));
            }
            Challenge::Bearer { realm, service, scope } => (realm, service, scope),
        };
        let mut url = Url::parse(&realm).map_err(|_| bad(request.host, "its token server has no valid URL"))?;
        // A registry that is spoken to over TLS may not have the password sent in the clear.
        let plain_ok = scheme == "http" && url.host_str().is_some_and(|host| self.options.is_plain(host));
        if url.scheme() != "https" && !(url.scheme() == "http" && plain_ok) {
            return Err(bad(request.host, "its token server is not reached by HTTPS"));
        }
        let (exchange, fields) =
            token_query(credentials.as_ref(), service.as_deref(), asked.as_deref().unwrap_or(scope));
        let builder = if exchange {
            let body = reqwest::Url::parse_with_params("http://x/", &fields)
                .map_err(|_| bad(request.host, "its token server has no valid URL"))?;
            let body = body.query().unwrap_or_default().to_owned();
            self.client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
        } else {
            url.query_pairs_mut().extend_pairs(&fields);
            let builder = self.client.get(url);
            match &credentials {
                Some(Credentials::Basic(user, password)) => {
                    builder.header(AUTHORIZATION, &Authorization::basic(user, password).header.0)
                }
                _ => builder,
            }
        };
        let response = self.wait(request.host, builder.send()).await?;
        if !response.status().is_success() {
            let (host, what) = (request.host.to_owned(), request.what.clone());
            return Err(match response.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { host, what },
                status => Error::Status { host, what: "a token".to_owned(), status: status.as_u16() },
            });
        }
        let bytes = self.body(request.host, "a token", response, TOKEN_MAX).await?;
        parse_token(request.host, &bytes).map(Some)
    }

    /// Sends one request and follows its redirects; the authorisation stays with the host that it is for.
    async fn follow(
        &self,
        request: &Request<'_>,
        start: Url,
        authorization: Option<&Authorization>,
    ) -> Result<Response, Error> {
        let mut url = start.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut builder = self.client.get(url.clone());
            if !request.accept.is_empty() {
                builder = builder.header(ACCEPT, request.accept);
            }
            if request.offset > 0 {
                builder = builder.header(RANGE, format!("bytes={}-", request.offset));
            }
            if let Some(authorization) = authorization
                && url.origin() == start.origin()
            {
                builder = builder.header(AUTHORIZATION, &authorization.header.0);
            }
            let response = self.wait(request.host, builder.send()).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| bad(request.host, "it redirects to no valid URL"))?;
            let downgrade = url.scheme() == "https" && next.scheme() != "https";
            if downgrade || !matches!(next.scheme(), "http" | "https") {
                return Err(bad(request.host, "it redirects away from HTTPS"));
            }
            url = next;
        }
        Err(bad(request.host, "it redirects too often"))
    }

    /// Waits for an answer's head, with a bound.
    async fn wait(
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
    pub(crate) async fn chunk(&self, host: &str, response: &mut Response) -> Result<Option<bytes::Bytes>, Error> {
        match tokio::time::timeout(self.options.read_timeout, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(Error::Unreachable { host: host.to_owned(), source: error.without_url() }),
            Err(_) => Err(Error::Silent { host: host.to_owned(), after: self.options.read_timeout }),
        }
    }

    /// Reads a whole body of at most `limit` bytes.
    pub(crate) async fn body(
        &self,
        host: &str,
        what: &str,
        mut response: Response,
        limit: u64,
    ) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk(host, &mut response).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                return Err(Error::TooLarge { host: host.to_owned(), what: what.to_owned(), limit });
            }
        }
        Ok(bytes)
    }
}

/// Turns an answer that is no success into an error, with the pause that the registry wishes.
fn judge(request: &Request<'_>, response: Response) -> Result<Response, (Error, Option<Duration>)> {
    let status = response.status();
    let (host, what) = (request.host.to_owned(), request.what.clone());
    let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let error = match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
        StatusCode::NOT_FOUND => Error::NotFound { host, what },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { host, what },
        StatusCode::TOO_MANY_REQUESTS => Error::RateLimited(host),
        status => Error::Status { host, what, status: status.as_u16() },
    };
    Err((error, wait.map(Duration::from_secs)))
}

fn bad(host: &str, reason: &str) -> Error {
    Error::Protocol { host: host.to_owned(), reason: reason.to_owned() }
}
