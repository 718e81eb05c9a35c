//! What is running, as the kernel tells it, and how a container ended, as its monitor wrote it down.
//!
//! ```text
//! <run>/containers/<id>/state   who runs: pids with their start times; gone after a reboot with all of <run>
//! <root>/containers/<id>/exit   how the last run ended; survives everything
//! ```
//!
//! A state file alone proves nothing: a process counts as alive only while its pid still has the recorded start time, in the
//! boot in which that was recorded. The exit record is about the last run: a new one removes it, so that a container with a
//! plan, without an exit record and without a process is one that the machine or the monitor left behind.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;

/// The format number of both records.
pub const FORMAT: u32 = 1;

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid in the machine's pid namespace.
    pub pid: i32,
    /// Its start time in clock ticks since boot: field 22 of /proc/PID/stat, proc_pid_stat(5).
    pub start: u64,
}

impl ProcessId {
    /// Reads the start time of a living process.
    pub fn of(pid: i32) -> io::Result<Self> {
        let (start, _) = read_stat(pid)?;
        Ok(Self { pid, start })
    }

    /// Says whether this very process still runs; a zombie does not.
    pub fn is_alive(self) -> bool {
        read_stat(self.pid).is_ok_and(|(start, state)| start == self.start && state != b'Z' && state != b'X')
    }

    /// Says whether this very process is stopped, by SIGSTOP or by a debugger.
    pub fn is_stopped(self) -> bool {
        read_stat(self.pid).is_ok_and(|(start, state)| start == self.start && matches!(state, b'T' | b't'))
    }
}

/// Returns start time and state letter of /proc/PID/stat; the command name in it may hold spaces and parentheses.
fn read_stat(pid: i32) -> io::Result<(u64, u8)> {
    // It is less than a page, and made in one piece.
    let mut text = [0; 4096];
    let file = fs::File::open(format!("/proc/{pid}/stat"))?;
    let length = io::Read::read(&mut &file, &mut text)?;
    let text = &text[..length];
    let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has an unknown form"));
    let end = text.iter().rposition(|&b| b == b')').ok_or_else(bad)?;
    let rest = std::str::from_utf8(&text[end + 1..]).map_err(|_| bad())?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next().and_then(|f| f.bytes().next()).ok_or_else(bad)?;
    let start = fields.nth(18).and_then(|f| f.parse().ok()).ok_or_else(bad)?;
    Ok((start, state))
}

/// Who runs a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The format number of this record.
    pub format: u32,
    /// The monitor.
    pub monitor: ProcessId,
    /// The container's first process, once it exists.
    pub init: Option<ProcessId>,
    /// When the container's program was started, in nanoseconds since 1970.
    pub started_at: u64,
    /// How often the restart policy has started it again.
    pub restarts: u32,
    /// The cgroup path below every hierarchy.
    pub cgroup: String,
    /// The boot in which this was written, see [`boot_id`]: start times of another one mean nothing.
    #[serde(default)]
    pub boot: Option<String>,
    /// What the monitor speaks, see [`crate::protocol::VERSION`].
    #[serde(default)]
    pub speaks: u32,
}

/// How a container's last run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exit {
    /// The format number of this record.
    pub format: u32,
    /// The exit status as a shell tells it (128 + signal), or none when it can no longer be known.
    pub code: Option<i32>,
    /// Whether the OOM killer ended a process of it.
    pub oom_killed: bool,
    /// When it was last started, in nanoseconds since 1970; 0 when it never was, or nobody knows.
    pub started_at: u64,
    /// When it ended, in nanoseconds since 1970; 0 when nobody knows.
    pub finished_at: u64,
    /// Why it could not be started.
    pub error: Option<String>,
    /// Whether a person stopped or killed it: `unless-stopped` then keeps it down.
    pub stopped: bool,
    /// How often the restart policy had started it again.
    #[serde(default)]
    pub restarts: u32,
}

/// The names of the two files.
pub const STATE_FILE: &str = "state";
/// The name of the exit record.
pub const EXIT_FILE: &str = "exit";

impl State {
    /// Reads the state of a container; none when nothing was started since boot or the record is unreadable.
    pub fn read(run_dir: &Path) -> Option<Self> {
        let bytes = fs::read(run_dir.join(STATE_FILE)).ok()?;
        let state: Self = serde_json::from_slice(&bytes).ok()?;
        // A run directory may lie on a disk, and survive.
        let same_boot = state.boot.as_deref().is_none_or(|boot| boot_id().is_none_or(|now| now == boot));
        same_boot.then_some(state)
    }

    /// Says whether the container's first process lives.
    pub fn is_running(&self) -> bool {
        self.init.is_some_and(ProcessId::is_alive)
    }
}

impl Exit {
    /// An end of which nothing is known.
    pub fn unknown() -> Self {
        Self {
            format: FORMAT,
            code: None,
            oom_killed: false,
            started_at: 0,
            finished_at: 0,
            error: None,
            stopped: false,
            restarts: 0,
        }
    }

    /// Says whether the container's program has never run: the very first start failed.
    pub fn is_of_first_start(&self) -> bool {
        self.error.is_some() && self.started_at == 0 && self.restarts == 0
    }

    /// Reads the exit record; none when there has been no run or it goes on.
    pub fn read(container_dir: &Path) -> Option<Self> {
        let bytes = fs::read(container_dir.join(EXIT_FILE)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// The present boot: random/boot_id, random(4). None where /proc has no such file.
pub fn boot_id() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        // One read: the file says that it is empty, and a reader of unknown lengths would ask three times.
        let mut bytes = [0; 64];
        let count = fs::File::open("/proc/sys/kernel/random/boot_id").ok()?.read(&mut bytes).ok()?;
        Some(std::str::from_utf8(&bytes[..count]).ok()?.trim_end().to_owned())
    };
    BOOT.get_or_init(read).as_deref()
}

/// The present time in nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_later_one_with_its_pid_is_not_it() {
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { start: me.start + 1, ..me }.is_alive());
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let id = ProcessId::of(pid).unwrap();
        let mut fd = rustix::process::pidfd_open(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::PidfdFlags::empty(),
        )
        .map(|fd| vec![fd])
        .unwrap();
        let fd = fd.pop().unwrap();
        rustix::event::poll(&mut [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)], None).unwrap();
        assert!(!id.is_alive());
        child.wait().unwrap();
    }
}
