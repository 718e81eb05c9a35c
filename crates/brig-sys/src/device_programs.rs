//! Device control on cgroup v2: programs of type `BPF_PROG_TYPE_CGROUP_DEVICE` loaded, attached, found again and replaced,
//! bpf(2).

use crate::bpf::Instruction;
use crate::{Result, check};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// The most programs that a cgroup can have (`BPF_CGROUP_MAX_PROGS`).
const MOST: usize = 64;

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
    name: [u8; 16],
}

// The leading fields of `union bpf_attr` for BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
struct Attach {
    target_fd: u32,
    program_fd: u32,
    kind: u32,
    flags: u32,
    replaced_fd: u32,
}

// The leading fields of `union bpf_attr` for BPF_PROG_QUERY.
#[repr(C)]
struct Query {
    target_fd: u32,
    kind: u32,
    flags: u32,
    their_flags: u32,
    ids: u64,
    count: u32,
}

// The leading fields of `union bpf_attr` for BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

// The leading fields of `union bpf_attr` for BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct ByFd {
    fd: u32,
    length: u32,
    info: u64,
}

// The leading fields of `struct bpf_prog_info`.
#[repr(C)]
struct Info {
    before_name: [u64; 8],
    name: [u8; 16],
}

/// Calls bpf(2) with the leading fields of its attribute.
fn bpf<T>(command: libc::c_int, attribute: &mut T) -> Result<libc::c_long> {
    // SAFETY: every caller passes a structure with the leading fields of union bpf_attr for its command, and its size goes
    // along; what the structure points at outlives the call and is as long as the structure says.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<T>()) })
}

fn descriptor(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel returned a new descriptor (close-on-exec by its own choice) that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) }
}

/// Loads a device program; `name` (at most 15 bytes are kept) is what [`name`] returns of it later.
pub fn load(name: &CStr, instructions: &[Instruction]) -> Result<OwnedFd> {
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().take(15).zip(name.to_bytes()) {
        *to = *from;
    }
    let mut attribute = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name: short,
    };
    bpf(PROG_LOAD, &mut attribute).map(descriptor)
}

/// Attaches a device program to the cgroup v2 directory `cgroup`, beside those of its ancestors and others at the same
/// place: all must allow an access. With `replaced` it takes the place of that program, with no moment between (Linux 5.6).
pub fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, replaced: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut attribute = Attach {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        program_fd: program.as_raw_fd().cast_unsigned(),
        kind: ATTACH_TYPE_CGROUP_DEVICE,
        flags: if replaced.is_some() { ALLOW_MULTI | REPLACE } else { ALLOW_MULTI },
        replaced_fd: replaced.map_or(0, |fd| fd.as_raw_fd().cast_unsigned()),
    };
    bpf(PROG_ATTACH, &mut attribute).map(drop)
}

/// Detaches a program.
pub fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attribute = Attach {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        program_fd: program.as_raw_fd().cast_unsigned(),
        kind: ATTACH_TYPE_CGROUP_DEVICE,
        flags: 0,
        replaced_fd: 0,
    };
    bpf(PROG_DETACH, &mut attribute).map(drop)
}

/// Opens the device programs that are attached to this very cgroup, whoever did that. Needs `CAP_SYS_ADMIN`.
pub fn attached(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MOST];
    let mut attribute = Query {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        kind: ATTACH_TYPE_CGROUP_DEVICE,
        flags: 0,
        their_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(MOST).unwrap_or(0),
    };
    bpf(PROG_QUERY, &mut attribute)?;
    let count = usize::try_from(attribute.count).unwrap_or(MOST).min(MOST);
    let mut programs = Vec::with_capacity(count);
    for id in &ids[..count] {
        match bpf(PROG_GET_FD_BY_ID, &mut ById { id: *id, next_id: 0, open_flags: 0 }) {
            Ok(fd) => programs.push(descriptor(fd)),
            // It was detached meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}

/// Returns the name that a program was loaded with.
pub fn name(program: BorrowedFd<'_>) -> Result<CString> {
    let mut info = Info { before_name: [0; 8], name: [0; 16] };
    let mut attribute = ByFd {
        fd: program.as_raw_fd().cast_unsigned(),
        length: u32::try_from(size_of::<Info>()).unwrap_or(0),
        info: &raw mut info as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attribute)?;
    let length = info.name.iter().position(|byte| *byte == 0).unwrap_or(info.name.len());
    Ok(CString::new(&info.name[..length]).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_keeps_its_name() {
        // r0 = 1; exit
        let program = [
            Instruction { code: 0xb7, registers: 0, offset: 0, immediate: 1 },
            Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
        ];
        let fd = load(c"brig_test", &program).unwrap();
        assert_eq!(name(std::os::fd::AsFd::as_fd(&fd)).unwrap().to_bytes(), b"brig_test");
    }
}
