//! The rest of a blob in several ranges at once, handed out in order.
//!
//! ```text
//!   position ->| piece | piece | piece | piece |   one request each, whole in memory
//!                 `--> handed out; the next one begins
//! ```

use std::collections::VecDeque;

use brig_spec::image::Descriptor;
use brig_spec::reference::Reference;
use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::error::Error;
use crate::http::{Request, bad};

/// Pieces on their way.
pub(crate) struct Pieces {
    blob: Descriptor,
    reference: Reference,
    under_way: VecDeque<JoinHandle<Result<Bytes, Error>>>,
    /// Where the next request begins, in bytes.
    next: u64,
    parallel: usize,
    /// The size of one piece in bytes.
    piece: u64,
    _places: OwnedSemaphorePermit,
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.under_way.iter().for_each(JoinHandle::abort);
    }
}

impl Pieces {
    /// Begins with the byte at `from`; `places` are for the connections beyond the one that the blob has.
    pub(crate) fn new(
        reference: Reference,
        blob: Descriptor,
        from: u64,
        piece: u64,
        places: OwnedSemaphorePermit,
    ) -> Self {
        let parallel = places.num_permits() + 1;
        Self { blob, reference, under_way: VecDeque::new(), next: from, parallel, piece: piece.max(1), _places: places }
    }

    /// Returns the next piece; `None` at the end of the blob.
    pub(crate) fn next(&mut self, client: &Client) -> Result<Option<Bytes>, Error> {
        while self.under_way.len() < self.parallel && self.next < self.blob.size {
            let last = self.next.saturating_add(self.piece).min(self.blob.size) - 1;
            let job = fetch(client.clone(), self.reference.clone(), self.blob.clone(), self.next, last);
            self.under_way.push_back(client.handle()?.spawn(job));
            self.next = last + 1;
        }
        let Some(first) = self.under_way.pop_front() else { return Ok(None) };
        let host = self.reference.host();
        client.block_on(async { first.await.map_err(|_| bad(host, "a range was given up"))? }).map(Some)
    }
}

/// Fetches the bytes from `first` to `last`, exactly.
async fn fetch(client: Client, reference: Reference, blob: Descriptor, first: u64, last: u64) -> Result<Bytes, Error> {
    let http = &client.inner.http;
    let what = format!("blob {} of {}", blob.digest, reference.familiar());
    let request = Request {
        range: Some((first, Some(last))),
        ..Request::get(reference.host(), reference.repository(), format!("blobs/{}", blob.digest), what.clone())
    };
    let reply = http.send(&request).await?;
    let told = reply.response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let begins = told.and_then(|told| told.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    if reply.response.status() != StatusCode::PARTIAL_CONTENT || begins != Some(first) {
        return Err(bad(&reply.host, "it sent another range than asked for"));
    }
    let length = last - first + 1;
    let bytes = http.body(&reply.host, &what, reply.response, length).await?;
    if bytes.len() as u64 != length {
        return Err(bad(&reply.host, "it sent another range than asked for"));
    }
    Ok(bytes.into())
}
