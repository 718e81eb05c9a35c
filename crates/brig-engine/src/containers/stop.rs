//! Stopping a container: ask by its stop signal, wait, then kill.

use super::kill::{SIGKILL, SIGTERM, send, thaw};
use super::wait::{served, wait_served};
use super::{due, status};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::record::Record;
use brig_monitor::protocol::Kind as Packet;
use std::time::{Duration, Instant};

/// How long a program has to end when nobody said otherwise, in seconds.
const TIMEOUT_S: i64 = 10;
/// How long the kernel has to end a killed program.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// Stops a container; one that does not run stays down. `timeout_s` negative: waits for ever.
pub fn stop(config: &Config, record: &Record, signal: Option<i32>, timeout_s: Option<i64>) -> Result<()> {
    let status = status::of(config, record);
    if !status.is_active() {
        // What a reboot ended would be started again by its policy.
        return if due::is_due(config, record, &status) { due::keep_down(config, record) } else { Ok(()) };
    }
    served(config, record, "stop")?;
    // First of all the policy must know, or it starts the program again.
    if let Ok(connection) = super::connect(config, record, 0) {
        let _ = connection.send(Packet::Stopping, &[]);
    }
    let signal = match signal {
        Some(signal) => signal,
        None => record.config.stop_signal.as_deref().map_or(Ok(SIGTERM), super::signal_number)?,
    };
    if status.is_running() {
        send(config, record, signal)?;
        if status.phase == status::Phase::Paused {
            thaw(config, record);
        }
    }
    let seconds = timeout_s.or(record.config.stop_timeout).unwrap_or(TIMEOUT_S);
    let deadline = u64::try_from(seconds).ok().map(|s| Instant::now() + Duration::from_secs(s));
    if !wait_served(config, record, deadline, "stop")?.is_active() {
        return Ok(());
    }
    super::kill(config, record, SIGKILL)?;
    if wait_served(config, record, Some(Instant::now() + KILL_WAIT), "stop")?.is_active() {
        return Err(Error::new(Kind::Unavailable, format!("cannot stop container `{}`", record.name))
            .reason("its first process does not end, though it was killed 30 seconds ago")
            .hint("it waits inside the kernel, mostly for a disk or a network file system: `brig top` shows state D"));
    }
    Ok(())
}
