//! What the engine is told: where it keeps things ([`Config`]) and what a container shall be ([`ContainerConfig`]).
//!
//! `ContainerConfig` is the one type that every front door converts into, and the one that [`crate::oci`] leads out of. It is
//! also what a container's record stores, so every field has a default: a record that an older brig wrote stays readable.

pub mod limits;
pub mod merge;
pub mod modes;
pub mod mounts;

pub use limits::{Resources, RestartPolicy, Throttle, Ulimit};
pub use merge::ImageDefaults;
pub use modes::{CgroupMode, IpcMode, NetworkMode, PidMode, Pull, Seccomp, SecurityOptions, UserMode, UtsMode};
pub use mounts::{MountConfig, MountKind, VolumesFrom};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// Where one engine keeps its things, and its limits. Two engines with different values never meet.
#[derive(Debug, Clone)]
pub struct Config {
    /// What survives a reboot: `/var/lib/brig`.
    pub root: PathBuf,
    /// What does not: `/run/brig`.
    pub run: PathBuf,
    /// The first host id and the number of ids from which `--userns=auto` takes 65,536 for each container.
    pub id_pool: (u32, u32),
    /// The name of the default bridge.
    pub bridge: String,
    /// The subnet of the default bridge, or none to look for one that no route of the machine covers.
    pub subnet: Option<(Ipv4Addr, u8)>,
    /// The default size after which a container's log is rotated, in bytes.
    pub log_max_size: u64,
    /// The default number of log files a container keeps, the current one included.
    pub log_max_files: u32,
    /// The program that runs as monitor; none: this very program.
    pub monitor_program: Option<PathBuf>,
    /// The program that runs as the first process under `--init`; none: the monitor's program.
    pub init_program: Option<PathBuf>,
    /// The first part of every container's cgroup path.
    pub cgroup_parent: String,
    /// The form of layers that are unpacked from now on.
    pub layers: brig_store::LayerChoice,
}

impl Config {
    /// The first id of the default pool for `--userns=auto`, far above the ids that distributions hand out.
    pub const ID_POOL: (u32, u32) = (1 << 30, 1 << 30);

    /// Makes a configuration with the default limits.
    pub fn new(root: impl Into<PathBuf>, run: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            run: run.into(),
            id_pool: Self::ID_POOL,
            bridge: "brig0".to_owned(),
            subnet: None,
            log_max_size: 10 << 20,
            log_max_files: 3,
            monitor_program: None,
            init_program: None,
            cgroup_parent: "/brig".to_owned(),
            layers: brig_store::LayerChoice::default(),
        }
    }

    /// `<root>/containers`.
    pub fn containers_dir(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// `<root>/containers/<id>`.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        let mut path = self.root.join("containers");
        path.push(id);
        path
    }

    /// `<run>/containers/<id>`.
    pub fn run_dir(&self, id: &str) -> PathBuf {
        let mut path = self.run.join("containers");
        path.push(id);
        path
    }

    /// `<root>/containers/.names`: one link a name, see [`crate::names`].
    pub fn names_dir(&self) -> PathBuf {
        self.root.join("containers/.names")
    }

    /// `<root>/volumes`.
    pub fn volumes_dir(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// `<root>/networks`.
    pub fn networks_dir(&self) -> PathBuf {
        self.root.join("networks")
    }
}

/// What a container shall be: everything that a front door can ask for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// The image as it was named, or `host:`.
    pub image: String,
    /// The command and its arguments; empty: the image's.
    pub command: Vec<String>,
    /// The entrypoint; none: the image's; an empty list: none at all.
    pub entrypoint: Option<Vec<String>>,
    /// The environment as `NAME=VALUE`, later entries win.
    pub env: Vec<String>,
    /// `user[:group]`, by name or number; empty: root.
    pub user: String,
    /// Further groups, by name or number.
    pub groups: Vec<String>,
    /// The working directory; empty: `/`.
    pub workdir: String,
    /// The host name; none: the first 12 digits of the id.
    pub hostname: Option<String>,
    /// The NIS domain name.
    pub domainname: Option<String>,
    /// The name that a person chose.
    pub name: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations for the OCI runtime.
    pub annotations: BTreeMap<String, String>,
    /// Binds, volumes, tmpfs and image mounts.
    pub mounts: Vec<MountConfig>,
    /// Containers whose binds and volumes are mounted too; a container's record has them among `mounts`.
    pub volumes_from: Vec<VolumesFrom>,
    /// Whether the root file system is mounted read-only.
    pub read_only: bool,
    /// Limits by cgroup.
    pub resources: Resources,
    /// Limits by setrlimit(2).
    pub ulimits: Vec<Ulimit>,
    /// The size of /dev/shm in bytes; none: 64 MiB.
    pub shm_size: Option<u64>,
    /// Capabilities added to the default set, without regard to case and `CAP_`; `ALL` for all.
    pub cap_add: Vec<String>,
    /// Capabilities taken away.
    pub cap_drop: Vec<String>,
    /// Whether nearly all confinement is off.
    pub privileged: bool,
    /// Seccomp, AppArmor, SELinux, no_new_privs, paths left unmasked.
    pub security: SecurityOptions,
    /// Devices of the machine, each `HOST[:CONTAINER[:rwm]]` taken apart.
    pub devices: Vec<DeviceRequest>,
    /// Further rules for the device cgroup, `c 42:* rmw`.
    pub device_cgroup_rules: Vec<String>,
    /// Namespaced kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// The pid namespace.
    pub pid: PidMode,
    /// The IPC namespace.
    pub ipc: IpcMode,
    /// The UTS namespace.
    pub uts: UtsMode,
    /// The network.
    pub network: NetworkMode,
    /// The cgroup namespace.
    pub cgroupns: CgroupMode,
    /// The user namespace.
    pub userns: UserMode,
    /// Offsets of a time namespace in seconds, (monotonic, boottime); none: the machine's time namespace.
    pub time_offsets: Option<(i64, i64)>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// Lines for /etc/hosts as `(host name, address or "host-gateway")`.
    pub extra_hosts: Vec<(String, String)>,
    /// Whether a small init runs as the first process and reaps.
    pub init: bool,
    /// The signal that asks the program to end, by name or number; none: the image's, or SIGTERM.
    pub stop_signal: Option<String>,
    /// How long `stop` waits before it kills, in seconds; negative: for ever. None: 10.
    pub stop_timeout: Option<i64>,
    /// Published ports.
    pub ports: Vec<PortRequest>,
    /// Whether every exposed port of the image is published on a free port.
    pub publish_all: bool,
    /// Ports that the container serves, `80/tcp`.
    pub exposed: Vec<String>,
    /// When to ask the registry.
    pub pull: Pull,
    /// The platform to choose from an index, `os/arch[/variant]`.
    pub platform: Option<String>,
    /// The score by which the kernel's OOM killer chooses.
    pub oom_score_adj: Option<i32>,
    /// When to start it again.
    pub restart: RestartPolicy,
    /// Where the output goes.
    pub log: LogConfig,
    /// Whether it has a terminal.
    pub tty: bool,
    /// The size of the terminal at the start, (rows, columns).
    pub console_size: Option<(u16, u16)>,
    /// Whether standard input stays open.
    pub stdin: bool,
    /// Whether it is removed when it has ended.
    pub remove: bool,
}

/// A device of the machine to be seen inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// The path on the machine, a node or a directory of nodes.
    pub host: PathBuf,
    /// The path inside.
    pub container: PathBuf,
    /// Of `r`, `w` and `m`.
    pub access: String,
}

/// A port to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// The machine's address to listen on; none: all, of both families.
    pub host_ip: Option<IpAddr>,
    /// The machine's port; none: a free one.
    pub host_port: Option<u16>,
    /// The container's port.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The name as listings print it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Where output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// Whether nothing is kept (`--log-driver none`).
    pub none: bool,
    /// The size in bytes after which the file is rotated; none: the engine's default.
    pub max_size: Option<u64>,
    /// How many files are kept; none: the engine's default.
    pub max_files: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_record_without_new_fields_is_readable() {
        let config: ContainerConfig = serde_json::from_str(r#"{"image":"debian","future":1}"#).unwrap();
        assert_eq!(config.image, "debian");
        assert_eq!(config.network, NetworkMode::Bridge);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let config = ContainerConfig {
            image: "debian".into(),
            network: NetworkMode::Container("web".into()),
            userns: UserMode::Auto,
            mounts: vec![MountConfig::tmpfs("/tmp")],
            ports: vec![PortRequest {
                host_ip: None,
                host_port: Some(80),
                container_port: 8080,
                protocol: Protocol::Udp,
            }],
            ..ContainerConfig::default()
        };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ContainerConfig>(&text).unwrap(), config);
    }
}
