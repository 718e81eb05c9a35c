//! `--init`: a first process that does what init has to. It starts the command, passes signals on, buries orphans, and ends
//! as the command ended.
//!
//! It runs inside the container, from a read-only bind of this program.

use brig_sys::clone::clone_process;
use brig_sys::exec::{StringList, execve};
use brig_sys::signals;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

/// The first argument that makes a program of brig this init.
pub const ARGUMENT: &str = "init-reaper";

const SIGCHLD: i32 = 17;
/// Signals of a fault of this process itself: blocking them would hide it.
const FAULTS: [i32; 6] = [4, 5, 6, 7, 8, 11];

/// Runs `command` under this process, and returns the exit status to end with.
pub fn main(command: &[OsString]) -> i32 {
    let caught: Vec<i32> = (1..=64).filter(|s| !FAULTS.contains(s) && ![9, 19, 32, 33].contains(s)).collect();
    let Ok(fd) = signals::descriptor(&caught) else { return 125 };
    let child = clone_process(0, None, || {
        // A process group of its own in the foreground, so that the keyboard's signals reach the command once.
        let _ = rustix::process::setpgid(None, None);
        if rustix::termios::isatty(rustix::stdio::stdin()) {
            signals::ignore(22);
            let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
        }
        if signals::reset().is_err() {
            return 125;
        }
        execute(command)
    });
    let Ok(child) = child else { return 125 };
    loop {
        let _ = rustix::event::poll(&mut [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)], None);
        // Signals are read one at a time; a signalfd is non-blocking.
        while let Some(signal) = signals::next(fd.as_fd()) {
            if signal != SIGCHLD {
                let _ = signals::send(child.pid, signal);
                continue;
            }
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                if Some(pid) == Pid::from_raw(child.pid) {
                    return exit_status(status);
                }
            }
        }
    }
}

fn exit_status(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|s| 128 + s)).unwrap_or(255)
}

/// Executes the command as execvp(3) does; returns the exit status of a shell when it cannot.
fn execute(command: &[OsString]) -> i32 {
    let Some(name) = command.first() else { return 127 };
    let environment: Vec<Vec<u8>> =
        std::env::vars_os().map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat()).collect();
    let (Ok(argv), Ok(envp)) = (StringList::new(command.iter().map(|a| a.as_bytes())), StringList::new(environment))
    else {
        return 126;
    };
    let search = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut status = 127;
    let mut cause = "it is in no directory of the PATH".to_owned();
    let directories: Vec<std::path::PathBuf> = if name.as_bytes().contains(&b'/') {
        vec![std::path::PathBuf::new()]
    } else {
        std::env::split_paths(&search).collect()
    };
    for directory in directories {
        let Ok(path) = CString::new(directory.join(name).as_os_str().as_bytes()) else { return 126 };
        let error = execve(&path, &argv, &envp);
        if error.kind() != std::io::ErrorKind::NotFound {
            (status, cause) = (126, error.to_string());
        } else if name.as_bytes().contains(&b'/') {
            cause = error.to_string();
        }
    }
    let text = format!("error: cannot execute `{}`\n  because: {cause}\n", name.to_string_lossy());
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
    status
}
