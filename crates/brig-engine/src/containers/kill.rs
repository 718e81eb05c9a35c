//! Sending a signal to a container's first process.

use super::status::{self, Phase};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::record::Record;
use brig_monitor::protocol::Kind as Packet;
use brig_monitor::state::State;
use brig_runtime::cgroup::Cgroup;
use rustix::process::{Pid, PidfdFlags};
use std::os::fd::AsFd;
use std::path::Path;

/// SIGKILL.
pub(super) const SIGKILL: i32 = 9;
/// SIGTERM.
pub(super) const SIGTERM: i32 = 15;

/// Sends a signal; SIGKILL also ends the restart policy, and reaches a paused container.
pub fn kill(config: &Config, record: &Record, signal: i32) -> Result<()> {
    let status = status::of(config, record);
    if status.phase == Phase::Stopping && signal == SIGKILL {
        return Ok(());
    }
    if !status.is_running() {
        if status.phase == Phase::Restarting && signal == SIGKILL {
            // There is no process now; the next one is not wanted.
            let connection = super::connect(config, record, 0)?;
            return connection
                .send(Packet::Stopping, &[])
                .map_err(|error| Error::io(format!("cannot stop container `{}`", record.name), error));
        }
        return Err(Error::conflict(format!("cannot kill container `{}`", record.name)).reason("it is not running"));
    }
    if status.phase == Phase::Paused && signal != SIGKILL {
        return Err(Error::conflict(format!("cannot kill container `{}`", record.name))
            .reason("it is paused, and would not notice")
            .hint(format!("continue it first: `brig unpause {}`", record.name)));
    }
    if signal == SIGKILL
        && let Ok(connection) = super::connect(config, record, 0)
    {
        let _ = connection.send(Packet::Stopping, &[]);
    }
    send(config, record, signal)?;
    if status.phase == Phase::Paused {
        thaw(config, record);
    }
    Ok(())
}

/// Lets a frozen container go, so that a signal is seen: a process frozen by cgroup v1 cannot even be killed.
pub(super) fn thaw(config: &Config, record: &Record) {
    if let Ok(cgroup) = Cgroup::open(Path::new(&super::undo::cgroup(config, record))) {
        let _ = cgroup.thaw();
    }
}

/// Sends a signal to the first process itself, by a descriptor that no later process with its pid can take over.
pub(super) fn send(config: &Config, record: &Record, signal: i32) -> Result<()> {
    let failed = |error: std::io::Error| Error::io(format!("cannot kill container `{}`", record.name), error);
    let init = State::read(&record.run_dir(config)).and_then(|s| s.init).ok_or_else(|| super::not_running(record))?;
    let pid = Pid::from_raw(init.pid).ok_or_else(|| super::not_running(record))?;
    let fd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(failed(error.into())),
    };
    // Checked after the descriptor is open: from here on it means this process or none.
    if !init.is_alive() {
        return Ok(());
    }
    match brig_sys::signals::send_to(fd.as_fd(), signal) {
        Ok(()) => Ok(()),
        // ESRCH: it has ended meanwhile.
        Err(error) if error.raw_os_error() == Some(3) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The signals of Linux by number, signal(7); the numbers are those of x86-64, arm64 and riscv64.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Reads a signal's name or number: `SIGTERM`, `term`, `15`, `RTMIN+3`.
pub fn signal_number(text: &str) -> Result<i32> {
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    let bad =
        || Error::invalid(format!("`{text}` is not a signal")).hint("signal(7) lists the names; numbers are 1 to 64");
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) && !text.starts_with('+') { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|n| *n == name) {
        return i32::try_from(at + 1).map_err(|_| bad());
    }
    let realtime = |rest: &str, base: i32, sign: i32| {
        if rest.is_empty() {
            return Some(base);
        }
        let digits = rest.strip_prefix(if sign > 0 { '+' } else { '-' })?;
        Some(base + sign * digits.parse::<i32>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))?)
    };
    let number = match name {
        "IOT" => return Ok(6),
        "POLL" => return Ok(29),
        "CLD" => return Ok(17),
        _ => match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(rest), _) => realtime(rest, RTMIN, 1),
            (_, Some(rest)) => realtime(rest, RTMAX, -1),
            _ => None,
        },
    };
    number.filter(|n| (RTMIN..=RTMAX).contains(n)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("rtmin", 34),
            ("IOT", 6),
            ("SIGWINCH", 28),
            ("SYS", 31),
            ("64", 64),
        ] {
            assert_eq!(signal_number(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "-1", "+9", "SIG", "TERMX", "RTMIN+99", "RTMIN-1", "RTMAX-99", "RTMIN++1"] {
            assert!(signal_number(bad).is_err(), "{bad}");
        }
    }
}
