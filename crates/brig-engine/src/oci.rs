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
    BoxBuilder, Linux, LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxTimeOffsetBuilder,
    PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, User,
    UserBuilder,
};
use std::collections::{BTreeSet, HashMap};
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
    /// The capabilities that the engine can give away.
    pub capabilities: BTreeSet<Name>,
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
        (Seccomp::Default, false) => Some(seccomp::default_profile(&capabilities, host.kernel)),
        (Seccomp::Profile(text), _) => seccomp::parse(text, &capabilities, host.kernel)?,
    };
    let unmasked = config.privileged || config.security.unmask_all;

    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .cgroups_path(place.cgroup.clone())
        .resources(resources)
        .devices(devices)
        .sysctl(sysctls)
        .masked_paths(if unmasked { Vec::new() } else { masked_paths(host) })
        .readonly_paths(if unmasked { Vec::new() } else { READONLY_PATHS.map(str::to_owned).to_vec() })
        .rootfs_propagation(mounts::root_propagation(&place.mounts));
    if let Some(seccomp) = seccomp {
        linux = linux.seccomp(seccomp);
    }
    if let Some(map) = &place.idmap {
        linux = linux.uid_mappings(map.uids.clone()).gid_mappings(map.gids.clone());
    }
    if let Some((monotonic, boottime)) = config.time_offsets {
        linux = linux.time_offsets(time_offsets(monotonic, boottime));
    }
    let mut linux: Linux = built(linux.build());
    // The type's default names mappings-free namespaces and masks; fields set above replace all of them but these.
    if place.idmap.is_none() {
        linux.set_uid_mappings(None).set_gid_mappings(None);
    }

    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(built(RootBuilder::default().path("rootfs").readonly(config.read_only).build()))
        .mounts(mounts)
        .process(process(config, host, place, &capabilities)?)
        .annotations(annotations(config))
        .linux(linux);
    if let Some(name) = &place.hostname {
        spec = spec.hostname(name.clone());
    }
    if let Some(name) = &config.domainname {
        spec = spec.domainname(name.clone());
    }
    let mut spec = built(spec.build());
    if place.hostname.is_none() {
        spec.set_hostname(None);
    }
    Ok(spec)
}

/// Unwraps what a builder made.
pub(crate) fn built<T, E: std::fmt::Debug>(result: std::result::Result<T, E>) -> T {
    result.expect("every field of these builders has a default, and id mappings are always set in pairs")
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

fn annotations(config: &ContainerConfig) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = config.annotations.clone().into_iter().collect();
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
    let mut process = ProcessBuilder::default()
        .terminal(config.tty)
        .user(numeric_user(&config.user, &config.groups))
        .args(args)
        .env(environment(config, place))
        .cwd(cwd)
        .capabilities(capabilities::sets(capabilities))
        .rlimits(rlimits(&config.ulimits)?)
        .no_new_privileges(config.security.no_new_privileges);
    if let Some(score) = config.oom_score_adj {
        process = process.oom_score_adj(score);
    }
    if let Some((rows, columns)) = config.console_size.filter(|_| config.tty) {
        let size = BoxBuilder::default().height(u64::from(rows)).width(u64::from(columns));
        process = process.console_size(built(size.build()));
    }
    match config.security.apparmor.as_deref() {
        None | Some("unconfined" | "") => {}
        Some(profile) => process = process.apparmor_profile(profile),
    }
    if host.selinux
        && !config.privileged
        && let Some(label) = selinux_label(&config.security.label)
    {
        process = process.selinux_label(label);
    }
    Ok(built(process.build()))
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
    let extra: Vec<u32> = groups.iter().filter_map(|g| g.parse().ok()).collect();
    let user = UserBuilder::default().uid(uid.parse::<u32>().unwrap_or(0)).gid(gid.parse::<u32>().unwrap_or(0));
    built(if extra.is_empty() { user } else { user.additional_gids(extra) }.build())
}

fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<PosixRlimit>> {
    use PosixRlimitType as T;
    ulimits
        .iter()
        .map(|limit| {
            let typ = match limit.name.as_str() {
                "as" => T::RlimitAs,
                "core" => T::RlimitCore,
                "cpu" => T::RlimitCpu,
                "data" => T::RlimitData,
                "fsize" => T::RlimitFsize,
                "locks" => T::RlimitLocks,
                "memlock" => T::RlimitMemlock,
                "msgqueue" => T::RlimitMsgqueue,
                "nice" => T::RlimitNice,
                "nofile" => T::RlimitNofile,
                "nproc" => T::RlimitNproc,
                "rss" => T::RlimitRss,
                "rtprio" => T::RlimitRtprio,
                "rttime" => T::RlimitRttime,
                "sigpending" => T::RlimitSigpending,
                "stack" => T::RlimitStack,
                other => return Err(Error::invalid(format!("`{other}` is not a limit of setrlimit(2)"))),
            };
            Ok(built(PosixRlimitBuilder::default().typ(typ).soft(limit.soft).hard(limit.hard).build()))
        })
        .collect()
}

fn namespace(typ: LinuxNamespaceType, joined: Option<i32>, file: &str) -> LinuxNamespace {
    let namespace = LinuxNamespaceBuilder::default().typ(typ);
    built(match joined {
        Some(pid) => namespace.path(format!("/proc/{pid}/ns/{file}")).build(),
        None => namespace.build(),
    })
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

fn time_offsets(monotonic: i64, boottime: i64) -> HashMap<String, brig_spec::runtime::LinuxTimeOffset> {
    let offset = |secs: i64| built(LinuxTimeOffsetBuilder::default().secs(secs).nanosecs(0u32).build());
    HashMap::from([("monotonic".into(), offset(monotonic)), ("boottime".into(), offset(boottime))])
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
