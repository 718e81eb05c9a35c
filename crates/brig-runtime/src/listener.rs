//! `SCMP_ACT_NOTIFY`: the descriptor through which another program answers the container's system calls is taken from the
//! process and handed to the socket that the configuration names; config-linux.md, "The Container Process State".

use crate::error::{Context, Error};
use crate::hooks::Description;
use brig_spec::runtime::{LinuxSeccomp, Spec};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sendmsg,
};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Where a container's notifications go, and what is said of it there.
#[derive(Debug)]
pub(crate) struct Listener {
    path: PathBuf,
    metadata: String,
    description: Description,
}

impl Listener {
    /// Reads it from the configuration; none where nothing is to be notified.
    pub fn parse(spec: &Spec, description: &Description) -> Option<Self> {
        let seccomp: &LinuxSeccomp = spec.linux.as_ref()?.seccomp.as_ref()?;
        if seccomp.listener_path.as_os_str().is_empty() {
            return None;
        }
        Some(Self {
            path: seccomp.listener_path.clone(),
            metadata: seccomp.listener_metadata.clone(),
            description: description.clone(),
        })
    }

    /// Takes descriptor `number` of the process `pid` and sends it, with the container's state, in one message.
    pub fn hand_over(&self, pid: i32, pidfd: BorrowedFd<'_>, number: i32, status: &str) -> Result<(), Error> {
        let step = || format!("hand the seccomp notifications to {}", self.path.display());
        let fd: OwnedFd = pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).step(step)?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).step(step)?;
        let address = SocketAddrUnix::new(&self.path).step(step)?;
        rustix::net::connect(&socket, &address)
            .map_err(|errno| io::Error::other(format!("failed to connect with seccomp agent: {errno}")))
            .step(step)?;
        let mut message = serde_json::json!({
            "ociVersion": self.description.state(status, pid)["ociVersion"],
            "fds": ["seccompFd"],
            "pid": pid,
            "state": self.description.state(status, pid),
        });
        if !self.metadata.is_empty() {
            message["metadata"] = self.metadata.clone().into();
        }
        let fds = [fd.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let text = message.to_string();
        let sent =
            sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL).step(step)?;
        if sent == text.len() {
            Ok(())
        } else {
            Err(Error::invalid(step(), "the socket took only a part of the state"))
        }
    }
}
