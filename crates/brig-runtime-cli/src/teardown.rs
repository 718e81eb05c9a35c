//! The end of a container: its processes, its cgroup, its hooks, its record.

use crate::container::Container;
use crate::failure::{Failure, Step};
use crate::global::Global;
use brig_runtime::hooks::{self, Moment};
use brig_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::AsFd;

const KILL: i32 = 9;
/// How long a killed process may take to end, seconds.
const PATIENCE: i64 = 10;

/// Kills a container's first process and waits until it is gone.
pub(crate) fn end(container: &Container) -> Result<(), Failure> {
    // It may have ended by itself meanwhile.
    let Ok(pidfd) = container.pidfd() else { return Ok(()) };
    let _ = brig_sys::signals::send_to(pidfd.as_fd(), KILL);
    if let Ok(cgroup) = container.cgroup() {
        // What is frozen on cgroup v1 dies only when it is thawed.
        if cgroup.is_frozen() {
            let _ = cgroup.thaw();
        }
    }
    let limit = rustix::time::Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
    let ended =
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).step(|| "wait for the container's end")?;
    if ended == 0 {
        return Err(Failure::new(format!("the container's first process did not end within {PATIENCE} s of its kill")));
    }
    Ok(())
}

/// Takes a container apart whose first process has ended: what is left of its processes, the cgroup, the record. The poststop
/// hooks run at the end, and one that fails is a warning: there is nothing left to stop.
pub(crate) fn tear_down(global: &Global, container: &Container, spec: Option<&Spec>) -> Result<(), Failure> {
    let cgroup = container.cgroup()?;
    // Most often nobody is left, and no cgroup below.
    if !cgroup.remove_if_empty() {
        cgroup.kill_all()?;
        cgroup.remove()?;
    }
    container.forget()?;
    if let Some(spec) = spec {
        let after = spec.hooks.as_ref().map(|hooks| Moment::Poststop.of(hooks)).unwrap_or_default();
        for hook in after {
            let description = container.description(spec);
            let state = description.state("stopped", 0);
            let hook = std::slice::from_ref(hook);
            if let Err(error) = hooks::run(Moment::Poststop, hook, &state, description.bundle()) {
                global.log.warning(&Failure::from(error).to_string());
            }
        }
    }
    Ok(())
}
