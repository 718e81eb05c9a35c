//! Checkpoints through criu, the program that writes processes to files and makes them again; criu(8), "swrk".
//!
//! A pair of `SOCK_SEQPACKET` sockets; each packet is a message of `criu/request.rs`.
//!
//! ```text
//!  this program                                criu swrk 3 (child)             the container
//!    |---- DUMP or RESTORE, with options ------->|
//!    |                                           |---- frozen and read, or --->|
//!    |                                           |     made anew, a sibling    |
//!    |<--- NOTIFY: setup-namespaces, ------------|
//!    |     post-restore, orphan-pts-master (+ descriptor), pre-resume, status-ready, ...
//!    |---- go on, or not ----------------------->|     not: it undoes what it did
//!    |<--- the same kind: success or errno ------|
//!    |---- end of file ------------------------->| exits
//! ```
//!
//! Numbers of directories in a request are descriptors of this process, which criu opens through /proc; those of pipes and
//! namespaces are criu's own, handed on from [`Session::FIRST_EXTRA`].

pub(crate) mod descriptors;
pub(crate) mod directories;
pub(crate) mod externals;
pub(crate) mod flags;
mod mounted;
pub(crate) mod protobuf;
pub(crate) mod quote;
pub(crate) mod request;
pub(crate) mod staged;
pub(crate) mod verify;

use crate::failure::{Failure, Step};
use crate::global::Global;
use crate::log::Log;
use brig_sys::clone::{Child, clone_process};
use brig_sys::exec::{StringList, execve};
use protobuf::Message;
use request::{Feature, Kind, Response};
use rustix::fs::{Access, Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, send, socketpair,
};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::ffi::CString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The oldest version that this program talks to: the first that restores under another security label.
const OLDEST: i32 = 31_600;
/// The largest message that criu sends, bytes.
const MOST: usize = 1 << 18;
/// Where descriptors are out of the way of those that criu expects by number.
const ASIDE: i32 = 64;

/// The criu program.
#[derive(Debug)]
pub(crate) struct Program {
    path: CString,
    words: StringList,
    environment: StringList,
    version: i32,
}

impl Program {
    /// Finds the program, and checks its version. Errors: there is none, or it is too old.
    pub fn find(global: &Global) -> Result<Self, Failure> {
        let name = global.criu.as_deref().unwrap_or("criu");
        let search = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin".into());
        let candidates: Vec<PathBuf> = if name.contains('/') {
            vec![name.into()]
        } else {
            std::env::split_paths(&search).map(|directory| directory.join(name)).collect()
        };
        let runs = |path: &&PathBuf| path.is_file() && rustix::fs::access(*path, Access::EXEC_OK).is_ok();
        let Some(path) = candidates.iter().find(runs) else {
            return Err(Failure::new(format!(
                "checkpoints need the program criu, and there is no `{name}` (install criu, or name it with --criu)"
            )));
        };
        let path = std::path::absolute(path).step(|| format!("find {}", path.display()))?;
        let step = || format!("run {}", path.display());
        let environment = std::env::vars_os().map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat());
        let mut program = Self {
            path: CString::new(path.as_os_str().as_bytes()).step(step)?,
            words: StringList::new(["criu", "swrk", "3"]).step(step)?,
            environment: StringList::new(environment).step(step)?,
            version: 0,
        };
        let version = program.ask_version(&global.log)?;
        program.version = version;
        global.log.debug(&format!("criu: {} has version {version}", path.display()));
        if version < OLDEST {
            return Err(Failure::new(format!("criu {version} is too old: {OLDEST} or newer is needed")));
        }
        Ok(program)
    }

    /// Says whether it restores no_new_privs; prctl(2).
    pub fn keeps_no_new_privs(&self) -> bool {
        self.version >= 31_900
    }

    fn ask_version(&self, log: &Log) -> Result<i32, Failure> {
        let mut session = Session::start(self, Stdio::Null, &[])?;
        let answer = session.ask(log, Kind::Version, &request::request(Kind::Version, None), |_, _| Ok(()))?;
        answer.version.ok_or_else(|| Failure::new("criu does not tell its version"))
    }

    /// Makes sure that criu and the kernel have a feature.
    pub fn require(&self, log: &Log, feature: Feature) -> Result<(), Failure> {
        let mut session = Session::start(self, Stdio::Null, &[])?;
        let answer = session
            .ask(log, Kind::FeatureCheck, &request::feature_request(feature), |_, _| Ok(()))
            .map_err(|e| e.during("criu cannot say what this machine has"))?;
        if answer.lacks(feature) {
            return Err(Failure::new(format!("criu is missing features: {} (kernel or criu)", feature.words())));
        }
        Ok(())
    }
}

/// What criu, and a container without a terminal that it restores, has as standard input, output and error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdio {
    Null,
    Ours,
}

/// A criu process, and the conversation with it.
#[derive(Debug)]
pub(crate) struct Session {
    criu: Option<Child>,
    socket: Option<OwnedFd>,
    /// Held back until [`Session::go`].
    gate: Option<OwnedFd>,
}

impl Session {
    /// The number that the first further descriptor has in the criu process.
    pub const FIRST_EXTRA: i32 = 4;

    /// Starts criu, which waits for a request.
    pub fn start(program: &Program, stdio: Stdio, extra: &[OwnedFd]) -> Result<Self, Failure> {
        let mut session = Self::prepare(program, stdio, extra, false)?;
        session.go();
        Ok(session)
    }

    /// Makes criu's process, which waits for [`Session::go`]; then, if asked, with a cgroup namespace of its own: its root is
    /// the cgroup in which the process is by then.
    pub fn prepare(
        program: &Program,
        stdio: Stdio,
        extra: &[OwnedFd],
        own_cgroup_namespace: bool,
    ) -> Result<Self, Failure> {
        let step = || format!("run {}", program.path.to_string_lossy());
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).step(step)?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(step)?;
        let (closed, gate) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step(step)?;
        let aside = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, ASIDE);
        let handed = [&theirs].into_iter().chain(extra).map(aside).collect::<Result<Vec<_>, _>>().step(step)?;
        let criu = clone_process(0, None, || {
            let place = || -> std::io::Result<()> {
                brig_sys::fds::close_copy(gate.as_fd());
                // It opens by being closed.
                rustix::io::retry_on_intr(|| rustix::io::read(&closed, &mut [0; 1]))?;
                if own_cgroup_namespace {
                    brig_sys::clone::unshare(brig_sys::clone::flags::NEWCGROUP)?;
                }
                if stdio == Stdio::Null {
                    (0..3).try_for_each(|number| brig_sys::fds::place(null.as_fd(), number))?;
                }
                let mut next = 3;
                for fd in &handed {
                    brig_sys::fds::place(fd.as_fd(), next)?;
                    next += 1;
                }
                // What the caller left open is nobody's business from here on. Nothing of this clone is dropped.
                brig_sys::fds::close_all_but(next, &[])?;
                brig_sys::signals::reset()
            };
            if place().is_ok() {
                let _ = execve(&program.path, &program.words, &program.environment);
            }
            127
        })
        .step(step)?;
        Ok(Self { criu: Some(criu), socket: Some(ours), gate: Some(gate) })
    }

    /// Lets the process become criu.
    pub fn go(&mut self) {
        self.gate = None;
    }

    /// The pid of the criu process.
    pub fn pid(&self) -> i32 {
        self.criu.as_ref().map_or(-1, |criu| criu.pid)
    }

    /// Sends a request and stays until its answer. Each notification is given to `notified` with the descriptors that came
    /// with it; what fails there ends the whole. Returns the answer of a request that succeeded.
    pub fn ask(
        &mut self,
        log: &Log,
        kind: Kind,
        request: &Message,
        mut notified: impl FnMut(&Response, Vec<OwnedFd>) -> Result<(), Failure>,
    ) -> Result<Response, Failure> {
        for line in request.shown() {
            log.debug(&format!("criu {}: {line}", kind.name()));
        }
        self.send(request)?;
        let mut refused = None;
        loop {
            let (bytes, fds) = match self.receive() {
                Ok(packet) => packet,
                Err(failure) => return Err(refused.unwrap_or(failure)),
            };
            let answer = Response::parse(&bytes).map_err(|error| Failure::step("understand criu", &error))?;
            if answer.kind == Kind::Notify as i32 && answer.success {
                log.debug(&format!("criu: notify {}", answer.script.as_deref().unwrap_or_default()));
                // Once it was told to stop, what it has to tell changes nothing.
                if refused.is_none() {
                    refused = notified(&answer, fds).err();
                }
                self.send(&request::notified(refused.is_none()))?;
                continue;
            }
            if let Some(failure) = refused {
                return Err(failure);
            }
            if !answer.success {
                return Err(failed(kind, &answer));
            }
            if answer.kind != kind as i32 {
                return Err(Failure::new(format!("criu answered {} with number {}", kind.name(), answer.kind)));
            }
            return Ok(answer);
        }
    }

    /// Ends the conversation and waits for criu's end. Errors: it ended otherwise than with success.
    pub fn end(mut self) -> Result<(), Failure> {
        match self.finish() {
            Some(0) | None => Ok(()),
            Some(status) => Err(Failure::new(format!("criu failed: exit status {status}"))),
        }
    }

    fn finish(&mut self) -> Option<i32> {
        self.go();
        drop(self.socket.take());
        let criu = self.criu.take()?;
        let status =
            rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(criu.pidfd.as_fd()), WaitIdOptions::EXITED)).ok()??;
        status.exit_status().or(Some(128 + status.terminating_signal().unwrap_or(127)))
    }

    fn send(&self, message: &Message) -> Result<(), Failure> {
        let socket = self.socket.as_ref().ok_or_else(ended)?;
        match rustix::io::retry_on_intr(|| send(socket, message.as_bytes(), SendFlags::NOSIGNAL)) {
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(ended()),
            result => result.step(|| "talk to criu").map(drop),
        }
    }

    fn receive(&self) -> Result<(Vec<u8>, Vec<OwnedFd>), Failure> {
        let socket = self.socket.as_ref().ok_or_else(ended)?;
        let mut bytes = vec![0; MOST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = rustix::io::retry_on_intr(|| {
            recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let message = match message {
            Err(rustix::io::Errno::CONNRESET) => return Err(ended()),
            result => result.step(|| "hear from criu")?,
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if message.bytes == 0 {
            return Err(ended());
        }
        if message.flags.contains(ReturnFlags::TRUNC) {
            return Err(Failure::new(format!("criu says more than {MOST} bytes at once")));
        }
        bytes.truncate(message.bytes);
        Ok((bytes, fds))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Told by the end of the conversation it puts back what it has changed, and ends.
        let _ = self.finish();
    }
}

fn ended() -> Failure {
    Failure::new("criu ended before it had answered")
}

fn failed(kind: Kind, answer: &Response) -> Failure {
    Failure::new(format!("criu failed: type {} errno {}", kind.name(), answer.errno))
}

/// The criu configuration file of a container: what its annotation names, none where that is empty, and otherwise the one of
/// this program or, as long as it has none, of runc, which administrators have written for their containers.
pub(crate) fn configuration_file(spec: &brig_spec::runtime::Spec) -> Option<PathBuf> {
    let annotation = spec.annotations.get("org.criu.config");
    match annotation {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.into()),
        None => {
            ["/etc/criu/brig-runtime.conf", "/etc/criu/runc.conf"].map(PathBuf::from).into_iter().find(|p| p.is_file())
        }
    }
}

/// Checks that checkpoints make sense for this user.
pub(crate) fn warn_rootless(global: &Global, command: &str) {
    let root = rustix::process::geteuid().is_root();
    let own = std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.trim_start().starts_with("0 "));
    if !root || own {
        global.log.warning(&format!("{command} is untested without root of the machine"));
    }
}

/// The bytes of a path.
pub(crate) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
