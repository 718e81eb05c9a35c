//! The container's view of its cgroups: the one v2 directory, or a tmpfs with a mount for each v1 hierarchy.
//!
//! ```text
//! a cgroup namespace of its own   each hierarchy is mounted anew, and shows the container's group as its root
//! the machine's                   each of the container's groups is bound, and all of them get their attributes in one call
//! ```

use super::empty_directory;
use crate::cgroup::{Cgroup, Hierarchy};
use crate::mounts::{self, Options, attach, clone_at, new_file_system};
use brig_sys::mounts::{Attributes, RDONLY, set_attributes};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What every hierarchy is called as the source of a mount.
const SOURCE: &str = "cgroup";

/// Mounts the view on `target`.
pub(super) fn mount(target: BorrowedFd<'_>, cgroup: &Cgroup, own_namespace: bool, options: &Options) -> io::Result<()> {
    let layout = cgroup.layout();
    if layout.is_pure_v2() {
        let one = if own_namespace {
            let (kind, options) = of_hierarchy(&layout.hierarchies[0], options);
            Some(new_file_system(kind, SOURCE, &options)?)
        } else {
            bound(&cgroup.directories().next().unwrap_or_default(), options)?
        };
        // A user's container without a cgroup of its own sees nobody's.
        return attach(one.map_or_else(|| empty_directory(options.label.as_deref()), Ok)?.as_fd(), target);
    }
    let base = new_file_system("tmpfs", SOURCE, &of_base(options))?;
    attach(base.as_fd(), target)?;
    mounts::Home::default().leave_for(base.as_fd(), || fill(base.as_fd(), cgroup, own_namespace, options))?;
    if !own_namespace {
        return options.apply_to_all(base.as_fd());
    }
    if options.attributes.set & RDONLY != 0 {
        set_attributes(base.as_fd(), &Attributes { set: RDONLY, ..Attributes::default() }, false)?;
    }
    Ok(())
}

/// Mounts each v1 hierarchy in the tmpfs `base`, which is the working directory.
fn fill(base: BorrowedFd<'_>, cgroup: &Cgroup, own_namespace: bool, options: &Options) -> io::Result<()> {
    for (hierarchy, directory) in cgroup.layout().hierarchies.iter().zip(cgroup.directories()) {
        // Nobody else has seen the tmpfs yet: what is made in it stays what it is.
        let name = hierarchy.mount.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        rustix::fs::mkdirat(base, name, Mode::from_raw_mode(0o755))?;
        if own_namespace {
            let (kind, options) = of_hierarchy(hierarchy, options);
            if !mounts::mount_at(name, kind, SOURCE, &options) {
                mounts::attach_at(new_file_system(kind, SOURCE, &options)?.as_fd(), base, name)?;
            }
        } else {
            match rustix::mount::mount_bind(&directory, name) {
                // A user's container may not have this one.
                Err(Errno::NOENT) => {
                    rustix::fs::unlinkat(base, name, AtFlags::REMOVEDIR)?;
                    continue;
                }
                bound => bound?,
            }
        }
        if hierarchy.controllers.len() > 1 {
            for controller in &hierarchy.controllers {
                match rustix::fs::symlinkat(name, base, controller.as_str()) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

/// Clones one of the container's groups; none where it has none, as a user's container may not.
fn bound(directory: &Path, options: &Options) -> io::Result<Option<OwnedFd>> {
    let clone = match clone_at(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        clone => clone?,
    };
    options.apply(clone.as_fd(), false)?;
    Ok(Some(clone))
}

/// The options of the tmpfs, which becomes read-only when all is in it.
fn of_base(options: &Options) -> Options {
    Options {
        data: vec![("mode".into(), Some("755".into())), ("size".into(), Some("64k".into()))],
        label: options.label.clone(),
        attributes: Attributes { set: options.attributes.set & !RDONLY, ..Attributes::default() },
        ..Options::default()
    }
}

/// The type and the options by which a hierarchy is mounted anew.
fn of_hierarchy(hierarchy: &Hierarchy, options: &Options) -> (&'static str, Options) {
    let mut options = Options { propagation: None, data: Vec::new(), ..options.clone() };
    if hierarchy.unified {
        return ("cgroup2", options);
    }
    if hierarchy.controllers.iter().any(|c| c.starts_with("name=")) {
        options.data.push(("none".into(), None));
    }
    options.data.extend(hierarchy.controllers.iter().map(|c| match c.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (c.clone(), None),
    }));
    ("cgroup", options)
}
