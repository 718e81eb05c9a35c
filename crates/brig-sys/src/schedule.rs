//! How a process is scheduled: policy and priority, processors, memory nodes, disk accesses, personality.
//!
//! Sets of processors and nodes are bytes, the first of which has the first eight; on the machines that are little-endian,
//! which all supported ones are, that is what the kernel's arrays of `unsigned long` look like.

use crate::{Result, check};

#[cfg(target_endian = "big")]
compile_error!("sets of processors are written for little-endian machines");

/// The policy of a process and its parameters; struct `sched_attr` of sched_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// The nice value, for the usual policies.
    pub nice: i32,
    /// The priority, for those of real time.
    pub priority: u32,
    /// Nanoseconds of work in a period, for deadlines.
    pub runtime_ns: u64,
    /// Nanoseconds until the work must be done.
    pub deadline_ns: u64,
    /// Nanoseconds from period to period.
    pub period_ns: u64,
}

/// The first form of the structure: 48 bytes, known to every kernel that has the call.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets the policy of the process `pid`, 0 for this one; sched_setattr(2).
pub fn set_policy(pid: i32, policy: &Policy) -> Result<()> {
    let attr = SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).unwrap_or(0),
        policy: policy.policy,
        flags: policy.flags,
        nice: policy.nice,
        priority: policy.priority,
        runtime: policy.runtime_ns,
        deadline: policy.deadline_ns,
        period: policy.period_ns,
    };
    // SAFETY: the call reads a structure that outlives it, of the size that its first field says.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attr, 0) }).map(drop)
}

/// Lets the process `pid`, 0 for this one, run on these processors; sched_setaffinity(2). Those that do not exist, or that its
/// cgroup does not have, are passed over as long as one is left.
pub fn set_affinity(pid: i32, processors: &[u8]) -> Result<()> {
    // SAFETY: the call reads as many bytes as it is told, which the slice has.
    let done = unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, processors.len(), processors.as_ptr()) };
    check(done).map(drop)
}

/// The bytes of a set that holds any processor: Linux can be built for 8,192.
pub const SET: usize = 1024;

/// Returns the processors on which the process `pid`, 0 for this one, may run; sched_getaffinity(2).
pub fn affinity(pid: i32) -> Result<Vec<u8>> {
    let mut processors = vec![0; SET];
    // SAFETY: the call writes at most as many bytes as it is told, which the vector has.
    let length = unsafe { libc::syscall(libc::SYS_sched_getaffinity, pid, processors.len(), processors.as_mut_ptr()) };
    processors.truncate(usize::try_from(check(length)?).unwrap_or(0));
    Ok(processors)
}

/// Ranks the disk accesses of a process group: a class (1 to 3) and a level in it (0 to 7); ioprio_set(2).
pub fn set_io_priority(group: i32, class: u16, level: u16) -> Result<()> {
    const WHO_PGRP: libc::c_int = 2;
    let priority = libc::c_int::from(class << 13 | level);
    // SAFETY: the call takes numbers alone.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PGRP, group, priority) }).map(drop)
}

/// Sets the personality of this process; personality(2).
pub fn set_personality(personality: u32) -> Result<()> {
    // SAFETY: the call takes a number alone.
    check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(personality)) }).map(drop)
}

/// Says on which memory nodes this process's pages are taken: a mode `MPOL_*` with its flags; set_mempolicy(2).
pub fn set_memory_policy(mode: u32, nodes: &[u8]) -> Result<()> {
    let mut mask = nodes.to_vec();
    mask.resize(nodes.len().next_multiple_of(size_of::<libc::c_ulong>()), 0);
    // The kernel takes one bit less than it is told.
    let (pointer, bits) = if mask.is_empty() { (std::ptr::null(), 0) } else { (mask.as_ptr(), mask.len() * 8 + 1) };
    // SAFETY: the call reads as many whole words as the bits it is told need, less one bit, and the vector has them.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of /proc/PID/stat after the name.
    fn stat(pid: u32) -> Vec<i64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let rest = text.rsplit_once(") ").unwrap().1;
        rest.split_ascii_whitespace().skip(1).map(|n| n.parse().unwrap_or(-1)).collect()
    }

    #[test]
    fn what_is_set_is_what_the_kernel_tells() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        let batch = Policy { policy: 3, nice: 7, ..Policy::default() };
        let done = set_policy(id, &batch).and_then(|()| set_affinity(id, &[1])).map(|()| affinity(id));
        let seen = stat(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        let processors = done.unwrap().unwrap();
        // Fields 19 and 41 of proc_pid_stat(5); this list begins with the fourth.
        assert_eq!((seen[19 - 4], seen[41 - 4]), (7, 3));
        assert_eq!((processors[0], processors[1..].iter().all(|b| *b == 0)), (1, true));
        assert!(set_policy(0, &Policy { policy: 99, ..Policy::default() }).is_err());
        assert!(set_affinity(0, &[0]).is_err());
    }

    #[test]
    fn a_thread_takes_its_pages_as_it_is_told() {
        if !std::path::Path::new("/proc/self/numa_maps").exists() {
            return; // this kernel knows no memory nodes
        }
        let seen = std::thread::spawn(|| {
            set_memory_policy(2, &[1]).unwrap();
            let maps = std::fs::read_to_string("/proc/thread-self/numa_maps").unwrap();
            assert!(set_memory_policy(2, &[]).is_err());
            assert!(set_memory_policy(99, &[1]).is_err());
            set_memory_policy(0, &[]).unwrap();
            maps
        });
        assert!(seen.join().unwrap().contains("bind:0"));
    }
}
