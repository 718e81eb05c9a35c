//! The mounts of a configuration, prepared by the parent as far as it can: what is bound from the machine is opened here,
//! with the engine's credentials and before anything of the container runs, so that no name is resolved twice.
//!
//! ```text
//! parent                                             child, in its mount namespace
//!   bind:  open_tree(CLONE) + mount_setattr  --fd-->   move_mount onto a target found by openat2(IN_ROOT)
//!   other: options parsed                    ------>   fsopen, fsconfig, fsmount, move_mount likewise; or, where that
//!                                                      says the same, mount(2) on the target as working directory
//! ```
//!
//! No path inside the root is ever given to a mount call.

mod direct;
mod elsewhere;
mod options;

use crate::error::{Context, Error};
use crate::selinux;
use brig_spec::runtime::{LinuxIdMapping, Mount as Specified};
use brig_sys::mounts::{Attributes, IDMAP, set_attributes};
pub(crate) use direct::{Home, mount_at, mount_onto};
pub(crate) use elsewhere::clone_within;
pub use options::NO_SYMLINKS;
pub(crate) use options::Options;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What a mount is made from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A detached clone of something on the machine.
    Bind {
        /// The clone; none while it is still to come from the parent.
        fd: Option<OwnedFd>,
        /// Whether it is a directory.
        directory: bool,
    },
    /// What the container's own root has at a path, with what earlier mounts put there; bound by the child.
    Inside {
        /// The path in the root.
        path: PathBuf,
        /// The user namespace through which its ids are shown; the child asks its maker to do that.
        map: Option<OwnedFd>,
    },
    /// A new file system.
    New {
        /// Its type, such as `tmpfs`.
        kind: String,
        /// Its source, such as `shm`.
        source: String,
    },
    /// The container's view of the cgroup hierarchies.
    Cgroup,
}

impl Source {
    /// Says whether it is a new file system of this type.
    pub fn is_new(&self, wanted: &str) -> bool {
        matches!(self, Self::New { kind, .. } if kind == wanted)
    }
}

/// One mount, ready for the child.
#[derive(Debug)]
pub(crate) struct Mount {
    pub destination: PathBuf,
    pub source: Source,
    pub options: Options,
    /// The id maps of this mount alone, as /proc/PID/uid_map and gid_map read them.
    maps: Option<(String, String)>,
}

/// What binds are opened with.
#[derive(Debug)]
pub(crate) struct Opening<'a> {
    /// The container's user namespace, when it has one.
    userns: Option<BorrowedFd<'a>>,
    /// Whether what source mounts forbid stays forbidden.
    locked: bool,
    /// The mount namespace in which paths are looked up; this process's own if none is given.
    within: Option<OwnedFd>,
    /// User namespaces made for id maps, by these.
    maps: Vec<((String, String), OwnedFd)>,
    /// What was done otherwise than asked for.
    pub warnings: Vec<String>,
}

impl<'a> Opening<'a> {
    /// Begins with the container's user namespace, if any.
    pub fn new(userns: Option<BorrowedFd<'a>>) -> Self {
        Self { userns, locked: userns.is_some(), within: None, maps: Vec::new(), warnings: Vec::new() }
    }

    /// Looks paths up in another mount namespace.
    pub fn within(self, namespace: Option<OwnedFd>) -> Self {
        Self { within: namespace, ..self }
    }

    /// Begins inside a user namespace, whose root may take nothing back that the machine forbids.
    pub fn locked() -> Self {
        Self { locked: true, ..Self::new(None) }
    }
}

impl Mount {
    /// Reads one mount of the configuration; a bind is opened by [`Mount::open_bind`].
    pub fn parse(specified: &Specified) -> Result<Self, Error> {
        let destination = specified.destination.clone();
        let mut options = Options::parse(&specified.options)
            .map_err(|why| Error::invalid(format!("mount on {}", destination.display()), why))?;
        let (uid_map, gid_map) = (map_lines(&specified.uid_mappings), map_lines(&specified.gid_mappings));
        let maps = (!uid_map.is_empty() || !gid_map.is_empty()).then_some((uid_map, gid_map));
        if maps.is_some() {
            options.idmap.get_or_insert(false);
        }
        let kind = if specified.typ.is_empty() { "none" } else { &specified.typ };
        let source = if options.bind || kind == "bind" {
            Source::Bind { fd: None, directory: true }
        } else if matches!(kind, "cgroup" | "cgroup2") {
            Source::Cgroup
        } else {
            let name = specified.source.to_string_lossy();
            Source::New { kind: kind.to_owned(), source: if name.is_empty() { kind } else { &name }.to_owned() }
        };
        if options.idmap.is_some() && !matches!(source, Source::Bind { .. }) {
            let step = format!("mount on {}", destination.display());
            return Err(Error::invalid(step, "only a bind can have id maps of its own"));
        }
        Ok(Self { destination, source, options, maps })
    }

    /// Opens and shapes a bind of the machine's `path`, and shows its files under other ids where that is asked for.
    fn open_bind(&mut self, path: &Path, opening: &mut Opening<'_>) -> Result<(), Error> {
        let step = || format!("bind {} on {}", path.display(), self.destination.display());
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if self.options.recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let opened = if let Some(namespace) = &opening.within {
            Ok(clone_within(namespace.as_fd(), path, flags).step(step)?)
        } else if self.options.no_symlinks {
            // Whoever puts a link in place of a directory meanwhile would choose what is mounted (CVE-2021-25741).
            rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS)
                .and_then(|fd| rustix::mount::open_tree(fd, "", flags | empty_path()))
        } else {
            rustix::mount::open_tree(CWD, path, flags)
        };
        let clone = match opened {
            // A mount of another mount namespace can be cloned only from inside that one.
            Err(rustix::io::Errno::INVAL) if elsewhere::is_named_by(path) => {
                elsewhere::clone_of_process(path, flags).step(step)?
            }
            result => result.step(step)?,
        };
        let stat = rustix::fs::fstat(&clone).step(step)?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        self.options.apply(clone.as_fd(), opening.locked).step(step)?;
        if let Some(recursive) = self.options.idmap {
            let other_ids = || format!("show the files of {} under the container's ids", path.display());
            let userns = self.userns_of_maps(opening).step(other_ids)?;
            match show_under_other_ids(clone.as_fd(), userns, recursive) {
                // What nobody writes to may be shown under the machine's ids, where the file system knows no others.
                Err(error)
                    if self.maps.is_none()
                        && error.kind() == std::io::ErrorKind::InvalidInput
                        && self.options.attributes.set & brig_sys::mounts::RDONLY != 0 =>
                {
                    let path = path.display();
                    opening.warnings.push(format!(
                        "the files of {path} are shown with the machine's ids: its file system has no id-mapped mounts"
                    ));
                }
                result => {
                    result.step(|| format!("{} (its file system may not support id-mapped mounts)", other_ids()))?;
                }
            }
        }
        self.source = Source::Bind { fd: Some(clone), directory };
        Ok(())
    }

    /// The user namespace through which the ids are shown: one with the mount's own maps, else the container's.
    fn userns_of_maps<'a>(&self, opening: &'a mut Opening<'_>) -> std::io::Result<BorrowedFd<'a>> {
        let Some(maps) = &self.maps else {
            let none = || std::io::Error::other("neither the mount nor the container has id maps");
            return opening.userns.ok_or_else(none);
        };
        let known = opening.maps.iter().position(|(known, _)| known == maps);
        let at = if let Some(at) = known {
            at
        } else {
            let made = userns_with_maps(&maps.0, &maps.1)?;
            opening.maps.push((maps.clone(), made));
            opening.maps.len() - 1
        };
        Ok(opening.maps[at].1.as_fd())
    }
}

/// Makes a user namespace for the sake of its id maps: a process is born into it, lives until it is opened, and leaves.
fn userns_with_maps(uid_map: &str, gid_map: &str) -> std::io::Result<OwnedFd> {
    let (ours, theirs) = crate::protocol::pair().map_err(|error| error.source)?;
    let child = brig_sys::clone::clone_process(brig_sys::clone::flags::NEWUSER, None, || {
        brig_sys::fds::close_copy(ours.as_fd());
        i32::from(theirs.receive().is_err())
    })?;
    drop(theirs);
    let pid = child.pid;
    let made = std::fs::write(format!("/proc/{pid}/uid_map"), uid_map)
        .and_then(|()| std::fs::write(format!("/proc/{pid}/gid_map"), gid_map))
        .and_then(|()| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            Ok(rustix::fs::open(format!("/proc/{pid}/ns/user"), flags, Mode::empty())?)
        });
    drop(ours);
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let _ = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
    made
}

fn fd_number(fd: BorrowedFd<'_>) -> u64 {
    u64::from(fd.as_raw_fd().cast_unsigned())
}

/// Opens every bind of the list.
pub(crate) fn open_binds(
    mounts: &mut [Mount],
    specified: &[Specified],
    opening: &mut Opening<'_>,
) -> Result<(), Error> {
    for (mount, specified) in mounts.iter_mut().zip(specified) {
        if !matches!(mount.source, Source::Bind { .. }) {
            continue;
        }
        if specified.source.as_os_str().is_empty() {
            return Err(Error::invalid(format!("bind on {}", mount.destination.display()), "the mount has no source"));
        }
        mount.open_bind(&specified.source, opening)?;
    }
    Ok(())
}

/// Shows a detached mount under other ids, with `recursive` all below too; for a container's process, which may not do so itself.
pub(crate) fn show_under_other_ids(
    mount: BorrowedFd<'_>,
    userns: BorrowedFd<'_>,
    recursive: bool,
) -> std::io::Result<()> {
    let map = Attributes { set: IDMAP, userns_fd: fd_number(userns), ..Attributes::default() };
    set_attributes(mount, &map, recursive)
}

/// Finds the binds whose source lies below the container's own root on the machine: these are for the child. A destination that
/// is told with that path means the place inside.
pub(crate) fn find_inside(mounts: &mut [Mount], specified: &[Specified], rootfs: Option<&Path>) -> Result<(), Error> {
    let Some(rootfs) = rootfs else { return Ok(()) };
    for (mount, specified) in mounts.iter_mut().zip(specified) {
        if let Ok(inside) = mount.destination.strip_prefix(rootfs) {
            mount.destination = Path::new("/").join(inside);
        }
        let inside = specified.source.strip_prefix(rootfs).ok();
        if let (Source::Bind { .. }, Some(inside)) = (&mount.source, inside) {
            let maps = mount.maps.as_ref();
            let map = maps.map(|(uids, gids)| userns_with_maps(uids, gids)).transpose();
            let map = map.step(|| format!("make the id maps of the mount on {}", mount.destination.display()))?;
            mount.source = Source::Inside { path: inside.to_owned(), map };
        }
    }
    Ok(())
}

/// Makes a new file system with the caller's namespaces and returns it as a detached mount.
pub(crate) fn new_file_system(kind: &str, source: &str, options: &Options) -> std::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if !source.is_empty() {
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", source)?;
    }
    for (key, value) in &options.data {
        let result = match value {
            Some(value) => rustix::mount::fsconfig_set_string(context.as_fd(), key.as_str(), value.as_str()),
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), key.as_str()),
        };
        result.map_err(|error| {
            let value = value.as_deref().map(|v| format!("={v}")).unwrap_or_default();
            std::io::Error::new(std::io::Error::from(error).kind(), format!("option `{key}{value}`: {error}"))
        })?;
    }
    let named = |key: &str| options.data.iter().any(|(other, _)| other == key);
    if let Some(label) = options.label.as_deref().filter(|_| selinux::labels_by_option(kind) && !named("context")) {
        rustix::mount::fsconfig_set_string(context.as_fd(), "context", label)
            .map_err(|error| wrong_label(label, error))?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = u32::try_from(options.attributes.set).unwrap_or(0);
    let flags = MountAttrFlags::from_bits_retain(attributes);
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    if let (Some(label), "mqueue") = (&options.label, kind) {
        selinux::label_root(mount.as_fd(), label)?;
    }
    Ok(mount)
}

fn wrong_label(label: &str, error: rustix::io::Errno) -> std::io::Error {
    std::io::Error::new(std::io::Error::from(error).kind(), format!("security label `{label}`: {error}"))
}

/// Puts a detached mount onto a target, both by descriptor.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> std::io::Result<()> {
    use rustix::mount::MoveMountFlags as F;
    let flags = F::MOVE_MOUNT_F_EMPTY_PATH | F::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Puts a detached mount onto the entry `name` of a directory that nobody else can change; a link is not followed.
pub(crate) fn attach_at(mount: BorrowedFd<'_>, directory: BorrowedFd<'_>, name: &str) -> std::io::Result<()> {
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", directory, name, flags)?)
}

/// The flag by which open_tree(2) takes a descriptor alone.
fn empty_path() -> OpenTreeFlags {
    OpenTreeFlags::from_bits_retain(AtFlags::EMPTY_PATH.bits())
}

/// Makes a detached clone of what a descriptor refers to.
pub(crate) fn clone_of(fd: BorrowedFd<'_>, recursive: bool) -> std::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | empty_path();
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(fd, "", flags)?)
}

/// Makes a detached clone of one mount, or of a part of it, of the machine.
pub(crate) fn clone_at(path: &Path) -> std::io::Result<OwnedFd> {
    Ok(rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

/// Writes id maps as /proc/PID/uid_map reads them, user_namespaces(7).
pub(crate) fn map_lines(maps: &[LinuxIdMapping]) -> String {
    let line = |m: &LinuxIdMapping| format!("{} {} {}", m.container_id, m.host_id, m.size);
    maps.iter().map(line).collect::<Vec<_>>().join("\n")
}
