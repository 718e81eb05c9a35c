//! What a user can mount into a container.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountConfig {
    /// What is mounted.
    pub kind: MountKind,
    /// The absolute path inside.
    pub destination: PathBuf,
    /// Whether it is read-only.
    #[serde(default)]
    pub read_only: bool,
    /// How mount events travel: `rprivate`, `rslave`, `rshared` and the non-recursive ones; none: `rprivate`.
    #[serde(default)]
    pub propagation: Option<String>,
    /// Further options as mount(8) spells them (tmpfs: `size=`, `mode=`, `noexec` ...).
    #[serde(default)]
    pub options: Vec<String>,
}

/// A container whose volumes and directories are mounted too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// Its name or id.
    pub container: String,
    /// Whether they are read-only; none: as they are there.
    pub read_only: Option<bool>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A file or directory of the machine.
    Bind {
        /// Its absolute path.
        source: PathBuf,
        /// Whether a missing source is made as a directory (`-v`), or is an error (`--mount`).
        create: bool,
        /// Whether file systems mounted below it stay out.
        #[serde(default)]
        non_recursive: bool,
    },
    /// A volume.
    Volume {
        /// Its name; none: an anonymous one, made with the container and removed with `--rm`.
        name: Option<String>,
        /// Whether an empty volume stays empty, instead of taking over the image's files.
        #[serde(default)]
        no_copy: bool,
        /// A directory inside the volume.
        #[serde(default)]
        subpath: Option<PathBuf>,
    },
    /// A file system in memory.
    Tmpfs,
    /// An image, read-only.
    Image {
        /// Its name.
        name: String,
    },
}

impl MountConfig {
    /// Makes a tmpfs at a path with no options.
    pub fn tmpfs(destination: impl Into<PathBuf>) -> Self {
        Self::new(MountKind::Tmpfs, destination)
    }

    /// Makes a writable mount without options.
    pub fn new(kind: MountKind, destination: impl Into<PathBuf>) -> Self {
        Self { kind, destination: destination.into(), read_only: false, propagation: None, options: Vec::new() }
    }
}
