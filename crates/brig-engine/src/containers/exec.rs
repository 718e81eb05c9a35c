//! A further process in a running container.
//!
//! It is a child of its own short-lived monitor, with a socket and an exit record of its own below the container's run
//! directory; the container's monitor knows nothing of it.

use super::start::{self, Started};
use super::status;
use crate::config::Config;
use crate::config::merge::merge_env;
use crate::error::{Error, Result};
use crate::oci;
use crate::record::Record;
use crate::{disk, host};
use brig_monitor::client::Connection;
use brig_monitor::plan::{ExecPlan, FORMAT};
use brig_monitor::spawn::{Job, spawn};
use brig_spec::id::hex;
use brig_spec::runtime::{ConsoleSize, Process, User};

/// What is to be executed.
#[derive(Debug, Clone, Default)]
pub struct ExecConfig {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The environment on top of the container's.
    pub env: Vec<String>,
    /// `user[:group]`; empty: the container's.
    pub user: String,
    /// The working directory; empty: the container's.
    pub workdir: String,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether standard input stays open.
    pub stdin: bool,
    /// Whether it has every capability.
    pub privileged: bool,
    /// Whether the exit record is kept for somebody who asks later.
    pub keep: bool,
    /// The size of the terminal, (rows, columns).
    pub console_size: Option<(u16, u16)>,
}

/// A process that runs.
#[derive(Debug)]
pub struct Execution {
    /// Its identifier.
    pub id: String,
    /// The connection to its monitor.
    pub connection: Connection,
    /// Its pid on the machine.
    pub pid: i32,
    /// Output that came before the news of the start: (whether it is standard error, bytes).
    pub early: Vec<(bool, Vec<u8>)>,
    /// What was done otherwise than asked, a line each.
    pub warnings: Vec<String>,
}

/// Starts a process in a running container. `flags` are those of a monitor client's `Hello`.
pub fn exec(config: &Config, record: &Record, wish: &ExecConfig, flags: u8) -> Result<Execution> {
    let what = || format!("cannot run a command in container `{}`", record.name);
    match status::of(config, record).phase {
        status::Phase::Running => {}
        status::Phase::Paused => {
            return Err(Error::conflict(what())
                .reason("the container is paused")
                .hint(format!("continue it with `brig unpause {}`", record.name)));
        }
        _ => return Err(super::not_running(record)),
    }
    if wish.command.is_empty() {
        return Err(Error::invalid(what()).reason("no command is given"));
    }
    let id = hex(&disk::random()?);
    let run_dir = record.run_dir(config);
    let exec_dir = run_dir.join("exec").join(&id);
    let plan = ExecPlan {
        format: FORMAT,
        exec_id: id.clone(),
        id: record.id.clone(),
        container_dir: record.dir(config),
        run_dir,
        exec_dir: exec_dir.clone(),
        process: process(record, wish, &super::read_plan(&record.dir(config))?.spec)?,
        stdin: wish.stdin,
        keep: wish.keep,
    };
    disk::make_directory(&exec_dir)?;
    let bytes = serde_json::to_vec(&plan).map_err(|error| Error::internal("cannot encode the plan").because(error))?;
    let started = disk::write(&exec_dir.join("plan"), &bytes, false).and_then(|()| {
        let connection = spawn(&super::monitor_program(config), Job::Exec, &exec_dir, flags)
            .map_err(|error| Error::io(what(), error))?;
        start::await_start(connection, &what)
    });
    match started {
        Ok(Started { connection, pid, early, warnings }) => Ok(Execution { id, connection, pid, early, warnings }),
        Err(error) => {
            let _ = disk::remove_tree(&exec_dir);
            // What could not be joined may have been ending.
            if status::of(config, record).is_running() { Err(error) } else { Err(super::not_running(record)) }
        }
    }
}

/// The process: the container's own, with what is asked for otherwise.
fn process(record: &Record, wish: &ExecConfig, spec: &brig_spec::runtime::Spec) -> Result<Process> {
    let mut process = spec.process.clone().ok_or_else(|| Error::internal("the container's plan names no process"))?;
    process.terminal = wish.tty;
    process.args.clone_from(&wish.command);
    let size = |(rows, columns): (u16, u16)| ConsoleSize { height: rows.into(), width: columns.into() };
    process.console_size = wish.console_size.map(size);
    if wish.tty && !process.env.iter().any(|e| e.starts_with("TERM=")) {
        process.env.push("TERM=xterm".into());
    }
    process.env = merge_env(&process.env, &wish.env);
    if !wish.workdir.is_empty() {
        if !wish.workdir.starts_with('/') {
            return Err(Error::invalid(format!("the working directory `{}` is not an absolute path", wish.workdir)));
        }
        process.cwd = wish.workdir.clone().into();
    }
    if !wish.user.is_empty() {
        // A name or a number: the runtime looks both up in the container's own files, as at the start.
        process.user = User { username: wish.user.clone(), ..User::default() };
    }
    if wish.privileged {
        let config = crate::config::ContainerConfig {
            privileged: true,
            userns: record.config.userns.clone(),
            ..Default::default()
        };
        let host = oci::Host { capabilities: host::capabilities(&config), ..oci::Host::default() };
        let names = oci::capabilities::names(&config, &host)?;
        process.capabilities = Some(oci::capabilities::sets(&names));
    }
    Ok(*process)
}
