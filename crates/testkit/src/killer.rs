//! Kills a program at the n-th system call that changes something below a directory, counted over all of its threads.
//!
//! ```text
//!   sh -c 'read go; exec PROGRAM'  <- seized while it waits, then told to go on: ptrace(2)
//!   every entry of a system call   counted if it would change a file below the directory, or make, name or flush one
//!   the n-th                       SIGKILL while the call has not begun; it never happens
//! ```
//!
//! The program under test is the real one, and knows nothing of it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What became of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was killed at the call of this name.
    Killed(&'static str),
    /// It ended by itself, with this status, after so many calls.
    Ended(i32, u64),
}

/// How a call tells what it would change.
#[derive(Clone, Copy)]
enum Rule {
    /// It names what it changes.
    Always,
    /// Its first argument is a descriptor of it.
    Descriptor,
    /// It opens, with flags in this argument.
    Open(usize),
    /// It opens, with flags behind this argument.
    OpenHow(usize),
}

/// Runs a command, and kills it at the `n`-th call (from one) that changes something below `directory`.
///
/// Its standard input is empty, its output thrown away.
#[expect(clippy::zombie_processes, reason = "waited for by its process group, as its tracer must")]
pub fn kill_at(command: &Command, directory: &Path, n: u64) -> End {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "read go; exec \"$@\" < /dev/null", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.env_clear();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(key, value);
        }
    }
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let mut child = shell.spawn().expect("a shell");
    let pid = Pid::from_raw(child.id().cast_signed());
    let options = Options::PTRACE_O_EXITKILL
        | Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC;
    ptrace::seize(pid, options).expect("a child can be traced");
    ptrace::interrupt(pid).expect("a traced child can be stopped");
    let mut stdin = child.stdin.take();
    let mut seen = 0;
    let mut killed = None;
    loop {
        let group = Pid::from_raw(-pid.as_raw());
        let status = waitpid(group, Some(WaitPidFlag::__WALL)).expect("the child is there");
        if let Some(mut stdin) = stdin.take() {
            stdin.write_all(b"go\n").expect("the shell reads");
        }
        // A thread that is gone meanwhile cannot be told to go on.
        match status {
            WaitStatus::Exited(who, code) if who == pid => return killed.map_or(End::Ended(code, seen), End::Killed),
            WaitStatus::Signaled(who, signal, _) if who == pid => {
                return killed.map_or(End::Ended(128 + signal as i32, seen), End::Killed);
            }
            WaitStatus::PtraceSyscall(who) => {
                let call = if killed.is_none() && is_entry(who) { changes(who, directory) } else { None };
                if let Some(name) = call {
                    seen += 1;
                    if seen == n {
                        kill(pid, Signal::SIGKILL).expect("the child is there");
                        killed = Some(name);
                        continue;
                    }
                }
                let _ = ptrace::syscall(who, None);
            }
            WaitStatus::PtraceEvent(who, ..) => drop(ptrace::syscall(who, None)),
            WaitStatus::Stopped(who, signal) => drop(ptrace::syscall(who, Some(signal))),
            _ => {}
        }
    }
}

fn is_entry(who: Pid) -> bool {
    ptrace::syscall_info(who).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY)
}

/// Names the call that a stopped thread is about to make, if it would change something.
fn changes(who: Pid, directory: &Path) -> Option<&'static str> {
    let text = fs::read_to_string(format!("/proc/{who}/syscall")).ok()?;
    let mut words = text.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let arguments: Vec<u64> =
        words.filter_map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok()).collect();
    let (name, rule) = CALLS.iter().find(|(known, ..)| *known == number).map(|(_, name, rule)| (*name, *rule))?;
    let makes = |flags: u64| flags & u64::from((libc::O_CREAT | libc::O_TRUNC).cast_unsigned()) != 0;
    let counts = match rule {
        Rule::Always => true,
        Rule::Descriptor => fs::read_link(format!("/proc/{who}/fd/{}", arguments.first()?))
            .is_ok_and(|target| target.starts_with(directory)),
        Rule::Open(at) => makes(*arguments.get(at)?),
        Rule::OpenHow(at) => {
            let mut flags = [0; 8];
            let memory = fs::File::open(format!("/proc/{who}/mem")).ok()?;
            memory.read_exact_at(&mut flags, *arguments.get(at)?).ok()?;
            makes(u64::from_ne_bytes(flags))
        }
    };
    counts.then_some(name)
}

/// The calls that change something.
const CALLS: &[(i64, &str, Rule)] = &[
    (libc::SYS_openat, "openat", Rule::Open(2)),
    (libc::SYS_openat2, "openat2", Rule::OpenHow(2)),
    (libc::SYS_mkdirat, "mkdirat", Rule::Always),
    (libc::SYS_mknodat, "mknodat", Rule::Always),
    (libc::SYS_symlinkat, "symlinkat", Rule::Always),
    (libc::SYS_linkat, "linkat", Rule::Always),
    (libc::SYS_unlinkat, "unlinkat", Rule::Always),
    (libc::SYS_renameat2, "renameat2", Rule::Always),
    (libc::SYS_fchmodat, "fchmodat", Rule::Always),
    (libc::SYS_fchownat, "fchownat", Rule::Always),
    (libc::SYS_utimensat, "utimensat", Rule::Always),
    (libc::SYS_write, "write", Rule::Descriptor),
    (libc::SYS_writev, "writev", Rule::Descriptor),
    (libc::SYS_pwrite64, "pwrite64", Rule::Descriptor),
    (libc::SYS_copy_file_range, "copy_file_range", Rule::Always),
    (libc::SYS_sendfile, "sendfile", Rule::Descriptor),
    (libc::SYS_ftruncate, "ftruncate", Rule::Descriptor),
    (libc::SYS_fallocate, "fallocate", Rule::Descriptor),
    (libc::SYS_fchmod, "fchmod", Rule::Descriptor),
    (libc::SYS_fchown, "fchown", Rule::Descriptor),
    (libc::SYS_fsetxattr, "fsetxattr", Rule::Descriptor),
    (libc::SYS_setxattr, "setxattr", Rule::Always),
    (libc::SYS_lsetxattr, "lsetxattr", Rule::Always),
    (libc::SYS_fsync, "fsync", Rule::Descriptor),
    (libc::SYS_fdatasync, "fdatasync", Rule::Descriptor),
    (libc::SYS_syncfs, "syncfs", Rule::Descriptor),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", Rule::Open(1)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir", Rule::Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir", Rule::Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink", Rule::Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename", Rule::Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_renameat, "renameat", Rule::Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_symlink, "symlink", Rule::Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, "link", Rule::Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, "chmod", Rule::Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, "chown", Rule::Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lchown, "lchown", Rule::Always),
];
