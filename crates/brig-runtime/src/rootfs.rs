//! The child's half of the file system: mounts, devices, pivot_root(2), masks. Runs inside the new namespaces.
//!
//! The root comes as a detached mount. It is attached on top of the machine's `/` in this mount namespace, filled through
//! its descriptor, made the root by pivot_root(".", "."), and what was there before is let go. Every target is found by
//! `openat2(RESOLVE_IN_ROOT)`, every mount moved onto a descriptor.

mod cgroups;

use crate::cgroup::Cgroup;
use crate::error::{Context, Error};
use crate::mounts::{self, Mount, Options, Source, attach, clone_of, new_file_system};
use brig_spec::runtime::{LinuxDevice, LinuxDeviceType};
use brig_sys::mounts::{Attributes, RDONLY, set_attributes};
use brig_sys::root::Root;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Cuts the new mount namespace off from the machine's and attaches the root: at its place on the machine, where hooks that enter
/// the namespace look for it, or on top of `/` when it has none.
pub(crate) fn enter(
    root: BorrowedFd<'_>,
    place: Option<&Path>,
    propagation: MountPropagationFlags,
) -> Result<(), Error> {
    let flags = propagation | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).step(|| "cut the mounts off from the machine's".into())?;
    // pivot_root refuses a root whose parent shares its mounts.
    let place = place.filter(|_| propagation != MountPropagationFlags::SHARED).unwrap_or(Path::new("/"));
    if propagation != MountPropagationFlags::PRIVATE {
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE).step(|| "cut the root mount off".into())?;
    }
    let top = rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step(|| "open the place of the root file system".into())?;
    attach(root, top.as_fd()).step(|| "attach the root file system".into())
}

/// Attaches further mounts of the root file system to directories that it has.
pub(crate) fn attach_below(root: &Root, below: Vec<(std::path::PathBuf, OwnedFd)>) -> Result<(), Error> {
    for (destination, mount) in below {
        let step = || format!("mount the part of the root file system at {}", destination.display());
        let target = root.open(&destination, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).step(step)?;
        attach(mount.as_fd(), target.as_fd()).step(step)?;
    }
    Ok(())
}

/// What mounting found and later steps need.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The container's proc.
    pub proc: Option<OwnedFd>,
    /// The container's devpts.
    pub pts: Option<OwnedFd>,
    /// What is to become read-only when all has been made that belongs there.
    pub readonly: Vec<OwnedFd>,
    /// Whether /dev is a new tmpfs, which nobody else can have changed.
    pub new_dev: bool,
}

/// Makes every mount in order. `with_terminal`: the devpts is one that a terminal is to be opened in. `show_cgroups` is called in the
/// place of a cgroup mount; `show` has the maker of the container show the bind of that number under other ids.
pub(crate) fn mount_all(
    root: &Root,
    mounts: &mut [Mount],
    with_terminal: bool,
    mut show_cgroups: impl FnMut(&Path, &Options) -> Result<(), Error>,
    show: impl Fn(usize, BorrowedFd<'_>) -> Result<(), Error>,
) -> Result<Found, Error> {
    let (mut found, mut home) = (Found::default(), mounts::Home::default());
    for (at, mount) in mounts.iter_mut().enumerate() {
        let destination = mount.destination.clone();
        let step = || format!("mount on {}", destination.display());
        if destination == Path::new("/dev") {
            found.new_dev = mount.source.is_new("tmpfs") && !mount.options.copy_up;
        }
        match &mut mount.source {
            Source::Bind { fd, directory } => {
                let fd = fd.take().ok_or_else(|| Error::invalid(step(), "what is to be bound was not opened"))?;
                let target = if *directory {
                    root.make_directories(&destination, Mode::from_raw_mode(0o755))
                } else {
                    root.make_file(&destination, Mode::from_raw_mode(0o644))
                };
                let target = target.step(step)?;
                check_not_in_proc(target.as_fd(), &destination).step(step)?;
                if mount.options.copy_up && *directory {
                    copy_up(target.as_fd(), fd.as_fd())
                        .step(|| format!("copy the image's files to the volume at {}", destination.display()))?;
                }
                attach(fd.as_fd(), target.as_fd()).step(step)?;
            }
            Source::Inside { path, .. } => {
                let clone = clone_inside(root, path, &mount.options).step(step)?;
                if mount.options.idmap.is_some() {
                    show(at, clone.as_fd())?;
                }
                attach_bind(root, clone.as_fd(), &destination).step(step)?;
            }
            Source::New { kind, source } => {
                let step = || format!("mount {kind} on {}", destination.display());
                let likely_new = found.new_dev && destination.parent() == Some(Path::new("/dev"));
                let (target, new) = directory_for(root, kind, &destination, likely_new).step(step)?;
                check_not_in_proc(target.as_fd(), &destination).step(step)?;
                set_mode(kind, &mut mount.options, target.as_fd(), new).step(step)?;
                let is_held = kind == "proc" || kind == "devpts" && with_terminal || mount.options.copy_up;
                if !is_held && mounts::mount_onto(&mut home, kind, source, &mount.options, target.as_fd()) {
                    continue;
                }
                let (fd, readonly) = new_mount(kind, source, &mount.options).step(step)?;
                if mount.options.copy_up {
                    copy_up(target.as_fd(), fd.as_fd()).step(step)?;
                }
                attach(fd.as_fd(), target.as_fd()).step(step)?;
                if readonly {
                    found.readonly.push(fd.try_clone().step(step)?);
                }
                match kind.as_str() {
                    "proc" if found.proc.is_none() => found.proc = Some(fd),
                    "devpts" => found.pts = Some(fd),
                    _ => {}
                }
            }
            Source::Cgroup => show_cgroups(&destination, &mount.options)?,
        }
    }
    Ok(found)
}

/// Mounts the container's view of its cgroups.
pub(crate) fn mount_cgroups(
    root: &Root,
    destination: &Path,
    cgroup: &Cgroup,
    own_namespace: bool,
    options: &Options,
) -> Result<(), Error> {
    root.make_directories(destination, Mode::from_raw_mode(0o755))
        .and_then(|target| cgroups::mount(target.as_fd(), cgroup, own_namespace, options))
        .step(|| format!("mount on {}", destination.display()))
}

/// Clones what the container has at a place.
fn clone_inside(root: &Root, path: &Path, options: &Options) -> io::Result<OwnedFd> {
    let source = root.locate(path)?;
    let clone = clone_of(source.as_fd(), options.recursive)?;
    options.apply(clone.as_fd(), false)?;
    Ok(clone)
}

/// Files of /proc over which a view of the container's own may lie, as LXCFS makes them.
const OVER_PROC: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
];

/// Refuses a mount over a part of a proc: labels and settings are written there, and are taken for written.
fn check_not_in_proc(target: BorrowedFd<'_>, destination: &Path) -> io::Result<()> {
    const PROC_MAGIC: i64 = 0x9fa0;
    let allowed = OVER_PROC.iter().any(|path| Path::new(path) == destination) || destination == Path::new("/proc");
    if allowed || rustix::fs::fstatfs(target)?.f_type != PROC_MAGIC {
        return Ok(());
    }
    let why = format!("{} cannot be mounted because it is inside /proc", destination.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Puts a bind on its destination, which is made where it is missing.
fn attach_bind(root: &Root, bind: BorrowedFd<'_>, destination: &Path) -> io::Result<()> {
    let directory = FileType::from_raw_mode(rustix::fs::fstat(bind)?.st_mode) == FileType::Directory;
    let target = if directory {
        root.make_directories(destination, Mode::from_raw_mode(0o755))?
    } else {
        root.make_file(destination, Mode::from_raw_mode(0o644))?
    };
    check_not_in_proc(target.as_fd(), destination)?;
    attach(bind, target.as_fd())
}

/// Finds or makes the directory for a new file system, and says whether it is new. proc and sysfs are what masks and settings
/// rely on: an image's link must not lead them elsewhere. `likely_new` spares one look for it.
fn directory_for(root: &Root, kind: &str, destination: &Path, likely_new: bool) -> io::Result<(OwnedFd, bool)> {
    if likely_new && let Some(new) = root.make_new(destination, Mode::from_raw_mode(0o755)) {
        return Ok((new, true));
    }
    let mut flags = OFlags::PATH | OFlags::DIRECTORY;
    if matches!(kind, "proc" | "sysfs") {
        flags |= OFlags::NOFOLLOW;
    }
    match root.open(destination, flags, Mode::empty()) {
        Ok(there) => Ok((there, false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok((root.make_missing(destination, Mode::from_raw_mode(0o755))?, true))
        }
        Err(error) if flags.contains(OFlags::NOFOLLOW) && is_no_directory(&error) => {
            let why = format!("filesystem {kind:?} must be mounted on ordinary directory");
            Err(io::Error::new(io::ErrorKind::NotADirectory, why))
        }
        Err(error) => Err(error),
    }
}

/// Says whether an open failed because something else than a directory is there.
fn is_no_directory(error: &io::Error) -> bool {
    [Errno::NOTDIR, Errno::LOOP].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Gives a tmpfs without a mode of its own that of the directory of the image that it covers.
fn set_mode(kind: &str, options: &mut Options, target: BorrowedFd<'_>, new: bool) -> io::Result<()> {
    if kind == "tmpfs" && !options.data.iter().any(|(key, _)| key == "mode") {
        let mode = if new { 0o1777 } else { rustix::fs::fstat(target)?.st_mode & 0o7777 };
        options.data.push(("mode".into(), Some(format!("{mode:o}"))));
    }
    Ok(())
}

/// Makes a new file system; one that this user namespace may not make is bound from the machine, as sysfs can be. A tmpfs that is
/// to be read-only becomes so later, when what belongs there has been made: the second value says so.
fn new_mount(kind: &str, source: &str, options: &Options) -> io::Result<(OwnedFd, bool)> {
    let mut options = options.clone();
    let readonly = kind == "tmpfs" && options.attributes.set & RDONLY != 0;
    if readonly {
        options.attributes.set &= !RDONLY;
    }
    let made = new_file_system(kind, source, &options);
    if kind == "sysfs" && made.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied) {
        let sys = rustix::fs::open("/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let clone = clone_of(sys.as_fd(), true)?;
        set_attributes(clone.as_fd(), &Attributes { set: RDONLY, ..Attributes::default() }, true)?;
        return Ok((clone, false));
    }
    let made = made?;
    if options.propagation.is_some() || options.recursive_attributes.set != 0 {
        options.apply(made.as_fd(), false)?;
    }
    Ok((made, readonly))
}

/// Copies what the root has at a place to an empty directory that is about to cover it.
fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    if crate::copy::is_empty(to)? { crate::copy::copy_tree(from, to) } else { Ok(()) }
}

/// Makes device nodes and links in /dev. Where nodes cannot be made (a user namespace), the machine's are bound, each
/// checked to be the device it is taken for. `new_dev` as [`Found::new_dev`].
pub(crate) fn make_devices(root: &Root, devices: &[LinuxDevice], bind: bool, new_dev: bool) -> Result<(), Error> {
    // Without a umask a node has its mode from the start: to change it by name later would follow whatever another
    // container, which shares this directory, has put there meanwhile.
    let umask = rustix::process::umask(Mode::empty());
    let result = make_all_devices(root, devices, bind, new_dev);
    rustix::process::umask(umask);
    result
}

fn make_all_devices(root: &Root, devices: &[LinuxDevice], bind: bool, new_dev: bool) -> Result<(), Error> {
    let step = |path: &str| format!("make the device {path}");
    let dev = root.make_directories(Path::new("/dev"), Mode::from_raw_mode(0o755)).step(|| step("/dev"))?;
    for (name, major, minor) in DEVICES {
        let node = Node { kind: FileType::CharacterDevice, number: rustix::fs::makedev(major, minor), mode: 0o666 };
        make_device(dev.as_fd(), name, &node, None, bind, new_dev).step(|| step(name))?;
    }
    for device in devices {
        let path = device.path.as_path();
        let relative = path.strip_prefix("/").unwrap_or(path);
        let (Some(parent), Some(name)) = (relative.parent(), relative.file_name().and_then(|n| n.to_str())) else {
            return Err(Error::invalid(step(&path.display().to_string()), "the path names no file"));
        };
        let parent = root.make_directories(parent, Mode::from_raw_mode(0o755)).step(|| step(name))?;
        let kind = match device.typ {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let number = |n: i64| u32::try_from(n).unwrap_or(0);
        let number = rustix::fs::makedev(number(device.major), number(device.minor));
        let node = Node { kind, number, mode: device.file_mode.unwrap_or(0o666) & 0o7777 };
        let owner = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
        make_device(parent.as_fd(), name, &node, Some(owner), bind, false)
            .step(|| step(&path.display().to_string()))?;
    }
    for (target, name) in LINKS {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).step(|| step(name)),
        }
    }
    Ok(())
}

/// A device node.
struct Node {
    kind: FileType,
    number: u64,
    mode: u32,
}

impl Node {
    fn is(&self, stat: &rustix::fs::Stat) -> bool {
        FileType::from_raw_mode(stat.st_mode) == self.kind && stat.st_rdev == self.number
    }
}

fn make_device(
    parent: BorrowedFd<'_>,
    name: &str,
    node: &Node,
    owner: Option<(u32, u32)>,
    bind: bool,
    unshared: bool,
) -> io::Result<()> {
    if bind {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let host = rustix::fs::open(Path::new("/dev").join(name), flags, Mode::empty())?;
        if !node.is(&rustix::fs::fstat(&host)?) {
            return Err(Errno::NXIO.into());
        }
        match rustix::fs::openat(
            parent,
            name,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        ) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let target = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        return attach(clone_of(host.as_fd(), false)?.as_fd(), target.as_fd());
    }
    make_node(parent, name, node, unshared)?;
    if let Some((uid, gid)) = owner {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Makes a node. In a directory that is not `unshared`, somebody may put another thing in its place meanwhile.
fn make_node(parent: BorrowedFd<'_>, name: &str, node: &Node, unshared: bool) -> io::Result<()> {
    let make = || rustix::fs::mknodat(parent, name, node.kind, Mode::from_raw_mode(node.mode), node.number);
    match make() {
        Ok(()) if unshared => return Ok(()),
        Err(Errno::EXIST) => {
            // What is there already must be the device, not a link or a file of the image's making.
            if node.is(&rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?) {
                return Ok(());
            }
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
            make()?;
        }
        result => result?,
    }
    let fd = rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if node.is(&rustix::fs::fstat(&fd)?) { Ok(()) } else { Err(Errno::NXIO.into()) }
}

/// Binds the terminal over /dev/console.
pub(crate) fn mount_console(root: &Root, terminal: BorrowedFd<'_>) -> Result<(), Error> {
    let step = || "mount the terminal on /dev/console".to_owned();
    let dev = root.open(Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).step(step)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::EXCL;
    match rustix::fs::openat(&dev, "console", flags, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).step(step),
    }
    let target = rustix::fs::openat(&dev, "console", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .step(step)?;
    attach(clone_of(terminal, false).step(step)?.as_fd(), target.as_fd()).step(step)
}

/// Makes the attached root the process's root and lets go of the machine's mounts.
///
/// Without `pivot` the root lies over `/` and is entered by chroot(2): the machine's own `/` is then a ramfs, from which nothing can
/// pivot. Its mounts stay below in the namespace, out of reach of any path; its proc and sysfs are let go of, since a user
/// namespace inside could mount its own only where a whole one is visible.
pub(crate) fn change_root(root: BorrowedFd<'_>, pivot: bool) -> Result<(), Error> {
    let step = || "make the root file system the root".to_owned();
    rustix::process::fchdir(root).step(step)?;
    if !pivot {
        let_go_of_kernel_mounts().step(step)?;
        rustix::process::chroot(".").step(step)?;
        return rustix::process::chdir("/").step(step);
    }
    rustix::process::pivot_root(".", ".").step(step)?;
    // The old root lies on top of the new one now, and goes with all that is mounted below it.
    rustix::mount::unmount(".", UnmountFlags::DETACH).step(|| "let go of the machine's mounts".into())?;
    rustix::process::chdir("/").step(step)
}

/// Unmounts every proc and sysfs of the machine in this mount namespace, the innermost first. Those of the container lie on top of
/// `/`, where no path of this process leads yet.
fn let_go_of_kernel_mounts() -> io::Result<()> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut places = Vec::new();
    for line in text.lines() {
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next());
        let place = line.split(' ').nth(4).filter(|place| !place.contains('\\'));
        if let (Some("proc" | "sysfs"), Some(place)) = (kind, place) {
            places.push(place.to_owned());
        }
    }
    for place in places.iter().rev() {
        match rustix::mount::unmount(place.as_str(), UnmountFlags::DETACH) {
            // It lay below one that is gone, or within the container's root, which is attached above all.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes paths read-only. A path that does not exist needs no protection.
pub(crate) fn protect_readonly(root: &Root, paths: &[String]) -> Result<(), Error> {
    for path in paths {
        let step = || format!("make {path} read-only");
        let Some(target) = existing(root, path).step(step)? else { continue };
        let clone = clone_of(target.as_fd(), true).step(step)?;
        let keep = Attributes { set: RDONLY, ..Attributes::default() };
        set_attributes(clone.as_fd(), &keep, true).step(step)?;
        attach(clone.as_fd(), target.as_fd()).step(step)?;
    }
    Ok(())
}

/// Hides paths: a file behind /dev/null, a directory behind one empty read-only tmpfs that all share.
pub(crate) fn mask(root: &Root, paths: &[String], label: Option<&str>) -> Result<(), Error> {
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let step = || format!("hide {path}");
        let Some(target) = existing(root, path).step(step)? else { continue };
        let stat = rustix::fs::fstat(&target).step(step)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            if null.is_none() {
                null = Some(dev_null(root).step(step)?);
            }
            let Some(null) = &null else { continue };
            attach(clone_of(null.as_fd(), false).step(step)?.as_fd(), target.as_fd()).step(step)?;
        } else if let Some(empty) = &empty {
            attach(clone_of(empty.as_fd(), false).step(step)?.as_fd(), target.as_fd()).step(step)?;
        } else {
            // The first use attaches the mount itself: kernels before 6.15 clone attached mounts only.
            let made = empty_directory(label).step(step)?;
            attach(made.as_fd(), target.as_fd()).step(step)?;
            empty = Some(made);
        }
    }
    Ok(())
}

/// Makes a directory in which there is nothing and can be nothing.
fn empty_directory(label: Option<&str>) -> io::Result<OwnedFd> {
    let attributes = Attributes { set: RDONLY, ..Attributes::default() };
    let data = vec![("size".into(), Some("0k".into())), ("nr_inodes".into(), Some("1".into()))];
    new_file_system(
        "tmpfs",
        "tmpfs",
        &Options { attributes, data, label: label.map(str::to_owned), ..Options::default() },
    )
}

fn existing(root: &Root, path: &str) -> io::Result<Option<OwnedFd>> {
    match root.locate(Path::new(path)) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.raw_os_error(), Some(2 | 20)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the container's /dev/null and makes sure that it is that device.
fn dev_null(root: &Root) -> io::Result<OwnedFd> {
    let fd = root.locate_nofollow(Path::new("/dev/null"))?;
    let stat = rustix::fs::fstat(&fd)?;
    let real =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3);
    if real {
        Ok(fd)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the container's /dev/null is not the null device"))
    }
}

/// Gives the container's mounts the propagation that was asked for, now that nothing of the machine's is among them.
pub(crate) fn propagate(root: BorrowedFd<'_>, propagation: Option<MountPropagationFlags>) -> Result<(), Error> {
    let Some(propagation) = propagation else { return Ok(()) };
    let attributes = Attributes { propagation: propagation.bits().into(), ..Attributes::default() };
    set_attributes(root, &attributes, false).step(|| "set the propagation of the root".into())
}

/// Makes the root itself read-only, without what is mounted below.
pub(crate) fn make_readonly(root: BorrowedFd<'_>) -> Result<(), Error> {
    set_attributes(root, &Attributes { set: RDONLY, ..Attributes::default() }, false)
        .step(|| "make the root file system read-only".into())
}

/// Writes kernel settings through the container's own proc, never through a path of the container.
pub(crate) fn set_sysctls<'a>(
    proc: Option<&OwnedFd>,
    settings: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<(), Error> {
    let mut made = None;
    for (key, value) in settings {
        let step = || format!("set the sysctl {key} to `{value}`");
        let proc = if let Some(proc) = proc {
            proc.as_fd()
        } else {
            if made.is_none() {
                made = Some(new_file_system("proc", "proc", &mounts::Options::default()).step(step)?);
            }
            made.as_ref().map(AsFd::as_fd).ok_or_else(|| Error::invalid(step(), "there is no proc"))?
        };
        // `net.ipv4.conf.eth0/1.forwarding`: a slash stands for a dot within a name, as sysctl(8) has it.
        let path: String = key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect();
        if path.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(Error::invalid(step(), "the key is malformed"));
        }
        use rustix::fs::ResolveFlags as R;
        let resolve = R::BENEATH | R::NO_XDEV | R::NO_SYMLINKS;
        let fd =
            rustix::fs::openat2(proc, format!("sys/{path}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
                .step(step)?;
        rustix::io::write(&fd, value.as_bytes()).step(step)?;
    }
    Ok(())
}
