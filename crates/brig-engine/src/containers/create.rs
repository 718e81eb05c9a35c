//! Making a container: from a configuration and an image to a record on disk.
//!
//! ```text
//!   1 check and complete the configuration      nothing on disk yet
//!   2 claim <root>/containers/<id>              held until the record is written
//!   3 reserve the name, lend ids, make volumes
//!   4 make upper and work
//!   5 write the record                          from here on the container exists
//! ```
//!
//! A step that fails undoes the earlier ones. After a crash before 5, what is left is found by what it points to: an id
//! without a record.

use super::{borrow, undo};
use crate::config::merge::clean_absolute;
use crate::config::{Config, ContainerConfig, ImageDefaults, MountKind, NetworkMode, PidMode, UserMode};
use crate::error::{Error, Kind, Result};
use crate::record::{self, FORMAT, ImageUse, Record, VolumeUse};
use crate::{disk, idpool, names, volumes};
use brig_monitor::plan::SubOverlay;
use brig_spec::id::{ContainerId, Name};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

/// What a container is made of.
#[derive(Debug, Clone)]
pub enum Source {
    /// An image of the store.
    Image(Box<brig_store::Image>),
    /// The machine's own root file system.
    Host,
}

/// A container that was made, and that nobody else changes as long as this lives.
#[derive(Debug)]
pub struct Created {
    /// Its record.
    pub record: Record,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
    /// The lock on it.
    pub(super) held: File,
}

/// Makes a container.
pub fn create(config: &Config, mut container: ContainerConfig, source: &Source) -> Result<Created> {
    let mut warnings = Vec::new();
    borrow::add_mounts(config, &mut container)?;
    container.merge(&defaults(source));
    check(&mut container, &mut warnings)?;
    let (image, owner) = image_use(config, source, &mut warnings)?;

    let id = ContainerId::from_random(disk::random()?);
    let wanted = container.name.as_deref().map(Name::parse).transpose();
    let wanted = wanted.map_err(|error| Error::invalid("cannot use that name").because(error))?;
    let held = record::claim(config, &id)?;
    let mut record = Record {
        format: FORMAT,
        id,
        name: String::new(),
        created_ns: brig_monitor::state::now_ns(),
        config: container,
        image,
        volumes: Vec::new(),
        network: None,
        first_id: None,
    };
    let made = furnish(config, &mut record, wanted.as_ref(), owner);
    if let Err(error) = made {
        // The same list that a removal replays; the directory is last.
        let mut steps = undo::list(config, &record, true);
        if record.name.is_empty() {
            let names = config.names_dir();
            steps.retain(|s| !matches!(s, brig_monitor::plan::Undo::File(path) if path.starts_with(&names)));
        }
        steps.retain(|s| !matches!(s, brig_monitor::plan::Undo::Cgroup(_)));
        let _ = brig_monitor::undo::replay(&steps);
        return Err(error);
    }
    Ok(Created { record, warnings, held })
}

/// Steps 3 to 5.
fn furnish(config: &Config, record: &mut Record, wanted: Option<&Name>, owner: Owner) -> Result<()> {
    record.name = match wanted {
        Some(name) => {
            names::reserve(config, name, &record.id)?;
            name.clone().into()
        }
        None => names::reserve_any(config, &record.id)?.into(),
    };
    match &record.config.userns {
        UserMode::Host => {}
        UserMode::Auto => record.first_id = Some(idpool::lend(config, &record.id)?),
        UserMode::Container(name) => record.first_id = super::find(config, name)?.first_id,
    }
    borrow::keep_volumes(config, &record.config)?;
    make_volumes(config, record)?;
    make_upper(config, record, owner)?;
    record.write(config)?;
    // From here on the record keeps the layers; whoever removes the image now, and asked before, is waited for.
    if !record.image.host {
        brig_store::await_collection(&config.root)
            .map_err(|error| Error::new(Kind::Unavailable, "cannot wait for the removal of images").because(error))?;
    }
    match record.image.layers.iter().find(|layer| rustix::fs::access(*layer, rustix::fs::Access::EXISTS).is_err()) {
        Some(gone) => Err(Error::not_found(format!("no such image: {}", record.config.image))
            .reason(format!("its layer {} is gone: it was removed a moment ago", gone.display()))),
        None => Ok(()),
    }
}

fn defaults(source: &Source) -> ImageDefaults {
    let Source::Image(image) = source else { return ImageDefaults::default() };
    let config = &image.config.config;
    ImageDefaults {
        entrypoint: config.entrypoint.clone().unwrap_or_default(),
        command: config.cmd.clone().unwrap_or_default(),
        env: config.env.clone(),
        user: config.user.clone(),
        workdir: config.working_dir.clone(),
        labels: config.labels.clone(),
        volumes: config.volumes.keys().cloned().collect(),
        exposed: config.exposed_ports.keys().cloned().collect(),
        stop_signal: config.stop_signal.clone(),
    }
}

/// Refuses what cannot be, before anything is on disk, and completes what depends on other fields.
fn check(container: &mut ContainerConfig, warnings: &mut Vec<String>) -> Result<()> {
    if container.argv().first().is_none_or(String::is_empty) {
        return Err(Error::invalid("no command is given, and the image names none")
            .hint(format!("name a command after the image: `brig run {} COMMAND`", container.image)));
    }
    let shares_network = matches!(container.network, NetworkMode::Host | NetworkMode::Container(_));
    if shares_network && matches!(container.network, NetworkMode::Container(_)) && !container.ports.is_empty() {
        return Err(Error::invalid("a container that shares another's network cannot publish ports")
            .hint("publish them from the container whose network it is"));
    }
    if !container.ports.is_empty() && matches!(container.network, NetworkMode::Host | NetworkMode::None) {
        warnings.push("published ports are discarded: the container has no interface of its own".into());
        container.ports.clear();
    }
    if container.userns == UserMode::Auto && (container.privileged || container.pid == PidMode::Host) {
        // The kernel gives no new procfs there, and privileges over the machine are what was asked for.
        warnings.push("--userns=auto does nothing together with --privileged or --pid=host".into());
        container.userns = UserMode::Host;
    }
    if container.remove && container.restart != crate::config::RestartPolicy::No {
        return Err(Error::invalid("`--rm` and `--restart` exclude each other"));
    }
    if let Some(signal) = &container.stop_signal {
        super::signal_number(signal)?;
    }
    for mount in &mut container.mounts {
        mount.destination = clean_absolute(&mount.destination).ok_or_else(|| {
            Error::invalid(format!("cannot mount at `{}`", mount.destination.display()))
                .hint("a destination is an absolute path without `..`, and not `/` itself")
        })?;
    }
    let mut seen = std::collections::BTreeSet::new();
    if let Some(twice) = container.mounts.iter().find(|m| !seen.insert(&m.destination)) {
        return Err(Error::invalid(format!("two mounts have the destination `{}`", twice.destination.display())));
    }
    Ok(())
}

/// Whose the root directory is and what its permission bits are: overlay takes both from the upper layer.
#[derive(Debug, Clone, Copy)]
struct Owner {
    mode: u32,
    uid: u32,
    gid: u32,
}

fn image_use(config: &Config, source: &Source, warnings: &mut Vec<String>) -> Result<(ImageUse, Owner)> {
    match source {
        Source::Image(image) => {
            let layers = image.layers.iter().rev().cloned().collect();
            let owner = Owner { mode: image.root.mode & 0o7777, uid: image.root.uid, gid: image.root.gid };
            Ok((ImageUse { id: image.id.to_string(), layers, ..ImageUse::default() }, owner))
        }
        Source::Host => {
            let root = fs::metadata("/").map_err(|error| Error::io("cannot use this machine as an image", error))?;
            let found = crate::host::mounts::below_root()?;
            if !found.missing.is_empty() {
                warnings.push(format!("not seen inside: {}", found.missing.join(", ")));
            }
            let base = config.root.clone();
            let submounts = found
                .local
                .into_iter()
                .filter(|path| !path.starts_with(&base) && !path.starts_with(&config.run))
                .map(|path| SubOverlay {
                    destination: path.clone(),
                    lower: path,
                    upper: PathBuf::new(),
                    work: PathBuf::new(),
                })
                .collect();
            let image = ImageUse { id: String::new(), layers: vec![PathBuf::from("/")], host: true, submounts };
            Ok((image, Owner { mode: root.mode() & 0o7777, uid: root.uid(), gid: root.gid() }))
        }
    }
}

fn make_volumes(config: &Config, record: &mut Record) -> Result<()> {
    for mount in &record.config.mounts {
        match &mount.kind {
            MountKind::Volume { name, .. } => {
                let name = name.as_deref().map(Name::parse).transpose();
                let name = name.map_err(|error| Error::invalid("cannot use that volume").because(error))?;
                let volume = volumes::create(config, name.as_ref(), BTreeMap::new())?;
                record.volumes.push(VolumeUse {
                    name: volume.name,
                    destination: mount.destination.clone(),
                    anonymous: undo::is_anonymous(&mount.kind),
                });
            }
            MountKind::Bind { source, create, .. } => {
                if !create && !source.exists() {
                    return Err(Error::not_found(format!("cannot bind `{}`: it does not exist", source.display()))
                        .hint("make it first; `-v` makes a missing directory, `--mount` does not"));
                }
            }
            MountKind::Tmpfs | MountKind::Image { .. } => {}
        }
    }
    Ok(())
}

/// Makes the writable layers.
fn make_upper(config: &Config, record: &mut Record, owner: Owner) -> Result<()> {
    let dir = record.dir(config);
    let shift = record.first_id.unwrap_or(0);
    let one = |base: &Path, owner: Owner| -> Result<(PathBuf, PathBuf)> {
        let (upper, work) = (base.join("upper"), base.join("work"));
        disk::make_one(&upper, owner.mode)?;
        disk::make_one(&work, 0o700)?;
        if owner.uid + shift != 0 || owner.gid + shift != 0 {
            let given = chown(&upper, Some(owner.uid.wrapping_add(shift)), Some(owner.gid.wrapping_add(shift)));
            given.map_err(|error| Error::io(format!("cannot give {} to the container", upper.display()), error))?;
        }
        Ok((upper, work))
    };
    if volatile(config)? {
        if !record.config.remove {
            return Err(Error::new(
                Kind::Unsupported,
                format!("{} cannot hold a container's files", config.root.display()),
            )
            .reason("its file system cannot be the upper layer of an overlay")
            .hint("use `--rm` (files are kept in memory), or `--root` on ext4, xfs, btrfs or tmpfs"));
        }
        return Ok(());
    }
    one(&dir, owner)?;
    for (n, submount) in record.image.submounts.iter_mut().enumerate() {
        let base = dir.join(format!("sub{n}"));
        disk::make_one(&base, 0o700)?;
        let meta = fs::metadata(&submount.lower)
            .map_err(|error| Error::io(format!("cannot use {}", submount.lower.display()), error))?;
        (submount.upper, submount.work) =
            one(&base, Owner { mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() })?;
    }
    Ok(())
}

/// Says whether `<root>` lies on a file system that cannot hold an overlay's upper layer.
pub(super) fn volatile(config: &Config) -> Result<bool> {
    // overlay, NFS, FUSE, vfat, 9p, CIFS and SMB2: statfs(2).
    const UNFIT: [u64; 7] = [0x794c_7630, 0x6969, 0x6573_5546, 0x4d44, 0x0102_1997, 0xff53_4d42, 0xfe53_4d42];
    let stat = rustix::fs::statfs(&config.root)
        .map_err(|error| Error::io(format!("cannot look at {}", config.root.display()), error))?;
    Ok(UNFIT.contains(&(u64::try_from(stat.f_type).unwrap_or_default() & 0xffff_ffff)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MountConfig, PortRequest, Protocol, RestartPolicy};
    use crate::disk::tests::Scratch;
    use std::os::unix::fs::PermissionsExt;

    fn config(dir: &Scratch) -> Config {
        disk::make_directory(&dir.0.join("root")).unwrap();
        Config::new(dir.0.join("root"), dir.0.join("run"))
    }

    fn wish() -> ContainerConfig {
        ContainerConfig {
            image: "host:".into(),
            command: vec!["true".into()],
            network: NetworkMode::None,
            ..Default::default()
        }
    }

    #[test]
    fn a_container_is_made_whole_or_not_at_all() {
        let dir = Scratch::new();
        let config = config(&dir);
        let named = ContainerConfig { name: Some("web".into()), ..wish() };
        let created = create(&config, named.clone(), &Source::Host).unwrap();
        assert_eq!(created.record.name, "web");
        let upper = created.record.dir(&config).join("upper");
        let root = fs::metadata("/").unwrap();
        assert_eq!(fs::metadata(&upper).unwrap().permissions().mode() & 0o7777, root.mode() & 0o7777);
        let error = create(&config, named, &Source::Host).unwrap_err();
        assert_eq!(error.kind, Kind::Conflict);
        assert_eq!(record::ids(&config).unwrap().len(), 1, "the second one left nothing");
        assert_eq!(super::super::find(&config, "web").unwrap().id, created.record.id);
    }

    #[test]
    fn a_failure_in_the_middle_takes_volumes_and_ids_back() {
        let dir = Scratch::new();
        let config = config(&dir);
        let missing = MountKind::Bind { source: "/no/such/file".into(), create: false, non_recursive: false };
        let anonymous = MountKind::Volume { name: None, no_copy: false, subpath: None };
        let wish = ContainerConfig {
            mounts: vec![MountConfig::new(anonymous, "/data"), MountConfig::new(missing, "/x")],
            userns: UserMode::Auto,
            ..wish()
        };
        assert_eq!(create(&config, wish, &Source::Host).unwrap_err().kind, Kind::NotFound);
        assert!(record::ids(&config).unwrap().is_empty());
        assert!(volumes::list(&config).unwrap().is_empty());
        assert_eq!(fs::read_dir(config.names_dir()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(config.root.join("ids")).unwrap().count(), 0);
    }

    #[test]
    fn a_user_namespace_owns_its_upper() {
        let dir = Scratch::new();
        let config = config(&dir);
        let created = create(&config, ContainerConfig { userns: UserMode::Auto, ..wish() }, &Source::Host).unwrap();
        let first = created.record.first_id.unwrap();
        assert_eq!(fs::metadata(created.record.dir(&config).join("upper")).unwrap().uid(), first);
    }

    #[test]
    fn contradictions_are_refused_before_anything_is_made() {
        let dir = Scratch::new();
        let config = config(&dir);
        let port = PortRequest { host_ip: None, host_port: None, container_port: 80, protocol: Protocol::Tcp };
        let bad = [
            ContainerConfig { command: Vec::new(), ..wish() },
            ContainerConfig { network: NetworkMode::Container("x".into()), ports: vec![port], ..wish() },
            ContainerConfig { remove: true, restart: RestartPolicy::Always, ..wish() },
            ContainerConfig { stop_signal: Some("SIGNOTHING".into()), ..wish() },
            ContainerConfig { mounts: vec![MountConfig::tmpfs("relative")], ..wish() },
            ContainerConfig { mounts: vec![MountConfig::tmpfs("/a"), MountConfig::tmpfs("/a/")], ..wish() },
            ContainerConfig { name: Some("../x".into()), ..wish() },
        ];
        for container in bad {
            assert_eq!(
                create(&config, container.clone(), &Source::Host).unwrap_err().kind,
                Kind::InvalidArgument,
                "{container:?}"
            );
        }
        assert!(!config.containers_dir().exists());
    }
}
