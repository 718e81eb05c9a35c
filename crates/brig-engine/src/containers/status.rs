//! What state a container is in, as the kernel tells it.
//!
//! ```text
//!   first process lives            running, or paused when its cgroup is frozen
//!   monitor lives, process not     restarting (its policy waits), or stopping (it is about to write how it ended)
//!   neither, exit record           exited with that status
//!   neither, it ran but no record  exited, and nobody knows how: the machine or the monitor was lost, or it rebooted
//!   none of these                  created
//! ```

use crate::config::{Config, RestartPolicy};
use crate::record::Record;
use brig_monitor::state::{Exit, STATE_FILE, State};
use brig_runtime::cgroup::Cgroup;
use std::path::Path;

/// The state of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Made, and never started.
    Created,
    /// Its program runs.
    Running,
    /// Its program is frozen.
    Paused,
    /// Its restart policy is about to start it again.
    Restarting,
    /// Its program has ended, and its monitor is putting things away.
    Stopping,
    /// Its program has ended.
    Exited,
}

impl Phase {
    /// The word that listings print.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
        }
    }
}

/// The state of a container, with what goes with it.
#[derive(Debug, Clone)]
pub struct Status {
    /// The state.
    pub phase: Phase,
    /// The first process on the machine; 0 when none lives.
    pub pid: i32,
    /// The monitor; 0 when none lives.
    pub monitor_pid: i32,
    /// The exit status of the last run; none when it is not over, or can no longer be known.
    pub exit_code: Option<i32>,
    /// Whether the OOM killer ended a process of the last run.
    pub oom_killed: bool,
    /// When the last run began, in nanoseconds since 1970; 0: never.
    pub started_ns: u64,
    /// When it ended, in nanoseconds since 1970; 0: not yet, or unknown.
    pub finished_ns: u64,
    /// Why the last start failed.
    pub error: Option<String>,
    /// Whether a person ended the last run.
    pub stopped: bool,
    /// How often the restart policy has started it again.
    pub restarts: u32,
}

impl Status {
    /// Says whether processes of the container or its monitor exist, or will exist again without anybody's doing.
    pub fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused | Phase::Restarting | Phase::Stopping)
    }

    /// Says whether the first process lives.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused)
    }
}

/// Says whether a container without a state of this boot was started in an earlier one: its run directory is gone, or holds
/// the state of that boot. With an empty run directory, a plan is that of a start that did not get as far as a monitor.
fn was_lost(config: &Config, record: &Record, dir: &Path) -> bool {
    let run_dir = record.run_dir(config);
    let state = run_dir.join(STATE_FILE);
    State::read(&run_dir).is_none() && dir.join("plan").exists() && (!run_dir.exists() || state.exists())
}

/// Asks what state a container is in.
pub fn of(config: &Config, record: &Record) -> Status {
    let dir = record.dir(config);
    let mut status = Status {
        phase: Phase::Created,
        pid: 0,
        monitor_pid: 0,
        exit_code: None,
        oom_killed: false,
        started_ns: 0,
        finished_ns: 0,
        error: None,
        stopped: false,
        restarts: 0,
    };
    let state = State::read(&record.run_dir(config));
    if let Some(state) = &state {
        status.restarts = state.restarts;
        status.started_ns = state.started_at;
        if state.monitor.is_alive() {
            status.monitor_pid = state.monitor.pid;
        }
        if let Some(init) = state.init.filter(|init| init.is_alive()) {
            status.pid = init.pid;
            let frozen = Cgroup::open(Path::new(&state.cgroup)).is_ok_and(|c| c.is_frozen());
            status.phase = if frozen { Phase::Paused } else { Phase::Running };
            return status;
        }
    }
    let exit = Exit::read(&dir);
    if let Some(exit) = &exit {
        status.phase = if exit.is_of_first_start() { Phase::Created } else { Phase::Exited };
        status.exit_code = exit.code;
        status.oom_killed = exit.oom_killed;
        status.restarts = exit.restarts;
        status.started_ns = exit.started_at;
        status.finished_ns = exit.finished_at;
        status.error.clone_from(&exit.error);
        status.stopped = exit.stopped;
    } else if state.is_some_and(|s| s.started_at != 0) || was_lost(config, record, &dir) {
        status.phase = Phase::Exited;
    }
    if status.monitor_pid != 0 && status.started_ns != 0 {
        let stays_down = record.config.restart == RestartPolicy::No || status.stopped;
        status.phase = if stays_down { Phase::Stopping } else { Phase::Restarting };
    }
    status
}
