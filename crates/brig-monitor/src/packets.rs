//! Sending and receiving the packets of `protocol.rs`.

use crate::protocol::{Kind, PAYLOAD_MAX};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

/// Sends one packet; it goes whole or not at all. `EAGAIN` comes through when `wait` is false and there is no room.
pub fn send(socket: BorrowedFd<'_>, kind: Kind, payload: &[u8], wait: bool) -> io::Result<()> {
    let flags = if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
    let head = [kind as u8];
    let parts = [IoSlice::new(&head), IoSlice::new(payload)];
    let mut none = rustix::net::SendAncillaryBuffer::default();
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(socket, &parts, &mut none, flags))?;
    Ok(())
}

/// Receives one packet into `buffer` (of at least `PAYLOAD_MAX` + 1 bytes); none at the end.
///
/// A packet of an unknown kind is skipped by the caller: it comes as `Some((None, ..))`.
pub fn receive<'b>(
    socket: BorrowedFd<'_>,
    buffer: &'b mut [u8],
    wait: bool,
) -> io::Result<Option<(Option<Kind>, &'b [u8])>> {
    debug_assert!(buffer.len() > PAYLOAD_MAX);
    let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let count = loop {
        match rustix::net::recv(socket, &mut *buffer, flags) {
            Ok((count, _)) => break count,
            // Told once, and before what is still queued, when the other side left without having read everything.
            Err(Errno::CONNRESET | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    if count == 0 {
        return Ok(None);
    }
    Ok(Some((Kind::from_byte(buffer[0]), &buffer[1..count])))
}
