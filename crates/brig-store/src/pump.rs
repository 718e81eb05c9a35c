//! Two threads for one layer: one fetches and decompresses, the other hashes and writes files.
//!
//! ```text
//!   source -> sha256 -> decoder -> [256 K] [256 K] [256 K] -> sha256 -> tar -> files
//!   `------- producer ---------'   at most six full       `----- consumer -----'
//!                                <- empty buffers come back
//! ```
//!
//! gzip cannot be decoded in parallel, but what stands before and behind it can run beside it.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use brig_spec::digest::{Algorithm, Digest};

use crate::hash::Hasher;

/// The size of one buffer in bytes.
const BUFFER: usize = 256 << 10;
/// The most full buffers between the two threads.
const QUEUE: usize = 6;

/// The producer's end.
pub(crate) struct Inlet {
    full: SyncSender<io::Result<Vec<u8>>>,
    free: Receiver<Vec<u8>>,
}

/// The consumer's end: a reader that hashes what is taken from it.
pub(crate) struct Outlet {
    full: Receiver<io::Result<Vec<u8>>>,
    free: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    hash: Hasher,
}

/// Makes a pump whose outlet hashes by `algorithm`.
pub(crate) fn pump(algorithm: Algorithm) -> (Inlet, Outlet) {
    let (full_in, full_out) = sync_channel(QUEUE);
    let (free_in, free_out) = channel();
    let outlet = Outlet { full: full_out, free: free_in, current: Vec::new(), at: 0, hash: Hasher::new(algorithm) };
    (Inlet { full: full_in, free: free_out }, outlet)
}

impl Inlet {
    /// Moves everything from `source` to the outlet, at most `limit` bytes; an error of the source goes there too.
    ///
    /// `too_much` makes the error for a source that does not end at the limit.
    pub(crate) fn fill(self, source: &mut impl Read, limit: u64, too_much: impl Fn() -> io::Error) {
        let mut total = 0_u64;
        loop {
            let mut buffer = self.free.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER));
            buffer.clear();
            let read = source.by_ref().take(BUFFER as u64).read_to_end(&mut buffer);
            total += buffer.len() as u64;
            let end = buffer.len() < BUFFER;
            let message = match read {
                Err(error) => Err(error),
                Ok(_) if total > limit => Err(too_much()),
                Ok(_) => Ok(buffer),
            };
            let stop = message.is_err();
            if self.full.send(message).is_err() || stop || end {
                return;
            }
        }
    }
}

/// The producer's end for whoever writes: what is written comes out at the other end.
pub(crate) struct Spout {
    inlet: Inlet,
    buffer: Vec<u8>,
}

impl Inlet {
    /// Makes a writer of it. Flushed and dropped, it ends the stream; whether the stream was whole, its writer knows.
    pub(crate) fn into_writer(self) -> Spout {
        Spout { inlet: self, buffer: Vec::with_capacity(BUFFER) }
    }
}

impl io::Write for Spout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(BUFFER - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        if self.buffer.len() == BUFFER {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut next = self.inlet.free.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER));
        next.clear();
        let full = std::mem::replace(&mut self.buffer, next);
        self.inlet.full.send(Ok(full)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Outlet {
    /// Takes what is left, so that the hash is over everything, and returns the digest.
    pub(crate) fn finish(mut self) -> io::Result<Digest> {
        loop {
            let length = self.fill_buf()?.len();
            if length == 0 {
                return Ok(self.hash.finish());
            }
            self.consume(length);
        }
    }
}

impl BufRead for Outlet {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.current.len() {
            let empty = std::mem::take(&mut self.current);
            self.at = 0;
            if empty.capacity() > 0 {
                let _ = self.free.send(empty);
            }
            match self.full.recv() {
                Ok(buffer) => {
                    self.current = buffer?;
                    self.hash.update(&self.current);
                }
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

impl Read for Outlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}
