//! `kill`: sends a signal to a container's first process.

use super::Command;
use crate::arguments::{Ends, Opt, Parsed, flag};
use crate::container::{Container, Status};
use crate::failure::{Failure, Step};
use crate::global::Global;
use brig_spec::runtime::{LinuxNamespaceType, Spec};
use std::os::fd::AsFd;

const OPTIONS: [Opt; 1] = [flag("all", 'a', "send it to every process of the container")];

pub(crate) const COMMAND: Command = Command {
    name: "kill",
    operands: "CONTAINER [SIGNAL]",
    about: "send a signal to a container (default: TERM)",
    options: &OPTIONS,
    ends: Ends::Never,
    enters: false,
    run,
};

/// The names of the signals from 1 on; signal(7), x86 and arm.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
const KILL: i32 = 9;
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let (id, signal) = match parsed.operands.as_slice() {
        [id] => (id, "TERM"),
        [id, signal] => (id, signal.as_str()),
        _ => return Err(Failure::new("a container id and perhaps a signal are needed")),
    };
    let signal = number(signal).ok_or_else(|| Failure::new(format!("unknown signal {signal:?}")))?;
    let container = Container::load(&global.root, id)?;
    let stopped = container.status() == Status::Stopped;
    // Without a pid namespace of its own, the others live on when the first process is gone.
    if parsed.has("all") || (signal == KILL && shares_pids(&container)) {
        let nobody = stopped && container.cgroup()?.pids().is_empty();
        return if !nobody {
            send_to_all(&container, signal)
        } else if parsed.has("all") {
            Ok(0)
        } else {
            Err(Failure::new("container not running"))
        };
    }
    if stopped {
        return Err(Failure::new("container not running"));
    }
    brig_sys::signals::send_to(container.pidfd()?.as_fd(), signal)
        .step(|| format!("send signal {signal} to `{id}`"))?;
    if signal == KILL {
        // What is frozen on cgroup v1 dies only when it is thawed.
        let _ = container.cgroup().and_then(|cgroup| if cgroup.is_frozen() { Ok(cgroup.thaw()?) } else { Ok(()) });
    }
    Ok(0)
}

fn shares_pids(container: &Container) -> bool {
    let own = |spec: &Spec| spec.namespace(LinuxNamespaceType::Pid).is_some_and(|n| n.joined().is_none());
    container.spec().is_ok_and(|spec| !own(&spec))
}

fn send_to_all(container: &Container, signal: i32) -> Result<u8, Failure> {
    let cgroup = container.cgroup()?;
    if signal == KILL {
        cgroup.kill_all()?;
        return Ok(0);
    }
    // Frozen, so that none is born between the look and the signal.
    let frozen = !cgroup.is_frozen() && cgroup.freeze().is_ok();
    for pid in cgroup.pids() {
        let _ = brig_sys::signals::send(pid, signal);
    }
    if frozen {
        cgroup.thaw()?;
    }
    Ok(0)
}

/// Reads `9`, `KILL`, `SIGKILL`, `RTMIN+3`; in any case of letters.
fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (0..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(at) = NAMES.iter().position(|n| *n == name) {
        return i32::try_from(at + 1).ok();
    }
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => RTMIN,
        (_, Some("")) => RTMAX,
        (Some(rest), _) => RTMIN + rest.strip_prefix('+')?.parse::<i32>().ok()?,
        (_, Some(rest)) => RTMAX - rest.strip_prefix('-')?.parse::<i32>().ok()?,
        _ => return None,
    };
    (RTMIN..=RTMAX).contains(&real_time).then_some(real_time)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, signal) in [("9", 9), ("KILL", 9), ("sigterm", 15), ("RTMIN+3", 37), ("SIGRTMAX-1", 63), ("SYS", 31)]
        {
            assert_eq!(number(text), Some(signal), "{text}");
        }
        for text in ["", "SIG", "65", "-1", "RTMIN-1", "RTMIN+40", "NONE"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
