//! What passes between the two halves of a start with a user namespace, once its id maps stand.
//!
//! ```text
//! maker is root        writes the maps, opens the root and the binds with the machine's rights   --fds-->  attached by the child
//! maker is a user      has newuidmap and newgidmap write them (or its own id alone)              ------->  opened by the child,
//!                                                                                                          as root of its namespace
//! ```

use crate::create::RootMounts;
use crate::error::{Context, Error};
use crate::init::{Init, become_root};
use crate::mounts::{self, Opening, Source};
use crate::protocol::{Channel, Word};
use crate::shared;
use brig_spec::runtime::LinuxIdMapping;
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

/// Makes the root file system, for the user namespace that it is given.
pub(crate) type MountRoot<'a> = Box<dyn FnOnce(Option<BorrowedFd<'_>>) -> Result<RootMounts, Error> + 'a>;

/// The maker's half: maps the ids of the process `pid`, and hands over the mounts, or the word to open them itself.
pub(crate) fn give(init: &mut Init<'_>, pid: i32, channel: &Channel) -> Result<(), Error> {
    let step = || "hand the mounts to the container's process".to_owned();
    if !rustix::process::geteuid().is_root() {
        map_as_user(init, pid)?;
        return channel.send(Word::Maps, &[], &[]).step(step);
    }
    let (uid_map, gid_map) = (&init.settings.uid_map, &init.settings.gid_map);
    std::fs::write(format!("/proc/{pid}/uid_map"), mounts::map_lines(uid_map)).step(|| "write the uid map".into())?;
    std::fs::write(format!("/proc/{pid}/gid_map"), mounts::map_lines(gid_map)).step(|| "write the gid map".into())?;
    let userns = rustix::fs::open(format!("/proc/{pid}/ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step(|| "open the user namespace".into())?;
    open(init, &mut Opening::new(Some(userns.as_fd())), Some(userns.as_fd()))?;
    let mut fds = Vec::new();
    if let Some(root) = &init.root {
        fds.push(root.root.as_fd());
        fds.extend(root.below.iter().map(|(_, fd)| fd.as_fd()));
    }
    let below = init.root.as_ref().map_or(0, |root| root.below.len());
    let mut text = vec![u8::try_from(below).map_err(|_| Error::invalid(step(), "there are too many"))?];
    for (destination, _) in init.root.iter().flat_map(|root| &root.below) {
        text.extend(destination.as_os_str().as_bytes());
        text.push(0);
    }
    for mount in &init.mounts {
        if let Source::Bind { fd: Some(fd), .. } = &mount.source {
            fds.push(fd.as_fd());
        }
    }
    // Whether a bind is a directory is only known now, and the child's copy of the list does not have it.
    text.extend(init.mounts.iter().map(|m| u8::from(!matches!(m.source, Source::Bind { directory: false, .. }))));
    channel.send(Word::Maps, &text, &fds).step(step)
}

/// Opens the root and the binds.
pub(crate) fn open(
    init: &mut Init<'_>,
    opening: &mut Opening<'_>,
    userns: Option<BorrowedFd<'_>>,
) -> Result<(), Error> {
    mounts::open_binds(&mut init.mounts, init.specified, opening)?;
    init.program.warnings.append(&mut opening.warnings);
    if let Some(namespace) = init.settings.namespaces.mounts.joined() {
        let none = || Error::invalid("open the root file system", "a mount namespace is joined, and no path is named");
        let root = shared::open_root(namespace, init.rootfs.ok_or_else(none)?, &init.settings)?;
        init.root = Some(RootMounts { root, below: Vec::new() });
        return Ok(());
    }
    init.root = init.mount_root.take().map(|mount_root| mount_root(userns)).transpose()?;
    Ok(())
}

/// The child's half: becomes root of the namespace, with the mounts that were handed over, or opened by itself.
pub(crate) fn take(init: &mut Init<'_>, channel: &Channel) -> Result<(), Error> {
    let packet = channel.expect(Word::Maps)?;
    become_root()?;
    let Some((count, mut text)) = packet.bytes.split_first() else {
        return open(init, &mut Opening::locked(), None);
    };
    let mut fds = packet.fds.into_iter();
    let lost = || Error::invalid("take over the mounts", "the starter's list is cut short");
    let root = fds.next().ok_or_else(lost)?;
    let mut below = Vec::new();
    for _ in 0..*count {
        let end = text.iter().position(|b| *b == 0).ok_or_else(lost)?;
        below.push((OsStr::from_bytes(&text[..end]).into(), fds.next().ok_or_else(lost)?));
        text = &text[end + 1..];
    }
    init.root = Some(RootMounts { root, below });
    for (at, mount) in init.mounts.iter_mut().enumerate() {
        if let Source::Bind { fd, directory } = &mut mount.source {
            *fd = fds.next();
            *directory = text.get(at).is_none_or(|b| *b != 0);
        }
    }
    Ok(())
}

/// Maps the ids as far as a user may: its own alone by itself, ranges by the setuid programs of user_namespaces(7).
fn map_as_user(init: &Init<'_>, pid: i32) -> Result<(), Error> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let own = |maps: &[LinuxIdMapping], id: u32| matches!(maps, [one] if one.size == 1 && one.host_id == id);
    let (uid_map, gid_map) = (&init.settings.uid_map, &init.settings.gid_map);
    if own(uid_map, uid) && own(gid_map, gid) {
        // Groups that forbid what others may could be left otherwise; setgroups has to be denied first.
        std::fs::write(format!("/proc/{pid}/setgroups"), "deny").step(|| "deny setgroups".into())?;
        std::fs::write(format!("/proc/{pid}/gid_map"), mounts::map_lines(gid_map))
            .step(|| "write the gid map".into())?;
        return std::fs::write(format!("/proc/{pid}/uid_map"), mounts::map_lines(uid_map))
            .step(|| "write the uid map".into());
    }
    for (program, maps) in [("newuidmap", uid_map), ("newgidmap", gid_map)] {
        let step =
            || format!("map the ids by {program} (Debian's package uidmap; ranges are in /etc/subuid and /etc/subgid)");
        let mut command = Command::new(program);
        command.arg(pid.to_string());
        for map in maps {
            command.args([map.container_id, map.host_id, map.size].map(|n| n.to_string()));
        }
        let output = command.output().step(step)?;
        if !output.status.success() {
            return Err(Error::invalid(step(), String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
    Ok(())
}
