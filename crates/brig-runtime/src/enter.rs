//! A further process in a running container: the runtime's half of exec.
//!
//! ```text
//! caller (single-threaded, made for this)        child
//!   opens the container's cgroup and pidfd
//!   setns(pid): its children are born inside
//!   clone3 (v2: in the cgroup)  ------------->   setns(all others), /, user, directory
//!   v1: moves the child, Cgroup ------------->   terminal; Ready; waits
//!   limits, Start               ------------->   capabilities, seccomp, execve
//! ```
//!
//! The caller must not be reachable from inside: it is not dumpable, and its executable is not writable (see
//! `brig-monitor`'s `protect.rs`).

use crate::cgroup::Cgroup;
use crate::create::Running;
use crate::error::{Context, Error};
use crate::program::{Program, open_terminal, own_stdio, place_stdio};
use crate::protocol::{self, Channel, Word};
use brig_spec::runtime::{Process, Spec};
use brig_sys::clone::{Child, clone_process, flags, setns};
use brig_sys::root::Root;
use rustix::fs::{Mode, OFlags};
use rustix::process::DumpableBehavior;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What a further process is made from.
#[derive(Debug)]
pub struct Request<'a> {
    /// The process to start.
    pub process: &'a Process,
    /// The container's configuration: its filter and its annotations.
    pub spec: &'a Spec,
    /// The container's first process.
    pub pidfd: BorrowedFd<'a>,
    /// The container's cgroup.
    pub cgroup: &'a Cgroup,
    /// Standard input, output and error; none with a terminal.
    pub stdio: Option<[OwnedFd; 3]>,
}

/// A further process that is ready to be started.
#[derive(Debug)]
pub struct Entered {
    child: Child,
    channel: Channel,
    program: Program,
    /// The controlling side of its terminal.
    pub console: Option<OwnedFd>,
}

/// Makes the process. The caller's own children are born in the container's pid namespace from then on.
pub fn enter(request: Request<'_>) -> Result<Entered, Error> {
    let program = Program::parse(request.process, request.spec)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .step(|| "close this process to others".into())?;
    let birthplace = request.cgroup.birthplace()?;
    setns(request.pidfd, flags::NEWPID).step(|| "join the container's pid namespace".into())?;
    let (ours, theirs) = protocol::pair()?;
    let born = birthplace.is_some();
    let mut stdio = request.stdio;
    let child = clone_process(0, birthplace.as_ref().map(AsFd::as_fd), || {
        run(&program, request.pidfd, stdio.take(), born, &theirs)
    })
    .step(|| "make the process".into())?;
    drop(theirs);
    drop(stdio);
    if !born {
        request.cgroup.add(child.pid)?;
        ours.say(Word::Cgroup).step(|| "tell the process to go on".into())?;
    }
    let mut entered = Entered { child, channel: ours, program, console: None };
    if entered.program.terminal {
        entered.console = entered.channel.expect(Word::Console)?.fds.into_iter().next();
    }
    entered.channel.expect(Word::Ready)?;
    Ok(entered)
}

impl Entered {
    /// Starts the program. Errors: the command cannot be executed.
    pub fn start(self) -> Result<Running, Error> {
        let mut warnings = Vec::new();
        crate::limits::apply(self.child.pid, &self.program, &mut warnings)?;
        self.channel.say(Word::Start).step(|| "start the process".into())?;
        match self.channel.receive().step(|| "hear from the process".into())? {
            Some(packet) if packet.word == Word::Failed => Err(Error::from_bytes(&packet.bytes)),
            _ => Ok(Running { child: self.child, warnings }),
        }
    }
}

fn run(program: &Program, pidfd: BorrowedFd<'_>, stdio: Option<[OwnedFd; 3]>, born: bool, channel: &Channel) -> i32 {
    let error = match set_up(program, pidfd, stdio, born, channel) {
        Ok(settled) => {
            if channel.say(Word::Ready).is_err() || channel.expect(Word::Start).is_err() {
                return 1;
            }
            program.execute(&settled)
        }
        Err(error) => error,
    };
    let _ = channel.send(Word::Failed, &error.to_bytes(), &[]);
    1
}

fn set_up(
    program: &Program,
    pidfd: BorrowedFd<'_>,
    stdio: Option<[OwnedFd; 3]>,
    born: bool,
    channel: &Channel,
) -> Result<crate::program::Settled, Error> {
    if !born {
        channel.expect(Word::Cgroup)?;
    }
    join_namespaces(pidfd)?;
    rustix::process::setsid().step(|| "make a session".into())?;
    let root = Root::open_directory(Path::new("/")).step(|| "open the container's root".into())?;
    if program.terminal {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let pts =
            root.open(Path::new("/dev/pts"), flags, Mode::empty()).step(|| "open the container's /dev/pts".into())?;
        let (master, _slave) = open_terminal(pts.as_fd(), program.console_size)?;
        channel.send(Word::Console, &[], &[master.as_fd()]).step(|| "hand over the terminal".into())?;
    } else if let Some([stdin, stdout, stderr]) = stdio {
        place_stdio([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
    }
    let settled = program.settle(&root)?;
    own_stdio(&settled.identity);
    Ok(settled)
}

/// Joins all namespaces of the container at once. One that is this process's own already (the machine's user namespace,
/// above all) is left out: the kernel refuses to join it again.
fn join_namespaces(pidfd: BorrowedFd<'_>) -> Result<(), Error> {
    let all = flags::NEWNS | flags::NEWCGROUP | flags::NEWUTS | flags::NEWIPC | flags::NEWNET;
    // The user namespace is refused with EINVAL exactly when it is the present one.
    if setns(pidfd, all | flags::NEWUSER).is_ok() {
        use rustix::thread::{Gid, Uid};
        let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
        let step = || "become root of the user namespace".to_owned();
        rustix::thread::set_thread_groups(&[]).step(step)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).step(step)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).step(step)?;
    } else {
        setns(pidfd, all).step(|| "join the container's namespaces".into())?;
    }
    // A time namespace is joined only by a single-threaded process, which this is; the same one is no error.
    let _ = setns(pidfd, flags::NEWTIME);
    Ok(())
}
