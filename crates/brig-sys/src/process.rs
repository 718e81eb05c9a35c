//! `personality` and other small per-process attributes that rustix has no door for.

use crate::{Result, check};

/// Sets the OOM score adjustment of the caller by proc_pid_oom_score_adj(5), in the range -1000 to 1000.
pub fn set_oom_score_adj(value: i32) -> Result<()> {
    std::fs::write("/proc/self/oom_score_adj", value.to_string())
}

/// Sets the execution domain, personality(2).
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: personality takes a number and touches no memory.
    check(unsafe { libc::personality(persona) }.into()).map(drop)
}

/// Sets the process name that ps(1) shows as the command line, by overwriting the arguments' first bytes with
/// `PR_SET_MM`-free means: only `comm` is changed, prctl(2) `PR_SET_NAME`.
pub fn set_comm(name: &std::ffi::CStr) -> Result<()> {
    rustix::thread::set_name(name).map_err(Into::into)
}
