//! Making a container from a bundle: what `create` and `run` share.
//!
//! ```text
//! bundle/config.json ─ parse ─> reserve <root>/<id> ─> begin, finish (brig-runtime) ─> terminal, pid file, record
//!                                                                              ├─ create: it waits at its door
//!                                                                              └─ run:    started at once
//! ```
//!
//! Upon failure everything is undone: process, cgroup, directory.

use crate::arguments::Parsed;
use crate::container::{self, CONFIG_FILE, Container, DOOR, Record};
use crate::failure::{Failure, Step};
use crate::global::Global;
use crate::{foreground, sockets};
use brig_runtime::cgroup::Cgroup;
use brig_runtime::create::{self, Created, Request, RootMounts, Starting};
use brig_runtime::hooks::{self, Description, Moment};
use brig_runtime::launch;
use brig_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Mount, Process, Spec};
use brig_sys::clone::Child;
use brig_sys::mounts::{Attributes, set_attributes};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// When the program is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// When another command says so.
    Later,
    /// At once.
    Now,
}

/// How a container is made.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub bundle: PathBuf,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    preserved_fds: i32,
    pivot: bool,
    keyring: bool,
    pub detach: bool,
}

impl Options {
    /// Reads the options that `create` and `run` share. Relative paths are those of the caller's directory.
    pub fn read(parsed: &Parsed, detach: bool) -> Result<Self, Failure> {
        let path = |name: &str| -> Result<Option<PathBuf>, Failure> {
            let absolute = |p: &str| std::path::absolute(p).step(|| format!("find {p}"));
            parsed.filled(name).map(absolute).transpose()
        };
        Ok(Self {
            bundle: match path("bundle")? {
                Some(bundle) => bundle,
                None => std::env::current_dir().step(|| "find the present directory")?,
            },
            console_socket: path("console-socket")?,
            pidfd_socket: path("pidfd-socket")?,
            pid_file: path("pid-file")?,
            preserved_fds: parsed.number("preserve-fds")?.unwrap_or(0),
            pivot: !parsed.has("no-pivot"),
            keyring: !parsed.has("no-new-keyring"),
            detach,
        })
    }
}

/// A container that was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub container: Container,
    pub child: Child,
    pub spec: Spec,
    /// The controlling side of its terminal, unless a socket took it.
    pub console: Option<OwnedFd>,
}

/// Makes the container `id`.
pub(crate) fn make(global: &Global, id: &str, options: &Options, start: Start) -> Result<Made, Failure> {
    container::check_id(id)?;
    let bundle = &options.bundle;
    // Paths of the configuration that are not absolute start here: the root file system, sources of binds.
    rustix::process::chdir(bundle).step(|| format!("enter the bundle {}", bundle.display()))?;
    let (text, mut spec) = read_bundle(bundle)?;
    let mut preserved_fds = 0;
    if let Some(process) = &mut spec.process {
        check_terminal(process, options)?;
        preserved_fds = preserve_fds(process, options.preserved_fds)?;
    }
    let rootfs = rootfs_path(&spec, bundle)?;
    let cgroup = cgroup_of(global, &spec, id)?;
    let (directory, directory_fd) = Container::reserve(&global.root, id)?;
    let plan = Plan { global, id, options, start, preserved_fds, spec: &spec, rootfs: &rootfs, cgroup: &cgroup };
    match bring_up(&plan, &text, &directory, directory_fd) {
        Ok((container, child, console)) => Ok(Made { container, child, spec, console }),
        Err((failure, begun)) => {
            if begun {
                let description = Description::new(id, bundle, &spec);
                let after = spec.hooks.as_ref().map(|hooks| Moment::Poststop.of(hooks)).unwrap_or_default();
                if let Err(error) = hooks::run(Moment::Poststop, after, &description.state("stopped", 0), bundle) {
                    global.log.warning(&Failure::from(error).to_string());
                }
                let _ = cgroup.kill_all();
                let _ = cgroup.remove();
            }
            let _ = container::forget(&directory);
            Err(failure)
        }
    }
}

struct Plan<'a> {
    global: &'a Global,
    id: &'a str,
    options: &'a Options,
    start: Start,
    preserved_fds: i32,
    spec: &'a Spec,
    rootfs: &'a Path,
    cgroup: &'a Cgroup,
}

/// What callers see of a failure after the configuration was read.
const DURING: &str = "unable to start container process: error during container init";

/// Makes the process and its record. A failure says whether there was a process to undo.
fn bring_up(
    plan: &Plan<'_>,
    text: &[u8],
    directory: &Path,
    directory_fd: OwnedFd,
) -> Result<(Container, Child, Option<OwnedFd>), (Failure, bool)> {
    let before = |failure: Failure| (failure, false);
    let door = match plan.start {
        Start::Now => None,
        Start::Later => Some(launch::make_door(directory_fd.as_fd(), DOOR).map_err(|e| before(e.into()))?),
    };
    let request = Request {
        door,
        rootfs: Some(plan.rootfs),
        preserved_fds: plan.preserved_fds,
        pivot: plan.options.pivot,
        keyring: plan.options.keyring,
        ..Request::new(plan.id, plan.spec, plan.cgroup, &plan.options.bundle)
    };
    let after = |failure: Failure| (failure.during(DURING), true);
    plan.global.log.debug("nsexec container setup: the first process is cloned");
    if let Some(flags) = seccomp_flags(plan) {
        plan.global.log.debug(&format!("seccomp filter flags: {flags}"));
    }
    let starting = create::begin(request, |_| mount_root(plan.rootfs, plan.spec));
    let starting = starting.map_err(|error| (Failure::from(error).during(DURING), false))?;
    move_devices(plan.spec, &starting).map_err(after)?;
    plan.global.log.debug("child process in init(): it makes its mounts");
    // While the child works. A record that names a container which waits is written when it does.
    keep_configuration(directory_fd.as_fd(), text).map_err(after)?;
    let record = record(plan, starting.pid()).map_err(after)?;
    let container = Container::new(directory.into(), directory_fd, record);
    if plan.start == Start::Now {
        container.write().map_err(after)?;
    }
    let mut created = starting.finish().map_err(|e| after(e.into()))?;
    plan.global.log.debug("init: closing the pipe to signal completion: the container is made");
    let console = created.console.take();
    let console = hand_out(plan.options, &created, console).map_err(after)?;
    let child = match plan.start {
        Start::Later => {
            container.write().map_err(after)?;
            created.warnings.iter().for_each(|warning| plan.global.log.warning(warning));
            created.leave().map_err(|e| after(e.into()))?
        }
        Start::Now => start_now(plan, created).map_err(after)?,
    };
    if let Some(path) = &plan.options.pid_file {
        sockets::write_pid_file(path, child.pid).map_err(after)?;
    }
    Ok((container, child, console))
}

/// What is kept of the container whose first process is `pid`.
fn record(plan: &Plan<'_>, pid: i32) -> Result<Record, Failure> {
    let terminal = plan.spec.process.as_ref().is_some_and(|process| process.terminal);
    Record::new(plan.id, pid, &plan.options.bundle, plan.rootfs, plan.cgroup, !terminal)
}

/// Moves the machine's network devices that the configuration names into the container's network namespace.
fn move_devices(spec: &Spec, starting: &Starting) -> Result<(), Failure> {
    let devices = spec.linux.as_ref().map(|linux| &linux.net_devices).filter(|devices| !devices.is_empty());
    let Some(devices) = devices else { return Ok(()) };
    let netns = match spec.namespace(LinuxNamespaceType::Network).map(LinuxNamespace::joined) {
        None => return Err(Failure::new("unable to move network devices without a private network namespace")),
        Some(None) => starting.network_namespace()?,
        // The container's process may not have entered it yet.
        Some(Some(path)) => rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .step(|| format!("open the network namespace {}", path.display()))?,
    };
    for (name, device) in devices {
        let new_name = if device.name.is_empty() { name } else { &device.name };
        brig_net::move_device(name, new_name, netns.as_fd())
            .map_err(|error| Failure::step(format!("give the container the network device {name}"), &error))?;
    }
    Ok(())
}

/// The flags of the filter, for whoever looks for what went wrong.
fn seccomp_flags(plan: &Plan<'_>) -> Option<u64> {
    let rules = plan.spec.linux.as_ref()?.seccomp.as_ref().filter(|_| plan.global.log.debugs())?;
    brig_runtime::seccomp::compile(rules, |name| brig_runtime::capabilities::grants(plan.spec, name))
        .ok()
        .map(|filter| filter.flags)
}

fn start_now(plan: &Plan<'_>, created: Created) -> Result<Child, Failure> {
    let running = created.start()?;
    for warning in &running.warnings {
        plan.global.log.warning(warning);
    }
    let after = plan.spec.hooks.as_ref().map(|hooks| Moment::Poststart.of(hooks)).unwrap_or_default();
    if !after.is_empty() {
        let description = Description::new(plan.id, &plan.options.bundle, plan.spec);
        let state = description.state("running", running.child.pid);
        if let Err(error) = hooks::run(Moment::Poststart, after, &state, description.bundle()) {
            let _ = brig_sys::signals::send_to(running.child.pidfd.as_fd(), 9);
            return Err(error.into());
        }
    }
    Ok(running.child)
}

/// Sends the terminal and the process's descriptor to the sockets that wait for them; returns a terminal that nobody took.
fn hand_out(options: &Options, created: &Created, console: Option<OwnedFd>) -> Result<Option<OwnedFd>, Failure> {
    if let Some(path) = &options.pidfd_socket {
        let pid = rustix::process::Pid::from_raw(created.pid()).ok_or_else(|| Failure::new("there is no process"))?;
        let pidfd =
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).step(|| "open the first process")?;
        sockets::send_fd(path, "pidfd", pidfd.as_fd())?;
    }
    match (console, &options.console_socket) {
        (Some(console), Some(path)) => {
            sockets::send_fd(path, "/dev/ptmx", console.as_fd())?;
            Ok(None)
        }
        (Some(console), None) => {
            foreground::prepare(console.as_fd())?;
            Ok(Some(console))
        }
        (None, _) => Ok(None),
    }
}

/// Reads the configuration, as text and as what it means.
pub(crate) fn read_bundle(bundle: &Path) -> Result<(Vec<u8>, Spec), Failure> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let fd = match rustix::fs::open(CONFIG_FILE, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => {
            return Err(Failure::new(format!(
                "JSON specification file {CONFIG_FILE} not found in {}",
                bundle.display()
            )));
        }
        result => result.step(|| format!("open {}", bundle.join(CONFIG_FILE).display()))?,
    };
    let step = || format!("read {}", bundle.join(CONFIG_FILE).display());
    let text = container::read_bounded(fd).step(step)?;
    let spec = serde_json::from_slice(&text).map_err(|error| Failure::step(step(), &error))?;
    Ok((text, spec))
}

/// The cgroup of a configuration, which need not exist yet.
pub(crate) fn cgroup_of(global: &Global, spec: &Spec, id: &str) -> Result<Cgroup, Failure> {
    let specified = spec.linux.as_ref().map(|linux| linux.cgroups_path.as_path());
    let cgroup = Cgroup::of_container(specified, id, &global.cgroup_driver)?;
    let cgroup = cgroup.annotations(&spec.annotations)?;
    Ok(cgroup.rootless(global.rootless).exclusive(true).owner(cgroup_owner(spec)))
}

/// Who gets the cgroup: the root of a container that may write to it, being in a user and a cgroup namespace of its own.
fn cgroup_owner(spec: &Spec) -> Option<u32> {
    let own = |kind| spec.namespace(kind).is_some_and(|n| n.joined().is_none());
    let writable = |m: &Mount| {
        matches!(m.typ.as_str(), "cgroup" | "cgroup2")
            && !m.options.iter().any(|option| option == "ro" || option == "rro")
    };
    if !own(LinuxNamespaceType::User) || !own(LinuxNamespaceType::Cgroup) {
        return None;
    }
    spec.mounts.iter().find(|m| writable(m))?;
    spec.linux.as_ref()?.uid_mappings.iter().find(|map| map.container_id == 0).map(|map| map.host_id)
}

pub(crate) fn rootfs_path(spec: &Spec, bundle: &Path) -> Result<PathBuf, Failure> {
    let root = spec.root.as_ref().ok_or_else(|| Failure::new("the configuration names no root file system"))?;
    let path = bundle.join(&root.path);
    if spec.namespace(LinuxNamespaceType::Mount).is_some_and(|namespace| namespace.joined().is_some()) {
        // It is that namespace's, and looked up there.
        return Ok(path.components().collect());
    }
    path.canonicalize().step(|| format!("find the root file system {}", path.display()))
}

/// Binds the bundle's root file system, with what is mounted below it, as a detached mount. No mount of it is shared with the
/// machine's: what happens inside stays there, and pivot_root(2) takes no shared one.
fn mount_root(path: &Path, spec: &Spec) -> Result<RootMounts, brig_runtime::Error> {
    let root = brig_monitor::overlay::directory(path)?;
    let propagation = match spec.linux.as_ref().map(|linux| linux.rootfs_propagation.as_str()) {
        Some("shared" | "rshared" | "slave" | "rslave") => MountPropagationFlags::DOWNSTREAM,
        _ => MountPropagationFlags::PRIVATE,
    };
    let attributes = Attributes { propagation: propagation.bits().into(), ..Attributes::default() };
    let step = || format!("cut the root file system {} off from the machine's mounts", path.display());
    set_attributes(root.as_fd(), &attributes, true).map_err(|error| brig_runtime::Error::setup(step(), error))?;
    Ok(RootMounts { root, below: Vec::new() })
}

/// A terminal needs somebody who takes its other side.
pub(crate) fn check_terminal(process: &Process, options: &Options) -> Result<(), Failure> {
    let terminal = process.terminal;
    match (terminal, options.detach, options.console_socket.is_some()) {
        (true, true, false) => {
            Err(Failure::new("cannot allocate tty if brig-runtime will detach without setting console socket"))
        }
        (false, _, true) | (_, false, true) => {
            Err(Failure::new("cannot use console socket if brig-runtime will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

/// Counts the descriptors that the program gets: those of socket activation (sd_listen_fds(3)), of which its environment then
/// tells, and `asked` more after them. Errors: one of these is not open.
pub(crate) fn preserve_fds(process: &mut Process, asked: i32) -> Result<i32, Failure> {
    let activated =
        std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse::<i32>().ok()).filter(|n| (1..1024).contains(n));
    if let Some(count) = activated {
        process.env.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()]);
    }
    let count = asked + activated.unwrap_or(0);
    if let Some(closed) =
        (3..3 + count).find(|n| rustix::fs::readlink(format!("/proc/self/fd/{n}"), Vec::new()).is_err())
    {
        return Err(Failure::new(format!("{count} descriptors are to be preserved, but {closed} is not open")));
    }
    Ok(count)
}

/// Copies the configuration beside the record: the bundle may change or go.
pub(crate) fn keep_configuration(directory: BorrowedFd<'_>, text: &[u8]) -> Result<(), Failure> {
    let step = || "keep the configuration";
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(directory, CONFIG_FILE, flags, Mode::from_raw_mode(0o600)).step(step)?;
    let mut rest = text;
    while !rest.is_empty() {
        let written = rustix::io::write(&fd, rest).step(step)?;
        rest = &rest[written..];
    }
    Ok(())
}
