//! The binds of a configuration, for whoever makes a container otherwise than by `create.rs`.

use crate::error::Error;
use crate::mounts::{Mount, Opening, Source, open_binds};
use brig_spec::runtime::Spec;
use std::os::fd::OwnedFd;

/// Opens the binds of a configuration as detached mounts that have all their attributes and id maps: one for each of its
/// mounts, none for those that are no binds. Relative sources begin at the present directory.
///
/// Errors: a source that is not there, options that no mount has, ids that are those of the container's user namespace.
pub fn open(spec: &Spec) -> Result<Vec<Option<OwnedFd>>, Error> {
    let specified = spec.mounts.as_slice();
    let mut mounts = specified.iter().map(Mount::parse).collect::<Result<Vec<_>, _>>()?;
    open_binds(&mut mounts, specified, &mut Opening::new(None))?;
    let fd = |mount: Mount| match mount.source {
        Source::Bind { fd, .. } => fd,
        _ => None,
    };
    Ok(mounts.into_iter().map(fd).collect())
}
