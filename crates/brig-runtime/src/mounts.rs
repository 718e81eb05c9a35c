//! The mounts of a configuration, prepared by the parent as far as it can: what is bound from the machine is opened here,
//! with the engine's credentials and before anything of the container runs, so that no name is resolved twice.
//!
//! ```text
//! parent                                             child, in its mount namespace
//!   bind:  open_tree(CLONE) + mount_setattr  --fd-->   move_mount onto a target found by openat2(IN_ROOT)
//!   other: options parsed                    ------>   fsopen, fsconfig, fsmount, move_mount likewise
//! ```
//!
//! No path inside the root is ever given to a mount call.

mod options;

use crate::error::{Context, Error};
use brig_spec::runtime::{LinuxIdMapping, Mount as Specified};
use brig_sys::mounts::{Attributes, IDMAP, set_attributes};
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

/// One mount, ready for the child.
#[derive(Debug)]
pub(crate) struct Mount {
    pub destination: PathBuf,
    pub source: Source,
    pub options: Options,
}

impl Mount {
    /// Reads one mount of the configuration; a bind is opened by [`Mount::open_bind`].
    pub fn parse(specified: &Specified) -> Result<Self, Error> {
        let destination = specified.destination().clone();
        let mut options = Options::parse(specified.options().as_deref().unwrap_or_default())
            .map_err(|why| Error::invalid(format!("mount on {}", destination.display()), why))?;
        options.idmap |= specified.uid_mappings().as_ref().is_some_and(|map| !map.is_empty());
        let kind = specified.typ().as_deref().unwrap_or("none");
        let source = if options.bind || kind == "bind" {
            Source::Bind { fd: None, directory: true }
        } else if matches!(kind, "cgroup" | "cgroup2") {
            Source::Cgroup
        } else {
            let name = specified.source().as_ref().map_or(kind.into(), |s| s.to_string_lossy().into_owned());
            Source::New { kind: kind.to_owned(), source: name }
        };
        Ok(Self { destination, source, options })
    }

    /// Opens and shapes a bind of the machine's `path`; with a user namespace and `idmap` the clone shows its ids.
    pub fn open_bind(&mut self, path: &Path, userns: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let step = || format!("bind {} on {}", path.display(), self.destination.display());
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if self.options.recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let opened = if self.options.no_symlinks {
            // Whoever puts a link in place of a directory meanwhile would choose what is mounted (CVE-2021-25741).
            rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS)
                .and_then(|fd| rustix::mount::open_tree(fd, "", flags | empty_path()))
        } else {
            rustix::mount::open_tree(CWD, path, flags)
        };
        let clone = match opened {
            // A mount of another mount namespace can be cloned only from inside that one.
            Err(rustix::io::Errno::INVAL) if other_namespace(path).is_some() => {
                clone_elsewhere(path, flags).step(step)?
            }
            result => result.step(step)?,
        };
        let stat = rustix::fs::fstat(&clone).step(step)?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        self.options.apply(clone.as_fd()).step(step)?;
        if let Some(userns) = userns.filter(|_| self.options.idmap) {
            let map = Attributes { set: IDMAP, userns_fd: fd_number(userns), ..Attributes::default() };
            match set_attributes(clone.as_fd(), &map, self.options.recursive) {
                // What nobody writes to may be shown under the machine's ids, where the file system knows no others.
                Err(error)
                    if error.kind() == std::io::ErrorKind::InvalidInput
                        && self.options.attributes.set & brig_sys::mounts::RDONLY != 0 => {}
                result => result.step(|| {
                    format!(
                        "show the files of {} under the container's ids (its file system may not support id-mapped \
                         mounts)",
                        path.display()
                    )
                })?,
            }
        }
        self.source = Source::Bind { fd: Some(clone), directory };
        Ok(())
    }
}

/// Splits `/proc/PID/root/PATH` into the process and the path as that process sees it.
fn other_namespace(path: &Path) -> Option<(i32, PathBuf)> {
    let mut parts = path.strip_prefix("/proc").ok()?.components();
    let pid = parts.next()?.as_os_str().to_str()?.parse().ok()?;
    let rest = parts.as_path().strip_prefix("root").ok()?;
    Some((pid, Path::new("/").join(rest)))
}

/// Clones a mount of another process's mount namespace, in a short-lived child that enters it.
fn clone_elsewhere(path: &Path, flags: OpenTreeFlags) -> std::io::Result<OwnedFd> {
    use crate::protocol::{Word, pair};
    use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open};
    let (pid, inside) = other_namespace(path).ok_or(rustix::io::Errno::INVAL)?;
    let pidfd = pidfd_open(Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH)?, PidfdFlags::empty())?;
    let (ours, theirs) = pair().map_err(|error| error.source)?;
    let child = brig_sys::clone::clone_process(0, None, || {
        let clone = || -> std::io::Result<OwnedFd> {
            brig_sys::clone::setns(pidfd.as_fd(), brig_sys::clone::flags::NEWNS)?;
            let root = brig_sys::root::Root::open_directory(Path::new("/"))?;
            let place = root.locate(&inside)?;
            Ok(rustix::mount::open_tree(place.as_fd(), "", flags | empty_path())?)
        };
        match clone() {
            Ok(fd) => i32::from(theirs.send(Word::Maps, &[], &[fd.as_fd()]).is_err()),
            Err(error) => {
                let _ = theirs.send(Word::Failed, &Error::setup("clone the mount", error).to_bytes(), &[]);
                1
            }
        }
    })?;
    drop(theirs);
    let answer = ours.expect(Word::Maps).map_err(|error| error.source);
    let _ = rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
    answer?.fds.into_iter().next().ok_or_else(|| rustix::io::Errno::BADF.into())
}

fn fd_number(fd: BorrowedFd<'_>) -> u64 {
    u64::from(fd.as_raw_fd().cast_unsigned())
}

/// Opens every bind of the list.
pub(crate) fn open_binds(
    mounts: &mut [Mount],
    specified: &[Specified],
    userns: Option<BorrowedFd<'_>>,
) -> Result<(), Error> {
    for (mount, specified) in mounts.iter_mut().zip(specified) {
        if matches!(mount.source, Source::Bind { .. }) {
            let path = specified.source().as_deref().ok_or_else(|| {
                Error::invalid(format!("bind on {}", mount.destination.display()), "the mount has no source")
            })?;
            mount.open_bind(path, userns)?;
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
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = u32::try_from(options.attributes.set).unwrap_or(0);
    let flags = MountAttrFlags::from_bits_retain(attributes);
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

/// Puts a detached mount onto a target, both by descriptor.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> std::io::Result<()> {
    use rustix::mount::MoveMountFlags as F;
    let flags = F::MOVE_MOUNT_F_EMPTY_PATH | F::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
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

/// Writes id maps as /proc/PID/uid_map reads them, user_namespaces(7).
pub(crate) fn map_lines(maps: &[LinuxIdMapping]) -> String {
    let line = |m: &LinuxIdMapping| format!("{} {} {}", m.container_id(), m.host_id(), m.size());
    maps.iter().map(line).collect::<Vec<_>>().join("\n")
}
