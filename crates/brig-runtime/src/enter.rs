//! A further process in a running container: the runtime's half of exec.
//!
//! ```text
//! caller (single-threaded, made for this)        doorkeeper, not seen inside           child, seen inside
//!   opens the container's cgroup and pidfd
//!   clone3 (v2: in the cgroup)  ------------->
//!   v1: moves it, Cgroup        ------------->   setns(all), closes descriptors
//!                               <-- Born + pidfd  clone3(PARENT)  ----------------->   waits
//!   Born                        ------------------------------------------------->     user, directory, terminal
//!                               <---------------------------------------- Ready        waits
//!   limits, Start               ------------------------------------------------->     capabilities, seccomp, execve
//! ```
//!
//! Whoever has CAP_SYS_PTRACE inside can look into every process of the container's pid namespace. So none is born there
//! before it has left the machine's mounts and all descriptors but its own (CVE-2016-9962, CVE-2024-21626). Nothing here is
//! dumpable, and the executable is not writable (see `brig-monitor`'s `protect.rs`).

use crate::attributes::{Attributes, Birth};
use crate::cgroup::{Cgroup, SubCgroups};
use crate::create::Running;
use crate::error::{Context, Error};
use crate::hooks::Description;
use crate::init;
use crate::launch::{Waiting, launch};
use crate::listener::Listener;
use crate::program::{Program, open_terminal, own_stdio, place_stdio};
use crate::protocol::{self, Channel, Word};
use crate::shared;
use brig_spec::runtime::{Process, Spec};
use brig_sys::clone::{Child, clone_process, exit_now, flags, setns};
use brig_sys::root::Root;
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, WaitId, WaitIdOptions, waitid};
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
    /// Where below it the process goes.
    pub sub: &'a SubCgroups,
    /// Standard input, output and error; none with a terminal, and none to hand on this process's own.
    pub stdio: Option<[OwnedFd; 3]>,
    /// What the container's state says, for a seccomp listener.
    pub description: &'a Description,
    /// How many descriptors after the standard ones the process keeps.
    pub preserved_fds: i32,
}

/// A further process that is ready to be started.
#[derive(Debug)]
pub struct Entered {
    child: Child,
    channel: Channel,
    program: Program,
    listener: Option<Listener>,
    /// The processors on which it was born, the first 64 as bits, where it was asked for some.
    pub initial_processors: Option<u64>,
    /// The controlling side of its terminal.
    pub console: Option<OwnedFd>,
}

/// Makes the process.
pub fn enter(request: Request<'_>) -> Result<Entered, Error> {
    let attributes = Attributes::of_further(request.process, request.spec)?;
    let mut program = Program::parse(request.process, request.spec, attributes)?;
    program.preserved_fds = request.preserved_fds;
    program.keyring = Some(init::keyring_name(request.description.id()));
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .step(|| "close this process to others".into())?;
    let birthplace = match request.cgroup.birthplace_in(request.sub) {
        // A user's container may have no cgroup of its own; whether it may, is for the move to say.
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => None,
        other => other?,
    };
    let (ours, theirs) = protocol::pair()?;
    let in_cgroup = birthplace.is_some();
    let stdio = request.stdio;
    let root = if shared::shares_mounts(request.spec) {
        let pid = pid_of(request.pidfd).step(|| "find the container's first process".into())?;
        Some(shared::root_of(pid, request.pidfd)?)
    } else {
        None
    };
    let birth = program.attributes.begin_birth()?;
    let initial_processors = birth.as_ref().map(Birth::mask);
    let doorkeeper = clone_process(0, birthplace.as_ref().map(AsFd::as_fd), || {
        // With both ends in its hands it would never hear that this process is gone.
        brig_sys::fds::close_copy(ours.as_fd());
        let place = (request.pidfd, root.as_ref().map(AsFd::as_fd));
        keep_door(&program, place, stdio.as_ref(), in_cgroup, &theirs)
    })
    .step(|| "make the process".into())?;
    drop(birth);
    drop(theirs);
    drop(stdio);
    let born = hear_of_birth(&doorkeeper, &ours, if in_cgroup { None } else { Some((request.cgroup, request.sub)) });
    // A doorkeeper that still waits for a word hears that none will come.
    let born = born.map(|child| (child, ours));
    let _ = waitid(WaitId::PidFd(doorkeeper.pidfd.as_fd()), WaitIdOptions::EXITED);
    let (child, channel) = born?;
    let listener = Listener::parse(request.spec, request.description);
    let mut entered = Entered { child, channel, program, listener, initial_processors, console: None };
    if entered.program.terminal {
        entered.console = entered.channel.expect(Word::Console)?.fds.into_iter().next();
    }
    entered.channel.expect(Word::Ready)?;
    entered.program.attributes.apply_processors(entered.child.pid, &mut entered.program.warnings)?;
    entered.program.attributes.apply_to(entered.child.pid)?;
    Ok(entered)
}

impl Entered {
    /// Starts the program. Errors: the command cannot be executed.
    pub fn start(self) -> Result<Running, Error> {
        let waiting = Waiting {
            pid: self.child.pid,
            pidfd: self.child.pidfd.as_fd(),
            limits: &self.program.limits,
            listener: self.listener.as_ref(),
        };
        let mut warnings = self.program.warnings.clone();
        warnings.extend(launch(&self.channel, &waiting)?);
        Ok(Running { child: self.child, warnings })
    }
}

/// Lets the doorkeeper go on, and takes the process that it bore: a child of this one, by CLONE_PARENT.
fn hear_of_birth(
    doorkeeper: &Child,
    channel: &Channel,
    cgroup: Option<(&Cgroup, &SubCgroups)>,
) -> Result<Child, Error> {
    if let Some((cgroup, sub)) = cgroup {
        cgroup.add_to(doorkeeper.pid, sub)?;
        channel.say(Word::Cgroup).step(|| "tell the process to go on".into())?;
    }
    protocol::hear_of_birth(channel)
}

/// The doorkeeper's life: into the container, and one child there. The container is its first process, and its root where that is
/// not its mount namespace's.
fn keep_door(
    program: &Program,
    (pidfd, root): (BorrowedFd<'_>, Option<BorrowedFd<'_>>),
    stdio: Option<&[OwnedFd; 3]>,
    in_cgroup: bool,
    channel: &Channel,
) -> i32 {
    let bear = || -> Result<Child, Error> {
        if !in_cgroup {
            channel.expect(Word::Cgroup)?;
        }
        join_namespaces(pidfd)?;
        if let Some(root) = root {
            shared::change_root(root)?;
        }
        if let Some([stdin, stdout, stderr]) = stdio {
            place_stdio([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
        }
        // Of what was the caller's, the child gets the conversation, and what it was promised.
        brig_sys::fds::close_all_but(3 + program.preserved_fds, &[channel.as_fd()])
            .step(|| "close the descriptors".into())?;
        clone_process(flags::PARENT, None, || run(program, channel)).step(|| "make the process".into())
    };
    // What the descriptors' owners would close is closed already: nothing is dropped here.
    exit_now(protocol::tell_of_birth(channel, &bear()))
}

fn run(program: &Program, channel: &Channel) -> i32 {
    let error = match set_up(program, channel) {
        Ok(settled) => {
            if channel.say(Word::Ready).is_err() {
                return 1;
            }
            match program.shed() {
                Err(error) => error,
                Ok(()) if channel.expect(Word::Start).is_err() => return 1,
                Ok(()) => program.execute(&settled, channel, || Ok(())),
            }
        }
        Err(error) => error,
    };
    let _ = channel.send(Word::Failed, &error.to_bytes(), &[]);
    1
}

fn set_up(program: &Program, channel: &Channel) -> Result<crate::program::Settled, Error> {
    // The doorkeeper speaks first: both say what they say on one channel.
    channel.expect(Word::Born)?;
    rustix::process::setsid().step(|| "make a session".into())?;
    if let Some(name) = &program.keyring {
        init::join_keyring(name, program.selinux())?;
    }
    let root = Root::open_directory(Path::new("/")).step(|| "open the container's root".into())?;
    if program.terminal {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let pts =
            root.open(Path::new("/dev/pts"), flags, Mode::empty()).step(|| "open the container's /dev/pts".into())?;
        let (master, _slave) = open_terminal(pts.as_fd(), program.console_size)?;
        channel.send(Word::Console, &[], &[master.as_fd()]).step(|| "hand over the terminal".into())?;
    }
    let settled = program.settle(&root)?;
    crate::null::reopen(&root);
    own_stdio(&settled.identity);
    Ok(settled)
}

/// Joins all namespaces of the container at once. One that is this process's own already (the machine's user namespace,
/// above all) is left out: the kernel refuses to join it again.
fn join_namespaces(pidfd: BorrowedFd<'_>) -> Result<(), Error> {
    let all = flags::NEWNS | flags::NEWCGROUP | flags::NEWUTS | flags::NEWIPC | flags::NEWNET | flags::NEWPID;
    let step = || "join the container's namespaces".to_owned();
    // The user namespace comes last: it need not own the others, and then only the machine's rights reach them. A caller without
    // these has to be inside first.
    let machine = rustix::process::geteuid().is_root();
    // A user may enter what belongs to the container's user namespace, and no namespace of the machine that the container shares.
    let all = if machine { all } else { other_namespaces(pidfd).step(step)? & all };
    if machine {
        setns(pidfd, all).step(step)?;
        // A time namespace is joined only by a single-threaded process, which this is; the same one is no error, and a kernel may
        // have none.
        let _ = setns(pidfd, flags::NEWTIME);
    }
    match setns(pidfd, if machine { flags::NEWUSER } else { all | flags::NEWUSER }) {
        Ok(()) => {
            init::become_root()?;
            // A change of the user may have opened the process again: fs.suid_dumpable decides.
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
                .step(|| "close this process to others".into())?;
        }
        // The user namespace is refused with EINVAL exactly when it is the present one. Any other failure, such as a memory
        // limit that the container has reached, must not lead inside with the machine's.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            if !machine {
                setns(pidfd, all).step(step)?;
            }
        }
        Err(error) => return Err(error).step(step),
    }
    if !machine {
        let _ = setns(pidfd, flags::NEWTIME);
    }
    Ok(())
}

/// Finds the pid of the process behind a descriptor.
fn pid_of(pidfd: BorrowedFd<'_>) -> std::io::Result<i32> {
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|pid| pid.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or_else(|| rustix::io::Errno::SRCH.into())
}

/// Finds the kinds of namespaces in which a process is elsewhere than this one.
fn other_namespaces(pidfd: BorrowedFd<'_>) -> std::io::Result<u64> {
    let pid = pid_of(pidfd)?.to_string();
    let pid = pid.as_str();
    let kinds = [
        ("mnt", flags::NEWNS),
        ("cgroup", flags::NEWCGROUP),
        ("uts", flags::NEWUTS),
        ("ipc", flags::NEWIPC),
        ("net", flags::NEWNET),
        ("pid", flags::NEWPID),
    ];
    let mut others = 0;
    for (kind, flag) in kinds {
        let place = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        if place(pid)? != place("self")? {
            others |= flag;
        }
    }
    Ok(others)
}
