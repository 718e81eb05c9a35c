//! The plan: everything a monitor needs to know of one container, decided by the engine and only executed here.
//!
//! ```text
//! <root>/containers/<id>/          <run>/containers/<id>/
//!   record   (engine's)              state        written by the monitor while the container lives
//!   plan     this file               attach       SEQPACKET socket, 0600
//!   log, log.1 ...                   stdout, stderr   FIFOs that survive a monitor
//!   exit     the exit record
//!   undo     the undo list, when it is no longer the plan's: a container with `--rm` was renamed
//!   upper/ work/ rootfs.lock
//! ```
//!
//! Plans are plain versioned data: a monitor lives for months while brig is replaced, so every released format stays readable.

use brig_net::plan::Network;
use brig_spec::id::ContainerId;
use brig_spec::runtime::{Linux, LinuxIdMapping, Process, Spec};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The format number that this build writes. 2: a built-in filter is named, and not spelled out.
pub const FORMAT: u32 = 2;

/// One container, ready to be executed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The format number of this file.
    pub format: u32,
    /// The container's identifier.
    pub id: ContainerId,
    /// The container's name, for messages and records.
    pub name: String,
    /// `<root>/containers/<id>`.
    pub container_dir: PathBuf,
    /// `<run>/containers/<id>`.
    pub run_dir: PathBuf,
    /// The OCI runtime configuration. Its `root.path` is not used: the root comes from `rootfs`.
    pub spec: Spec,
    /// Where the root file system comes from.
    pub rootfs: Rootfs,
    /// Volumes that receive the image's content before the start, when they are empty.
    pub copy_up: Vec<CopyUp>,
    /// The network to attach, when the container has a network namespace with an interface of its own.
    pub network: Option<Network>,
    /// Whether the container's standard input stays open for attaching clients (`-i`).
    pub stdin: bool,
    /// Where the output goes.
    pub log: Log,
    /// When to start the container again.
    pub restart: Restart,
    /// What is undone when the container is removed; replayed by `brig rm` and recovery with the same code.
    pub undo: Vec<Undo>,
    /// Whether the container is removed when it has ended (`--rm`).
    pub remove: bool,
    /// Whether records are flushed to the disk before the start goes on; a `--rm` container needs none.
    pub durable: bool,
}

impl Plan {
    /// The container's cgroup, below every hierarchy.
    pub fn cgroup(&self) -> Option<&std::path::Path> {
        let path = self.spec.linux.as_ref().map(|linux| linux.cgroups_path.as_path());
        path.filter(|path| !path.as_os_str().is_empty())
    }

    /// Gives up the configuration but for the cgroup: by far the largest part, and not needed while a container runs.
    pub fn forget_configuration(&mut self) {
        let cgroups_path = self.cgroup().unwrap_or(std::path::Path::new("")).to_owned();
        self.spec = Spec { linux: Some(Box::new(Linux { cgroups_path, ..Linux::default() })), ..Spec::default() };
        self.copy_up = Vec::new();
    }
}

/// The root file system of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// An overlay, mounted with the monitor's credentials and handed over as a detached mount.
    Overlay {
        /// The image's layers, the topmost first.
        lowers: Vec<PathBuf>,
        /// The writable layer; none for a read-only overlay.
        upper: Option<PathBuf>,
        /// The overlay's work directory, on the same file system as `upper`.
        work: Option<PathBuf>,
        /// Further file systems of the machine, each an overlay of its own below the root: `host:`.
        submounts: Vec<SubOverlay>,
        /// Whether `upper` and `work` lie on a tmpfs that the monitor makes, since the root cannot hold an upper layer.
        volatile: bool,
        /// Id maps for the lower layers, when the container has a user namespace.
        idmap: Option<IdMap>,
    },
    /// A directory used as it is.
    Directory(PathBuf),
}

/// One further file system of the machine below `host:`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubOverlay {
    /// Where it is mounted inside the container.
    pub destination: PathBuf,
    /// Its lower layer on the machine.
    pub lower: PathBuf,
    /// Its writable layer.
    pub upper: PathBuf,
    /// Its work directory.
    pub work: PathBuf,
}

/// The id maps of a user namespace.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct IdMap {
    /// Maps of user ids.
    pub uids: Vec<LinuxIdMapping>,
    /// Maps of group ids.
    pub gids: Vec<LinuxIdMapping>,
}

/// A volume that takes over the image's files at its destination when it is empty.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CopyUp {
    /// The path inside the container, resolved inside its root.
    pub destination: PathBuf,
    /// The volume's directory on the machine.
    pub volume: PathBuf,
}

/// Where output is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Log {
    /// The file, or none (`--log-driver none`).
    pub path: Option<PathBuf>,
    /// The size in bytes after which the file is rotated.
    pub max_size: u64,
    /// How many files are kept, the current one included.
    pub max_files: u32,
}

/// A restart policy, as Docker's users know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    No,
    /// Whenever it ends, unless a person stopped it.
    Always,
    /// The same; see the engine's policy.
    UnlessStopped,
    /// When it ends with a status other than 0, at most this many times (0: without bound).
    OnFailure(u32),
}

/// One step of taking a container apart. Each is idempotent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Detaches the network: host interface, published ports.
    Network(Box<Network>),
    /// Returns an address lease.
    Lease {
        /// The directory of the bridge's leases.
        dir: PathBuf,
        /// The address.
        address: std::net::Ipv4Addr,
        /// The container that holds it: a lease that has since gone to another is left alone.
        container: String,
    },
    /// Removes the cgroup and everything below it, in every hierarchy.
    Cgroup(String),
    /// Removes a file of `<root>`, such as a name's reservation.
    File(PathBuf),
    /// Removes a directory tree of `<root>` or `<run>`; the record's own directory comes last.
    Directory(PathBuf),
}

/// A further process in a running container: `brig exec`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecPlan {
    /// The format number of this file.
    pub format: u32,
    /// The exec's own identifier.
    pub exec_id: String,
    /// The container.
    pub id: ContainerId,
    /// `<run>/containers/<id>`.
    pub run_dir: PathBuf,
    /// `<run>/containers/<id>/exec/<exec id>`, which the exec's monitor makes and removes.
    pub exec_dir: PathBuf,
    /// The process to start.
    pub process: Process,
    /// Whether standard input stays open.
    pub stdin: bool,
    /// `<root>/containers/<id>`, whose plan holds the filter and the cgroup.
    pub container_dir: PathBuf,
    /// Whether somebody will ask for the exit status later (`-d`), so that the exit record stays.
    pub keep: bool,
}
