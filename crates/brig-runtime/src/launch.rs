//! The word to start, and what may come before the program runs: the starter's half of the end of `protocol.rs`.

use crate::error::{Context, Error};
use crate::hooks::Description;
use crate::limits::{self, Limits};
use crate::listener::Listener;
use crate::protocol::{Channel, Word};
use brig_spec::runtime::Spec;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A process that waits for its start, as its starter sees it.
pub(crate) struct Waiting<'a> {
    pub pid: i32,
    pub pidfd: BorrowedFd<'a>,
    pub limits: &'a Limits,
    pub listener: Option<&'a Listener>,
}

/// Sets the limits, says the word, and returns when the program runs: warnings about limits that this machine did not grant
/// whole.
pub(crate) fn launch(channel: &Channel, process: &Waiting<'_>) -> Result<Vec<String>, Error> {
    let step = || "start the process".to_owned();
    let mut warnings = Vec::new();
    // A process that failed while it waited has said why.
    let known = |error| channel.failure().unwrap_or(error);
    limits::apply(process.pid, process.limits, &mut warnings).map_err(known)?;
    channel.tell(Word::Start)?;
    loop {
        let Some(packet) = channel.receive().step(step)? else { return Ok(warnings) };
        match (packet.word, process.listener, <[u8; 4]>::try_from(packet.bytes.as_slice())) {
            (Word::Failed, ..) => return Err(Error::from_bytes(&packet.bytes)),
            (Word::Listener, Some(listener), Ok(number)) => {
                let number = i32::from_le_bytes(number);
                listener.hand_over(process.pid, process.pidfd, number, "running")?;
                channel.say(Word::Hooked).step(step)?;
            }
            (word, ..) => return Err(Error::invalid(step(), format!("{word:?} came instead of an end"))),
        }
    }
}

/// Makes the door at which a container waits: a socket `name` in `directory`, for its owner alone.
pub fn make_door(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Error> {
    let step = || "make the container's start socket".to_owned();
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).step(step)?;
    rustix::net::bind(&socket, &door_address(directory, name)?).step(step)?;
    rustix::net::listen(&socket, 1).step(step)?;
    Ok(socket)
}

/// Socket addresses are short, and paths may be long: the directory is named by its descriptor.
fn door_address(directory: BorrowedFd<'_>, name: &str) -> Result<SocketAddrUnix, Error> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
        .step(|| "name the container's start socket".into())
}

/// Says whether somebody listens behind a door: the container's first process, before its program runs.
pub fn is_answered(directory: BorrowedFd<'_>, name: &str) -> bool {
    let Ok(address) = door_address(directory, name) else { return false };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    // The one behind it takes a visitor without a word for what it is. A queue of such is an answer too.
    socket.is_ok_and(|socket| matches!(rustix::net::connect(&socket, &address), Ok(()) | Err(rustix::io::Errno::AGAIN)))
}

/// A container that waits at its door.
#[derive(Debug)]
pub struct AtDoor<'a> {
    /// The directory of the door.
    pub directory: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a str,
    /// The container's first process.
    pub pid: i32,
    /// The same as a descriptor.
    pub pidfd: BorrowedFd<'a>,
    /// The configuration it was made from.
    pub spec: &'a Spec,
    /// What its state says.
    pub description: &'a Description,
}

/// Starts a container that another process made, and returns when its program runs: warnings about limits that this machine
/// did not grant whole. Errors: nobody waits there (`ECONNREFUSED`), or the command cannot be executed.
pub fn start(waiting: &AtDoor<'_>) -> Result<Vec<String>, Error> {
    let step = || "reach the container's first process".to_owned();
    let process = waiting.spec.process.as_deref();
    let limits = process.map(Limits::parse).transpose()?.unwrap_or_default();
    let listener = Listener::parse(waiting.spec, waiting.description);
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).step(step)?;
    rustix::net::connect(&socket, &door_address(waiting.directory, waiting.name)?).step(step)?;
    let channel = Channel::from_fd(socket);
    // Of several at the door one is let in. For the others it closes unanswered.
    match channel.receive() {
        Ok(Some(packet)) if packet.word == Word::Ready => {}
        _ => return Err(Error::invalid(step(), "somebody else has started it, or it has ended")),
    }
    launch(&channel, &Waiting { pid: waiting.pid, pidfd: waiting.pidfd, limits: &limits, listener: listener.as_ref() })
}

/// Opens a door to whoever knocks. The child's half.
pub(crate) fn answer_door(door: BorrowedFd<'_>) -> Result<Channel, Error> {
    loop {
        let socket = rustix::net::accept_with(door, SocketFlags::CLOEXEC).step(|| "wait for the start".into())?;
        let channel = Channel::from_fd(socket);
        // One that leaves without a word only looked, or was killed: the next may come.
        if channel.say(Word::Ready).is_ok() && channel.expect(Word::Start).is_ok() {
            return Ok(channel);
        }
    }
}
