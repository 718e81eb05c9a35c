//! Content goes to a registry: only what it does not have, from any byte on.
//!
//! ```text
//!   HEAD blobs/<digest>                            200: nothing to do
//!   POST blobs/uploads/?mount=<digest>&from=<repo> 201: it was there, in another repository; 202: an upload begins
//!   PUT <location>?digest=                         a small blob, whole
//!   PATCH <location>  Content-Range: 0-67108863    a large one, part by part; each answer gives the next location
//!   GET <location>    Range: 0-1234                after a break: what has arrived; the rest follows by PATCH
//!   PUT <location>?digest=                         and it is a blob
//! ```
//!
//! The bytes come from a blocking reader on the calling thread and go through a short queue to the connection, so that
//! neither the size of a blob nor a slow registry costs memory.

use std::io::{self, Read};
use std::time::Duration;

use brig_spec::digest::Digest;
use brig_spec::image::Descriptor;
use brig_spec::reference::Reference;
use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use sha2::Digest as _;

use crate::body::{self, Memory};
use crate::client::Client;
use crate::error::Error;
use crate::hosts::{Action, Endpoint, endpoints};
use crate::http::{Request, Target, bad};

/// How many times the usual wait a registry may take to make a blob of what it has received.
const COMMIT_PATIENCE: u32 = 10;
/// What every blob is sent as.
const OCTETS: &str = "application/octet-stream";

/// What became of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// The repository had it.
    Present,
    /// It was taken from another repository of the registry.
    Mounted(String),
    /// It was sent.
    Sent,
}

/// Where the bytes of a blob come from.
pub trait Content: Sync {
    /// Opens the blob at `offset` bytes.
    fn open(&self, blob: &Descriptor, offset: u64) -> io::Result<Box<dyn Read + Send + '_>>;

    /// Takes note of how many bytes have been sent.
    fn sent(&self, blob: &Descriptor, bytes: u64) {
        let _ = (blob, bytes);
    }
}

/// What a registry said to a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedManifest {
    /// Its digest.
    pub digest: Digest,
    /// Whether the registry keeps a list of what refers to the manifest's subject.
    pub lists_referrers: bool,
}

impl Client {
    /// Tells whether a repository has a blob.
    pub fn has_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool, Error> {
        let request = Request { method: Method::HEAD, ..push(reference, format!("blobs/{digest}")) };
        match self.block_on(self.inner.http.send(&request)) {
            // One that is kept elsewhere is there.
            Ok(_) | Err(Error::Status { status: 301 | 302 | 303 | 307 | 308, .. }) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Brings a blob into a repository; `from` lists repositories of the same registry that may have it.
    pub fn push_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        from: &dyn Fn() -> Vec<String>,
        content: &dyn Content,
    ) -> Result<Pushed, Error> {
        if self.has_blob(reference, &blob.digest)? {
            return Ok(Pushed::Present);
        }
        let mut upload = Upload::new(self, reference, blob)?;
        for repository in from() {
            match upload.begin(Some(&repository)) {
                Ok(true) => return Ok(Pushed::Mounted(repository)),
                // A repository that does not have it or may not be read is no place to take it from.
                Ok(false) | Err(Error::Denied { .. } | Error::NotFound { .. } | Error::Status { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        upload.run(content)?;
        Ok(Pushed::Sent)
    }

    /// Puts a manifest or an index under the reference's digest if it has one, else under its tag.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<PushedManifest, Error> {
        let digest = Digest::sha256(&sha2::Sha256::digest(bytes).into());
        let identifier = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_owned(),
            (None, None) => digest.to_string(),
        };
        let request = Request {
            method: Method::PUT,
            body: Some((media_type.to_owned(), Bytes::copy_from_slice(bytes))),
            what: format!("the manifest of {}", reference.familiar()),
            ..push(reference, format!("manifests/{identifier}"))
        };
        let reply = self.block_on(self.inner.http.send(&request))?;
        Ok(PushedManifest { digest, lists_referrers: reply.response.headers().contains_key("oci-subject") })
    }
}

/// Describes a request that changes a repository.
fn push(reference: &Reference, path: String) -> Request<'_> {
    let what = format!("repository {}", reference.familiar_name());
    Request { action: Action::Push, ..Request::get(reference.host(), reference.repository(), path, what) }
}

/// One blob on its way.
struct Upload<'a> {
    client: &'a Client,
    reference: &'a Reference,
    blob: &'a Descriptor,
    endpoint: Endpoint,
    location: Option<Url>,
    /// How many bytes the registry has.
    offset: u64,
    /// The size of the next parts in bytes.
    part: u64,
    /// Whether the registry takes parts.
    takes_parts: bool,
}

impl<'a> Upload<'a> {
    fn new(client: &'a Client, reference: &'a Reference, blob: &'a Descriptor) -> Result<Self, Error> {
        let options = client.options();
        let list = endpoints(options, reference.host(), reference.repository(), Action::Push)?;
        let endpoint = list.into_iter().next().ok_or_else(|| bad(reference.host(), "it has no address"))?;
        let part = options.upload_part.max(1);
        Ok(Self { client, reference, blob, endpoint, location: None, offset: 0, part, takes_parts: true })
    }

    fn host(&self) -> &str {
        self.reference.host()
    }

    /// Begins an upload, or has the blob mounted from another repository: true if that was all.
    fn begin(&mut self, from: Option<&str>) -> Result<bool, Error> {
        let path = match from {
            Some(from) => format!("blobs/uploads/?mount={}&from={from}", self.blob.digest),
            None => "blobs/uploads/".to_owned(),
        };
        let request = Request {
            method: Method::POST,
            also: from,
            body: Some((OCTETS.to_owned(), Bytes::new())),
            ..push(self.reference, path)
        };
        let reply = self.client.block_on(self.client.inner.http.send(&request))?;
        if from.is_some() && reply.response.status() == StatusCode::CREATED {
            return Ok(true);
        }
        self.offset = 0;
        self.note(&reply.response)?;
        Ok(false)
    }

    /// Takes note of the place that the registry gave for what follows.
    fn note(&mut self, response: &Response) -> Result<(), Error> {
        let headers = response.headers();
        let told = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let next = told.and_then(|location| response.url().join(location).ok());
        let next = next.ok_or_else(|| bad(self.host(), "it gives no place for an upload"))?;
        if !matches!(next.scheme(), "http" | "https") || response.url().scheme() == "https" && next.scheme() != "https"
        {
            return Err(bad(self.host(), "it leads an upload away from HTTPS"));
        }
        self.location = Some(next);
        let least = headers.get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        self.part = self.part.max(least.unwrap_or_default().min(1 << 32));
        Ok(())
    }

    /// Sends the blob, and goes on after breaks until one brings nothing new too often.
    fn run(&mut self, content: &dyn Content) -> Result<(), Error> {
        let retries = self.client.options().retries;
        let (mut breaks, mut furthest) = (0, 0);
        loop {
            let error = match self.attempt(content) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let may_pass = match &error {
                // The token has ended meanwhile, or what has arrived is not what is believed here: asking tells.
                Error::Denied { .. } | Error::Status { status: 416, .. } => breaks == 0,
                Error::Status { status: 404 | 405 | 413 | 501, .. } | Error::NotFound { .. } if self.takes_parts => {
                    self.takes_parts = self.offset > 0;
                    self.location = None;
                    breaks == 0
                }
                error => error.is_transient(),
            };
            breaks += 1;
            if !may_pass || breaks > retries {
                return Err(error);
            }
            tracing::debug!(digest = %self.blob.digest, at = self.offset, "upload broke off, resuming");
            std::thread::sleep(Duration::from_millis(200 << breaks.min(6)));
            self.ask_state();
            if self.location.is_some() && self.offset > furthest {
                (breaks, furthest) = (0, self.offset);
            }
        }
    }

    /// Asks how much has arrived; an upload that is not known any more begins anew.
    fn ask_state(&mut self) {
        let Some(location) = self.location.clone() else { return };
        let request = Request { target: Target::Url(location), ..push(self.reference, String::new()) };
        let known = self.client.block_on(async {
            let reply = self.client.inner.http.send(&request).await?;
            Ok((arrived(reply.response.headers()), reply.response))
        });
        match known {
            Ok((Some(arrived), response)) if arrived <= self.blob.size => {
                self.offset = arrived;
                if response.headers().contains_key(LOCATION) && self.note(&response).is_err() {
                    self.location = None;
                }
            }
            _ => self.location = None,
        }
    }

    /// Sends what is missing.
    fn attempt(&mut self, content: &dyn Content) -> Result<(), Error> {
        if self.location.is_none() {
            self.begin(None)?;
        }
        let fail = |source| Error::Source { host: self.reference.host().to_owned(), source };
        let size = self.blob.size;
        let whole = self.offset == 0 && (size <= self.part || !self.takes_parts);
        if !whole {
            let mut reader = content.open(self.blob, self.offset).map_err(fail)?;
            while self.offset < size {
                let length = self.part.min(size - self.offset);
                let response = self.send(Method::PATCH, length, reader.as_mut(), content)?;
                self.note(&response)?;
                self.offset += length;
            }
        }
        let length = size - self.offset;
        let mut reader = content.open(self.blob, self.offset).map_err(fail)?;
        self.send(Method::PUT, length, reader.as_mut(), content)?;
        Ok(())
    }

    /// Sends one part, or with PUT the rest and the end of the upload.
    fn send(
        &self,
        method: Method,
        length: u64,
        reader: &mut dyn Read,
        content: &dyn Content,
    ) -> Result<Response, Error> {
        let http = &self.client.inner.http;
        let host = self.host();
        let mut url = self.location.clone().ok_or_else(|| bad(host, "it gives no place for an upload"))?;
        let last = method == Method::PUT;
        if last {
            url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        }
        let scopes = push(self.reference, String::new()).scopes(&self.endpoint);
        let known = http.tokens.known(&self.endpoint.address, &scopes);
        let (sender, body) = body::piped(length);
        let memory = Memory::new();
        let mut builder = http
            .builder(&self.endpoint, method, &url, host, known.as_ref())?
            .header(CONTENT_TYPE, OCTETS)
            .body(reqwest::Body::wrap(body));
        if !last {
            let range = format!("{}-{}", self.offset, self.offset + length - 1);
            builder = builder.header(CONTENT_RANGE, range);
        }
        let request = self.client.handle()?.spawn(builder.send());
        let mut sent = 0;
        let silent = |after| Error::Silent { host: host.to_owned(), after };
        while sent < length && !request.is_finished() {
            let piece = match memory.next_piece(reader, length - sent) {
                Ok(piece) => piece,
                Err(source) => {
                    request.abort();
                    return Err(Error::Source { host: host.to_owned(), source });
                }
            };
            let size = piece.len() as u64;
            let patience = http.options.read_timeout;
            let room = self.client.block_on(async {
                tokio::time::timeout(patience, sender.send(piece)).await.map_err(|_| silent(patience))
            });
            match room {
                Ok(Ok(())) => sent += size,
                // The answer has come already, or the connection is gone: the request tells which.
                Ok(Err(_)) => break,
                Err(error) => {
                    request.abort();
                    return Err(error);
                }
            }
            content.sent(self.blob, self.offset + sent);
        }
        drop(sender);
        let patience = http.options.read_timeout * COMMIT_PATIENCE;
        let answer = self.client.block_on(async {
            let answer = tokio::time::timeout(patience, request).await.map_err(|_| silent(patience))?;
            let answer = answer.map_err(|_| bad(host, "the upload was given up"))?;
            answer.map_err(|error| Error::Unreachable { host: host.to_owned(), source: error.without_url() })
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let what = format!("repository {}", self.reference.familiar_name());
        Err(self.client.block_on(async { Ok(http.refusal(host, what, answer).await) })?)
    }
}

/// Reads how much of an upload has arrived: `Range: 0-<last byte>`. One byte and none look the same, and count as nothing known.
fn arrived(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get("range")?.to_str().ok()?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let last: u64 = range.strip_prefix("0-")?.parse().ok()?;
    (last > 0).then(|| last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_arrived() {
        let ask = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("range", text.parse().unwrap());
            arrived(&headers)
        };
        assert_eq!(ask("0-9"), Some(10));
        assert_eq!(ask("bytes=0-9"), Some(10));
        assert_eq!(ask("0-18446744073709551615"), Some(u64::MAX));
        for nothing in ["0-0", "5-9", "0-", "x", "0--1"] {
            assert_eq!(ask(nothing), None, "{nothing}");
        }
        assert_eq!(arrived(&HeaderMap::new()), None);
    }
}
