//! A directory tree as a tar stream, out of a root file system and into one that somebody else may be changing meanwhile.
//!
//! ```text
//!   pack     tree --> tar      by descriptors, name by name; no link is followed, nothing but regular files is opened
//!   unpack   tar --> tree      every parent is resolved anew below the root's descriptor (openat2 with RESOLVE_IN_ROOT),
//!                              every file is made anew under a name that was freed before: nothing is written through
//! ```
//!
//! Unlike a layer, which is unpacked into a directory of our own, the tree may be a running container's: a path that was
//! looked at may be another one a moment later. Whatever it becomes, it lies inside the root.

mod pack;
mod unpack;

pub(crate) use pack::{Part, append, names, records_of};
pub use pack::{pack, pack_root};
pub use unpack::unpack;

use std::os::fd::AsFd;

use crate::unpack::Attributes;

/// How many ids a user namespace has here.
const RANGE: u32 = 65_536;
/// Who owns inside what belongs to nobody of the range: nobody.
const NOBODY: u32 = 65_534;

/// How owners inside a root are kept on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// As they are.
    Same,
    /// Moved to a range of 65,536 that begins here: of a user namespace.
    Range(u32),
    /// Those of a user namespace's writable layer moved, those of the image's layers as they are: how the machine sees the
    /// layers of a stopped container.
    Layers(u32),
}

impl Ids {
    /// Turns an owner inside into one on the disk.
    fn outside(self, id: u32) -> u32 {
        match self {
            Self::Same => id,
            Self::Range(first) | Self::Layers(first) => first.saturating_add(if id < RANGE { id } else { NOBODY }),
        }
    }

    /// Turns an owner on the disk into one inside.
    pub(crate) fn inside(self, id: u32) -> u32 {
        match self {
            Self::Same => id,
            Self::Layers(_) if id < RANGE => id,
            Self::Range(first) | Self::Layers(first) => {
                id.checked_sub(first).filter(|id| *id < RANGE).unwrap_or(NOBODY)
            }
        }
    }

    /// Turns what is known of a file on the disk into what it is inside: its owners, and whose root its capabilities are for.
    pub(crate) fn bring_in(self, attributes: &mut Attributes) {
        /// `vfs_ns_cap_data` with the root of a user namespace at its end: capabilities(7), "Namespaced file capabilities".
        const NAMESPACED: u32 = 0x0300_0000;
        const PLAIN: u32 = 0x0200_0000;
        let (Self::Range(first) | Self::Layers(first)) = self else { return };
        attributes.uid = self.inside(attributes.uid);
        attributes.gid = self.inside(attributes.gid);
        for (_, value) in attributes.xattrs.iter_mut().filter(|(name, _)| name == b"security.capability") {
            let word = |at: usize| value.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
            if value.len() == 24
                && word(20) == Some(first)
                && let Some(magic) = word(0).filter(|magic| magic & 0xff00_0000 == NAMESPACED)
            {
                value.truncate(20);
                value[..4].copy_from_slice(&(magic & 0x00ff_ffff | PLAIN).to_le_bytes());
            }
        }
    }
}

/// Says whether a descriptor lies on a file system in which the kernel shows itself: proc, sysfs, cgroup; statfs(2).
fn is_kernels(fd: impl AsFd) -> bool {
    const MAGIC: [u64; 4] = [0x9fa0, 0x6265_6572, 0x27_e0eb, 0x6367_7270];
    rustix::fs::fstatfs(fd).is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| MAGIC.contains(&kind)))
}
