//! A blob while it comes in: the part that is here already, then the source, hashed and kept on the way.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use brig_spec::image::Descriptor;

use crate::ahead::Ahead;
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::observe::{Observer, Progress};

use super::{BlobSource, Opened};

/// How many bytes pass between two reports.
const REPORT: u64 = 1 << 20;

/// A reader of a blob that appends what is new to the partial file.
pub(super) struct BlobStream<'a> {
    blob: &'a Descriptor,
    source: &'a dyn BlobSource,
    observer: &'a dyn Observer,
    stop: &'a AtomicBool,
    part: File,
    /// Bytes of the partial file that are still to be read.
    kept: u64,
    ahead: Ahead,
    opened: Option<Box<dyn Read + Send + 'a>>,
    hash: Hasher,
    done: u64,
    reported: u64,
    ended: bool,
    /// The failure of this stream, which a decoder above would only pass on as text.
    failed: Option<Error>,
}

impl<'a> BlobStream<'a> {
    /// Starts with what the partial file has.
    pub(super) fn new(
        blob: &'a Descriptor,
        source: &'a dyn BlobSource,
        observer: &'a dyn Observer,
        stop: &'a AtomicBool,
        part: File,
    ) -> io::Result<Self> {
        let mut kept = part.metadata()?.len();
        if kept > blob.size {
            part.set_len(0)?;
            kept = 0;
        }
        Ok(Self {
            blob,
            source,
            observer,
            stop,
            part,
            kept,
            ahead: Ahead::from(kept),
            opened: None,
            hash: Hasher::new(blob.digest.algorithm()),
            done: 0,
            reported: 0,
            ended: false,
            failed: None,
        })
    }

    /// Ends the stream: verifies size and digest of everything.
    pub(super) fn finish(mut self) -> Result<()> {
        let mut rest = vec![0; 64 << 10];
        while self.failed.is_none() && !self.ended {
            if self.read(&mut rest).is_err() {
                break;
            }
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        let found = self.hash.finish();
        if found != self.blob.digest {
            return Err(Error::Digest { expected: self.blob.digest.clone(), found });
        }
        self.observer.progress(Progress::Downloading {
            digest: self.blob.digest.clone(),
            done: self.blob.size,
            total: self.blob.size,
        });
        Ok(())
    }

    fn fail(&mut self, error: Error) -> io::Error {
        let text = io::Error::other("the blob's stream failed");
        self.failed.get_or_insert(error);
        text
    }

    fn fetch(&mut self, source: io::Error) -> io::Error {
        let error = Error::Fetch { digest: self.blob.digest.clone(), source };
        self.fail(error)
    }

    /// Opens the source where the partial file ends; skips what a source without ranges sends again.
    fn open(&mut self) -> io::Result<Box<dyn Read + Send + 'a>> {
        let Opened { mut reader, offset } =
            self.source.open_blob(self.blob, self.done).map_err(|error| self.fetch(error))?;
        if offset > self.done {
            return Err(self.fetch(io::Error::other("the source started too late")));
        }
        let skip = self.done - offset;
        let skipped = io::copy(&mut reader.by_ref().take(skip), &mut io::sink()).map_err(|error| self.fetch(error))?;
        if skipped < skip {
            let error = Error::Size { digest: self.blob.digest.clone(), expected: self.blob.size, found: skipped };
            return Err(self.fail(error));
        }
        Ok(reader)
    }

    fn step(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.size - self.done;
        if self.kept > 0 {
            let most = usize::try_from(self.kept).unwrap_or(usize::MAX).min(buffer.len());
            let length = self.part.read(&mut buffer[..most])?;
            if length == 0 {
                return Err(
                    self.fail(Error::io("read", "a partial download")(io::Error::from(io::ErrorKind::UnexpectedEof)))
                );
            }
            self.kept -= length as u64;
            return Ok(length);
        }
        if self.opened.is_none() {
            if left == 0 {
                return Ok(0);
            }
            self.opened = Some(self.open()?);
        }
        let Some(reader) = self.opened.as_mut() else { return Ok(0) };
        if left == 0 {
            // One byte more than announced is a lie worth knowing.
            let mut one = [0];
            let extra = reader.read(&mut one).map_err(|error| self.fetch(error))?;
            if extra > 0 {
                let error = Error::Size {
                    digest: self.blob.digest.clone(),
                    expected: self.blob.size,
                    found: self.blob.size.saturating_add(1),
                };
                return Err(self.fail(error));
            }
            return Ok(0);
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let length = reader.read(&mut buffer[..most]).map_err(|error| self.fetch(error))?;
        if length == 0 {
            let (expected, found) = (self.blob.size, self.done);
            return Err(self.fail(Error::Size { digest: self.blob.digest.clone(), expected, found }));
        }
        self.part
            .write_all(&buffer[..length])
            .map_err(|error| self.fail(Error::io("write", "a partial download")(error)))?;
        self.ahead.reached(&self.part, self.done + length as u64);
        Ok(length)
    }
}

impl Read for BlobStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.ended {
            return Ok(0);
        }
        if self.stop.load(Ordering::Relaxed) || self.observer.cancelled() {
            return Err(self.fail(Error::Cancelled));
        }
        let length = self.step(buffer)?;
        if length == 0 {
            self.ended = true;
            return Ok(0);
        }
        self.hash.update(&buffer[..length]);
        self.done += length as u64;
        if self.done - self.reported >= REPORT {
            self.reported = self.done;
            let digest = self.blob.digest.clone();
            self.observer.progress(Progress::Downloading { digest, done: self.done, total: self.blob.size });
        }
        Ok(length)
    }
}
