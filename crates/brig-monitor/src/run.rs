//! The life of one container: start, serve, end, perhaps start again; and taking over one whose monitor was lost.
//!
//! ```text
//! plan ──> start ──> serve ──> exit record ──┬─> restart policy: pause, start again
//!            │                               ├─> --rm: replay the undo list
//!            └─ failed: undo what was done   └─> else: free cgroup and network, keep the rest
//! ```
//!
//! A lock on `<run>/.../monitor` says that a monitor is at work; it goes with the process, however that ends.

use crate::chain::one_line;
use crate::clients::Client;
use crate::hold::Holder;
use crate::logfile::LogFile;
use crate::plan::{Plan, Restart};
use crate::protocol::{EXITED_OOM, EXITED_UNKNOWN, Kind, SOCKET_FILE};
use crate::serve::{Served, Server};
use crate::start::{Container, start};
use crate::state::{EXIT_FILE, Exit, ProcessId, STATE_FILE, State, now_ns};
use crate::{records, stdio, undo};
use brig_runtime::cgroup::Cgroup;
use brig_runtime::{Context, Error};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// The name of the lock file in the run directory.
pub const LOCK_FILE: &str = "monitor";
/// The first pause before a restart; it doubles up to [`PAUSE_MAX`], and starts anew after a run of [`STEADY`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(60);
const STEADY: Duration = Duration::from_secs(10);

/// Reads a plan. Errors: it is missing, unreadable, or of a newer format.
pub fn read_plan(container_dir: &Path) -> Result<Plan, Error> {
    let path = container_dir.join("plan");
    let step = || format!("read the plan {}", path.display());
    let bytes = std::fs::read(&path).step(step)?;
    let plan: Plan = serde_json::from_slice(&bytes).map_err(std::io::Error::other).step(step)?;
    if plan.format > crate::plan::FORMAT {
        return Err(Error::invalid(
            step(),
            format!("format {} is newer than this program (it knows {})", plan.format, crate::plan::FORMAT),
        ));
    }
    Ok(plan)
}

/// Executes the plan in `directory`.
pub(crate) fn run(directory: &Path, mut first: Client) -> i32 {
    let prepared = read_plan(directory).and_then(|plan| Ok((prepare(&plan)?, plan)));
    let ((lock, listener, log), plan) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            first.tell_failure(&error);
            return 1;
        }
    };
    let mut server = Server::new(Some(listener), vec![first], log);
    let status = live(plan, &mut server, None, 0);
    drop(lock);
    status
}

/// Takes the lock, the socket and the log.
fn prepare(plan: &Plan) -> Result<(OwnedFd, OwnedFd, Option<LogFile>), Error> {
    let run_dir = &plan.run_dir;
    match std::fs::create_dir(run_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => std::fs::create_dir_all(run_dir),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
    .step(|| format!("make {}", run_dir.display()))?;
    let lock = lock(run_dir)?;
    let listener = listen(run_dir)?;
    let log = match &plan.log.path {
        Some(path) => Some(
            LogFile::open(path, plan.log.max_size, plan.log.max_files)
                .step(|| format!("open the log {}", path.display()))?,
        ),
        None => None,
    };
    Ok((lock, listener, log))
}

fn lock(run_dir: &Path) -> Result<OwnedFd, Error> {
    let path = run_dir.join(LOCK_FILE);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).step(|| format!("open {}", path.display()))?;
    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Error::invalid("monitor the container", "another monitor is at work"))?;
    Ok(fd)
}

/// Says whether a monitor holds the lock of a run directory.
pub fn is_monitored(run_dir: &Path) -> bool {
    let path = run_dir.join(LOCK_FILE);
    let Ok(fd) = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) else {
        return false;
    };
    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockShared).is_err()
}

pub(crate) fn listen(run_dir: &Path) -> Result<OwnedFd, Error> {
    let step = || format!("listen on {}", run_dir.join(SOCKET_FILE).display());
    let directory =
        rustix::fs::open(run_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step(step)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).step(step)?;
    let _ = rustix::fs::unlinkat(&directory, SOCKET_FILE, rustix::fs::AtFlags::empty());
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET_FILE}", directory.as_raw_fd())).step(step)?;
    let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(umask);
    bound.step(step)?;
    rustix::net::listen(&socket, 128).step(step)?;
    Ok(socket)
}

/// Starts, unless it was `adopted`, and serves until the container stays down. Returns the monitor's exit status.
fn live(mut plan: Plan, server: &mut Server, mut adopted: Option<Container>, mut restarts: u32) -> i32 {
    let mut started_at = Exit::read(&plan.container_dir).map_or(0, |exit| exit.started_at);
    let mut pause = PAUSE_MIN;
    loop {
        server.lingering.clear();
        let began = Instant::now();
        let container = match adopted.take().map_or_else(|| start(&plan, server, restarts), Ok) {
            Ok(container) => container,
            Err(error) => {
                let ended = ended_at(Some(error.kind as i32), started_at);
                let exit = Exit { error: Some(one_line(&error)), restarts, ..ended };
                // The first start's failure is the starter's to tell; a restart's goes to the record alone.
                return finish(&plan, server, exit, (restarts == 0).then_some(&error));
            }
        };
        started_at = container.started_at;
        plan.forget_configuration();
        let exit = Exit { restarts, ..serve_to_end(&plan, server, container) };
        if server.stopped || !wants_restart(plan.restart, &exit, restarts) {
            return finish(&plan, server, exit, None);
        }
        release(&plan);
        let _ = records::write_json(&plan.container_dir.join(EXIT_FILE), &exit, false);
        pause = if began.elapsed() > STEADY { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        server.idle(pause);
        if server.stopped {
            return finish(&plan, server, exit, None);
        }
        plan = match read_plan(&plan.container_dir) {
            Ok(plan) => plan,
            Err(error) => return finish(&plan, server, Exit { error: Some(one_line(&error)), ..exit }, None),
        };
        restarts += 1;
    }
}

fn wants_restart(policy: Restart, exit: &Exit, restarts: u32) -> bool {
    match policy {
        Restart::No => false,
        Restart::Always | Restart::UnlessStopped => true,
        Restart::OnFailure(most) => exit.code != Some(0) && (most == 0 || restarts < most),
    }
}

fn serve_to_end(plan: &Plan, server: &mut Server, mut container: Container) -> Exit {
    let relay = container.attachment.as_mut().map(brig_net::Attachment::relay);
    server.holder = Some(Holder::new(&plan.run_dir, &container.cgroup));
    let status = server.serve(&container.process, relay);
    server.forget_holds();
    let oom_killed = container.cgroup.oom_kills() > 0;
    // Without a pid namespace of its own the container may have left processes behind; and others may have been put there.
    if !container.cgroup.pids().is_empty() {
        let _ = container.cgroup.kill_all();
    }
    // The ports are closed at once; the pair of interfaces goes with the namespace, which nobody is left to hold.
    let lingering = plan.network.as_ref().and_then(|network| brig_net::withdraw(network).ok());
    server.lingering.extend(lingering);
    Exit { oom_killed, stopped: server.stopped, ..ended_at(status, container.started_at) }
}

fn ended_at(code: Option<i32>, started_at: u64) -> Exit {
    Exit { code, started_at, finished_at: now_ns(), ..Exit::unknown() }
}

/// Gives back what only a running container needs; its record, its files and its address stay.
fn release(plan: &Plan) {
    if let Some(cgroup) = plan.cgroup().and_then(|path| Cgroup::open(path).ok()) {
        let _ = cgroup.remove();
    }
}

/// Writes down how it ended, takes apart what is to go, and tells the clients last of all: why it could not be started, and
/// that it is over.
fn finish(plan: &Plan, server: &mut Server, mut exit: Exit, failure: Option<&Error>) -> i32 {
    // A stop may have been heard after the process had ended.
    exit.stopped |= server.stopped;
    let flags = if exit.oom_killed { EXITED_OOM } else { 0 } | if exit.code.is_none() { EXITED_UNKNOWN } else { 0 };
    let status = exit.code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255);
    if plan.remove {
        // A failure leaves the record, which the next command finds and takes apart by the same list.
        let amended = undo::amended(&plan.container_dir);
        if undo::replay_after_withdrawal(amended.as_ref().unwrap_or(&plan.undo)).is_err() {
            let _ = records::write_json(&plan.container_dir.join(EXIT_FILE), &exit, false);
        }
    } else {
        let _ = records::write_json(&plan.container_dir.join(EXIT_FILE), &exit, plan.durable);
        release(plan);
        for name in [STATE_FILE, stdio::STDOUT_FILE, stdio::STDERR_FILE] {
            let _ = std::fs::remove_file(plan.run_dir.join(name));
        }
    }
    // Nobody is told and then let in again.
    let _ = std::fs::remove_file(plan.run_dir.join(SOCKET_FILE));
    if let Some(error) = failure {
        for client in &mut server.clients {
            client.tell_failure(error);
        }
    }
    server.tell_all(Kind::Exited, &[status, flags]);
    0
}

/// Takes over a running container whose monitor is gone. Its exit status will not be known: it is nobody's child.
pub(crate) fn adopt(directory: &Path, mut first: Client) -> i32 {
    let adopted = read_plan(directory).and_then(|plan| {
        let prepared = prepare(&plan)?;
        let state = State::read(&plan.run_dir);
        Ok((plan, prepared, state))
    });
    let (plan, (lock, listener, log), state) = match adopted {
        Ok(adopted) => adopted,
        Err(error) => {
            first.tell_failure(&error);
            return 1;
        }
    };
    let mut server = Server::new(Some(listener), vec![first], log);
    let started_at = state.as_ref().map_or(0, |state| state.started_at);
    let living = state.filter(State::is_running);
    let Some((mut state, container)) =
        living.and_then(|state| Some((state.clone(), take_over(&plan, &mut server, &state)?)))
    else {
        // It ended while nobody watched.
        let cgroup = plan.cgroup().and_then(|p| Cgroup::open(p).ok());
        if let Some(cgroup) = cgroup.filter(|c| !c.pids().is_empty()) {
            let _ = cgroup.kill_all();
        }
        return finish(&plan, &mut server, ended_at(None, started_at), None);
    };
    if let Some(log) = &mut server.log {
        log.note("brig: the monitor was lost and replaced; output may be missing here");
    }
    if let Ok(monitor) = ProcessId::of(i32::try_from(std::process::id()).unwrap_or(0)) {
        state.monitor = monitor;
        state.speaks = crate::protocol::VERSION;
        let _ = records::write_json(&plan.run_dir.join(STATE_FILE), &state, false);
    }
    let pid = state.init.map_or(0, |init| init.pid);
    server.tell_all(Kind::Started, &pid.to_le_bytes());
    let status = live(plan, &mut server, Some(container), state.restarts);
    drop(lock);
    status
}

fn take_over(plan: &Plan, server: &mut Server, state: &State) -> Option<Container> {
    let init = state.init?;
    let pid = rustix::process::Pid::from_raw(init.pid)?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    // Between the record and the descriptor the pid may have become another's.
    if !init.is_alive() {
        return None;
    }
    server.ends.stdout = stdio::open_end(&plan.run_dir.join(stdio::STDOUT_FILE)).ok();
    server.ends.stderr = stdio::open_end(&plan.run_dir.join(stdio::STDERR_FILE)).ok();
    let cgroup = Cgroup::open(Path::new(&state.cgroup)).ok()?;
    // Whoever was connected to the lost monitor is not to this one.
    let _ = Holder::new(&plan.run_dir, &cgroup).end();
    let attachment =
        plan.network.as_ref().and_then(|network| brig_net::adopt(network, &crate::start::network_state(plan)).ok());
    Some(Container { process: Served { pidfd, is_child: false }, cgroup, attachment, started_at: state.started_at })
}
