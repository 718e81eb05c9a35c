//! Resource limits and the OOM score of a container's process, set from outside: inside a user namespace nobody may.
//!
//! What this machine refuses (a hard limit above its own without CAP_SYS_RESOURCE, a lower OOM score) is granted as far as
//! it goes, with a warning: an engine that dies there helps nobody.

use crate::error::{Context, Error};
use brig_spec::runtime::{PosixRlimit, Process};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};

/// The limits of one process.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub oom_score_adj: Option<i32>,
    pub rlimits: Vec<(Resource, Rlimit)>,
}

impl Limits {
    /// Reads them. Errors: a limit that does not exist, or is given twice.
    pub fn parse(process: &Process) -> Result<Self, Error> {
        let rlimits: Vec<_> = process.rlimits.iter().map(rlimit).collect::<Result<_, _>>()?;
        for (at, (resource, _)) in rlimits.iter().enumerate() {
            if rlimits[..at].iter().any(|(other, _)| other == resource) {
                return Err(Error::invalid("read the limits", format!("{resource:?} is given twice")));
            }
        }
        Ok(Self { oom_score_adj: process.oom_score_adj, rlimits })
    }
}

/// Applies `limits` to the process `pid`.
pub(crate) fn apply(pid: i32, limits: &Limits, warnings: &mut Vec<String>) -> Result<(), Error> {
    if let Some(score) = limits.oom_score_adj {
        let path = format!("/proc/{pid}/oom_score_adj");
        match std::fs::write(&path, score.to_string()) {
            Err(error) if error.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) => {
                let present = std::fs::read_to_string(&path).unwrap_or_default();
                warnings.push(format!("the OOM score adjustment {score} was refused; it stays {}", present.trim()));
            }
            result => result.step(|| format!("set the OOM score adjustment {score}"))?,
        }
    }
    let Some(process) = Pid::from_raw(pid) else { return Ok(()) };
    for (resource, wanted) in &limits.rlimits {
        let step = || format!("set the limit {resource:?}");
        match rustix::process::prlimit(Some(process), *resource, *wanted) {
            Ok(_) => {}
            Err(Errno::PERM) => {
                let hard = rustix::process::getrlimit(*resource).maximum;
                let lower = |value: Option<u64>| match (value, hard) {
                    (Some(value), Some(hard)) => Some(value.min(hard)),
                    (None, hard) => hard,
                    (value, None) => value,
                };
                let granted = Rlimit { current: lower(wanted.current), maximum: lower(wanted.maximum) };
                rustix::process::prlimit(Some(process), *resource, granted).step(step)?;
                let text = |value: Option<u64>| value.map_or("unlimited".into(), |v| v.to_string());
                warnings.push(format!(
                    "the limit {resource:?} was lowered from {} to {}, this machine's own",
                    text(wanted.maximum),
                    text(granted.maximum)
                ));
            }
            Err(error) => return Err(error).step(step),
        }
    }
    Ok(())
}

/// The limits by their names; getrlimit(2).
const NAMES: [(&str, Resource); 16] = [
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_STACK", Resource::Stack),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
];

fn rlimit(limit: &PosixRlimit) -> Result<(Resource, Rlimit), Error> {
    let known = NAMES.iter().find(|(name, _)| *name == limit.typ);
    let (_, resource) =
        known.ok_or_else(|| Error::invalid("read the limits", format!("wrong rlimit value: {}", limit.typ)))?;
    let bound = |n: u64| (n != u64::MAX).then_some(n);
    Ok((*resource, Rlimit { current: bound(limit.soft), maximum: bound(limit.hard) }))
}
