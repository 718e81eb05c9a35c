//! `events`: prints what a container uses, and that it ran out of memory; one line of JSON each.

use super::{Command, container_id, say};
use crate::arguments::{Ends, Opt, Parsed, flag, value};
use crate::container::{Container, Status};
use crate::failure::{Failure, Step};
use crate::global::Global;
use brig_runtime::cgroup::{Cgroup, OomEvent};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use std::time::{Duration, Instant};

const OPTIONS: [Opt; 2] = [
    value("interval", '\0', "the time between two reports: 500ms, 5s, 1m30s (default: 5s)"),
    flag("stats", '\0', "print one report and end"),
];

pub(crate) const COMMAND: Command = Command {
    name: "events",
    operands: "CONTAINER",
    about: "print what a container uses, and when it runs out of memory",
    options: &OPTIONS,
    ends: Ends::Never,
    enters: false,
    run,
};

/// One line.
#[derive(Serialize)]
struct Event<'a, T> {
    r#type: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<T>,
}

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let container = Container::load(&global.root, container_id(parsed)?)?;
    let interval = parsed.filled("interval").unwrap_or("5s");
    let interval = duration(interval).filter(|d| !d.is_zero()).ok_or_else(|| {
        Failure::new(format!("invalid value {interval:?} for --interval: duration interval must be greater than 0"))
    })?;
    if container.status() == Status::Stopped {
        return Err(Failure::new(format!("container with id {} is not running", container.record.id)));
    }
    let cgroup = container.cgroup()?;
    if parsed.has("stats") {
        report(&container, &cgroup)?;
        return Ok(0);
    }
    follow(&container, &cgroup, interval)
}

/// Prints reports and events until the container has ended.
fn follow(container: &Container, cgroup: &Cgroup, interval: Duration) -> Result<u8, Failure> {
    let mut watch = cgroup.watch_oom()?;
    let pidfd = container.pidfd()?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let limit =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        let mut polled = [PollFd::new(&watch, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut polled, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).step(|| "wait for events"),
        }
        let ended = !polled[1].revents().is_empty();
        loop {
            match watch.take()? {
                OomEvent::Nothing => break,
                OomEvent::Oom => print(&Event { r#type: "oom", id: &container.record.id, data: None::<()> })?,
                OomEvent::Gone => return Ok(0),
            }
        }
        if ended {
            return Ok(0);
        }
        if Instant::now() >= next {
            report(container, cgroup)?;
            next = Instant::now() + interval;
        }
    }
}

fn report(container: &Container, cgroup: &Cgroup) -> Result<(), Failure> {
    print(&Event { r#type: "stats", id: &container.record.id, data: Some(cgroup.metrics()) })
}

fn print(event: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(event).map_err(|error| Failure::step("print the event", &error))?;
    line.push(b'\n');
    say(line).map(drop)
}

/// Reads `100ms`, `5s`, `1m30s`, `1.5h`; a bare number has no unit and is refused.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, ms) in [("100ms", 100), ("5s", 5000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("", 0)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["5", "s", "-1s", "1x", "1..2s", "1e400s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
