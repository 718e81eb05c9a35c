//! The machine's mounts, as `host:` sees them: which can be lower layers, and which stay out. proc_pid_mountinfo(5).

use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// File systems whose content is the machine's own and lies on its disks.
const LOCAL: [&str; 3] = ["ext4", "xfs", "btrfs"];
/// File systems of the kernel, which a container has of its own, and those that live in memory.
const KERNEL: [&str; 24] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "tmpfs",
    "mqueue",
    "cgroup",
    "cgroup2",
    "securityfs",
    "debugfs",
    "tracefs",
    "configfs",
    "pstore",
    "bpf",
    "hugetlbfs",
    "efivarfs",
    "fusectl",
    "autofs",
    "binfmt_misc",
    "nsfs",
    "ramfs",
    "selinuxfs",
    "rpc_pipefs",
    "nfsd",
];

/// What is mounted below `/`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Below {
    /// Local file systems, each to be a lower layer of its own, the shorter path first.
    pub local: Vec<PathBuf>,
    /// Others, which are not seen inside.
    pub missing: Vec<String>,
}

/// Looks at what is mounted; errors when the root itself cannot be a lower layer.
pub fn below_root() -> Result<Below> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| Error::io("cannot look at this machine's mounts", error))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Below> {
    // A later mount hides an earlier one at the same place.
    let mut visible: BTreeMap<PathBuf, String> = BTreeMap::new();
    // Of which device, and from which directory of it.
    let mut sources: BTreeMap<PathBuf, (String, PathBuf)> = BTreeMap::new();
    for line in text.lines() {
        let Some((head, tail)) = line.split_once(" - ") else { continue };
        let mut fields = head.split_ascii_whitespace().skip(2);
        let (Some(device), Some(root), Some(place)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let kind = tail.split_ascii_whitespace().next().unwrap_or_default();
        let place = PathBuf::from(unescape(place));
        // Layers of containers, of whichever engine: the same files are in its root.
        if kind == "erofs" && place.parent().is_some_and(|parent| parent.ends_with("mnt/layers")) {
            continue;
        }
        let source = (device.to_owned(), PathBuf::from(unescape(root)));
        // A directory that is mounted onto itself shows nothing else than what it lies in.
        let itself = |(above, (device, root)): (&PathBuf, &(String, PathBuf))| {
            *above != place
                && *device == source.0
                && place.strip_prefix(above).is_ok_and(|rest| root.join(rest) == source.1)
        };
        if !sources.iter().any(itself) {
            visible.insert(place.clone(), kind.to_owned());
        }
        sources.insert(place, source);
    }
    let root = visible.remove(Path::new("/")).unwrap_or_default();
    if root == "overlay" || root == "tmpfs" && visible.is_empty() {
        return Err(Error::new(Kind::Unsupported, "this machine's root file system cannot be an image")
            .reason(format!("it is {root}, which cannot be a lower layer here"))
            .hint("inside another container, use an image instead of `host:`"));
    }
    let mut below = Below::default();
    for (place, kind) in &visible {
        let hidden = visible.iter().any(|(p, k)| place != p && place.starts_with(p) && KERNEL.contains(&k.as_str()));
        if hidden || KERNEL.contains(&kind.as_str()) {
            continue;
        }
        if LOCAL.contains(&kind.as_str()) && place.metadata().is_ok_and(|m| m.is_dir()) {
            below.local.push(place.clone());
        } else {
            below.missing.push(format!("{} ({kind})", place.display()));
        }
    }
    below.local.sort_by_key(|p| p.components().count());
    Ok(below)
}

/// Undoes the octal escapes of the kernel: space, tab, newline, backslash.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'\\')
            .then(|| text.get(at + 1..at + 4).and_then(|o| u8::from_str_radix(o, 8).ok()))
            .flatten();
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_disks_are_layers_and_the_rest_is_told() {
        let text = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                    2 1 0:5 / /proc rw - proc proc rw\n\
                    3 1 8:2 / /usr rw - xfs /dev/b rw\n\
                    4 1 0:9 / /mnt/with\\040space rw - nfs4 server:/x rw\n\
                    5 1 0:7 / /run rw - tmpfs tmpfs rw\n\
                    6 5 8:3 / /run/disk rw - ext4 /dev/c rw\n\
                    7 1 8:1 /srv/run/mnt /srv/run/mnt rw - ext4 /dev/a rw\n\
                    8 7 0:11 / /srv/run/mnt/layers/abc ro - erofs /proc/self/fd/5 ro\n\
                    9 3 8:2 /local/x /usr/local/x rw - xfs /dev/b rw\n\
                    10 1 0:12 / /opt/image ro - erofs /dev/loop0 ro\n";
        let below = parse(text).unwrap();
        assert_eq!(below.local, [PathBuf::from("/usr")]);
        assert_eq!(below.missing, ["/mnt/with space (nfs4)", "/opt/image (erofs)"]);
    }

    #[test]
    fn an_overlay_root_is_refused_clearly() {
        let error = parse("1 0 0:1 / / rw - overlay overlay rw\n").unwrap_err();
        assert_eq!(error.kind, Kind::Unsupported);
        assert!(error.hint.is_some());
    }
}
