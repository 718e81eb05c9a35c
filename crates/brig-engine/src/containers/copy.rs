//! `brig cp`: files between the machine and a container, running or not.
//!
//! ```text
//! running   the container's root through /proc/PID/root: its mounts, volumes and tmpfs are all there
//! stopped   its layers, mounted detached for the occasion while the container is held; a path below one of its
//!           volumes goes to that volume, as it does for a running container with a user namespace
//! ```
//!
//! Inside, every path is resolved by the kernel below the root's descriptor (openat2 with RESOLVE_IN_ROOT), and trees are
//! copied name by name: links swapped meanwhile lead nowhere else. Nothing of the container is ever executed or loaded.

use super::{find, hold, status};
use crate::config::{Config, MountConfig, MountKind};
use crate::error::{Error, Result};
use crate::record::Record;
use brig_monitor::overlay::{self, Overlay, Upper};
use brig_runtime::copy::{Options, Owners, copy_entry, copy_tree_with};
use brig_store::stream::Ids;
use brig_sys::root::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How `cp` copies.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Owners stay as they are (`-a`); else copies inside belong to root, and outside to whoever copies.
    pub archive: bool,
    /// A symbolic link that is the source itself is followed (`-L`).
    pub follow: bool,
}

/// One end of a copy: a directory and, below it, a name that need not exist.
pub(super) struct End {
    pub(super) directory: OwnedFd,
    pub(super) name: CString,
    /// The end itself is meant by its content (`path/.`).
    pub(super) content: bool,
}

/// A container's root, opened for as long as this lives.
pub(super) struct Inside {
    pub(super) root: Root,
    // Keeps a stopped container from being started meanwhile.
    held: Option<File>,
    pub(super) path: PathBuf,
    /// Where the ids of a user namespace begin on this root's disk; none where they are as they are inside.
    pub(super) first_id: Option<u32>,
}

impl Inside {
    /// How owners are kept on what this opens.
    pub(super) fn ids(&self) -> Ids {
        match self.first_id {
            None => Ids::Same,
            Some(first) if self.held.is_some() => Ids::Layers(first),
            Some(first) => Ids::Range(first),
        }
    }
}

/// Copies `source` inside the container to `target` on the machine.
pub fn copy_out(config: &Config, name: &str, source: &Path, target: &Path, options: CopyOptions) -> Result<()> {
    let record = find(config, name)?;
    let failed = |error: io::Error| {
        let what = format!("cannot copy {} of container `{}` to {}", source.display(), record.name, target.display());
        Error::io(what, error)
    };
    let inside = open(config, &record, source, false)?;
    let from = locate(&inside.root, &inside.path, options.follow, source).map_err(failed)?;
    let outside = Root::open_directory(Path::new("/")).map_err(failed)?;
    let owners = match (options.archive, inside.first_id) {
        (true, Some(first)) => Owners::Shift { from: first, to: 0 },
        (true, None) => Owners::Keep,
        (false, _) => Owners::All(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
    };
    let target = std::path::absolute(target).map_err(failed)?;
    copy(&from, &outside, &target, owners).map_err(failed)
}

/// Copies `source` on the machine to `target` inside the container.
pub fn copy_in(config: &Config, source: &Path, name: &str, target: &Path, options: CopyOptions) -> Result<()> {
    let record = find(config, name)?;
    let failed = |error: io::Error| {
        let what = format!("cannot copy {} to {} of container `{}`", source.display(), target.display(), record.name);
        Error::io(what, error)
    };
    let outside = Root::open_directory(Path::new("/")).map_err(failed)?;
    let absolute = std::path::absolute(source).map_err(failed)?;
    let from = locate(&outside, &absolute, options.follow, source).map_err(failed)?;
    let inside = open(config, &record, target, true)?;
    let first = inside.first_id.unwrap_or(0);
    let owners = match (options.archive, inside.first_id) {
        (true, Some(first)) => Owners::Shift { from: 0, to: first },
        (true, None) => Owners::Keep,
        (false, _) => Owners::All(first, first),
    };
    copy(&from, &inside.root, &inside.path, owners).map_err(failed)
}

/// Opens the container's root, and says where in it `path` lies. `write`: something is to be put there.
pub(super) fn open(config: &Config, record: &Record, path: &Path, write: bool) -> Result<Inside> {
    let failed = |error: io::Error| Error::io(format!("cannot open the files of container `{}`", record.name), error);
    let path = Path::new("/").join(path);
    let now = status::of(config, record);
    let running = now.is_active() && now.pid > 0;
    let held = if running { None } else { Some(hold(config, &record.id, "copy files of")?) };
    // A user namespace's volumes are id-mapped: through such a mount, this process could make nothing.
    if (!running || record.first_id.is_some())
        && let Some((mount, place, rest)) = mounted_at(config, record, &path)
    {
        if write && mount.read_only {
            return Err(Error::invalid(format!("cannot copy to {} of container `{}`", path.display(), record.name))
                .reason(format!("what is mounted at {} is read-only", mount.destination.display())));
        }
        let root = Root::open_directory(&place).map_err(failed)?;
        return Ok(Inside { root, held, path: Path::new("/").join(rest), first_id: None });
    }
    let first_id = record.first_id;
    if running {
        let root = Root::open_directory(Path::new(&format!("/proc/{}/root", now.pid))).map_err(failed)?;
        // The pid may have become another's between the look and the open.
        if status::of(config, record).pid != now.pid {
            return Err(Error::conflict(format!("cannot open the files of container `{}`", record.name))
                .reason("it ended meanwhile"));
        }
        return Ok(Inside { root, held: None, path, first_id });
    }
    let dir = record.dir(config);
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    let lowers = crate::layers::lowers(config, &record.image.layers)?;
    let overlay =
        Overlay { lowers: &lowers, upper: Upper::Directories(&upper, &work), throwaway: record.config.remove };
    let mount = overlay::mount(&overlay, None).map_err(|error| {
        Error::internal(format!("cannot open the files of container `{}`", record.name)).because(error)
    })?;
    Ok(Inside { root: Root::new(mount), held, path, first_id })
}

/// The volume or bind below which a path lies: the innermost mount, what it is on the machine, and the rest of the path.
fn mounted_at<'r>(config: &Config, record: &'r Record, path: &Path) -> Option<(&'r MountConfig, PathBuf, PathBuf)> {
    let mut volumes = record.volumes.iter();
    let mut found: Option<(&MountConfig, Option<PathBuf>, PathBuf)> = None;
    for mount in &record.config.mounts {
        let place = match &mount.kind {
            MountKind::Volume { subpath, .. } => {
                let data = volumes.next().map(|v| crate::volumes::data(config, &v.name));
                // A part of a volume is looked up anew at each start; here it is no more than a place that is missing.
                if subpath.is_none() { data } else { None }
            }
            MountKind::Bind { source, .. } if source.is_dir() => Some(source.clone()),
            _ => None,
        };
        let Ok(rest) = path.strip_prefix(&mount.destination) else { continue };
        let deeper = |(earlier, ..): &(&MountConfig, _, _)| {
            earlier.destination.components().count() <= mount.destination.components().count()
        };
        if found.as_ref().is_none_or(deeper) {
            found = Some((mount, place, rest.to_owned()));
        }
    }
    let (mount, place, rest) = found?;
    Some((mount, place?, rest))
}

/// Finds the source of a copy.
pub(super) fn locate(root: &Root, path: &Path, follow: bool, typed: &Path) -> io::Result<End> {
    let content = typed.as_os_str().as_bytes().ends_with(b"/.") || typed == Path::new(".");
    let mut path = path.to_owned();
    if follow {
        // The kernel says where the link leads, as a path below the root.
        let mut hops = 0;
        while let Ok(text) = root.locate_nofollow(&path).and_then(|fd| Ok(rustix::fs::readlinkat(fd, "", Vec::new())?))
        {
            let target = Path::new(OsStr::from_bytes(text.to_bytes())).to_owned();
            path = if target.is_absolute() { target } else { path.parent().unwrap_or(Path::new("/")).join(target) };
            hops += 1;
            if hops > 40 {
                return Err(rustix::io::Errno::LOOP.into());
            }
        }
    }
    if path.file_name().is_none() {
        let directory = root.open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        return Ok(End { directory, name: c".".to_owned(), content: true });
    }
    let (directory, name) = root.parent_of(&path)?;
    let stat = brig_sys::root::stat_nofollow(directory.as_fd(), name)?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if typed.as_os_str().as_bytes().ends_with(b"/") && !is_directory && !content {
        return Err(rustix::io::Errno::NOTDIR.into());
    }
    Ok(End { directory, name: c_string(name)?, content: content && is_directory })
}

fn c_string(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| rustix::io::Errno::INVAL.into())
}

/// Copies by the rules of `docker cp`: into a directory that is there, else under the name that was given.
fn copy(from: &End, to: &Root, target: &Path, owners: Owners) -> io::Result<()> {
    let options = Options { owners, replace: true };
    let ends_with_slash = target.as_os_str().as_bytes().ends_with(b"/");
    let existing = match to.locate(target) {
        Ok(fd) => Some(fd),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let directory = existing.filter(|fd| {
        rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    });
    let source = rustix::fs::statat(&from.directory, from.name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
    let is_directory = FileType::from_raw_mode(source.st_mode) == FileType::Directory;
    let open_source = || -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&from.directory, from.name.as_c_str(), flags, Mode::empty())?)
    };
    match directory {
        Some(directory) if from.content => copy_contents(&open_source()?, &directory, options),
        Some(directory) => copy_entry(from.directory.as_fd(), &from.name, directory.as_fd(), &from.name, options),
        None if ends_with_slash && !is_directory => Err(rustix::io::Errno::NOENT.into()),
        None => {
            let trimmed = trim(target);
            let (parent, name) = to.parent_of(&trimmed)?;
            let name = c_string(name)?;
            if is_directory {
                rustix::fs::mkdirat(&parent, name.as_c_str(), Mode::from_raw_mode(0o700))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&parent, name.as_c_str(), flags, Mode::empty())?;
                return copy_tree_with(open_source()?.as_fd(), made.as_fd(), options);
            }
            copy_entry(from.directory.as_fd(), &from.name, parent.as_fd(), &name, options)
        }
    }
}

/// Copies what is in a directory and leaves the attributes of the target as they are.
fn copy_contents(from: &OwnedFd, to: &OwnedFd, options: Options) -> io::Result<()> {
    for entry in rustix::fs::Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if ![c".", c".."].contains(&name) {
            copy_entry(from.as_fd(), name, to.as_fd(), name, options)?;
        }
    }
    Ok(())
}

fn trim(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|b| *b != b'/').map_or(0, |at| at + 1);
    PathBuf::from(OsString::from(OsStr::from_bytes(&bytes[..end])))
}
