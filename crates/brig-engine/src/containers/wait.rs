//! Waiting for a container's end.

use super::status::{self, Status};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::record::Record;
use brig_monitor::client::{Connection, Event};
use brig_monitor::protocol::HELLO_WAIT;
use brig_monitor::state::{ProcessId, State};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use std::time::{Duration, Instant};

/// How long a monitor is waited for before anybody looks whether it is stopped.
const SLICE: Duration = Duration::from_millis(500);

/// Waits until a container does not run, at most until `deadline`; returns what it then is. A container that was removed
/// meanwhile gives what its monitor told last.
pub fn wait(config: &Config, record: &Record, deadline: Option<Instant>) -> Result<Status> {
    let mut last = status::of(config, record);
    while last.is_active() && deadline.is_none_or(|d| Instant::now() < d) {
        match super::connect(config, record, HELLO_WAIT) {
            Ok(connection) => {
                if let Some(exited) = until_exited(connection, deadline) {
                    last = status::of(config, record);
                    if last.phase != super::Phase::Exited || !record.dir(config).exists() {
                        last.phase = super::Phase::Exited;
                        last.exit_code = exited.status.map(i32::from);
                        last.oom_killed = exited.oom_killed;
                    }
                    return Ok(last);
                }
            }
            Err(_) => wait_process(config, record, deadline),
        }
        last = status::of(config, record);
    }
    Ok(last)
}

/// Waits as [`wait`] does, but no longer than the container's monitor can tell of an end: one that is stopped by a signal or a
/// debugger tells nothing, and is the error.
pub(super) fn wait_served(config: &Config, record: &Record, deadline: Option<Instant>, what: &str) -> Result<Status> {
    loop {
        let slice = Instant::now() + SLICE;
        let until = deadline.map_or(slice, |deadline| deadline.min(slice));
        let status = wait(config, record, Some(until))?;
        if !status.is_active() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(status);
        }
        served(config, record, what)?;
    }
}

/// Fails when the container's monitor is stopped.
pub(super) fn served(config: &Config, record: &Record, what: &str) -> Result<()> {
    match State::read(&record.run_dir(config)).map(|state| state.monitor).filter(|monitor| monitor.is_stopped()) {
        None => Ok(()),
        Some(monitor) => Err(Error::new(Kind::Unavailable, format!("cannot {what} container `{}`", record.name))
            .reason(format!("its monitor, process {}, is stopped by a signal or a debugger", monitor.pid))
            .hint(format!("let it go on with `kill -CONT {}`, then try again", monitor.pid))),
    }
}

fn until_exited(mut connection: Connection, deadline: Option<Instant>) -> Option<brig_monitor::client::Exited> {
    loop {
        if !readable(&connection, deadline) {
            return None;
        }
        match connection.receive() {
            Ok(Some(Event::Exited(exited))) => return Some(exited),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Waits until a descriptor can be read; false when the deadline has passed.
pub(super) fn readable(fd: impl std::os::fd::AsFd, deadline: Option<Instant>) -> bool {
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|l| Timespec::try_from(l).ok());
        match rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}

/// Without a monitor, the kernel still tells when the process is gone.
fn wait_process(config: &Config, record: &Record, deadline: Option<Instant>) {
    let init = State::read(&record.run_dir(config)).and_then(|s| s.init).filter(|init| init.is_alive());
    let Some(ProcessId { pid, .. }) = init else {
        std::thread::sleep(Duration::from_millis(10));
        return;
    };
    if let Some(fd) = Pid::from_raw(pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()) {
        readable(&fd, deadline);
    }
}
