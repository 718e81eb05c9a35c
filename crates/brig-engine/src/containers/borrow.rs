//! `--volumes-from`: what another container has mounted, a new one has too.
//!
//! ```text
//!   lender's mounts      volumes, by name, and binds; a tmpfs is nobody else's
//!   own mounts           win over borrowed ones at the same place; those over the image's volumes; a later lender over an
//!                        earlier one
//!   anonymous volumes    of a lender stay when it goes: from now on they belong to nobody alone, and `volume prune` removes
//!                        them when nobody uses them any more
//! ```

use super::{find, hold, undo};
use crate::config::{Config, ContainerConfig, MountConfig, MountKind};
use crate::error::{Error, Result};
use crate::record::Record;
use brig_spec::id::ContainerId;

/// Adds the mounts of the lenders to a configuration that the image has not been merged into yet.
pub(super) fn add_mounts(config: &Config, container: &mut ContainerConfig) -> Result<()> {
    let mut borrowed: Vec<MountConfig> = Vec::new();
    for from in &container.volumes_from {
        let lender = find(config, &from.container)?;
        for mut mount in mounts(&lender) {
            mount.read_only = from.read_only.unwrap_or(mount.read_only);
            borrowed.retain(|earlier| earlier.destination != mount.destination);
            borrowed.push(mount);
        }
    }
    borrowed.retain(|mount| container.mounts.iter().all(|own| own.destination != mount.destination));
    container.mounts.extend(borrowed);
    Ok(())
}

/// What can be borrowed of a container.
fn mounts(lender: &Record) -> Vec<MountConfig> {
    let mut volumes = lender.volumes.iter();
    let mut all = Vec::new();
    for mount in &lender.config.mounts {
        let kind = match &mount.kind {
            MountKind::Volume { subpath, .. } => {
                let Some(used) = volumes.next() else { continue };
                // It has been filled when the lender began with it.
                MountKind::Volume { name: Some(used.name.clone()), no_copy: true, subpath: subpath.clone() }
            }
            MountKind::Bind { .. } => mount.kind.clone(),
            MountKind::Tmpfs | MountKind::Image { .. } => continue,
        };
        all.push(MountConfig { kind, ..mount.clone() });
    }
    all
}

/// Makes anonymous volumes of the lenders outlive them, before the borrower relies on them.
pub(super) fn keep_volumes(config: &Config, container: &ContainerConfig) -> Result<()> {
    let wanted = |name: &str| {
        container.mounts.iter().any(|m| matches!(&m.kind, MountKind::Volume { name: Some(n), .. } if n == name))
    };
    let mut lenders: Vec<ContainerId> = Vec::new();
    for from in &container.volumes_from {
        let lender = find(config, &from.container)?;
        if !lenders.contains(&lender.id) && lender.volumes.iter().any(|v| v.anonymous && wanted(&v.name)) {
            lenders.push(lender.id);
        }
    }
    for id in lenders {
        let _held = hold(config, &id, "borrow the volumes of")?;
        let mut lender = Record::read(config, &id)?;
        for volume in lender.volumes.iter_mut().filter(|v| wanted(&v.name)) {
            volume.anonymous = false;
        }
        lender.write(config)?;
        if !undo::amend(config, &lender)? {
            return Err(Error::conflict(format!("cannot borrow the volumes of container `{}`", lender.name))
                .reason("it has just ended, and is removed with its volumes"));
        }
    }
    Ok(())
}
