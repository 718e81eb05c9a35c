//! Which namespaces a container shares, and how it is confined: small choices, each with Docker's default.

use serde::{Deserialize, Serialize};

/// The pid namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidMode {
    /// One of its own.
    #[default]
    Private,
    /// The machine's.
    Host,
    /// That of another container.
    Container(String),
}

/// The IPC namespace and /dev/shm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpcMode {
    /// One of its own.
    #[default]
    Private,
    /// One of its own, which others may join.
    Shareable,
    /// One of its own, without /dev/shm.
    None,
    /// The machine's.
    Host,
    /// That of another container.
    Container(String),
}

/// The UTS namespace: host and domain name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UtsMode {
    /// One of its own.
    #[default]
    Private,
    /// The machine's.
    Host,
}

/// The network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// The default bridge.
    #[default]
    Bridge,
    /// A namespace with nothing but a loopback device.
    None,
    /// The machine's.
    Host,
    /// That of another container.
    Container(String),
}

/// The cgroup namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupMode {
    /// One of its own.
    #[default]
    Private,
    /// The machine's.
    Host,
}

/// The user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserMode {
    /// The machine's: root inside is root outside, less its capabilities.
    #[default]
    Host,
    /// One of its own, with 65,536 ids from the engine's pool.
    Auto,
    /// That of another container, with its id map.
    Container(String),
}

/// When to ask the registry for an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// When it is not here.
    #[default]
    Missing,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How a container is confined beyond capabilities and namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityOptions {
    /// The system call filter.
    pub seccomp: Seccomp,
    /// Whether execve(2) may never grant more: prctl(2), PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// The AppArmor profile; `unconfined` for none; none: the default when the machine has it.
    pub apparmor: Option<String>,
    /// SELinux: `user:`, `role:`, `type:`, `level:` parts, or `disable`.
    pub label: Vec<String>,
    /// Whether no path of /proc and /sys is masked or read-only.
    pub unmask_all: bool,
}

/// The system call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// The built-in profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile's text, in Docker's or the OCI's form.
    Profile(String),
}

/// Says how a namespace choice is written on the command line and in `inspect`.
pub trait Describe {
    /// The text: `host`, `container:web` ...
    fn describe(&self) -> String;
}

impl Describe for NetworkMode {
    fn describe(&self) -> String {
        match self {
            Self::Bridge => "bridge".into(),
            Self::None => "none".into(),
            Self::Host => "host".into(),
            Self::Container(name) => format!("container:{name}"),
        }
    }
}

impl Describe for PidMode {
    fn describe(&self) -> String {
        match self {
            Self::Private => String::new(),
            Self::Host => "host".into(),
            Self::Container(name) => format!("container:{name}"),
        }
    }
}

impl Describe for IpcMode {
    fn describe(&self) -> String {
        match self {
            Self::Private => "private".into(),
            Self::Shareable => "shareable".into(),
            Self::None => "none".into(),
            Self::Host => "host".into(),
            Self::Container(name) => format!("container:{name}"),
        }
    }
}

impl Describe for UserMode {
    fn describe(&self) -> String {
        match self {
            Self::Host => "host".into(),
            Self::Auto => "auto".into(),
            Self::Container(name) => format!("container:{name}"),
        }
    }
}
