//! fs-verity: files that the kernel compares with a tree of hashes whenever it reads them,
//! Documentation/filesystems/fsverity.rst.

use crate::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u32 = 1;
/// _IOW('f', 133, struct fsverity_enable_arg).
const FS_IOC_ENABLE_VERITY: libc::c_ulong = 0x4080_6685;
/// _IOWR('f', 134, struct fsverity_digest), whose array counts nothing.
const FS_IOC_MEASURE_VERITY: libc::c_ulong = 0xC004_6686;

/// `struct fsverity_enable_arg`.
#[repr(C)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    sig_size: u32,
    reserved1: u32,
    signature: u64,
    reserved2: [u64; 11],
}

/// `struct fsverity_digest` with room for a SHA-256.
#[repr(C)]
struct DigestArg {
    algorithm: u16,
    size: u16,
    digest: [u8; 32],
}

/// Seals a file for good, with SHA-256 over blocks of 4096 bytes; `FS_IOC_ENABLE_VERITY`. The kernel reads the whole file.
///
/// `file` is open for reading, and nobody has it open for writing. Errors: `ENOTTY` or `EOPNOTSUPP`, the file system has no
/// fs-verity or it is not turned on there; `EEXIST`, it is sealed; `ETXTBSY`, somebody writes to it.
pub fn enable(file: BorrowedFd<'_>) -> Result<()> {
    let argument = EnableArg {
        version: 1,
        hash_algorithm: SHA256,
        block_size: 4096,
        salt_size: 0,
        salt: 0,
        sig_size: 0,
        reserved1: 0,
        signature: 0,
        reserved2: [0; 11],
    };
    // SAFETY: `argument` has the layout of struct fsverity_enable_arg (repr(C), 128 bytes, asserted below); the kernel only
    // reads it, and both pointers in it are null with a size of zero.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_ENABLE_VERITY, &raw const argument) }.into()).map(drop)
}

/// Returns the SHA-256 digest of a sealed file, in constant time; `FS_IOC_MEASURE_VERITY`.
///
/// Errors: `ENODATA`, it is not sealed; `EOVERFLOW`, it is sealed with a longer digest; `ENOTTY` or `EOPNOTSUPP`, as above.
pub fn measure(file: BorrowedFd<'_>) -> Result<[u8; 32]> {
    let mut argument = DigestArg { algorithm: 0, size: 32, digest: [0; 32] };
    // SAFETY: `argument` has the layout of struct fsverity_digest followed by as many bytes as its size says.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_MEASURE_VERITY, &raw mut argument) }.into())?;
    if u32::from(argument.algorithm) == SHA256 && argument.size == 32 {
        Ok(argument.digest)
    } else {
        Err(crate::Error::from_raw_os_error(libc::EOVERFLOW))
    }
}

const _: () = assert!(size_of::<EnableArg>() == 128 && size_of::<DigestArg>() == 36);
