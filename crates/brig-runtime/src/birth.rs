//! The clone: how a container's first process comes into its namespaces.
//!
//! ```text
//! new namespaces               clone3 with their flags
//! a pid namespace of others    entered before the clone, and left after it: only children are born there
//! a time namespace             made before the clone, its offsets written, for the same reason
//! a user namespace of others   a bearer enters it and the others that are joined, bears the process as this one's child, and goes
//! a new one, others joined     the same: within the new one there are no rights over what belongs to the machine
//! ```

use crate::cgroup::file;
use crate::error::{Context, Error};
use crate::init::{self, Init};
use crate::protocol::{self, Channel, Word};
use crate::settings::Settings;
use brig_sys::clone::{Child, clone_process, flags, setns};
use brig_sys::schedule;
use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Makes the process, in the cgroup v2 directory `place` if one is given, and returns it with the channel to it; the third
/// value says whether [`rejoin`] is to be called when this process has done its own part.
pub(crate) fn bear(init: &mut Init<'_>, place: Option<BorrowedFd<'_>>) -> Result<(Child, Channel, bool), Error> {
    let (ours, theirs) = protocol::pair()?;
    let bearer = init.settings.namespaces.needs_bearer();
    // A bearer enters it itself: born inside, it would know its child by another pid than this process does.
    let own_pid = if bearer { None } else { join_pid_namespace(&init.settings)? };
    enter_time_namespace(&init.settings)?;
    let mut new = init.settings.namespaces.new & !flags::NEWTIME;
    if place.is_none() {
        // The namespace shows the cgroup in which it is made as its root: it comes after the move.
        new &= !flags::NEWCGROUP;
    }
    let born = clone_process(if bearer { 0 } else { new }, place, || {
        // With both ends in its hands it would never hear that this process is gone.
        brig_sys::fds::close_copy(ours.as_fd());
        if bearer { bear_inside(init, new, &theirs) } else { init::run(init, &theirs) }
    })
    .step(|| "make the container's process".into());
    drop(theirs);
    if let Some(own) = own_pid {
        setns(own.as_fd(), flags::NEWPID).step(|| "return to the pid namespace".into())?;
    }
    let mut child = born?;
    if bearer {
        let bearer = child;
        let heard = protocol::hear_of_birth(&ours);
        let _ = rustix::process::waitid(WaitId::PidFd(bearer.pidfd.as_fd()), WaitIdOptions::EXITED);
        child = heard?;
    }
    let shares = part(&child);
    Ok((child, ours, shares))
}

/// Has the child set itself up on another processor than this process, which has its own part to do at the same time: schedulers
/// that pack, as on a virtual machine whose idle processors sleep, let the two take turns on one, a sixth slower. It holds until
/// that part is done. Says whether others run, with whom it may have to take turns there; see [`rejoin`].
fn part(child: &Child) -> bool {
    let Ok(mut processors) = schedule::affinity(0) else { return false };
    let here = rustix::thread::sched_getcpu();
    if let Some(byte) = processors.get_mut(here / 8) {
        *byte &= !(1 << (here % 8));
    }
    processors.iter().any(|byte| *byte != 0) && schedule::set_affinity(child.pid, &processors).is_ok() && others_run()
}

/// Brings the child here, where this process is about to wait, if others still run: to share a processor with them would cost
/// milliseconds. [`crate::attributes`] gives it all processors afterwards. Who was there for a moment only, as the kernel's own
/// threads are, is no reason: to be moved costs as much as they take.
pub(crate) fn rejoin(pid: i32) {
    if !others_run() {
        return;
    }
    let here = rustix::thread::sched_getcpu();
    let mut processors = vec![0; here / 8 + 1];
    processors[here / 8] = 1 << (here % 8);
    let _ = schedule::set_affinity(pid, &processors);
}

/// Says whether more threads of the machine run, or could, than this one and the child's; proc_loadavg(5).
fn others_run() -> bool {
    let running = || -> Option<u32> {
        let text = file::read_if_there(Path::new("/proc/loadavg"))?;
        let (running, _) = text.split(' ').nth(3)?.split_once('/')?;
        running.parse().ok()
    };
    running().is_some_and(|count| count > 2)
}

/// The bearer's life.
fn bear_inside(init: &mut Init<'_>, new: u64, channel: &Channel) -> i32 {
    let mut bear = || -> Result<Child, Error> {
        join_pid_namespace(&init.settings)?;
        init.settings.namespaces.join()?;
        if init.settings.namespaces.joined_userns().is_some() {
            init::become_root()?;
        }
        clone_process(new | flags::PARENT, None, || {
            // Both say what they say on one channel: its bearer speaks first.
            if channel.expect(Word::Born).is_err() {
                return 1;
            }
            init::run(init, channel)
        })
        .step(|| "make the container's process".into())
    };
    protocol::tell_of_birth(channel, &bear())
}

fn join_pid_namespace(settings: &Settings) -> Result<Option<OwnedFd>, Error> {
    let Some((_, fd)) = settings.namespaces.joined.iter().find(|(flag, _)| *flag == flags::NEWPID) else {
        return Ok(None);
    };
    let step = || "join the pid namespace".to_owned();
    let own = rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(step)?;
    setns(fd.as_fd(), flags::NEWPID).step(step)?;
    Ok(Some(own))
}

/// Makes the time namespace of the children; its offsets can be written only before the first of them.
fn enter_time_namespace(settings: &Settings) -> Result<(), Error> {
    if !settings.namespaces.has(flags::NEWTIME) {
        return Ok(());
    }
    brig_sys::clone::unshare(flags::NEWTIME).step(|| "make the time namespace".into())?;
    if let Some(offsets) = &settings.time_offsets {
        std::fs::write("/proc/self/timens_offsets", offsets).step(|| "write the time offsets".into())?;
    }
    Ok(())
}
