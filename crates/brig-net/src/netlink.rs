//! A netlink socket with one conversation: send a batch, read its answers, never wait.
//!
//! The kernel handles requests inside the sender's own system call, so the answers are there when `send` returns; a
//! socket that has nothing to read means that the kernel has nothing to say. Only the last message of a batch asks for
//! an acknowledgement: errors are reported in any case, and a success costs one datagram for the whole batch.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::message::{self, Batch, DONE, ERROR, Message, messages, native_u32};

const RECEIVE_LEN: usize = 16 * 1024;

/// A netlink socket of one protocol, bound to the network namespace in which it was opened.
pub(crate) struct Socket {
    fd: OwnedFd,
    next: u32,
    buffer: Vec<u8>,
}

/// An error that the kernel reported for one message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The message's place in the batch, counted from 0.
    pub(crate) index: u32,
    /// The kernel's answer.
    pub(crate) errno: Errno,
}

impl Socket {
    /// Opens a socket for links, addresses and routes in the calling thread's network namespace.
    pub(crate) fn route() -> Result<Self, Errno> {
        Self::open(None)
    }

    /// Opens a socket for nftables in the calling thread's network namespace.
    pub(crate) fn netfilter() -> Result<Self, Errno> {
        Self::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> Result<Self, Errno> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self { fd, next: 1, buffer: Vec::new() })
    }

    /// Begins a batch with fresh sequence numbers.
    pub(crate) fn batch(&self) -> Batch {
        Batch::new(self.next)
    }

    /// Sends a batch and gives each answer that is no acknowledgement to `each`; returns what was refused.
    ///
    /// The last message must carry `ACK`, or be a dump.
    pub(crate) fn exchange(
        &mut self,
        batch: &Batch,
        mut each: impl FnMut(u32, Message<'_>),
    ) -> Result<Vec<Refusal>, Errno> {
        self.next = batch.next();
        let sent = send(&self.fd, batch.bytes(), SendFlags::empty())?;
        if sent != batch.bytes().len() {
            return Err(Errno::MSGSIZE);
        }
        self.buffer.resize(RECEIVE_LEN, 0);
        let last = batch.last();
        let mut refusals = Vec::new();
        loop {
            let (len, full_len) = recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC)?;
            if full_len > len {
                return Err(Errno::MSGSIZE);
            }
            for found in messages(&self.buffer[..len]) {
                let Some(index) = found.sequence.checked_sub(batch.first()).filter(|_| found.sequence <= last) else {
                    continue;
                };
                match found.kind {
                    ERROR => {
                        let code = native_u32(found.payload).ok_or(Errno::BADMSG)?.cast_signed();
                        if code != 0 {
                            refusals.push(Refusal { index, errno: Errno::from_raw_os_error(-code) });
                        }
                        // An nftables batch that fails as a whole is reported on its first message.
                        if found.sequence == last || (code != 0 && opens_batch(batch) && index == 0) {
                            return Ok(refusals);
                        }
                    }
                    DONE if found.sequence == last => return Ok(refusals),
                    DONE => {}
                    _ => each(index, found),
                }
            }
        }
    }

    /// Sends a batch that must succeed as a whole: the first refusal is the error.
    pub(crate) fn expect(&mut self, batch: &Batch) -> Result<(), Errno> {
        match self.exchange(batch, |_, _| {})?.first() {
            Some(refusal) => Err(refusal.errno),
            None => Ok(()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn opens_batch(batch: &Batch) -> bool {
    message::messages(batch.bytes()).next().is_some_and(|first| first.kind == crate::nftables::BATCH_BEGIN)
}
