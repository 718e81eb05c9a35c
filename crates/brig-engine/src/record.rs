//! A container as it is kept: `<root>/containers/<id>/record`, JSON with a format number.
//!
//! The record exists exactly when the container does. While it is being made, its maker holds a flock(2) on the
//! directory: a directory without a record that nobody holds is what a crash left, and [`crate::recovery`] removes it. A
//! record that cannot be read is reported and never removed unasked.

use crate::config::{Config, ContainerConfig};
use crate::error::{Error, Kind, Result};
use brig_monitor::plan::SubOverlay;
use brig_net::plan::Network;
use brig_spec::id::ContainerId;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The format number that this build writes.
pub const FORMAT: u32 = 1;
/// How long a maker contends with those that look whether anybody holds its directory.
const CLAIM_WAIT: Duration = Duration::from_secs(10);
/// The record's file name.
pub const FILE: &str = "record";

/// One container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The format number.
    pub format: u32,
    /// The identifier.
    pub id: ContainerId,
    /// The name.
    pub name: String,
    /// When it was made, in nanoseconds since 1970.
    pub created_ns: u64,
    /// What it shall be, with everything filled in from the image.
    pub config: ContainerConfig,
    /// The image.
    pub image: ImageUse,
    /// The volumes, in the order of the configuration's mounts.
    pub volumes: Vec<VolumeUse>,
    /// The network attachment of the last start, when it has one of its own.
    pub network: Option<Network>,
    /// The first of 65,536 host ids, when it has a user namespace.
    pub first_id: Option<u32>,
}

/// The image that a container was made of.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ImageUse {
    /// The digest of its configuration; empty for `host:`.
    pub id: String,
    /// The unpacked layers, the topmost first.
    pub layers: Vec<PathBuf>,
    /// Whether it is the machine's own root file system.
    #[serde(default)]
    pub host: bool,
    /// Further file systems of the machine, for `host:`.
    #[serde(default)]
    pub submounts: Vec<SubOverlay>,
}

/// A volume or an image mount that a container uses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeUse {
    /// The volume's name.
    pub name: String,
    /// The path inside the container.
    pub destination: PathBuf,
    /// Whether it was made with the container and has no name that a person chose.
    pub anonymous: bool,
}

impl Record {
    /// Reads a container's record.
    pub fn read(config: &Config, id: &ContainerId) -> Result<Self> {
        let path = config.container_dir(id.as_str()).join(FILE);
        let bytes =
            fs::read(&path).map_err(|error| Error::io(format!("cannot read container {}", id.short()), error))?;
        Self::parse(&bytes).map_err(|error| {
            Error::internal(format!("the record of container {} cannot be read", id.short())).because(error).hint(
                format!(
                    "its files are untouched in {}; `brig rm -f {}` removes all of them",
                    config.container_dir(id.as_str()).display(),
                    id.short()
                ),
            )
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let malformed = |error| Error::internal("malformed record").because(error);
        let Format { format } = serde_json::from_slice(bytes).map_err(malformed)?;
        if format > FORMAT {
            return Err(Error::new(
                Kind::Unsupported,
                format!("it has format {format}, and this brig reads up to {FORMAT}"),
            ));
        }
        serde_json::from_slice(bytes).map_err(malformed)
    }

    /// Writes the record; a container with `--rm` is not worth a flush.
    pub fn write(&self, config: &Config) -> Result<()> {
        let bytes = serde_json::to_vec(self).map_err(|e| Error::internal("cannot encode the record").because(e))?;
        crate::disk::write(&config.container_dir(self.id.as_str()).join(FILE), &bytes, self.durable())
    }

    /// Says whether records are flushed to the disk.
    pub fn durable(&self) -> bool {
        !self.config.remove
    }

    /// `<root>/containers/<id>`.
    pub fn dir(&self, config: &Config) -> PathBuf {
        config.container_dir(self.id.as_str())
    }

    /// `<run>/containers/<id>`.
    pub fn run_dir(&self, config: &Config) -> PathBuf {
        config.run_dir(self.id.as_str())
    }
}

/// Says whether a container exists.
pub fn exists(config: &Config, id: &ContainerId) -> bool {
    rustix::fs::access(config.container_dir(id.as_str()).join(FILE), rustix::fs::Access::EXISTS).is_ok()
}

/// Says whether a container exists, or is being made at this moment.
pub fn exists_or_is_made(config: &Config, id: &ContainerId) -> bool {
    exists(config, id) || is_being_made(config, id) || exists(config, id)
}

/// Says whether somebody holds the directory of a container that has no record yet.
pub fn is_being_made(config: &Config, id: &ContainerId) -> bool {
    let Ok(dir) = File::open(config.container_dir(id.as_str())) else { return false };
    match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockShared) {
        Ok(()) => false,
        Err(error) => error == rustix::io::Errno::WOULDBLOCK,
    }
}

/// Makes a container's directory and holds it; it is being made as long as the file lives.
///
/// Whoever lists containers takes a directory without a record that nobody holds for what a crash left: one that was removed
/// before it could be held is made again.
pub fn claim(config: &Config, id: &ContainerId) -> Result<File> {
    let path = config.container_dir(id.as_str());
    let failed = |error: std::io::Error| Error::io(format!("cannot hold {}", path.display()), error);
    let deadline = Instant::now() + CLAIM_WAIT;
    make_directory(config, &path)?;
    loop {
        match File::open(&path) {
            Ok(dir) => match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_same(&dir, &path) => return Ok(dir),
                Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(failed(error.into())),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => make_directory(config, &path)?,
            Err(error) => return Err(failed(error)),
        }
        if Instant::now() > deadline {
            return Err(failed(rustix::io::Errno::WOULDBLOCK.into()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Says whether an open directory still lies under its name.
fn is_same(dir: &File, path: &Path) -> bool {
    let place = |metadata: std::io::Result<fs::Metadata>| metadata.ok().map(|m| (m.dev(), m.ino()));
    let held = place(dir.metadata());
    held.is_some() && held == place(fs::symlink_metadata(path))
}

fn make_directory(config: &Config, path: &Path) -> Result<()> {
    match crate::disk::make_one(path, 0o700) {
        Err(error) if error.kind == Kind::NotFound => {
            crate::disk::make_directory(&config.names_dir())?;
            crate::disk::make_one(path, 0o700)
        }
        made => made,
    }
}

/// Lists every identifier that has a directory, in no order.
pub fn ids(config: &Config) -> Result<Vec<ContainerId>> {
    let path = config.containers_dir();
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("cannot list {}", path.display()), error)),
    };
    Ok(entries.flatten().filter_map(|entry| ContainerId::parse(entry.file_name().to_str()?).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::Scratch;

    fn record(id: &ContainerId) -> Record {
        Record {
            format: FORMAT,
            id: id.clone(),
            name: "web".into(),
            created_ns: 1,
            config: ContainerConfig { image: "debian".into(), ..ContainerConfig::default() },
            image: ImageUse::default(),
            volumes: Vec::new(),
            network: None,
            first_id: None,
        }
    }

    #[test]
    fn a_container_exists_with_its_record() {
        let dir = Scratch::new();
        let config = Config::new(&dir.0, &dir.0);
        let id = ContainerId::from_random([7; 32]);
        assert!(!exists_or_is_made(&config, &id));
        let held = claim(&config, &id).unwrap();
        assert!(!exists(&config, &id) && exists_or_is_made(&config, &id));
        record(&id).write(&config).unwrap();
        drop(held);
        assert!(exists(&config, &id) && !is_being_made(&config, &id));
        assert_eq!(Record::read(&config, &id).unwrap().name, "web");
        assert_eq!(ids(&config).unwrap(), [id]);
    }

    #[test]
    fn a_record_of_the_future_or_of_nonsense_is_told_and_kept() {
        let dir = Scratch::new();
        let config = Config::new(&dir.0, &dir.0);
        let id = ContainerId::from_random([7; 32]);
        drop(claim(&config, &id).unwrap());
        let path = config.container_dir(id.as_str()).join(FILE);
        for text in ["", "{", r#"{"format":99}"#, r#"{"format":1}"#] {
            fs::write(&path, text).unwrap();
            let error = Record::read(&config, &id).unwrap_err();
            assert!(error.hint.unwrap().contains("brig rm -f 070707070707"), "{text}");
            assert!(path.exists());
        }
    }
}
