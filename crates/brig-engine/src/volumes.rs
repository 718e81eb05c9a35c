//! Volumes: directories that outlive containers.
//!
//! ```text
//!   <root>/volumes/<name>/_data     what containers see
//!   <root>/volumes/<name>/record    name, labels, when it was made; a directory without one is half made
//! ```

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::{disk, record};
use brig_spec::id::{Name, hex};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

/// The format number that this build writes.
pub const FORMAT: u32 = 1;

/// A volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    /// The format number.
    pub format: u32,
    /// The name; 64 hexadecimal digits for an anonymous one.
    pub name: String,
    /// When it was made, in nanoseconds since 1970.
    pub created_ns: u64,
    /// Whether it was made with a container, without a name that a person chose.
    pub anonymous: bool,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Volume {
    /// `<root>/volumes/<name>/_data`.
    pub fn data(&self, config: &Config) -> PathBuf {
        data(config, &self.name)
    }
}

/// `<root>/volumes/<name>/_data`.
pub fn data(config: &Config, name: &str) -> PathBuf {
    config.volumes_dir().join(name).join("_data")
}

/// Makes a volume, or returns the one of that name; without a name it is anonymous.
pub fn create(config: &Config, name: Option<&Name>, labels: BTreeMap<String, String>) -> Result<Volume> {
    let text = match name {
        Some(name) => name.as_str().to_owned(),
        None => hex(&disk::random()?),
    };
    let dir = config.volumes_dir().join(&text);
    if let Some(volume) = read(config, &text)? {
        return Ok(volume);
    }
    disk::make_directory(&config.volumes_dir())?;
    for made in [disk::make_one(&dir, 0o711), disk::make_one(&dir.join("_data"), 0o755)] {
        match made {
            Err(error) if error.kind != Kind::Conflict => return Err(error),
            _ => {}
        }
    }
    let created_ns = brig_monitor::state::now_ns();
    let volume = Volume { format: FORMAT, name: text, created_ns, anonymous: name.is_none(), labels };
    let bytes =
        serde_json::to_vec(&volume).map_err(|e| Error::internal("cannot encode the volume's record").because(e))?;
    disk::write(&dir.join("record"), &bytes, name.is_some())?;
    Ok(volume)
}

fn read(config: &Config, name: &str) -> Result<Option<Volume>> {
    let path = config.volumes_dir().join(name).join("record");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("cannot read volume `{name}`"), error)),
    };
    let volume: Volume = serde_json::from_slice(&bytes).map_err(|error| {
        Error::internal(format!("the record of volume `{name}` cannot be read"))
            .because(error)
            .hint(format!("its files are untouched in {}", data(config, name).display()))
    })?;
    if volume.format > FORMAT {
        return Err(Error::new(Kind::Unsupported, format!("volume `{name}` has a format newer than this brig reads")));
    }
    Ok(Some(volume))
}

/// Returns a volume.
pub fn inspect(config: &Config, name: &str) -> Result<Volume> {
    let missing =
        || Error::not_found(format!("no such volume: {name}")).hint("`brig volume ls` lists those that there are");
    Name::parse(name).map_err(|_| missing())?;
    read(config, name)?.ok_or_else(missing)
}

/// Lists the volumes by name; a volume whose record cannot be read is an error of its own.
pub fn list(config: &Config) -> Result<Vec<Result<Volume>>> {
    let path = config.volumes_dir();
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("cannot list {}", path.display()), error)),
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.retain(|name| Name::parse(name).is_ok());
    names.sort();
    Ok(names.iter().filter_map(|name| read(config, name).transpose()).collect())
}

/// Returns the names of the containers that use a volume.
pub fn users(config: &Config, name: &str) -> Result<Vec<String>> {
    let mut users = Vec::new();
    for id in record::ids(config)? {
        // A record that cannot be read may use any volume.
        match record::Record::read(config, &id) {
            Ok(record) if record.volumes.iter().any(|v| v.name == name) => users.push(record.name),
            Err(_) if record::exists(config, &id) => users.push(id.short().to_owned()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(users)
}

/// Removes a volume that no container uses. `force`: one that does not exist is no error.
pub fn remove(config: &Config, name: &str, force: bool) -> Result<()> {
    if Name::parse(name).is_err() || !config.volumes_dir().join(name).exists() {
        if force {
            return Ok(());
        }
        inspect(config, name)?;
    }
    if let Some(user) = users(config, name)?.first() {
        return Err(Error::conflict(format!("cannot remove volume `{name}`"))
            .reason(format!("container `{user}` uses it"))
            .hint(format!("remove the container first: `brig rm {user}`")));
    }
    destroy(config, name)
}

/// Removes a volume's directory: out of sight in one step, then piece by piece.
pub(crate) fn destroy(config: &Config, name: &str) -> Result<()> {
    let doomed = config.root.join("tmp").join(format!("volume-{}", hex(&disk::random()?[..8])));
    disk::make_directory(&config.root.join("tmp"))?;
    match fs::rename(config.volumes_dir().join(name), &doomed) {
        Ok(()) => disk::remove_tree(&doomed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(format!("cannot remove volume `{name}`"), error)),
    }
}

/// Removes every volume that no container uses: the anonymous ones, or all; returns their names.
pub fn prune(config: &Config, all: bool) -> Result<Vec<String>> {
    let mut used = std::collections::BTreeSet::new();
    for id in record::ids(config)? {
        if record::exists(config, &id) {
            used.extend(record::Record::read(config, &id)?.volumes.into_iter().map(|v| v.name));
        }
    }
    let mut removed = Vec::new();
    for volume in list(config)?.into_iter().flatten() {
        if (all || volume.anonymous) && !used.contains(&volume.name) {
            destroy(config, &volume.name)?;
            removed.push(volume.name);
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::Scratch;

    #[test]
    fn a_volume_lives_until_it_is_removed() {
        let dir = Scratch::new();
        let config = Config::new(&dir.0, &dir.0);
        let name = Name::parse("data").unwrap();
        let volume = create(&config, Some(&name), BTreeMap::new()).unwrap();
        fs::write(volume.data(&config).join("file"), "x").unwrap();
        assert_eq!(create(&config, Some(&name), BTreeMap::new()).unwrap().created_ns, volume.created_ns);
        assert!(volume.data(&config).join("file").exists());
        let anonymous = create(&config, None, BTreeMap::new()).unwrap();
        assert_eq!(list(&config).unwrap().len(), 2);
        assert_eq!(prune(&config, false).unwrap(), [anonymous.name]);
        remove(&config, "data", false).unwrap();
        assert_eq!(remove(&config, "data", false).unwrap_err().kind, Kind::NotFound);
        remove(&config, "data", true).unwrap();
        assert_eq!(fs::read_dir(config.root.join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_bad_name_reaches_no_path() {
        let dir = Scratch::new();
        let config = Config::new(dir.0.join("root"), &dir.0);
        fs::write(dir.0.join("precious"), "x").unwrap();
        for bad in ["../../precious", "..", "", "/etc"] {
            assert_eq!(inspect(&config, bad).unwrap_err().kind, Kind::NotFound);
            assert!(remove(&config, bad, false).is_err());
        }
        assert!(dir.0.join("precious").exists());
    }

    #[test]
    fn an_unreadable_record_is_told_and_kept() {
        let dir = Scratch::new();
        let config = Config::new(&dir.0, &dir.0);
        let volume = create(&config, Some(&Name::parse("data").unwrap()), BTreeMap::new()).unwrap();
        fs::write(config.volumes_dir().join("data/record"), "garbage").unwrap();
        assert!(list(&config).unwrap()[0].is_err());
        assert!(volume.data(&config).exists());
    }
}
