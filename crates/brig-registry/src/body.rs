//! The body of an upload: pieces that a thread reads, and a connection sends.
//!
//! ```text
//!   reader --> [piece] [piece] [piece] [piece] --> connection
//!       ^                                              |
//!       `----------- memory that was sent -------------'
//! ```

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::mpsc as free;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;

/// The size of one piece in the queue, in bytes: it is still in the processor's cache when it is sent.
const PIECE: usize = 128 << 10;
/// How many pieces the queue has.
const PIECES: usize = 8;

/// Makes a body of `length` bytes, and the queue that fills it.
pub(crate) fn piped(length: u64) -> (mpsc::Sender<Bytes>, Piped) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (sender, Piped { receiver, left: length })
}

/// The memory for pieces, which comes back when they are sent: new memory would have to be got and cleared each time.
pub(crate) struct Memory {
    back: free::Sender<Box<[u8]>>,
    free: free::Receiver<Box<[u8]>>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let (back, free) = free::channel();
        Self { back, free }
    }

    /// Reads the next piece, of at most `left` bytes; less than there should be is an error.
    pub(crate) fn next_piece(&self, reader: &mut dyn Read, left: u64) -> io::Result<Bytes> {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
        let memory = self.free.try_recv().unwrap_or_else(|_| vec![0; PIECE].into_boxed_slice());
        let mut piece = Piece { memory, length, back: self.back.clone() };
        reader.read_exact(&mut piece.memory[..length])?;
        Ok(Bytes::from_owner(piece))
    }
}

/// One piece. What nobody waits for any more is freed.
struct Piece {
    memory: Box<[u8]>,
    length: usize,
    back: free::Sender<Box<[u8]>>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let _ = self.back.send(std::mem::take(&mut self.memory));
    }
}

/// The body of a request, out of the queue.
pub(crate) struct Piped {
    receiver: mpsc::Receiver<Bytes>,
    left: u64,
}

impl http_body::Body for Piped {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        match self.receiver.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(piece)) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
            }
            Poll::Ready(None) => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}
