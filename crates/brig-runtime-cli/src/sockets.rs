//! What callers of an OCI runtime get beside its exit status: a terminal or a process by descriptor, and the pid in a file.

use crate::failure::{Failure, Step};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sendmsg,
};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Sends a descriptor to a listening socket, with a name as the message.
pub(crate) fn send_fd(path: &Path, name: &str, fd: BorrowedFd<'_>) -> Result<(), Failure> {
    let step = || format!("send a descriptor to {}", path.display());
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).step(step)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).step(step)?).step(step)?;
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(&socket, &[IoSlice::new(name.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL).step(step)?;
    Ok(())
}

/// Writes a pid for a caller that may read the file at any moment: it sees the whole number or no file.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<(), Failure> {
    let step = || format!("write the pid to {}", path.display());
    brig_monitor::records::write(path, pid.to_string().as_bytes(), false).step(step)
}
