//! The life of an exec: one further process in a running container, with a monitor of its own that lives as long as it.

use crate::clients::Client;
use crate::plan::ExecPlan;
use crate::protocol::{EXITED_UNKNOWN, Kind, SOCKET_FILE};
use crate::serve::{Served, Server};
use crate::state::{EXIT_FILE, Exit, ProcessId, STATE_FILE, State, now_ns};
use crate::{records, run, stdio};
use brig_runtime::cgroup::{Cgroup, SubCgroups};
use brig_runtime::enter::{self, Request};
use brig_runtime::hooks::Description;
use brig_runtime::{Context, Error};
use rustix::process::{Pid, PidfdFlags};
use std::os::fd::AsFd;
use std::path::Path;

/// Executes the plan in `<run>/containers/<id>/exec/<exec id>`.
pub(crate) fn run(directory: &Path, first: Client) -> i32 {
    let mut server = Server::new(None, vec![first], None);
    let plan = match read_plan(directory) {
        Ok(plan) => plan,
        Err(error) => {
            server.clients[0].tell_failure(&error);
            return 1;
        }
    };
    let began = match start(&plan, &mut server) {
        Ok(process) => {
            let started_at = now_ns();
            Ok((server.serve(&process, None), started_at))
        }
        Err(error) => Err(error),
    };
    let exit = |code, started_at, error| Exit { code, started_at, finished_at: now_ns(), error, ..Exit::unknown() };
    let (record, status) = match &began {
        Ok((code, started_at)) => (exit(*code, *started_at, None), *code),
        Err(error) => (exit(Some(error.kind as i32), 0, Some(crate::chain::one_line(error))), Some(error.kind as i32)),
    };
    if plan.keep {
        let _ = records::write_json(&directory.join(EXIT_FILE), &record, false);
        let _ = std::fs::remove_file(directory.join(STATE_FILE));
        let _ = std::fs::remove_file(directory.join(SOCKET_FILE));
    } else {
        let _ = std::fs::remove_dir_all(directory);
    }
    match began {
        Ok(_) => {
            let flags = if status.is_none() { EXITED_UNKNOWN } else { 0 };
            server.tell_all(Kind::Exited, &[status.and_then(|s| u8::try_from(s).ok()).unwrap_or(255), flags]);
        }
        Err(error) => server.clients[0].tell_failure(&error),
    }
    0
}

fn read_plan(directory: &Path) -> Result<ExecPlan, Error> {
    let path = directory.join("plan");
    let step = || format!("read the exec's plan {}", path.display());
    let bytes = std::fs::read(&path).step(step)?;
    let plan: ExecPlan = serde_json::from_slice(&bytes).map_err(std::io::Error::other).step(step)?;
    if plan.format > crate::plan::FORMAT {
        return Err(Error::invalid(step(), format!("format {} is newer than this program", plan.format)));
    }
    Ok(plan)
}

fn start(plan: &ExecPlan, server: &mut Server) -> Result<Served, Error> {
    let step = || "enter the container".to_owned();
    let not_running = || Error::invalid(step(), "it is not running");
    let state = State::read(&plan.run_dir).ok_or_else(not_running)?;
    let init = state.init.ok_or_else(not_running)?;
    let pid = Pid::from_raw(init.pid).ok_or_else(not_running)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).step(step)?;
    if !init.is_alive() {
        return Err(not_running());
    }
    let cgroup = Cgroup::open(Path::new(&state.cgroup))?;
    if cgroup.is_frozen() {
        return Err(Error::invalid(step(), "it is paused"));
    }
    let container = run::read_plan(&plan.container_dir)?;
    if plan.keep {
        server.listener = Some(run::listen(&plan.exec_dir)?);
    }
    let terminal = plan.process.terminal;
    let inside = if terminal {
        None
    } else {
        let (inside, ends) = stdio::make_pipes(plan.stdin)?;
        server.ends = ends;
        Some(inside)
    };
    let description = Description::new(container.id.as_str(), &plan.container_dir, &container.spec);
    let request = Request {
        process: &plan.process,
        spec: &container.spec,
        pidfd: pidfd.as_fd(),
        cgroup: &cgroup,
        sub: &SubCgroups::default(),
        stdio: inside,
        description: &description,
        preserved_fds: 0,
    };
    let mut entered = enter::enter(request)?;
    if let Some(console) = entered.console.take() {
        rustix::io::ioctl_fionbio(&console, true).step(|| "keep the terminal".into())?;
        server.ends.console = Some(console);
    }
    let running = entered.start()?;
    let pid = running.child.pid;
    if plan.keep {
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap_or(0)).step(step)?;
        let record = State {
            format: crate::state::FORMAT,
            monitor: me,
            init: ProcessId::of(pid).ok(),
            started_at: now_ns(),
            restarts: 0,
            cgroup: state.cgroup,
            boot: state.boot,
            speaks: crate::protocol::VERSION,
        };
        let _ = records::write_json(&plan.exec_dir.join(STATE_FILE), &record, false);
    }
    server.warn(&running.warnings);
    for client in &mut server.clients {
        client.push(Kind::Started, &pid.to_le_bytes());
    }
    Ok(Served { pidfd: running.child.pidfd, is_child: true })
}
