//! The one conversation between the process that makes a container and the container's first process.
//!
//! A pair of `SOCK_SEQPACKET` sockets, close-on-exec on both sides. One byte says what a packet is.
//!
//! ```text
//!  parent                                     child (clone3: new namespaces, on v2 born in its cgroup)
//!    | user namespace only: id maps written,     |
//!    | root and binds mounted                    |
//!    |---- Maps + descriptors ------------------>| becomes root of its user namespace
//!    | cgroup made (v1)                           | root attached, mounts, devices
//!    |---- Cgroup ------------------------------>| cgroup mounts, masks, pivot_root,
//!    | child moved (v1); network, in parallel    | user, working directory
//!    |<--- Shown + number, descriptor -----------| a bind of the root's own parts under other ids, each
//!    |---- Shown ------------------------------->|
//!    |<--- Mounted (hooks only) -----------------| before pivot_root
//!    | prestart and createRuntime hooks          |
//!    |---- Hooked ------------------------------>| createContainer hooks
//!    |<--- Console + descriptor (terminal only) -|
//!    |<--- Ready --------------------------------|
//!    | the state is `created`                    | waits: here, or at its door (below)
//!    |---- Start ------------------------------->| capabilities, startContainer hooks, seccomp
//!    |<--- Listener + number (notify only) ------|
//!    | takes that descriptor, gives it away      |
//!    |---- Hooked ------------------------------>| execve
//!    |<--- end of file: the program runs --------|
//!    |<--- Failed + status, errno, step ---------| at any point instead
//! ```
//!
//! Where the child makes a cgroup namespace or runs hooks of its own, `Cgroup` comes after the move. With hooks, or where a later
//! mount might lie below the cgroups or over them, the child waits for it where the cgroup mount stands among the others.
//!
//! With a door, a listening socket, the child lets go of its maker after `Ready`. Whoever starts it, in another process at
//! another time, connects to the door, hears `Ready` again, and carries the conversation on from there.
//!
//! `enter.rs` draws the same for a further process, where `Born` brings its pid and pidfd.

use crate::error::{Context, Error};
use brig_sys::clone::Child;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most descriptors of one packet: the kernel's own limit, `SCM_MAX_FD`.
const MAX_FDS: usize = 253;

/// What a packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Word {
    Maps = b'M',
    Cgroup = b'G',
    Born = b'B',
    Console = b'C',
    Ready = b'R',
    Start = b'S',
    Shown = b'I',
    Mounted = b'P',
    Hooked = b'H',
    Listener = b'L',
    Failed = b'E',
}

impl Word {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            b'M' => Self::Maps,
            b'G' => Self::Cgroup,
            b'B' => Self::Born,
            b'C' => Self::Console,
            b'R' => Self::Ready,
            b'S' => Self::Start,
            b'I' => Self::Shown,
            b'P' => Self::Mounted,
            b'H' => Self::Hooked,
            b'L' => Self::Listener,
            b'E' => Self::Failed,
            _ => return None,
        })
    }
}

/// One end of the conversation.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// A packet that came.
#[derive(Debug)]
pub(crate) struct Packet {
    pub word: Word,
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// Makes the two ends.
pub(crate) fn pair() -> Result<(Channel, Channel), Error> {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .step(|| "make the channel to the container's process".into())?;
    Ok((Channel(a), Channel(b)))
}

impl Channel {
    /// Takes a connected socket as an end.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends a number by write(2) and waits for an answer by read(2): two calls are all that a filter that watches this very
    /// process needs to let through.
    pub fn ask_plainly(&self, word: Word, number: i32) -> std::io::Result<()> {
        let mut bytes = [word as u8; 5];
        bytes[1..].copy_from_slice(&number.to_le_bytes());
        rustix::io::write(&self.0, &bytes)?;
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut bytes[..]))? {
            0 => Err(std::io::Error::other("the starter is gone")),
            _ => Ok(()),
        }
    }

    /// Sends a word.
    pub fn say(&self, word: Word) -> std::io::Result<()> {
        self.send(word, &[], &[])
    }

    /// Sends a word to a process that may have failed meanwhile: then the error is what it said of that.
    pub fn tell(&self, word: Word) -> Result<(), Error> {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        match self.say(word) {
            Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {
                self.expect(word).map(drop).and(Err(Error::setup("tell the container's process to go on", error)))
            }
            result => result.step(|| "tell the container's process to go on".into()),
        }
    }

    /// Sends a word with bytes and descriptors.
    pub fn send(&self, word: Word, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> std::io::Result<()> {
        let head = [word as u8];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(std::io::Error::from(rustix::io::Errno::TOOMANYREFS));
        }
        sendmsg(&self.0, &[IoSlice::new(&head), IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for a packet; none at the end of the conversation.
    pub fn receive(&self) -> std::io::Result<Option<Packet>> {
        let mut bytes = vec![0; 4096];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut receive = || {
            rustix::io::retry_on_intr(|| {
                recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            })
        };
        let message = match receive() {
            // The other side left with a word unread. That is told once, and before what it said last.
            Err(rustix::io::Errno::CONNRESET) => receive(),
            other => other,
        };
        let count = match message {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if count == 0 {
            return Ok(None);
        }
        let word =
            Word::from_byte(bytes[0]).ok_or_else(|| std::io::Error::other("unknown word in the conversation"))?;
        bytes.truncate(count);
        bytes.remove(0);
        Ok(Some(Packet { word, bytes, fds }))
    }

    /// What the other side has reported of its failure, if it has; does not wait for it.
    pub fn failure(&self) -> Option<Error> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        while poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&at_once)) == Ok(1) {
            let packet = self.receive().ok()??;
            if packet.word == Word::Failed {
                return Some(Error::from_bytes(&packet.bytes));
            }
        }
        None
    }

    /// Waits for one given word. Errors: what the other side reports, its silence, or another word.
    pub fn expect(&self, word: Word) -> Result<Packet, Error> {
        let step = || "hear from the other side of the start".to_owned();
        match self.receive().step(step)? {
            Some(packet) if packet.word == word => Ok(packet),
            Some(packet) if packet.word == Word::Failed => Err(Error::from_bytes(&packet.bytes)),
            Some(packet) => Err(Error::invalid(step(), format!("{:?} came instead of {word:?}", packet.word))),
            None => Err(Error::invalid(step(), "it ended before it was ready (killed, or out of memory)")),
        }
    }
}

/// Tells of a process that was born by one which now ends: [`Word::Born`], its pid and its pidfd, or why not. Returns the exit
/// status to end with.
pub(crate) fn tell_of_birth(channel: &Channel, child: &Result<Child, Error>) -> i32 {
    let said = match child {
        Ok(child) => channel.send(Word::Born, &child.pid.to_le_bytes(), &[child.pidfd.as_fd()]),
        Err(error) => channel.send(Word::Failed, &error.to_bytes(), &[]),
    };
    i32::from(said.is_err())
}

/// Takes the process that [`tell_of_birth`] tells of, a child of this one by CLONE_PARENT, and lets it go on.
pub(crate) fn hear_of_birth(channel: &Channel) -> Result<Child, Error> {
    let packet = channel.expect(Word::Born)?;
    let pid = packet.bytes.try_into().map(i32::from_le_bytes).ok();
    match (pid, packet.fds.into_iter().next()) {
        (Some(pid), Some(pidfd)) => {
            channel.say(Word::Born).step(|| "tell the process to go on".into())?;
            Ok(Child { pid, pidfd })
        }
        _ => Err(Error::invalid("make the process", "it was not handed over")),
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that fails before it has heard what it was told: its last words arrive all the same.
    #[test]
    fn last_words_are_heard_whatever_was_left_unread() {
        let failed = |theirs: Channel| {
            theirs.send(Word::Failed, &Error::invalid("mount it", "it is odd").to_bytes(), &[]).unwrap();
        };
        let (ours, theirs) = pair().unwrap();
        ours.say(Word::Cgroup).unwrap();
        assert!(ours.failure().is_none(), "nothing is waited for");
        failed(theirs);
        assert_eq!(ours.expect(Word::Ready).unwrap_err().step, "mount it");
        assert!(ours.receive().unwrap().is_none());
        assert!(ours.failure().is_none());
        // The next word finds it gone: by EPIPE, or by ECONNRESET where something was left unread.
        for unread in [false, true] {
            let (ours, theirs) = pair().unwrap();
            if unread {
                ours.say(Word::Maps).unwrap();
            }
            failed(theirs);
            assert_eq!(ours.tell(Word::Cgroup).unwrap_err().step, "mount it", "{unread}");
            let (ours, theirs) = pair().unwrap();
            theirs.say(Word::Mounted).unwrap();
            failed(theirs);
            assert_eq!(ours.failure().unwrap().step, "mount it");
        }
    }
}
