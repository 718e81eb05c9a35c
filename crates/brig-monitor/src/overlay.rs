//! The root of a container as a detached overlay mount; Documentation/filesystems/overlayfs.
//!
//! Created with the monitor's credentials, never inside the container's user namespace, where `trusted.overlay.*` would be
//! ignored and deleted files come back. Three forms, the first that the kernel takes:
//!
//! ```text
//! lowerdir+ by descriptor    6.13 and later   any number of layers, no path is resolved twice
//! lowerdir+ by name          6.8 and later    /proc/self/fd/N
//! mount(2)                   older            in a private mount namespace of a short-lived child, which opens the
//!                                             layers there (those kernels take no other namespace's), names them
//!                                             /proc/self/fd/N, and hands the mount back by open_tree
//! ```

use brig_runtime::{Context, Error};
use brig_sys::mounts::{Attributes, IDMAP, set_attributes};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Where the changes of an overlay go.
#[derive(Debug, Clone, Copy)]
pub enum Upper<'a> {
    /// Nowhere: it is read-only.
    None,
    /// To a writable layer, with its work directory beside it.
    Directories(&'a Path, &'a Path),
    /// To memory: where the disk cannot hold a writable layer (an overlay itself, NFS).
    Memory,
}

/// What an overlay is made of.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// The lower layers, the topmost first.
    pub lowers: &'a [std::path::PathBuf],
    /// Where changes go.
    pub upper: Upper<'a>,
    /// Whether the changes are thrown away in the end, so that nothing of them need reach the disk: neither by fsync(2)
    /// inside, nor when the overlay is unmounted, which otherwise flushes the whole file system that holds the layer.
    pub throwaway: bool,
}

/// Options that every form gets: none that would let an image's extended attributes redirect a lookup.
const OPTIONS: [(&str, &str); 4] =
    [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "off")];

/// Which form to use; tests run each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `lowerdir+` by descriptor.
    Descriptors,
    /// `lowerdir+` by name.
    Paths,
    /// mount(2).
    Classic,
}

/// Mounts the overlay and returns it detached. With a user namespace all layers are shown under its ids.
pub fn mount(overlay: &Overlay<'_>, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Error> {
    let step = || "mount the layers as an overlay".to_owned();
    let mut last = io::Error::from(Errno::INVAL);
    for form in [Form::Descriptors, Form::Paths, Form::Classic] {
        match mount_as(form, overlay, userns) {
            Ok(fd) => return Ok(fd),
            Err(error) if matches!(error.raw_os_error(), Some(22 | 38 | 95)) => last = error,
            Err(error) => return Err(error).step(step),
        }
    }
    Err(last).step(step)
}

/// Mounts by one given form.
pub fn mount_as(form: Form, overlay: &Overlay<'_>, userns: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    if let Upper::Directories(_, work) = overlay.upper {
        // Left by an earlier throwaway mount, and a reason for the kernel to refuse another. What such a mount wrote is
        // whole as long as the machine has not crashed, and after that its container is removed, never started.
        let _ = std::fs::remove_dir_all(work.join("work/incompat"));
    }
    let layers = Layers::open(overlay, userns)?;
    match form {
        Form::Descriptors | Form::Paths => {
            let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
            let context = context.as_fd();
            rustix::mount::fsconfig_set_string(context, "source", "overlay")?;
            let set = |key: &str, fd: &OwnedFd| -> io::Result<()> {
                if form == Form::Descriptors {
                    return Ok(rustix::mount::fsconfig_set_fd(context, key, fd.as_fd())?);
                }
                Ok(rustix::mount::fsconfig_set_string(context, key, proc_name(fd))?)
            };
            for fd in &layers.lowers {
                set("lowerdir+", fd)?;
            }
            if let Some((upper, work)) = &layers.upper {
                set("upperdir", upper)?;
                set("workdir", work)?;
            }
            for (key, value) in OPTIONS {
                rustix::mount::fsconfig_set_string(context, key, value)?;
            }
            if overlay.throwaway && layers.upper.is_some() {
                rustix::mount::fsconfig_set_flag(context, "volatile")?;
            }
            rustix::mount::fsconfig_create(context)?;
            Ok(rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
        }
        Form::Classic => classic(overlay, &layers),
    }
}

fn proc_name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

struct Layers {
    // Mapped mounts with the path they stand for, and with an empty path the one in memory. They stay open until the
    // overlay has cloned them: a detached mount goes with its descriptor.
    mapped: Vec<(std::path::PathBuf, OwnedFd)>,
    lowers: Vec<OwnedFd>,
    upper: Option<(OwnedFd, OwnedFd)>,
}

impl Layers {
    fn open(overlay: &Overlay<'_>, userns: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let mut mapped = Mapped { userns, parents: Vec::new() };
        let mut lowers = Vec::with_capacity(overlay.lowers.len());
        for path in overlay.lowers {
            let fd = mapped
                .open(path)
                .map_err(|error| io::Error::new(error.kind(), format!("layer {}: {error}", path.display())))?;
            lowers.push(fd);
        }
        // The writable layer is not mapped: the overlay writes there with the credentials of whoever mounts it, and those
        // have no place in the container's map. Files lie there under the ids that they have on the machine.
        mapped.userns = None;
        let upper = match overlay.upper {
            Upper::None => None,
            Upper::Directories(upper, work) => Some((mapped.open(upper)?, mapped.open(work)?)),
            Upper::Memory => Some(in_memory(&mut mapped.parents, lowers.first())?),
        };
        Ok(Self { mapped: mapped.parents, lowers, upper })
    }
}

/// Makes a writable layer in a tmpfs that has no place in any mount table; it goes with the overlay that uses it.
/// The overlay's root shows owner and mode of the writable layer, which therefore takes them from the layer below.
fn in_memory(keep: &mut Vec<(std::path::PathBuf, OwnedFd)>, below: Option<&OwnedFd>) -> io::Result<(OwnedFd, OwnedFd)> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let make = |name: &str| -> io::Result<OwnedFd> {
        rustix::fs::mkdirat(&mount, name, Mode::from_raw_mode(0o700))?;
        Ok(rustix::fs::openat(&mount, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    };
    let layers = (make("upper")?, make("work")?);
    if let Some(below) = below {
        let stat = rustix::fs::fstat(below)?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(&mount, "upper", Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::chmodat(&mount, "upper", Mode::from_raw_mode(stat.st_mode & 0o7777), rustix::fs::AtFlags::empty())?;
    }
    keep.push((std::path::PathBuf::new(), mount));
    Ok(layers)
}

/// Opens layers, under an id map when there is a user namespace: one mapped mount for each parent directory, not for each layer.
struct Mapped<'a> {
    userns: Option<BorrowedFd<'a>>,
    parents: Vec<(std::path::PathBuf, OwnedFd)>,
}

impl Mapped<'_> {
    fn open(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Some(userns) = self.userns else { return Ok(rustix::fs::open(path, flags, Mode::empty())?) };
        let stat = |path: &Path| rustix::fs::lstat(path).map(|stat| stat.st_dev);
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if stat(parent)? == stat(path)? => {
                let clone = self.mapped(parent, userns)?;
                Ok(rustix::fs::openat(clone, name, flags | OFlags::NOFOLLOW, Mode::empty())?)
            }
            // The root of a file system of the machine: a clone of what lies above would not show it.
            _ => Ok(rustix::fs::openat(self.mapped(path, userns)?, ".", flags, Mode::empty())?),
        }
    }

    /// Returns a clone of the mount at `path` that shows its files under the ids of the container; made once.
    fn mapped(&mut self, path: &Path, userns: BorrowedFd<'_>) -> io::Result<&OwnedFd> {
        if let Some(at) = self.parents.iter().position(|(p, _)| p == path) {
            return Ok(&self.parents[at].1);
        }
        let clone =
            rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
        let map = Attributes {
            set: IDMAP,
            userns_fd: u64::from(userns.as_raw_fd().cast_unsigned()),
            ..Attributes::default()
        };
        set_attributes(clone.as_fd(), &map, false)?;
        self.parents.push((path.to_owned(), clone));
        self.parents.last().map(|(_, clone)| clone).ok_or_else(|| Errno::NOENT.into())
    }
}

/// The form of kernels before 6.8: mounted by name in a child's own mount namespace, and handed back as a detached clone.
fn classic(overlay: &Overlay<'_>, layers: &Layers) -> io::Result<OwnedFd> {
    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
        socketpair,
    };
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let child = brig_sys::clone::clone_process(brig_sys::clone::flags::NEWNS, None, || {
        match mount_in_own_namespace(overlay, layers) {
            Ok(fd) => {
                let fds = [fd.as_fd()];
                let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                ancillary.push(SendAncillaryMessage::ScmRights(&fds));
                i32::from(sendmsg(&theirs, &[io::IoSlice::new(b"k")], &mut ancillary, SendFlags::NOSIGNAL).is_err())
            }
            Err(error) => {
                let number = error.raw_os_error().unwrap_or(5).to_le_bytes();
                let _ = rustix::net::send(&theirs, &number, SendFlags::NOSIGNAL);
                1
            }
        }
    })?;
    drop(theirs);
    let result = receive_fd(&ours);
    let pid = rustix::process::WaitId::PidFd(child.pidfd.as_fd());
    let _ = rustix::process::waitid(pid, rustix::process::WaitIdOptions::EXITED);
    result
}

/// The child's part of [`classic`]: every layer is opened again, on mounts of this namespace.
fn mount_in_own_namespace(overlay: &Overlay<'_>, layers: &Layers) -> io::Result<OwnedFd> {
    use rustix::mount::MountPropagationFlags as P;
    /// Where the mount and a writable layer in memory are put for the moment.
    const PLACE: &str = "/proc";
    const MEMORY: &str = "/sys";
    rustix::mount::mount_change("/", P::PRIVATE | P::REC)?;
    let open = |path: &Path| -> io::Result<OwnedFd> {
        Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    };
    let attach = |mount: &OwnedFd, path: &Path| -> io::Result<()> {
        let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(rustix::mount::move_mount(mount, "", CWD, path, flags)?)
    };
    let mut upper = match overlay.upper {
        Upper::Directories(upper, work) => Some((open(upper)?, open(work)?)),
        Upper::None | Upper::Memory => None,
    };
    for (parent, mount) in &layers.mapped {
        if parent.as_os_str().is_empty() {
            attach(mount, Path::new(MEMORY))?;
            let memory = Path::new(MEMORY);
            upper = Some((open(&memory.join("upper"))?, open(&memory.join("work"))?));
        } else {
            attach(mount, parent)?;
        }
    }
    let lowers = overlay.lowers.iter().map(|path| open(path)).collect::<io::Result<Vec<_>>>()?;
    let mut data: Vec<String> = OPTIONS.iter().map(|(key, value)| format!("{key}={value}")).collect();
    data.push(format!("lowerdir={}", lowers.iter().map(proc_name).collect::<Vec<_>>().join(":")));
    if let Some((upper, work)) = &upper {
        data.push(format!("upperdir={},workdir={}", proc_name(upper), proc_name(work)));
        data.extend(overlay.throwaway.then(|| "volatile".to_owned()));
    }
    let data = std::ffi::CString::new(data.join(",")).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount("overlay", PLACE, "overlay", MountFlags::empty(), data.as_c_str())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(rustix::mount::open_tree(CWD, PLACE, flags)?)
}

fn receive_fd(socket: &OwnedFd) -> io::Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut bytes = [0u8; 8];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let count = recvmsg(socket, &mut [io::IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    let number = bytes.get(..4).filter(|_| count >= 4).and_then(|b| b.try_into().ok()).map_or(5, i32::from_le_bytes);
    Err(io::Error::from_raw_os_error(number))
}

/// Takes a detached clone of a plain directory, to serve as a root as it is.
pub fn directory(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags).step(|| format!("open the root file system {}", path.display()))
}
