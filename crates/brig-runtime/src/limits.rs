//! Resource limits and the OOM score of a container's process, set from outside: inside a user namespace nobody may.
//!
//! What this machine refuses (a hard limit above its own without CAP_SYS_RESOURCE, a lower OOM score) is granted as far as
//! it goes, with a warning: an engine that dies there helps nobody.

use crate::error::{Context, Error};
use crate::program::Program;
use rustix::io::Errno;
use rustix::process::{Pid, Rlimit};

/// Applies the limits of `program` to the process `pid`.
pub(crate) fn apply(pid: i32, program: &Program, warnings: &mut Vec<String>) -> Result<(), Error> {
    if let Some(score) = program.oom_score_adj {
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
    for (resource, wanted) in &program.rlimits {
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
