//! The bytes of EROFS: superblock, inodes, attributes, directories. All numbers are little-endian; erofs_fs.h.

use rustix::io::Errno;

/// The size of a block in bytes: the smallest page that Linux has.
pub(super) const BLOCK: usize = 4096;
/// The size of an extended inode in bytes: the form that has nanoseconds, 32-bit owners and 64-bit sizes.
pub(super) const INODE: usize = 64;
/// The unit of inode numbers in bytes.
pub(super) const SLOT: u64 = 32;
/// Where the superblock is, in bytes.
const SUPERBLOCK_AT: usize = 1024;
/// Where the root's inode is, in bytes: its number must fit into 16 bits.
pub(super) const ROOT_AT: usize = SUPERBLOCK_AT + 128;
const MAGIC: u32 = 0xe0f5_e1e2;
/// Times are those of modification, not of change.
const COMPAT_MTIME: u32 = 2;
/// The fixed part of a directory entry in bytes.
const DIRENT: usize = 12;

/// What a file is, in the bits of st_mode and in those of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Regular,
    Directory,
    Character,
    Block,
    Fifo,
    Socket,
    Symlink,
}

impl FileKind {
    fn mode(self) -> u16 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Character => 0o020_000,
            Self::Block => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
            Self::Symlink => 0o120_000,
        }
    }

    fn entry(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::Character => 3,
            Self::Block => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }
}

/// Where the data of an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// In whole blocks from this one on.
    Plain(u32),
    /// In whole blocks from this one on, but for the rest, which lies behind the inode.
    Inline(u32),
    /// None: it is a device of this number.
    Device(u32),
}

/// One inode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inode {
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) links: u32,
    pub(super) size: u64,
    pub(super) layout: Layout,
    /// The length of the attributes behind it in bytes, as [`attributes`] made them.
    pub(super) attributes: usize,
}

/// Where the number of links is in an inode, in bytes.
pub(super) const LINKS_AT: u64 = 44;

impl Inode {
    /// Returns the inode's bytes; `ordinal` is what 32-bit programs see as its number.
    pub(super) fn bytes(&self, ordinal: u32) -> Result<[u8; INODE], Errno> {
        let (form, data) = match self.layout {
            Layout::Plain(block) => (0_u16, block),
            Layout::Inline(block) => (2, block),
            Layout::Device(device) => (0, device),
        };
        let mut bytes = [0; INODE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &(form << 1 | 1).to_le_bytes());
        put(2, &attribute_count(self.attributes)?.to_le_bytes());
        let mode = u16::try_from(self.mode & 0o7777).unwrap_or_default();
        put(4, &(self.kind.mode() | mode).to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &data.to_le_bytes());
        put(20, &ordinal.to_le_bytes());
        put(24, &self.uid.to_le_bytes());
        put(28, &self.gid.to_le_bytes());
        put(32, &self.mtime.0.to_le_bytes());
        put(40, &self.mtime.1.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        Ok(bytes)
    }
}

/// The head of an inode's attributes in bytes.
const ATTRIBUTES_HEAD: usize = 12;

fn attribute_count(length: usize) -> Result<u16, Errno> {
    match length.checked_sub(ATTRIBUTES_HEAD) {
        None => Ok(0),
        Some(rest) => u16::try_from(rest / 4 + 1).map_err(|_| Errno::NOSPC),
    }
}

/// Encodes extended attributes as they follow an inode; empty if there are none.
///
/// Names of no class that EROFS has are left out, as they are where a file system has no place for them, and `user.*` of
/// what is neither file nor directory, which Linux lets nobody read. Errors: they are larger than EROFS can have.
pub(super) fn attributes<'a>(
    kind: FileKind,
    all: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<Vec<u8>, Errno> {
    const CLASSES: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
    let mut bytes = Vec::new();
    for (name, value) in all {
        let found = match name {
            b"system.posix_acl_access" => Some((2, b"".as_slice())),
            b"system.posix_acl_default" => Some((3, b"".as_slice())),
            _ => CLASSES
                .iter()
                .find_map(|(prefix, index)| Some((*index, name.strip_prefix(*prefix)?)))
                .filter(|(_, rest)| !rest.is_empty()),
        };
        let Some((index, rest)) = found else { continue };
        if index <= 3 && !matches!(kind, FileKind::Regular | FileKind::Directory) {
            continue;
        }
        let length = u8::try_from(rest.len()).map_err(|_| Errno::RANGE)?;
        let size = u16::try_from(value.len()).map_err(|_| Errno::NOSPC)?;
        if bytes.is_empty() {
            bytes.resize(ATTRIBUTES_HEAD, 0);
        }
        bytes.push(length);
        bytes.push(index);
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        attribute_count(bytes.len())?;
    }
    Ok(bytes)
}

/// Encodes a device's number; errors: it is larger than Linux has them.
pub(super) fn device(major: u32, minor: u32) -> Result<u32, Errno> {
    if major > 0xfff || minor > 0xf_ffff {
        return Err(Errno::INVAL);
    }
    Ok(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

/// One name of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) text: &'a [u8],
    pub(super) number: u64,
    pub(super) kind: FileKind,
}

/// Returns the size in bytes of a directory with names of these lengths, in their order: whole blocks, and what the last one has.
pub(super) fn directory_size(lengths: impl Iterator<Item = usize>) -> u64 {
    let (mut blocks, mut used) = (0_u64, 0);
    for length in lengths {
        if used + DIRENT + length > BLOCK {
            blocks += 1;
            used = 0;
        }
        used += DIRENT + length;
    }
    blocks * BLOCK as u64 + used as u64
}

/// Encodes a directory whose names come in the order of their bytes, as long as [`directory_size`] says.
pub(super) fn directory<'a>(names: impl Iterator<Item = Name<'a>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut block: Vec<Name<'a>> = Vec::new();
    let mut used = 0;
    for name in names {
        if used + DIRENT + name.text.len() > BLOCK {
            directory_block(&block, &mut bytes);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
            block.clear();
            used = 0;
        }
        used += DIRENT + name.text.len();
        block.push(name);
    }
    directory_block(&block, &mut bytes);
    bytes
}

fn directory_block(names: &[Name<'_>], bytes: &mut Vec<u8>) {
    // All of it lies within one block of 4096 bytes.
    let mut at = u16::try_from(names.len() * DIRENT).unwrap_or(u16::MAX);
    for name in names {
        bytes.extend_from_slice(&name.number.to_le_bytes());
        bytes.extend_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(&[name.kind.entry(), 0]);
        at = at.saturating_add(u16::try_from(name.text.len()).unwrap_or(u16::MAX));
    }
    for name in names {
        bytes.extend_from_slice(name.text);
    }
}

/// Returns block 0 without the root's inode.
pub(super) fn superblock(blocks: u32, inodes: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, value: &[u8]| {
        block[SUPERBLOCK_AT + at..SUPERBLOCK_AT + at + value.len()].copy_from_slice(value);
    };
    put(0, &MAGIC.to_le_bytes());
    put(8, &COMPAT_MTIME.to_le_bytes());
    put(12, &[BLOCK.trailing_zeros().to_le_bytes()[0]]);
    put(14, &u16::try_from(ROOT_AT as u64 / SLOT).unwrap_or_default().to_le_bytes());
    put(16, &inodes.to_le_bytes());
    put(36, &blocks.to_le_bytes());
    block
}
