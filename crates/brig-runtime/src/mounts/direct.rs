//! The short way to a new file system: one mount(2), where the new interface takes five to nine calls.
//!
//! mount(2) takes a name. It is `.`, with the target as the working directory, or a single one in a directory that nobody
//! else can change: so no path is resolved here either.

use super::Options;
use crate::selinux;
use brig_sys::mounts::{ATIME, NODEV, NOEXEC, NOSUID, RDONLY, STRICTATIME};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The file systems that are mounted in this way: whose options name no file, which would be looked for from another directory.
const KINDS: [&str; 6] = ["tmpfs", "devpts", "mqueue", "sysfs", "cgroup", "cgroup2"];

/// The most bytes of options that mount(2) reads; what is longer it cuts off without a word.
const DATA_MAX: usize = 4095;

/// Mounts a new file system onto a directory. False says that nothing was mounted: it takes the long way to do that, or to
/// learn what is wrong.
pub(crate) fn mount_onto(home: &mut Home, kind: &str, source: &str, options: &Options, target: BorrowedFd<'_>) -> bool {
    // Read-only would be the file system and not the mount, for whoever else mounts the same.
    options.attributes.set & RDONLY == 0
        && home.leave_for(target, || Ok(mount_at(".", kind, source, options))).unwrap_or_default()
}

/// The working directory, to which every mount returns: later ones look from there for what their options name.
#[derive(Debug, Default)]
pub(crate) struct Home(Option<OwnedFd>);

impl Home {
    /// Does something with another directory as the working directory.
    pub fn leave_for<T>(&mut self, directory: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let home = match self.0.take() {
            Some(home) => home,
            None => rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?,
        };
        rustix::process::fchdir(directory)?;
        let result = work();
        rustix::process::fchdir(&home)?;
        self.0 = Some(home);
        result
    }
}

/// Mounts a new file system onto the entry `name` of the working directory; the same else.
pub(crate) fn mount_at(name: &str, kind: &str, source: &str, options: &Options) -> bool {
    let Some(flags) = flags(options).filter(|_| KINDS.contains(&kind)) else { return false };
    if options.label.is_some() && (selinux::labels_by_option(kind) || kind == "mqueue") {
        return false;
    }
    let mut data = String::new();
    for (key, value) in &options.data {
        if !data.is_empty() {
            data.push(',');
        }
        data.push_str(key);
        if let Some(value) = value {
            data.push('=');
            data.push_str(value);
        }
    }
    // A comma within a value would end it.
    let commas = data.matches(',').count();
    if commas > options.data.len().saturating_sub(1) || data.len() > DATA_MAX {
        return false;
    }
    CString::new(data).is_ok_and(|data| rustix::mount::mount(source, name, kind, flags, data.as_c_str()).is_ok())
}

/// The attributes as mount(2) takes them; none for what it cannot express, or cannot do at the same time.
fn flags(options: &Options) -> Option<MountFlags> {
    let set = options.attributes.set;
    let plain = set & !(RDONLY | NOSUID | NODEV | NOEXEC | ATIME) == 0
        && options.propagation.is_none()
        && options.recursive_attributes.set == 0;
    let time = match set & ATIME {
        0 => MountFlags::RELATIME,
        STRICTATIME => MountFlags::STRICTATIME,
        _ => return None,
    };
    let same = [
        (RDONLY, MountFlags::RDONLY),
        (NOSUID, MountFlags::NOSUID),
        (NODEV, MountFlags::NODEV),
        (NOEXEC, MountFlags::NOEXEC),
    ];
    let flags = same.iter().filter(|(bit, _)| set & bit != 0).fold(time, |all, (_, flag)| all | *flag);
    plain.then_some(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Options {
        Options::parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_mount_cannot_express_is_left_to_the_long_way() {
        let plain = flags(&parsed(&["nosuid", "noexec", "nodev", "mode=755"]));
        assert_eq!(plain, Some(MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV | MountFlags::RELATIME));
        assert_eq!(flags(&parsed(&["nosuid", "strictatime"])), Some(MountFlags::NOSUID | MountFlags::STRICTATIME));
        for words in [["noatime"], ["nodiratime"], ["nosymfollow"], ["rslave"], ["rnosuid"]] {
            assert_eq!(flags(&parsed(&words)), None, "{words:?}");
        }
    }
}
