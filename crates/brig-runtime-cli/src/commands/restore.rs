//! `restore`: makes a container again from the files of a `checkpoint`.
//!
//! ```text
//! bundle/config.json ─ parse ─> reserve <root>/<id> ─> cgroup, with criu in it ─> staged root ─> RESTORE
//!   setup-namespaces    loopback, prestart and createRuntime hooks          namespaces stand, nothing runs
//!   orphan-pts-master   the terminal goes to its socket, or stays here
//!   post-restore        is this what the configuration describes?  record   processes stand, and wait
//!   pre-resume          the same for their users and capabilities
//! ─> pid file, poststart hooks
//! ```
//!
//! Mounts, namespaces and the cgroup are those of the configuration. From the images comes what the processes are, and it is
//! compared with the configuration before any of them goes on; see `criu/verify.rs`. Upon failure everything is undone.

use super::{Command, container_id};
use crate::arguments::{Ends, Opt, Parsed, flag, value};
use crate::container::{self, Container, Record};
use crate::criu::directories::Directories;
use crate::criu::protobuf::Message;
use crate::criu::request::{self, Kind, Response, options as o};
use crate::criu::staged::{self, Staged};
use crate::criu::verify::Expected;
use crate::criu::{self, Program, Session, Stdio, bytes, descriptors, externals, flags, quote};
use crate::failure::{Failure, Step};
use crate::foreground::Foreground;
use crate::global::Global;
use crate::{make, sockets, teardown};
use brig_runtime::cgroup::Cgroup;
use brig_runtime::hooks::{self, Description, Moment};
use brig_spec::runtime::{LinuxNamespaceType, Spec};
use brig_sys::clone::{Child, clone_process, flags::NEWNET, setns};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const OPTIONS: [Opt; 20] = flags::with([
    value("console-socket", '\0', "a socket that receives the terminal's controlling side"),
    value("pidfd-socket", '\0', "a socket that receives a descriptor of the first process"),
    value("bundle", 'b', "the bundle's directory (default: the present one)"),
    flag("detach", 'd', "leave the container to itself once it runs"),
    value("pid-file", '\0', "a file that receives the pid of the first process"),
    flag("no-subreaper", '\0', "do not become the parent of orphans"),
    flag("no-pivot", '\0', "taken for the sake of callers: criu decides how the root is changed"),
    flag(
        "no-new-keyring",
        '\0',
        "taken for the sake of callers: a restored container has the keyring of its checkpoint",
    ),
    value("lsm-profile", '\0', "another security label than that of the checkpoint: TYPE:NAME"),
    value("lsm-mount-context", '\0', "another SELinux context for mounts than that of the checkpoint"),
]);

pub(crate) const COMMAND: Command = Command {
    name: "restore",
    operands: "CONTAINER",
    about: "make a container again from its checkpoint",
    options: &OPTIONS,
    ends: Ends::Never,
    enters: false,
    run,
};

/// The name of criu's log.
const LOG: &str = "restore.log";
const KILL: i32 = 9;

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    criu::warn_rootless(global, "restore");
    let id = container_id(parsed)?;
    container::check_id(id)?;
    flags::check(parsed)?;
    let detach = parsed.has("detach");
    let options = make::Options::read(parsed, detach)?;
    let program = Program::find(global)?;
    staged::leave_machine()?;
    let directories = Directories::open(parsed, false)?;
    if detach {
        restore(global, parsed, &options, &program, &directories)?;
        return Ok(0);
    }
    if !parsed.has("no-subreaper") {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).step(|| "become a subreaper")?;
    }
    let foreground = Foreground::begin()?;
    let restored = restore(global, parsed, &options, &program, &directories)?;
    let status = foreground.attend(&restored.child, restored.console);
    teardown::tear_down(global, &restored.container, Some(&restored.spec))?;
    status
}

struct Restored {
    container: Container,
    child: Child,
    spec: Spec,
    console: Option<OwnedFd>,
}

fn restore(
    global: &Global,
    parsed: &Parsed,
    options: &make::Options,
    program: &Program,
    directories: &Directories,
) -> Result<Restored, Failure> {
    let id = container_id(parsed)?;
    let bundle = &options.bundle;
    rustix::process::chdir(bundle).step(|| format!("enter the bundle {}", bundle.display()))?;
    let (text, spec) = make::read_bundle(bundle)?;
    let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    if let Some(process) = &spec.process {
        make::check_terminal(process, options)?;
    }
    // Its mounts would lie in that of others.
    if brig_runtime::shares_mounts(&spec) {
        return Err(Failure::new("cannot restore the container: it has no mount namespace of its own"));
    }
    let rootfs = make::rootfs_path(&spec, bundle)?;
    let cgroup = make::cgroup_of(global, &spec, id)?;
    let (directory, directory_fd) = Container::reserve(&global.root, id)?;
    let description = Description::new(id, bundle, &spec);
    let stdio = if terminal { Stdio::Null } else { Stdio::Ours };
    let plan = Plan {
        global,
        parsed,
        program,
        directories,
        spec: &spec,
        rootfs: &rootfs,
        cgroup: &cgroup,
        id,
        bundle,
        directory: &directory,
        directory_fd: directory_fd.as_fd(),
        description: &description,
        stdio,
    };
    let reached = Reached::default();
    let finished = make::keep_configuration(directory_fd.as_fd(), &text)
        .and_then(|()| bring_up(&plan, &reached))
        .and_then(|child| {
            let container = Container::load(&global.root, id)?;
            let console = hand_out(options, &child, reached.console.take())?;
            run_hooks(&spec, Moment::Poststart, &description, "running", child.pid)?;
            Ok((container, child, console))
        });
    match finished {
        Ok((container, child, console)) => Ok(Restored { container, child, spec, console }),
        Err(failure) => {
            undo(&plan, &reached);
            Err(failure.during("restore failed"))
        }
    }
}

struct Plan<'a> {
    global: &'a Global,
    parsed: &'a Parsed,
    program: &'a Program,
    directories: &'a Directories,
    spec: &'a Spec,
    rootfs: &'a Path,
    cgroup: &'a Cgroup,
    id: &'a str,
    bundle: &'a Path,
    directory: &'a Path,
    directory_fd: BorrowedFd<'a>,
    description: &'a Description,
    stdio: Stdio,
}

/// How far an attempt came, and what it found on its way.
#[derive(Debug, Default)]
struct Reached {
    /// The cgroup is this container's.
    cgroup: Cell<bool>,
    /// The first process, as soon as there is one.
    pid: Cell<Option<i32>>,
    console: RefCell<Option<OwnedFd>>,
    /// This program, and not criu, ended the restore.
    refused: Cell<bool>,
}

fn bring_up(plan: &Plan<'_>, reached: &Reached) -> Result<Child, Failure> {
    let log = &plan.global.log;
    let staged = Staged::new(plan.rootfs, plan.directory, plan.spec)?;
    let mut options = flags::begin(plan.parsed, plan.spec, plan.directories, LOG)?;
    options.flag(o::EVASIVE_DEVICES, true).flag(o::RST_SIBLING, true).text(o::ROOT, bytes(staged.path()));
    for (name, field) in [("lsm-profile", o::LSM_PROFILE), ("lsm-mount-context", o::LSM_MOUNT_CONTEXT)] {
        if let Some(value) = plan.parsed.filled(name) {
            options.text(field, value.as_bytes());
        }
    }
    let extra = externals::give_namespaces(&mut options, plan.spec)?;
    externals::give_mounts(&mut options, plan.spec, plan.cgroup, staged.binds())?;
    if plan.stdio == Stdio::Ours {
        for (number, pipe) in descriptors::inherited(plan.directories.images.as_fd())? {
            request::add_descriptor(&mut options, &pipe, number);
        }
    }
    // Where criu makes no cgroup namespace it is born with it.
    let ignored = flags::ignores_cgroups(plan.parsed);
    let namespace = plan.spec.namespace(LinuxNamespaceType::Cgroup);
    let own_cgroup = ignored && namespace.is_some_and(|n| n.joined().is_none());
    let mut session = Session::prepare(plan.program, plan.stdio, &extra, own_cgroup)?;
    enclose(plan, &session, &mut options, reached)?;
    session.go();
    let relabelled = plan.parsed.filled("lsm-profile").is_some();
    let keeps = plan.program.keeps_no_new_privs();
    if !keeps && plan.spec.process.as_ref().is_some_and(|process| process.no_new_privileges) {
        log.warning(
            "criu before 3.19 does not restore no_new_privs: the container's processes may gain new privileges",
        );
    }
    let expected = Expected::new(plan.spec, staged.path(), plan.cgroup, session.pid())?;
    let expected = expected.relabelled(relabelled).keeps_no_new_privs(keeps);
    let request = request::request(Kind::Restore, Some(&options));
    session
        .ask(log, Kind::Restore, &request, |notification, fds| {
            let answer = answer(plan, &expected, reached, notification, fds);
            reached.refused.set(answer.is_err());
            answer
        })
        .map_err(|failure| {
            if reached.refused.get() { failure } else { quote::explain(log, &plan.directories.log(LOG), failure) }
        })?;
    session.end()?;
    let pid = reached.pid.get().and_then(Pid::from_raw).ok_or_else(|| Failure::new("criu restored no process"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).step(|| "open the first process")?;
    Ok(Child { pid: pid.as_raw_nonzero().get(), pidfd })
}

/// Makes the cgroup and puts criu into it, whose children the restored processes are; what the images say of cgroups is
/// moved to there.
fn enclose(plan: &Plan<'_>, session: &Session, options: &mut Message, reached: &Reached) -> Result<(), Failure> {
    let resources = plan.spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    plan.cgroup.enclose(session.pid(), resources, |_| Ok(()))?;
    reached.cgroup.set(true);
    let path = format!("/proc/{}/cgroup", session.pid());
    let text = std::fs::read_to_string(&path).step(|| format!("read {path}"))?;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(cgroup)) = (parts.next(), parts.next()) else { continue };
        for controller in controllers.split(',') {
            request::add_cgroup_root(options, controller, cgroup);
        }
    }
    Ok(())
}

/// Does what is to be done at one moment of the restore.
fn answer(
    plan: &Plan<'_>,
    expected: &Expected<'_>,
    reached: &Reached,
    notification: &Response,
    fds: Vec<OwnedFd>,
) -> Result<(), Failure> {
    match notification.script.as_deref().unwrap_or_default() {
        "setup-namespaces" => {
            reached.pid.set(Some(notification.pid));
            let network = plan.spec.namespace(LinuxNamespaceType::Network);
            if network.is_some_and(|n| n.joined().is_none()) {
                loopback_up(notification.pid)?;
            }
            run_hooks(plan.spec, Moment::Prestart, plan.description, "creating", notification.pid)?;
            run_hooks(plan.spec, Moment::CreateRuntime, plan.description, "creating", notification.pid)
        }
        "orphan-pts-master" => {
            *reached.console.borrow_mut() = fds.into_iter().next();
            Ok(())
        }
        "post-restore" => {
            reached.pid.set(Some(notification.pid));
            expected.check_place(notification.pid)
        }
        "pre-resume" => {
            let pid = reached.pid.get().unwrap_or(-1);
            let checked = expected.check_identity(pid).and_then(|()| write_record(plan, pid));
            if checked.is_err() {
                // criu only takes note of a failure here. What is dead does not go on.
                Expected::kill(pid);
            }
            checked
        }
        _ => Ok(()),
    }
}

/// Writes the record: as soon as the container goes on it is found.
fn write_record(plan: &Plan<'_>, pid: i32) -> Result<(), Failure> {
    let given = plan.stdio != Stdio::Null;
    let record = Record::new(plan.id, pid, plan.bundle, plan.rootfs, plan.cgroup, given)?;
    let directory_fd = plan.directory_fd.try_clone_to_owned().step(|| "keep the container's directory")?;
    Container::new(plan.directory.into(), directory_fd, record).write()
}

/// Sets up the loopback interface of the restored network namespace, which is an empty one.
fn loopback_up(pid: i32) -> Result<(), Failure> {
    let step = || "set up the loopback interface";
    let target = Pid::from_raw(pid).ok_or_else(|| Failure::new("criu names no process"))?;
    let pidfd = pidfd_open(target, PidfdFlags::empty()).step(step)?;
    let helper = clone_process(0, None, || {
        let done = setns(pidfd.as_fd(), NEWNET).and_then(|()| brig_sys::interface::loopback_up());
        i32::from(done.is_err())
    })
    .step(step)?;
    let ended = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(helper.pidfd.as_fd()), WaitIdOptions::EXITED));
    match ended.step(step)?.and_then(|status| status.exit_status()) {
        Some(0) => Ok(()),
        _ => Err(Failure::new("cannot set up the loopback interface of the restored container")),
    }
}

fn run_hooks(spec: &Spec, moment: Moment, state: &Description, status: &str, pid: i32) -> Result<(), Failure> {
    match spec.hooks.as_ref().map(|hooks| moment.of(hooks)) {
        None | Some([]) => Ok(()),
        Some(hooks) => Ok(hooks::run(moment, hooks, &state.state(status, pid), state.bundle())?),
    }
}

/// Gives the caller what it asked for; returns a terminal that nobody took.
fn hand_out(options: &make::Options, child: &Child, console: Option<OwnedFd>) -> Result<Option<OwnedFd>, Failure> {
    let mut console = console;
    if let Some(path) = &options.console_socket
        && let Some(console) = console.take()
    {
        sockets::send_fd(path, "/dev/ptmx", console.as_fd())?;
    }
    if let Some(path) = &options.pidfd_socket {
        sockets::send_fd(path, "pidfd", child.pidfd.as_fd())?;
    }
    if let Some(path) = &options.pid_file {
        sockets::write_pid_file(path, child.pid)?;
    }
    Ok(console)
}

/// Takes away what a failed attempt made.
fn undo(plan: &Plan<'_>, reached: &Reached) {
    if let Some(pid) = reached.pid.get() {
        // As long as it is not reaped, the pid of this process's own child is nobody else's.
        let own = Pid::from_raw(pid).map(|pid| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG));
        if matches!(own, Some(Ok(None))) {
            let _ = brig_sys::signals::send(pid, KILL);
            let _ = Pid::from_raw(pid).map(|pid| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED));
        }
        if let Err(failure) = run_hooks(plan.spec, Moment::Poststop, plan.description, "stopped", 0) {
            plan.global.log.warning(&failure.to_string());
        }
    }
    // One whose making failed has taken itself away, or is another's.
    if reached.cgroup.get() {
        let _ = plan.cgroup.kill_all();
        let _ = plan.cgroup.remove();
    }
    let _ = container::forget(plan.directory);
}
