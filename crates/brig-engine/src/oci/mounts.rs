//! The mounts of a container, in the order in which they are made.
//!
//! ```text
//!   /proc  /dev  /dev/pts  /sys  /sys/fs/cgroup  /dev/mqueue  /dev/shm      the kernel's, as in Docker
//!   /etc/resolv.conf  /etc/hosts  /etc/hostname                             written by the engine, one set a container
//!   the user's: the shorter path first, so that /a/b lands on /a and not below it
//! ```
//!
//! A user's mount takes the place of a default at the same destination. With a user namespace, binds carry the container's
//! id map; /sys is a read-only bind when the network is the machine's, for the kernel refuses a sysfs of its own there.

use super::{INIT_PATH, Place};
use crate::config::merge::clean_absolute;
use crate::config::{ContainerConfig, IpcMode, NetworkMode, PidMode};
use crate::error::{Error, Result};
use brig_spec::runtime::Mount;
use std::path::{Path, PathBuf};

/// The size of /dev/shm when nothing is said, in bytes.
const SHM_SIZE: u64 = 64 << 20;

/// A user's mount whose source is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ready {
    /// The source on the machine; none: a tmpfs.
    pub source: Option<PathBuf>,
    /// The absolute path inside.
    pub destination: PathBuf,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Whether file systems mounted below the source stay out.
    pub non_recursive: bool,
    /// How mount events travel.
    pub propagation: Option<String>,
    /// Further options.
    pub options: Vec<String>,
}

fn mount(destination: &str, typ: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        typ: typ.into(),
        source: source.into(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..Mount::default()
    }
}

/// Returns all mounts.
pub fn all(config: &ContainerConfig, place: &Place) -> Result<Vec<Mount>> {
    let mut all = kernel(config, place);
    for (source, destination) in &place.etc_files {
        all.push(mount(destination, "bind", &source.to_string_lossy(), &["rbind", "rprivate"]));
    }
    if config.init {
        let program = place.init_program.as_deref().unwrap_or(Path::new("/proc/self/exe"));
        all.push(mount(INIT_PATH, "bind", &program.to_string_lossy(), &["bind", "ro", "rprivate"]));
    }
    let mut users: Vec<&Ready> = place.mounts.iter().collect();
    users.sort_by_key(|m| m.destination.components().count());
    for ready in users {
        let Some(destination) = clean_absolute(&ready.destination) else {
            return Err(Error::invalid(format!("cannot mount at `{}`", ready.destination.display()))
                .hint("a destination is an absolute path without `..`, and not `/` itself"));
        };
        all.retain(|m| m.destination != destination);
        all.push(user(ready, destination, place));
    }
    Ok(all)
}

fn kernel(config: &ContainerConfig, place: &Place) -> Vec<Mount> {
    let strict = ["nosuid", "noexec", "nodev"];
    let or_read_only = |privileged: bool| {
        let mut options = strict.to_vec();
        if !privileged {
            options.push("ro");
        }
        options
    };
    let mut all = vec![mount("/proc", "proc", "proc", &strict)];
    if place.idmap.is_some() && config.pid == PidMode::Host {
        // A new procfs needs a pid namespace that the user namespace owns.
        all[0] = mount("/proc", "bind", "/proc", &["rbind", "rprivate"]);
    }
    all.push(mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]));
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    all.push(mount("/dev/pts", "devpts", "devpts", &pts));
    if place.idmap.is_some() && matches!(config.network, NetworkMode::Host) {
        all.push(mount("/sys", "bind", "/sys", &["rbind", "rro", "ro", "nosuid", "noexec", "nodev", "rprivate"]));
    } else {
        all.push(mount("/sys", "sysfs", "sysfs", &or_read_only(config.privileged)));
    }
    all.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &or_read_only(config.privileged)));
    if place.idmap.is_some() && matches!(config.ipc, IpcMode::Host) {
        all.push(mount("/dev/mqueue", "bind", "/dev/mqueue", &["rbind", "nosuid", "noexec", "nodev", "rprivate"]));
    } else {
        all.push(mount("/dev/mqueue", "mqueue", "mqueue", &strict));
    }
    match &config.ipc {
        IpcMode::None => {}
        IpcMode::Host => all.push(mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"])),
        IpcMode::Container(_) => {
            let source = format!("/proc/{}/root/dev/shm", place.joined.ipc.unwrap_or_default());
            all.push(mount("/dev/shm", "bind", &source, &["rbind", "rprivate"]));
        }
        IpcMode::Private | IpcMode::Shareable => {
            let size = format!("size={}", config.shm_size.unwrap_or(SHM_SIZE));
            let mut options = strict.to_vec();
            options.extend(["mode=1777", &size]);
            all.push(mount("/dev/shm", "tmpfs", "shm", &options));
        }
    }
    all
}

fn user(ready: &Ready, destination: PathBuf, place: &Place) -> Mount {
    let Some(source) = &ready.source else {
        let mut options: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
        for option in &ready.options {
            // `exec` undoes `noexec`, and so on.
            options.retain(|o| o != &format!("no{option}"));
            options.push(option.clone());
        }
        if ready.read_only {
            options.push("ro".into());
        }
        return Mount { destination, typ: "tmpfs".into(), source: "tmpfs".into(), options, ..Mount::default() };
    };
    let mut options = vec![if ready.non_recursive { "bind" } else { "rbind" }.to_owned()];
    // Nothing is said of a writable one: it keeps what its source mount forbids.
    if ready.read_only {
        options.push("ro".into());
    }
    if ready.read_only && !ready.non_recursive {
        // What is mounted below the source is part of it, and must not stay open.
        options.push("rro".into());
    }
    options.push(ready.propagation.clone().unwrap_or_else(|| "rprivate".into()));
    options.extend(ready.options.iter().cloned());
    if place.idmap.is_some() {
        options.push(if ready.non_recursive { "idmap" } else { "ridmap" }.to_owned());
    }
    Mount { destination, typ: "bind".into(), source: source.clone(), options, ..Mount::default() }
}

/// How mount events reach the container's root: as far as its most open bind asks for.
pub fn root_propagation(mounts: &[Ready]) -> String {
    let has = |words: [&str; 2]| mounts.iter().any(|m| m.propagation.as_deref().is_some_and(|p| words.contains(&p)));
    if has(["shared", "rshared"]) {
        "rshared"
    } else if has(["slave", "rslave"]) {
        "rslave"
    } else {
        "rprivate"
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destinations(config: &ContainerConfig, place: &Place) -> Vec<String> {
        all(config, place).unwrap().iter().map(|m| m.destination.display().to_string()).collect()
    }

    fn at(path: &str) -> Ready {
        Ready { source: Some("/srv".into()), destination: path.into(), ..Ready::default() }
    }

    #[test]
    fn a_users_mount_replaces_a_default_and_parents_come_first() {
        let place = Place { mounts: vec![at("/a/b"), at("/a/"), at("/dev/shm")], ..Place::default() };
        let all = destinations(&ContainerConfig::default(), &place);
        assert_eq!(all[all.len() - 3..], ["/a", "/a/b", "/dev/shm"]);
        assert_eq!(all.iter().filter(|d| *d == "/dev/shm").count(), 1);
    }

    #[test]
    fn a_destination_that_climbs_is_refused() {
        for bad in ["/", "a", "/a/../..", ""] {
            let place = Place { mounts: vec![at(bad)], ..Place::default() };
            assert!(all(&ContainerConfig::default(), &place).is_err(), "{bad}");
        }
    }

    #[test]
    fn tmpfs_options_undo_the_strict_ones() {
        let ready =
            Ready { destination: "/t".into(), options: vec!["exec".into(), "size=1m".into()], ..Ready::default() };
        let mount = user(&ready, "/t".into(), &Place::default());
        assert_eq!(mount.options, ["nosuid", "nodev", "exec", "size=1m"]);
    }

    #[test]
    fn propagation_opens_the_root_as_far_as_asked() {
        let with = |p: &str| Ready { propagation: Some(p.into()), ..at("/a") };
        assert_eq!(root_propagation(&[at("/a")]), "rprivate");
        assert_eq!(root_propagation(&[at("/a"), with("rslave")]), "rslave");
        assert_eq!(root_propagation(&[with("shared"), with("rslave")]), "rshared");
    }
}
