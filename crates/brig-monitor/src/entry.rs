//! The monitor's `main`: from a fresh process to a session of its own, and to the job that it was spawned for.

use crate::clients::Client;
use crate::spawn::Job;
use crate::{exec, run};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Signals that must not end a monitor: a service manager or a closing terminal sends them to everyone. Only KILL does.
const IGNORED: [i32; 4] = [1, 2, 15, 13];

/// Runs a monitor to its end and returns the process's exit status. `arguments` are those after [`crate::spawn::ARGUMENT`].
///
/// Standard input is one end of a socket pair: the first client.
pub fn main(arguments: &[OsString]) -> i32 {
    let [job, directory] = arguments else { return 2 };
    let Some(job) = job.to_str().and_then(Job::from_word) else { return 2 };
    let directory = PathBuf::from(directory);
    let Ok(first) = become_daemon() else { return 2 };
    let mut first = Client::new(first);
    first.greet();
    match job {
        Job::Run => run::run(&directory, first),
        Job::Exec => exec::run(&directory, first),
        Job::Adopt => run::adopt(&directory, first),
    }
}

/// Leaves the starter's session and takes the socket from the place of standard input.
fn become_daemon() -> std::io::Result<OwnedFd> {
    rustix::process::setsid()?;
    // Here and not by the starter, which can then start it without copying itself.
    rustix::process::chdir("/")?;
    for signal in IGNORED {
        brig_sys::signals::ignore(signal);
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let _ = rustix::thread::set_name(c"brig-monitor");
    brig_sys::fds::close_from(3)?;
    // No process of a container, a further one either, is to begin with the keys of whoever started it. A kernel may have none.
    let _ = brig_sys::keyring::new_session();
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    brig_sys::fds::place(null.as_fd(), 0)?;
    Ok(socket)
}
