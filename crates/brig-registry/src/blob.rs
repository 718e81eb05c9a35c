//! A blob as a blocking reader that resumes by itself.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use brig_spec::image::Descriptor;
use brig_spec::reference::Reference;
use bytes::{Buf, Bytes};
use reqwest::header::{ACCEPT_RANGES, CONTENT_RANGE};
use reqwest::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use crate::client::Client;
use crate::error::Error;
use crate::http::Request;
use crate::pieces::Pieces;

/// Fewer bytes than these within the time that a registry may keep silent are as good as silence.
const TRICKLE: u64 = 1024;

/// The body of a blob from some byte on.
pub struct Blob {
    client: Client,
    reference: Reference,
    descriptor: Descriptor,
    response: Option<Response>,
    chunk: Bytes,
    /// Where the next byte stands in the blob.
    position: u64,
    offset: u64,
    /// Breaks since the last byte that came.
    breaks: u32,
    /// The rest in several ranges, once it is worth it.
    pieces: Option<Pieces>,
    /// Whether that is still to be decided.
    undecided: bool,
    /// For how long, since the stream began, there was nothing to read, and what came then.
    waited: Duration,
    came: u64,
    /// The same, since the rate was looked at last.
    window: (Duration, u64),
    /// The place among those that may be under way with the registry.
    _place: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob")
            .field("digest", &self.descriptor.digest)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Blob {
    pub(crate) fn open(
        client: Client,
        reference: Reference,
        descriptor: Descriptor,
        offset: u64,
    ) -> Result<Self, Error> {
        let places = client.places(&reference);
        let place = client.block_on(async {
            places.acquire_owned().await.map_err(|_| Error::Setup("it is being shut down".to_owned()))
        })?;
        let mut blob = Self {
            pieces: None,
            undecided: true,
            waited: Duration::ZERO,
            came: 0,
            window: (Duration::ZERO, 0),
            _place: place,
            client,
            reference,
            descriptor,
            response: None,
            chunk: Bytes::new(),
            position: offset,
            offset,
            breaks: 0,
        };
        blob.connect()?;
        blob.offset = blob.position;
        Ok(blob)
    }

    /// Returns where the reader began, in bytes: zero if the registry knows no ranges.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Asks for everything from the present position on; moves it back if the registry sends more.
    fn connect(&mut self) -> Result<(), Error> {
        let http = &self.client.inner.http;
        let host = self.reference.host();
        let digest = &self.descriptor.digest;
        let what = format!("blob {digest} of {}", self.reference.familiar());
        let request = Request {
            range: Some((self.position, None)),
            ..Request::get(host, self.reference.repository(), format!("blobs/{digest}"), what)
        };
        let response = self.client.block_on(http.send(&request))?.response;
        self.position = if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
            match start {
                Some(start) if start <= self.position => start,
                _ => {
                    let reason = "it sent another range than asked for".to_owned();
                    return Err(Error::Protocol { host: host.to_owned(), reason });
                }
            }
        } else {
            0
        };
        self.response = Some(response);
        Ok(())
    }

    /// Fetches the next chunk; `None` at the end of the body.
    fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(pieces) = &mut self.pieces {
            let next = pieces.next(&self.client);
            if next.is_err() {
                // Back to one stream, for good.
                self.pieces = None;
            }
            return next;
        }
        let Some(response) = self.response.as_mut() else { return Ok(None) };
        let began = Instant::now();
        let chunk = self.client.block_on(self.client.inner.http.chunk(self.reference.host(), response))?;
        if let Some(chunk) = &chunk {
            self.watch(began.elapsed(), chunk.len() as u64)?;
        }
        Ok(chunk)
    }

    /// Looks at the rate of a stream: one that trickles to seem alive is given up, a slow one with much to come is split.
    fn watch(&mut self, waited: Duration, came: u64) -> Result<(), Error> {
        let options = self.client.options();
        let (patience, ranges) = (options.read_timeout, options.ranges);
        self.window = (self.window.0 + waited, self.window.1 + came);
        if self.window.0 >= patience {
            if self.window.1 < TRICKLE {
                return Err(Error::Silent { host: self.reference.host().to_owned(), after: patience });
            }
            self.window = (Duration::ZERO, 0);
        }
        self.waited += waited;
        self.came += came;
        if !self.undecided || self.waited < ranges.watch {
            return Ok(());
        }
        self.undecided = false;
        let next = self.position + came;
        let slow = u128::from(self.came) * 1000 < u128::from(ranges.slow) * self.waited.as_millis();
        let takes_ranges = self.response.as_ref().is_some_and(|response| {
            let told = response.headers().get(ACCEPT_RANGES).and_then(|value| value.to_str().ok());
            response.status() == StatusCode::PARTIAL_CONTENT || told == Some("bytes")
        });
        if !slow || !takes_ranges || self.descriptor.size.saturating_sub(next) < ranges.least {
            return Ok(());
        }
        let places = self.client.places(&self.reference);
        let most = u32::try_from(ranges.parallel.saturating_sub(1)).unwrap_or_default();
        let more = (1..=most).rev().find_map(|count| Arc::clone(&places).try_acquire_many_owned(count).ok());
        if let Some(more) = more {
            tracing::debug!(digest = %self.descriptor.digest, at = next, "blob goes on in several ranges");
            let (reference, blob) = (self.reference.clone(), self.descriptor.clone());
            self.pieces = Some(Pieces::new(reference, blob, next, ranges.piece, more));
            self.response = None;
        }
        Ok(())
    }

    /// Goes on after a break: connects again, and skips what comes a second time.
    fn resume(&mut self) -> Result<(), Error> {
        let wanted = self.position;
        tracing::debug!(digest = %self.descriptor.digest, at = wanted, "blob broke off, resuming");
        self.response = None;
        self.pieces = None;
        self.connect()?;
        while self.position < wanted {
            let Some(chunk) = self.next()? else { break };
            let take = chunk.len().min(usize::try_from(wanted - self.position).unwrap_or(usize::MAX));
            self.position += take as u64;
            self.chunk = chunk.slice(take..);
        }
        Ok(())
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let broken = match self.next() {
                Ok(Some(chunk)) => {
                    self.chunk = chunk;
                    continue;
                }
                Ok(None) if self.position >= self.descriptor.size => return Ok(0),
                Ok(None) => None,
                Err(error) => Some(error),
            };
            // A body that ends early without an error is a break too, but an honest short blob ends the same way.
            self.breaks += 1;
            if self.breaks > self.client.inner.http.options.retries {
                return broken.map_or(Ok(0), |error| Err(io::Error::other(error)));
            }
            self.resume().map_err(io::Error::other)?;
        }
        let length = self.chunk.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.chunk[..length]);
        self.chunk.advance(length);
        self.position += length as u64;
        self.breaks = 0;
        Ok(length)
    }
}
