//! What the kernel alone costs: a container made from a recipe of ready system calls, with no engine around it.
//!
//! The bench writes the recipe from the same configuration that its peers get, so namespaces, mounts, masks, cgroups,
//! capabilities and filter are the same; what is left out is all reading, checking, recording and reporting. One line is
//! one step, its words divided by tabs; the parent's steps come first:
//!
//! ```text
//! parent   directory D | cgroup D | set FILE VALUE | birth D (v2) | move FILE (v1) | clone FLAGS
//! child    bind FROM TO FLAGS | mount TYPE FROM TO FLAGS DATA | mkdir D | file F | node F MAJOR MINOR | link TO F
//!          remount D FLAGS | moved FLAGS | limit files|processes N | loopback | hostname N | put FILE VALUE | pivot D | readonly F
//!          capabilities DROPPED SET | no-new-privileges | seccomp FILE | exec PROGRAM ARGUMENT...
//! ```
//!
//! The parent waits, removes the cgroups and directories it made, and ends with the program's exit status.

#![cfg_attr(not(test), no_main)] // `program!` has it
#![allow(clippy::print_stderr)] // a program that the bench starts

use anyhow::{Context, Result, bail};
use brig_sys::clone::{clone_process, unshare};
use brig_sys::exec::{StringList, execve};
use brig_sys::seccomp::Instruction;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{WaitId, WaitIdOptions};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[cfg(brig_musl)]
brig_sys::musl_bridge!();
brig_sys::program!(main_of_recipe);

fn main_of_recipe() -> i32 {
    let result = std::env::args_os().nth(1).context("no recipe").and_then(|path| run(&path));
    match result {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("bench-bare: {error:#}");
            125
        }
    }
}

fn run(path: &std::ffi::OsStr) -> Result<u8> {
    let text = std::fs::read_to_string(path).context("cannot read the recipe")?;
    let steps: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let filter = match steps.iter().find(|s| s[0] == "seccomp") {
        Some(step) => read_filter(step[1])?,
        None => Vec::new(),
    };
    let mut open = None;
    let (mut moves, mut made, mut birth, mut flags, mut first) = (Vec::new(), Vec::new(), None, 0, 0);
    for (at, step) in steps.iter().enumerate() {
        match step.as_slice() {
            ["directory" | "cgroup", directory] => {
                rustix::fs::mkdir(*directory, Mode::from_raw_mode(0o755)).context("cannot make a directory")?;
                made.push((*directory, step[0] == "cgroup"));
            }
            ["set", file, value] => {
                if open.as_ref().is_none_or(|(opened, _)| opened != file) {
                    open = Some((*file, open_file(file).with_context(|| format!("cannot open {file}"))?));
                }
                if let Some((_, fd)) = &open {
                    rustix::io::write(fd, value.as_bytes())
                        .with_context(|| format!("cannot write {value} to {file}"))?;
                }
            }
            ["move", file] => moves.push(*file),
            ["birth", cgroup] => birth = Some(open_directory(cgroup)?),
            ["clone", value] => {
                (flags, first) = (value.parse().context("clone takes a number")?, at + 1);
                break;
            }
            _ => bail!("the parent has no step {step:?}"),
        }
    }
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let rest = &steps[first..];
    drop(open);
    let child = clone_process(flags, birth.as_ref().map(AsFd::as_fd), || match child(rest, reader.as_fd(), &filter) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("bench-bare: in the container: {error:#}");
            125
        }
    })?;
    for file in moves {
        write(file, &child.pid.to_string()).with_context(|| format!("cannot write to {file}"))?;
    }
    rustix::io::write(&writer, b"k")?;
    let ended = rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    for (directory, is_cgroup) in made.into_iter().rev() {
        if is_cgroup { std::fs::remove_dir(directory)? } else { std::fs::remove_dir_all(directory)? }
    }
    Ok(ended.and_then(|e| e.exit_status()).and_then(|s| u8::try_from(s).ok()).unwrap_or(255))
}

fn open_file(file: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

fn write(file: &str, value: &str) -> rustix::io::Result<()> {
    rustix::io::write(open_file(file)?, value.as_bytes()).map(drop)
}

fn open_directory(path: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn read_filter(path: &str) -> Result<Vec<Instruction>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
    let instruction = |c: &[u8]| Instruction {
        code: u16::from_ne_bytes([c[0], c[1]]),
        jt: c[2],
        jf: c[3],
        k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
    };
    Ok(bytes.chunks_exact(8).map(instruction).collect())
}

fn child(steps: &[Vec<&str>], parent: BorrowedFd<'_>, filter: &[Instruction]) -> Result<()> {
    rustix::process::setsid()?;
    rustix::process::umask(Mode::empty());
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    for step in steps {
        one(step, parent, filter).with_context(|| format!("step {step:?}"))?;
    }
    bail!("the recipe has no program")
}

fn one(step: &[&str], parent: BorrowedFd<'_>, filter: &[Instruction]) -> Result<()> {
    match step {
        ["bind", from, to, flags] => {
            rustix::mount::mount_bind_recursive(*from, *to)?;
            let flags = MountFlags::from_bits_retain(flags.parse()?);
            if !flags.is_empty() {
                rustix::mount::mount_remount(*to, MountFlags::BIND | flags, c"")?;
            }
        }
        ["mount", kind, from, to, flags, data] => {
            let data = CString::new(*data)?;
            rustix::mount::mount(*from, *to, *kind, MountFlags::from_bits_retain(flags.parse()?), data.as_c_str())?;
        }
        ["mkdir", path] => match rustix::fs::mkdir(*path, Mode::from_raw_mode(0o755)) {
            Err(rustix::io::Errno::EXIST) => {}
            result => result?,
        },
        // Never opened for writing: an overlay would copy up, and flush, what the image has.
        ["file", path] => match rustix::fs::mknodat(CWD, *path, FileType::RegularFile, Mode::from_raw_mode(0o644), 0) {
            Err(rustix::io::Errno::EXIST) => {}
            result => result?,
        },
        ["node", path, major, minor] => {
            let device = rustix::fs::makedev(major.parse()?, minor.parse()?);
            rustix::fs::mknodat(CWD, *path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)?;
        }
        ["link", to, path] => rustix::fs::symlink(*to, *path)?,
        ["moved", flags] => {
            rustix::io::read(parent, &mut [0u8; 1])?;
            let flags = flags.parse()?;
            if flags != 0 {
                unshare(flags)?;
            }
        }
        ["limit", which, value] => {
            use rustix::process::{Resource, Rlimit, setrlimit};
            let value = Some(value.parse()?);
            let resource = if *which == "files" { Resource::Nofile } else { Resource::Nproc };
            setrlimit(resource, Rlimit { current: value, maximum: value })?;
        }
        ["put", file, value] => write(file, value)?,
        ["loopback"] => brig_sys::interface::loopback_up()?,
        ["hostname", name] => rustix::system::sethostname(name.as_bytes())?,
        ["pivot", path] => {
            rustix::process::chdir(*path)?;
            rustix::process::pivot_root(".", ".")?;
            rustix::mount::unmount(".", UnmountFlags::DETACH)?;
            rustix::process::chdir("/")?;
        }
        ["readonly", path] => {
            rustix::mount::mount_bind_recursive(*path, *path)?;
            rustix::mount::mount_remount(*path, MountFlags::BIND | MountFlags::RDONLY, c"")?;
        }
        ["remount", path, flags] => {
            let flags = MountFlags::from_bits_retain(flags.parse()?);
            rustix::mount::mount_remount(*path, MountFlags::BIND | flags, c"")?;
        }
        ["capabilities", dropped, set] => {
            use rustix::thread::{CapabilitySet, CapabilitySets};
            let (dropped, set): (u64, u64) = (dropped.parse()?, set.parse()?);
            for bit in (0..64).map(|n| 1 << n).filter(|bit| dropped & bit != 0) {
                rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(bit))?;
            }
            let set = CapabilitySet::from_bits_retain(set);
            let sets = CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() };
            rustix::thread::set_capabilities(None, sets)?;
        }
        ["no-new-privileges"] => rustix::thread::set_no_new_privs(true)?,
        ["seccomp", _] => {
            brig_sys::seccomp::install(filter, 0)?;
        }
        ["exec", program, arguments @ ..] => {
            let argv = StringList::new([program].into_iter().chain(arguments))?;
            let program = CString::new(*program)?;
            return Err(execve(&program, &argv, &StringList::new(["PATH=/bin"])?).into());
        }
        _ => bail!("unknown"),
    }
    Ok(())
}
