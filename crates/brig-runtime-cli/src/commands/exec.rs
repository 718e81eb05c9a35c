//! `exec`: starts a further process in a running container.

use super::Command;
use crate::arguments::{Ends, Opt, Parsed, flag, value};
use crate::container::{self, Container, Status};
use crate::failure::{Failure, Step};
use crate::foreground::Foreground;
use crate::global::Global;
use crate::{foreground, make, sockets};
use brig_runtime::capabilities;
use brig_runtime::cgroup::SubCgroups;
use brig_runtime::enter::{self, Request};
use brig_spec::runtime::{Process, Spec};
use rustix::fs::{Mode, OFlags};
use std::os::fd::AsFd;
use std::path::Path;

const OPTIONS: [Opt; 18] = [
    value("console-socket", '\0', "a socket that receives the terminal's controlling side"),
    value("pidfd-socket", '\0', "a socket that receives a descriptor of the process"),
    value("cwd", '\0', "the working directory (default: that of the configuration)"),
    value("env", 'e', "a variable of the environment, KEY=VALUE; may be repeated"),
    flag("tty", 't', "give the process a terminal"),
    value("user", 'u', "the user: UID[:GID]"),
    value("additional-gids", 'g', "a further group; may be repeated"),
    value("process", 'p', "a file with the process as the specification describes it"),
    flag("detach", 'd', "leave the process to itself once it runs"),
    value("pid-file", '\0', "a file that receives the pid of the process"),
    value("process-label", '\0', "the SELinux label of the process"),
    value("apparmor", '\0', "the AppArmor profile of the process"),
    flag("no-new-privs", '\0', "set no_new_privs"),
    value("cap", 'c', "a further capability; may be repeated"),
    value("preserve-fds", '\0', "how many descriptors after the standard ones the process gets"),
    value("cgroup", '\0', "a cgroup below the container's, or CONTROLLERS:PATH on v1"),
    flag("ignore-paused", '\0', "enter a paused container; the process then waits until it is resumed"),
    flag("no-subreaper", '\0', "do not become the parent of orphans"),
];

pub(crate) const COMMAND: Command = Command {
    name: "exec",
    operands: "CONTAINER COMMAND [ARGUMENTS]",
    about: "start a further process in a running container",
    options: &OPTIONS,
    ends: Ends::After(2),
    enters: true,
    run,
};

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    exec(global, parsed).map_err(|failure| failure.with_status(255).during("exec failed"))
}

fn exec(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let Some((id, command)) = parsed.operands.split_first() else {
        return Err(Failure::new("a container id is needed: at least 1 argument"));
    };
    let container = Container::load(&global.root, id)?;
    match container.status() {
        Status::Stopped => return Err(Failure::new("cannot exec in a stopped container")),
        Status::Paused if !parsed.has("ignore-paused") => {
            return Err(Failure::new("cannot exec in a paused container (use --ignore-paused to override)"));
        }
        _ => {}
    }
    let spec = container.spec()?;
    let mut process = process(parsed, &spec, command)?;
    let terminal = process.terminal;
    let detach = parsed.has("detach");
    let socket = parsed.filled("console-socket").map(Path::new);
    if terminal && detach && socket.is_none() {
        return Err(Failure::new("cannot allocate tty if brig-runtime will detach without setting console socket"));
    }
    if socket.is_some() && !(detach && terminal) {
        return Err(Failure::new("cannot use console socket if brig-runtime will not detach or allocate tty"));
    }
    let preserved_fds = make::preserve_fds(&mut process, parsed.number("preserve-fds")?.unwrap_or(0))?;
    let foreground = if detach { None } else { Some(Foreground::begin()?) };
    let cgroup = container.cgroup()?;
    let sub = SubCgroups::parse(&parsed.values("cgroup").collect::<Vec<_>>())?;
    let description = container.description(&spec);
    let pidfd = container.pidfd()?;
    let request = Request {
        process: &process,
        spec: &spec,
        pidfd: pidfd.as_fd(),
        cgroup: &cgroup,
        sub: &sub,
        stdio: None,
        description: &description,
        preserved_fds,
    };
    global.log.debug("nsexec container setup: a doorkeeper joins the namespaces");
    let mut entered = enter::enter(request)?;
    global.log.debug("child process in init(): the process is inside");
    if let Some(mask) = entered.initial_processors {
        // Callers look for these words.
        global.log.debug(&format!("nsexec: affinity: {mask:#x}"));
    }
    let mut console = entered.console.take();
    if let Some(path) = socket
        && let Some(console) = console.take()
    {
        sockets::send_fd(path, "/dev/ptmx", console.as_fd())?;
    }
    if let Some(console) = &console {
        foreground::prepare(console.as_fd())?;
    }
    global.log.debug("setns_init: about to exec");
    let running = entered.start()?;
    for warning in &running.warnings {
        global.log.warning(warning);
    }
    if let Some(path) = parsed.filled("pidfd-socket") {
        sockets::send_fd(Path::new(path), "pidfd", running.child.pidfd.as_fd())?;
    }
    if let Some(path) = parsed.filled("pid-file") {
        sockets::write_pid_file(Path::new(path), running.child.pid)?;
    }
    match foreground {
        None => Ok(0),
        Some(foreground) => foreground.attend(&running.child, console),
    }
}

/// The process: from a file, or the container's own with what the options change.
fn process(parsed: &Parsed, spec: &Spec, command: &[String]) -> Result<Process, Failure> {
    if let Some(path) = parsed.filled("process") {
        let step = || format!("read the process from {path}");
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(step)?;
        let text = container::read_bounded(fd).step(step)?;
        return serde_json::from_slice(&text).map_err(|error| Failure::step(step(), &error));
    }
    if command.is_empty() {
        return Err(Failure::new("process args cannot be empty"));
    }
    let mut process = spec.process.clone().unwrap_or_default();
    process.args = command.to_vec();
    if let Some(cwd) = parsed.filled("cwd") {
        process.cwd = cwd.into();
    }
    if let Some(profile) = parsed.filled("apparmor") {
        process.apparmor_profile = profile.into();
    }
    if let Some(label) = parsed.filled("process-label") {
        process.selinux_label = label.into();
    }
    process.terminal = parsed.has("tty");
    if parsed.has("no-new-privs") {
        process.no_new_privileges = true;
    }
    process.env.extend(parsed.values("env").map(str::to_owned));
    add_capabilities(&mut process, parsed)?;
    set_user(&mut process, parsed)?;
    Ok(*process)
}

/// Adds capabilities to all sets but the inheritable one, which stays empty (CVE-2022-29162).
fn add_capabilities(process: &mut Process, parsed: &Parsed) -> Result<(), Failure> {
    let mut added = Vec::new();
    for name in parsed.values("cap") {
        let name = name.to_uppercase();
        if !name.starts_with("CAP_") || capabilities::number(&name).is_none() {
            return Err(Failure::new(format!("unknown capability {name:?}")));
        }
        added.push(name);
    }
    if added.is_empty() {
        return Ok(());
    }
    let sets = process.capabilities.get_or_insert_default();
    let mut all = vec![&mut sets.bounding, &mut sets.effective, &mut sets.permitted];
    // What is not inheritable can never be ambient.
    if !sets.inheritable.is_empty() {
        all.push(&mut sets.ambient);
    }
    for set in all {
        set.extend(added.iter().cloned());
    }
    Ok(())
}

/// Reads `UID[:GID]`, numbers of 32 bits alone (CVE-2026-30892).
fn set_user(process: &mut Process, parsed: &Parsed) -> Result<(), Failure> {
    let number = |text: &str, what: &str| -> Result<u32, Failure> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let parsed = text.parse::<u32>().ok().filter(|n| plain && *n != u32::MAX);
        parsed.ok_or_else(|| Failure::new(format!("parsing {text} as int for {what} failed: not an id")))
    };
    let user = &mut process.user;
    if let Some(text) = parsed.filled("user") {
        let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
        user.uid = number(uid, "uid")?;
        if let Some(gid) = gid {
            user.gid = number(gid, "gid")?;
        }
    }
    let groups = parsed.values("additional-gids").map(|text| number(text, "additional-gids"));
    user.additional_gids.extend(groups.collect::<Result<Vec<u32>, _>>()?);
    Ok(())
}
