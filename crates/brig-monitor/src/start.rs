//! One start of a container: root, descriptors, cgroup, process, network, the word to go.

use crate::chain::one_line;
use crate::overlay::{self, Overlay, Upper};
use crate::plan::{Plan, Rootfs};
use crate::protocol::Kind;
use crate::serve::{Served, Server};
use crate::state::{EXIT_FILE, ProcessId, STATE_FILE, State, now_ns};
use crate::{records, stdio};
use brig_net::Attachment;
use brig_runtime::cgroup::Cgroup;
use brig_runtime::create::{self, Request, RootMounts};
use brig_runtime::{Context, Error};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// A running container, as its monitor holds it.
pub(crate) struct Container {
    pub process: Served,
    pub cgroup: Cgroup,
    pub attachment: Option<Attachment>,
    pub started_at: u64,
}

/// Starts the container and tells the clients. Upon failure what was done is undone.
pub(crate) fn start(plan: &Plan, server: &mut Server, restarts: u32) -> Result<Container, Error> {
    let path = plan.cgroup().ok_or_else(|| Error::invalid("start the container", "the plan names no cgroup"))?;
    let cgroup = Cgroup::open(path)?;
    let result = start_in(plan, server, restarts, &cgroup);
    if result.is_err() {
        server.ends = stdio::Ends::default();
        if let Some(network) = &plan.network {
            let _ = brig_net::detach(network);
        }
        let _ = cgroup.remove();
    }
    result
}

fn start_in(plan: &Plan, server: &mut Server, restarts: u32, cgroup: &Cgroup) -> Result<Container, Error> {
    let terminal = plan.spec.process.as_ref().is_some_and(|process| process.terminal);
    let (inside, ends) = if terminal {
        (None, stdio::Ends::default())
    } else {
        let (inside, ends) = stdio::make(&plan.run_dir, plan.stdin)?;
        (Some(inside), ends)
    };
    server.ends = ends;
    let copy_up: Vec<PathBuf> = plan.copy_up.iter().map(|c| c.destination.clone()).collect();
    let request = Request {
        stdio: inside,
        copy_up: &copy_up,
        ..Request::new(plan.id.as_str(), &plan.spec, cgroup, &plan.container_dir)
    };
    let starting = create::begin(request, |userns| mount_root(plan, userns))?;
    // While the child makes its mounts, the network is made.
    let attachment = match &plan.network {
        Some(network) => {
            let netns = starting.network_namespace()?;
            let attachment = brig_net::attach(network, netns.as_fd(), &network_state(plan))
                .map_err(|error| Error::setup("attach the network", std::io::Error::other(one_line(&error))))?;
            Some(attachment)
        }
        None => None,
    };
    let created = starting.finish()?;
    if let Some(console) = &created.console {
        let console = console.try_clone().step(|| "keep the terminal".into())?;
        rustix::io::ioctl_fionbio(&console, true).step(|| "keep the terminal".into())?;
        server.ends.console = Some(console);
    }
    let pid = created.pid();
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let mut state = State {
        format: crate::state::FORMAT,
        monitor: ProcessId::of(me).step(|| "read the monitor's own start time".into())?,
        init: Some(ProcessId::of(pid).step(|| "read the start time of the container's process".into())?),
        started_at: 0,
        restarts,
        cgroup: cgroup.path().display().to_string(),
        boot: crate::state::boot_id().map(str::to_owned),
        speaks: crate::protocol::VERSION,
    };
    let running = created.start()?;
    state.started_at = now_ns();
    let file = plan.run_dir.join(STATE_FILE);
    if let Err(error) = records::write_json(&file, &state, false) {
        let _ = brig_sys::signals::send_to(running.child.pidfd.as_fd(), 9);
        return Err(Error::setup(format!("write {}", file.display()), error));
    }
    forget_end(plan, restarts == 0);
    if let Some(log) = &mut server.log {
        for warning in &running.warnings {
            log.note(&format!("brig: {warning}"));
        }
    }
    if restarts == 0 {
        server.warn(&running.warnings);
    }
    for client in &mut server.clients {
        client.push(Kind::Started, &pid.to_le_bytes());
    }
    let process = Served { pidfd: running.child.pidfd, is_child: true };
    Ok(Container { process, cgroup: cgroup.clone(), attachment, started_at: state.started_at })
}

/// Removes the record of an earlier end: without one, a container that the machine leaves behind can be told from one that
/// ended. It is gone for good before the starter hears of the start; a restart's own record was not flushed either.
fn forget_end(plan: &Plan, first: bool) {
    let removed = std::fs::remove_file(plan.container_dir.join(EXIT_FILE));
    if removed.is_ok() && first && plan.durable {
        let _ = std::fs::File::open(&plan.container_dir).and_then(|directory| directory.sync_all());
    }
}

/// Where brig-net records settings of the machine that it changed: once for the engine, beside its containers.
pub(crate) fn network_state(plan: &Plan) -> PathBuf {
    let run = plan.run_dir.parent().and_then(Path::parent);
    run.unwrap_or(&plan.run_dir).join("network")
}

fn mount_root(plan: &Plan, userns: Option<BorrowedFd<'_>>) -> Result<RootMounts, Error> {
    let (lowers, upper, work, submounts, volatile) = match &plan.rootfs {
        Rootfs::Directory(path) => return Ok(RootMounts { root: overlay::directory(path)?, below: Vec::new() }),
        Rootfs::Overlay { lowers, upper, work, submounts, volatile, .. } => (lowers, upper, work, submounts, *volatile),
    };
    let upper = match (upper, work) {
        (Some(upper), Some(work)) => Upper::Directories(upper, work),
        _ if volatile => Upper::Memory,
        _ => Upper::None,
    };
    let throwaway = plan.remove || volatile;
    let root = overlay::mount(&Overlay { lowers, upper, throwaway }, userns)?;
    let mut below = Vec::with_capacity(submounts.len());
    for sub in submounts {
        let lowers = [sub.lower.clone()];
        let overlay = Overlay { lowers: &lowers, upper: Upper::Directories(&sub.upper, &sub.work), throwaway };
        below.push((sub.destination.clone(), overlay::mount(&overlay, userns)?));
    }
    Ok(RootMounts { root, below })
}
