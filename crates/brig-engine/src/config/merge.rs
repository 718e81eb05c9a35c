//! Fills what a user left open with what the image says, as Docker does it.
//!
//! ```text
//!   entrypoint  user's, else image's; a user's entrypoint drops the image's command
//!   command     user's, else image's
//!   env         image's first, then the user's; the same name is replaced in place
//!   volumes     one anonymous volume for each of the image's that no mount covers
//!   the rest    user's, else image's
//! ```
//!
//! An image's configuration is foreign input: a volume path that is not absolute or climbs is dropped.

use super::{ContainerConfig, MountConfig, MountKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// What an image says about the containers made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageDefaults {
    /// The entrypoint.
    pub entrypoint: Vec<String>,
    /// The command.
    pub command: Vec<String>,
    /// The environment.
    pub env: Vec<String>,
    /// `user[:group]`.
    pub user: String,
    /// The working directory.
    pub workdir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Paths that want a volume.
    pub volumes: Vec<String>,
    /// Ports that are served, `80/tcp`.
    pub exposed: Vec<String>,
    /// The stop signal.
    pub stop_signal: Option<String>,
}

impl ContainerConfig {
    /// Fills every field that is open from the image; doing it twice changes nothing more.
    pub fn merge(&mut self, image: &ImageDefaults) {
        if self.entrypoint.is_none() {
            self.entrypoint = Some(image.entrypoint.clone());
            if self.command.is_empty() {
                self.command.clone_from(&image.command);
            }
        }
        self.env = merge_env(&image.env, &self.env);
        if self.user.is_empty() {
            self.user.clone_from(&image.user);
        }
        if self.workdir.is_empty() {
            self.workdir.clone_from(&image.workdir);
        }
        for (key, value) in &image.labels {
            self.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        for port in &image.exposed {
            if !self.exposed.contains(port) {
                self.exposed.push(port.clone());
            }
        }
        if self.stop_signal.is_none() {
            self.stop_signal.clone_from(&image.stop_signal);
        }
        for volume in &image.volumes {
            let Some(path) = clean_absolute(Path::new(volume)) else { continue };
            if !self.mounts.iter().any(|m| m.destination == path) {
                self.mounts
                    .push(MountConfig::new(MountKind::Volume { name: None, no_copy: false, subpath: None }, path));
            }
        }
    }

    /// Returns the whole command line: entrypoint, then command.
    pub fn argv(&self) -> Vec<String> {
        self.entrypoint.iter().flatten().chain(&self.command).cloned().collect()
    }
}

/// Puts `over` on top of `base`; a name that is there already keeps its place and takes the new value.
pub fn merge_env(base: &[String], over: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(base.len() + over.len());
    for entry in base.iter().chain(over) {
        let name = entry.split('=').next().unwrap_or_default();
        let same = all.iter_mut().find(|e| e.split('=').next() == Some(name));
        match same {
            Some(old) => old.clone_from(entry),
            None => all.push(entry.clone()),
        }
    }
    all
}

/// Returns an absolute path without `.`, doubled slashes and a trailing slash; none when it is relative, holds `..` or is `/`.
pub fn clean_absolute(path: &Path) -> Option<PathBuf> {
    if !path.is_absolute() {
        return None;
    }
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (clean != Path::new("/")).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageDefaults {
        ImageDefaults {
            entrypoint: vec!["/entry".into()],
            command: vec!["serve".into()],
            env: vec!["PATH=/bin".into(), "A=1".into()],
            user: "www".into(),
            volumes: vec!["/data/".into(), "../escape".into(), "/a/../..".into()],
            ..ImageDefaults::default()
        }
    }

    #[test]
    fn the_image_fills_what_is_open() {
        let mut config = ContainerConfig { env: vec!["A=2".into(), "B=3".into()], ..ContainerConfig::default() };
        config.merge(&image());
        assert_eq!(config.argv(), ["/entry", "serve"]);
        assert_eq!(config.env, ["PATH=/bin", "A=2", "B=3"]);
        assert_eq!(config.user, "www");
        assert_eq!(config.mounts.len(), 1);
        assert_eq!(config.mounts[0].destination, Path::new("/data"));
        let once = config.clone();
        config.merge(&image());
        assert_eq!(config, once);
    }

    #[test]
    fn a_command_replaces_the_images_command_only() {
        let mut config = ContainerConfig { command: vec!["x".into()], ..ContainerConfig::default() };
        config.merge(&image());
        assert_eq!(config.argv(), ["/entry", "x"]);
    }

    #[test]
    fn an_entrypoint_drops_the_images_command() {
        let mut config = ContainerConfig { entrypoint: Some(vec!["sh".into()]), ..ContainerConfig::default() };
        config.merge(&image());
        assert_eq!(config.argv(), ["sh"]);
        let mut config =
            ContainerConfig { entrypoint: Some(Vec::new()), command: vec!["ls".into()], ..ContainerConfig::default() };
        config.merge(&image());
        assert_eq!(config.argv(), ["ls"]);
    }

    #[test]
    fn a_mounts_destination_takes_the_place_of_an_image_volume() {
        let mut config = ContainerConfig { mounts: vec![MountConfig::tmpfs("/data")], ..ContainerConfig::default() };
        config.merge(&image());
        assert_eq!(config.mounts, [MountConfig::tmpfs("/data")]);
    }
}
