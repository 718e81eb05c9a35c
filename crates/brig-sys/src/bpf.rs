//! Device control on cgroup v2: loading a program of type `BPF_PROG_TYPE_CGROUP_DEVICE` and attaching it, bpf(2).

use crate::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction of extended BPF, `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The operation.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub registers: u8,
    /// The offset of a jump or a memory access.
    pub offset: i16,
    /// The immediate operand.
    pub immediate: i32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

// The leading fields of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

// The leading fields of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target_fd: u32,
    program_fd: u32,
    kind: u32,
    flags: u32,
}

/// Loads a device program, to be attached by [`attach_device_program`].
pub fn load_device_program(instructions: &[Instruction]) -> Result<OwnedFd> {
    let attribute = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the structure holds the leading fields of union bpf_attr for this command, its size is passed along, and
    // what it points at outlives the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attribute, size_of::<Load>()) })?;
    // SAFETY: the call returned a new descriptor (close-on-exec by the kernel's choice) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}

/// Attaches a device program to the cgroup v2 directory `cgroup`, beside those of its ancestors.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let attribute = Attach {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        program_fd: program.as_raw_fd().cast_unsigned(),
        kind: ATTACH_TYPE_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: as above, for BPF_PROG_ATTACH.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attribute, size_of::<Attach>()) }).map(drop)
}
