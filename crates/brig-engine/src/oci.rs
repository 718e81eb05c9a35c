//! From a container's configuration to an OCI runtime specification: a pure function.
//!
//! ```text
//!   ContainerConfig (merged with the image)  --.
//!   Host   what this machine has             ---+--> spec() --> Spec --> plan --> monitor --> runtime
//!   Place  what the engine decided           --'
//! ```
//!
//! `Host` and `Place` carry everything that would otherwise be read from the machine here: device numbers, capabilities,
//! paths of joined namespaces, the id map. So the same arguments always give the same specification, and tests compare whole
//! ones. The values are those that Docker's users rely on: names, paths and numbers of its defaults are kept exactly.

pub mod capabilities;
pub mod devices;
pub mod mounts;
pub mod resources;
pub mod seccomp;
pub mod sysctl;

#[cfg(test)]
mod tests;

use crate::config::merge::merge_env;
use crate::config::{CgroupMode, ContainerConfig, IpcMode, NetworkMode, PidMode, Seccomp, Ulimit, UserMode, UtsMode};
use crate::error::{Error, Kind, Result};
use brig_monitor::plan::IdMap;
use brig_spec::runtime::{
    ConsoleSize, Linux, LinuxNamespace, LinuxNamespaceType, LinuxTimeOffset, PosixRlimit, Process, Root, Spec, User,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The annotation that carries `user[:group]` as it was given; the runtime resolves names inside the root.
pub const ANNOTATION_USER: &str = "brig.user";
/// The annotation that carries the further groups, separated by commas, by name or number.
pub const ANNOTATION_GROUPS: &str = "brig.groups";
/// The annotation that asks for ENOSYS for system calls newer than the profile.
pub const ANNOTATION_ENOSYS: &str = "brig.seccomp.enosys";
/// The search path of a container whose image names none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the init program of `--init` is seen inside.
pub const INIT_PATH: &str = "/sbin/docker-init";

/// What this machine has, as far as a specification depends on it.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// The capabilities that the engine can give away, of those that a container may come to have; as bits.
    pub capabilities: u64,
    /// Device nodes, for the devices that were asked for, or all under `--privileged`.
    pub devices: Vec<devices::Node>,
    /// The processor's `thermal_throttle` directories, which tell about the neighbours.
    pub thermal_paths: Vec<String>,
    /// The kernel's version, (major, minor).
    pub kernel: (u32, u32),
    /// Whether SELinux is active.
    pub selinux: bool,
}

/// A capability by the name that capabilities(7) gives it, `CAP_CHOWN`.
pub type Name = String;

/// What the engine has decided about one container.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The identifier.
    pub id: String,
    /// The host name, when the container has a UTS namespace of its own.
    pub hostname: Option<String>,
    /// The cgroup path below every hierarchy.
    pub cgroup: PathBuf,
    /// Volumes, binds, image mounts and tmpfs, all with their sources, in the order asked.
    pub mounts: Vec<mounts::Ready>,
    /// Files of the container's directory that are bound over `/etc/...`: (source, destination).
    pub etc_files: Vec<(PathBuf, &'static str)>,
    /// The id map, when the container has a user namespace.
    pub idmap: Option<IdMap>,
    /// The first process of the container whose namespaces are joined, for `container:` modes.
    pub joined: Joined,
    /// The program of `--init` on the machine.
    pub init_program: Option<PathBuf>,
}

/// The first processes of containers whose namespaces are joined.
#[derive(Debug, Clone, Default)]
pub struct Joined {
    /// For the network.
    pub network: Option<i32>,
    /// For pids.
    pub pid: Option<i32>,
    /// For IPC.
    pub ipc: Option<i32>,
    /// For users.
    pub user: Option<i32>,
}

/// The oldest kernel on which containers start: the first with mount_setattr(2).
pub const KERNEL_MIN: (u32, u32) = (5, 12);

/// Makes the specification.
pub fn spec(config: &ContainerConfig, host: &Host, place: &Place) -> Result<Spec> {
    if host.kernel < KERNEL_MIN {
        let ((major, minor), (want_major, want_minor)) = (host.kernel, KERNEL_MIN);
        return Err(Error::new(Kind::Unsupported, "cannot make a container on this kernel")
            .reason(format!("it is Linux {major}.{minor}, and brig needs {want_major}.{want_minor} or newer"))
            .hint("`brig doctor` tells what else is missing"));
    }
    let namespaces = namespaces(config, place)?;
    let mounts = mounts::all(config, place)?;
    let (devices, device_rules) = devices::all(config, host)?;
    let resources = resources::linux(&config.resources, host, device_rules)?;
    let sysctls = sysctl::all(config, place.idmap.is_some())?;
    let capabilities = capabilities::names(config, host)?;
    let seccomp = match (&config.security.seccomp, config.privileged) {
        (Seccomp::Unconfined, _) | (Seccomp::Default, true) => None,
        (Seccomp::Default, false) => Some(brig_runtime::seccomp::builtin::named()),
        (Seccomp::Profile(text), _) => seccomp::parse(text, &capabilities, host.kernel)?,
    };
    let unmasked = config.privileged || config.security.unmask_all;
    let map = place.idmap.as_ref();
    let linux = Linux {
        namespaces,
        cgroups_path: place.cgroup.clone(),
        resources: Some(resources),
        devices,
        sysctl: sysctls,
        masked_paths: if unmasked { Vec::new() } else { masked_paths(host) },
        readonly_paths: if unmasked { Vec::new() } else { READONLY_PATHS.map(str::to_owned).to_vec() },
        rootfs_propagation: mounts::root_propagation(&place.mounts),
        seccomp,
        uid_mappings: map.map(|map| map.uids.clone()).unwrap_or_default(),
        gid_mappings: map.map(|map| map.gids.clone()).unwrap_or_default(),
        time_offsets: config.time_offsets.map(time_offsets).unwrap_or_default(),
        ..Linux::default()
    };
    Ok(Spec {
        version: "1.2.0".into(),
        root: Some(Root { path: "rootfs".into(), readonly: config.read_only }),
        mounts,
        process: Some(Box::new(process(config, host, place, &capabilities)?)),
        hostname: place.hostname.clone().unwrap_or_default(),
        domainname: config.domainname.clone().unwrap_or_default(),
        annotations: annotations(config),
        linux: Some(Box::new(linux)),
        hooks: None,
    })
}

/// Paths of /proc and /sys that tell of the machine or its other users and are hidden.
const MASKED_PATHS: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// Paths of /proc that change the machine and are read-only.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn masked_paths(host: &Host) -> Vec<String> {
    MASKED_PATHS.iter().map(|p| (*p).to_owned()).chain(host.thermal_paths.iter().cloned()).collect()
}

fn annotations(config: &ContainerConfig) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = config.annotations.clone().into_iter().collect();
    // A user's own annotations cannot stand in for brig's: those are read by the runtime as facts.
    all.retain(|key, _| !key.starts_with("brig."));
    if !config.user.is_empty() {
        all.insert(ANNOTATION_USER.into(), config.user.clone());
    }
    if !config.groups.is_empty() {
        all.insert(ANNOTATION_GROUPS.into(), config.groups.join(","));
    }
    if config.security.seccomp == Seccomp::Default && !config.privileged {
        all.insert(ANNOTATION_ENOSYS.into(), "newer".into());
    }
    all
}

fn process(config: &ContainerConfig, host: &Host, place: &Place, capabilities: &BTreeSet<Name>) -> Result<Process> {
    let mut args = config.argv();
    if args.is_empty() || args[0].is_empty() {
        return Err(Error::invalid("no command is given, and the image names none")
            .hint(format!("name a command after the image: `brig run {} COMMAND`", config.image)));
    }
    if config.init {
        args.splice(0..0, [INIT_PATH.to_owned(), "init-reaper".to_owned(), "--".to_owned()]);
    }
    let cwd = if config.workdir.is_empty() { "/" } else { config.workdir.as_str() };
    if !cwd.starts_with('/') {
        return Err(Error::invalid(format!("the working directory `{cwd}` is not an absolute path")));
    }
    let apparmor = config.security.apparmor.as_deref().filter(|profile| *profile != "unconfined");
    let label = if host.selinux && !config.privileged { selinux_label(&config.security.label) } else { None };
    let size = config.console_size.filter(|_| config.tty);
    Ok(Process {
        terminal: config.tty,
        console_size: size.map(|(rows, columns)| ConsoleSize { height: rows.into(), width: columns.into() }),
        user: numeric_user(&config.user, &config.groups),
        args,
        env: environment(config, place),
        cwd: cwd.into(),
        capabilities: Some(capabilities::sets(capabilities)),
        rlimits: rlimits(&config.ulimits)?,
        no_new_privileges: config.security.no_new_privileges,
        apparmor_profile: apparmor.unwrap_or_default().to_owned(),
        oom_score_adj: config.oom_score_adj,
        selinux_label: label.unwrap_or_default(),
        ..Process::default()
    })
}

/// The environment: the defaults, then what image and user named; a name keeps the place where it came first.
fn environment(config: &ContainerConfig, place: &Place) -> Vec<String> {
    let mut defaults = vec![DEFAULT_PATH.to_owned()];
    if let Some(name) = &place.hostname {
        defaults.push(format!("HOSTNAME={name}"));
    }
    if config.tty {
        defaults.push("TERM=xterm".to_owned());
    }
    merge_env(&defaults, &config.env)
}

/// Reads `user[:group]` and groups where they are numbers; names are left to the runtime, as root for now.
fn numeric_user(user: &str, groups: &[String]) -> User {
    let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
    User {
        uid: uid.parse().unwrap_or(0),
        gid: gid.parse().unwrap_or(0),
        additional_gids: groups.iter().filter_map(|g| g.parse().ok()).collect(),
        ..User::default()
    }
}

/// The limits of setrlimit(2), as `--ulimit` spells them.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<PosixRlimit>> {
    let known = |limit: &Ulimit| {
        if !ULIMITS.contains(&limit.name.as_str()) {
            return Err(Error::invalid(format!("`{}` is not a limit of setrlimit(2)", limit.name)));
        }
        let typ = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
        Ok(PosixRlimit { typ, soft: limit.soft, hard: limit.hard })
    };
    ulimits.iter().map(known).collect()
}

fn namespace(typ: LinuxNamespaceType, joined: Option<i32>, file: &str) -> LinuxNamespace {
    LinuxNamespace { typ, path: joined.map(|pid| format!("/proc/{pid}/ns/{file}").into()).unwrap_or_default() }
}

/// The namespaces: a new one, one of another container, or (left out) the machine's.
fn namespaces(config: &ContainerConfig, place: &Place) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType as T;
    let join = |pid: Option<i32>, what: &str| match pid {
        Some(pid) => Ok(Some(pid)),
        None => Err(Error::conflict(format!("the container whose {what} namespace is to be joined does not run"))),
    };
    let mut all = vec![namespace(T::Mount, None, "mnt")];
    match config.network {
        NetworkMode::Host => {}
        NetworkMode::Container(_) => all.push(namespace(T::Network, join(place.joined.network, "network")?, "net")),
        NetworkMode::Bridge | NetworkMode::None => all.push(namespace(T::Network, None, "net")),
    }
    if config.uts == UtsMode::Private {
        all.push(namespace(T::Uts, None, "uts"));
    }
    match config.pid {
        PidMode::Host => {}
        PidMode::Container(_) => all.push(namespace(T::Pid, join(place.joined.pid, "pid")?, "pid")),
        PidMode::Private => all.push(namespace(T::Pid, None, "pid")),
    }
    match config.ipc {
        IpcMode::Host => {}
        IpcMode::Container(_) => all.push(namespace(T::Ipc, join(place.joined.ipc, "IPC")?, "ipc")),
        IpcMode::Private | IpcMode::Shareable | IpcMode::None => all.push(namespace(T::Ipc, None, "ipc")),
    }
    if config.cgroupns == CgroupMode::Private {
        all.push(namespace(T::Cgroup, None, "cgroup"));
    }
    match config.userns {
        UserMode::Host => {}
        UserMode::Container(_) if place.idmap.is_none() => {}
        // A namespace of its own with the map of the other: the ids mean the same in both, on the disk too.
        UserMode::Container(_) | UserMode::Auto => all.push(namespace(T::User, None, "user")),
    }
    if config.time_offsets.is_some() {
        all.push(namespace(T::Time, None, "time"));
    }
    Ok(all)
}

fn time_offsets((monotonic, boottime): (i64, i64)) -> BTreeMap<String, LinuxTimeOffset> {
    let offset = |secs| LinuxTimeOffset { secs, nanosecs: 0 };
    BTreeMap::from([("monotonic".into(), offset(monotonic)), ("boottime".into(), offset(boottime))])
}

/// The SELinux context of the process: the usual one with the parts that the user named.
fn selinux_label(options: &[String]) -> Option<String> {
    if options.iter().any(|o| o == "disable") {
        return None;
    }
    let part = |key: &str, usual: &str| {
        options.iter().rev().find_map(|o| o.strip_prefix(key)?.strip_prefix(':')).unwrap_or(usual).to_owned()
    };
    let parts = [part("user", "system_u"), part("role", "system_r"), part("type", "container_t"), part("level", "s0")];
    Some(parts.join(":"))
}
