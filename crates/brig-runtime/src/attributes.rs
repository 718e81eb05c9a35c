//! How a process is treated by the kernel's schedulers, and which system it takes itself to run on: `scheduler`, `ioPriority`,
//! `execCPUAffinity`, `memoryPolicy` and `personality`; config.md and config-linux.md.
//!
//! ```text
//! starter                                              process, not yet the program
//!   an exec's initial processors: its own for the birth
//!                         ... namespaces, cgroup ...
//!                                                      memory policy, personality: nobody can set another's
//!   waits for Ready       <------------------------->  Ready
//!   processors, policy, I/O priority: within a user
//!   namespace nobody may set them
//! ```
//!
//! An exec has what its process says, and for the rest what the container's has.

use crate::bits;
use crate::error::{Context, Error};
use brig_spec::runtime::{CpuAffinity, LinuxIoPriority, LinuxMemoryPolicy, LinuxPersonality, Process, Scheduler, Spec};
use brig_sys::schedule::{self, Policy};
use rustix::io::Errno;

/// How many processors and memory nodes can be named.
const MOST: usize = 1024;

/// Every processor: whatever is not there or not the cgroup's, the kernel takes out, and lets in when it comes.
static ALL: [u8; schedule::SET] = [0xff; schedule::SET];

const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const POLICY_FLAGS: [(&str, u32); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 1),
    ("SCHED_FLAG_RECLAIM", 1 << 1),
    ("SCHED_FLAG_DL_OVERRUN", 1 << 2),
    ("SCHED_FLAG_KEEP_POLICY", 1 << 3),
    ("SCHED_FLAG_KEEP_PARAMS", 1 << 4),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 1 << 5),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 1 << 6),
];

const IO_CLASSES: [(&str, u32); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

const PERSONALITIES: [(&str, u32); 2] = [("LINUX", 0), ("LINUX32", 8)];

/// The modes of a memory policy, by their names; set_mempolicy(2).
pub const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// The flags of a memory policy, by their names.
pub const MEMORY_FLAGS: [(&str, u32); 3] =
    [("MPOL_F_NUMA_BALANCING", 1 << 13), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_STATIC_NODES", 1 << 15)];

/// What is set of one process.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    policy: Option<Policy>,
    /// Class and level.
    io_priority: Option<(u16, u16)>,
    initial: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
    personality: Option<u32>,
    /// Mode with flags, and nodes.
    memory: Option<(u32, Vec<u8>)>,
    /// Whether the cgroup is told which processors it has.
    has_cpuset: bool,
    /// What is passed over.
    pub warnings: Vec<String>,
}

impl Attributes {
    /// Reads what a container's first process has.
    pub fn of_first(process: &Process, spec: &Spec) -> Result<Self, Error> {
        let linux = spec.linux.as_ref();
        let cpu = linux.and_then(|linux| linux.resources.as_ref()?.cpu.as_ref());
        let personality = linux.and_then(|linux| linux.personality.as_ref());
        let ignored = personality.map(|wish| &wish.flags).filter(|flags| !flags.is_empty());
        Ok(Self {
            policy: process.scheduler.as_ref().map(policy).transpose()?,
            io_priority: process.io_priority.as_ref().map(io_priority).transpose()?,
            initial: None,
            last: None,
            personality: personality.map(self::personality).transpose()?,
            memory: linux.and_then(|linux| linux.memory_policy.as_ref()).map(memory_policy).transpose()?,
            has_cpuset: cpu.is_some_and(|cpu| !cpu.cpus.is_empty()),
            warnings: ignored
                .iter()
                .map(|flags| format!("ignoring unsupported personality flags: {flags:?}"))
                .collect(),
        })
    }

    /// Reads what a further process has.
    pub fn of_further(process: &Process, spec: &Spec) -> Result<Self, Error> {
        let mut all = Self::of_first(process, spec)?;
        let first = spec.process.as_ref();
        if let (None, Some(of_container)) = (all.policy, first.and_then(|first| first.scheduler.as_ref())) {
            all.policy = Some(policy(of_container)?);
        }
        if let (None, Some(of_container)) = (all.io_priority, first.and_then(|first| first.io_priority.as_ref())) {
            all.io_priority = Some(io_priority(of_container)?);
        }
        let affinity = process.exec_cpu_affinity.as_ref();
        if let Some(affinity) = affinity.or_else(|| first?.exec_cpu_affinity.as_ref()) {
            (all.initial, all.last) = processors(affinity)?;
        }
        Ok(all)
    }

    /// Lets this process run where an exec's first is to be born, which inherits it; the guard takes it back.
    pub fn begin_birth(&self) -> Result<Option<Birth>, Error> {
        let Some(initial) = &self.initial else { return Ok(None) };
        let step = || "set the processors of the process".to_owned();
        let before = schedule::affinity(0).step(step)?;
        schedule::set_affinity(0, initial)
            .map_err(|error| std::io::Error::new(error.kind(), format!("error setting initial CPU affinity: {error}")))
            .step(step)?;
        let now = schedule::affinity(0).step(step)?;
        Ok(Some(Birth { before, now }))
    }

    /// Sets what only the process itself can set, which is this one.
    pub fn apply_within(&self) -> Result<(), Error> {
        if let Some(personality) = self.personality {
            schedule::set_personality(personality).step(|| "set the personality".into())?;
        }
        if let Some((mode, nodes)) = &self.memory {
            schedule::set_memory_policy(*mode, nodes).step(|| "set the memory policy".into())?;
        }
        Ok(())
    }

    /// Says where the process `pid`, which is in its cgroup, may run from now on.
    pub fn apply_processors(&self, pid: i32, warnings: &mut Vec<String>) -> Result<(), Error> {
        if let Some(last) = &self.last {
            schedule::set_affinity(pid, last)
                .map_err(|error| {
                    std::io::Error::new(error.kind(), format!("error setting final CPU affinity: {error}"))
                })
                .step(|| "set the processors of the process".into())?;
        } else if self.initial.is_none()
            && let Err(error) = schedule::set_affinity(pid, &ALL)
        {
            // Whatever the caller may run on is no limit of the container's.
            warnings.push(format!("resetting the CPU affinity failed ({error}): the process inherits its starter's"));
        }
        Ok(())
    }

    /// Sets all else of the process `pid`, which leads a process group of its own and is in its cgroup.
    pub fn apply_to(&self, pid: i32) -> Result<(), Error> {
        if let Some(policy) = &self.policy {
            match schedule::set_policy(pid, policy) {
                Err(error) if self.has_cpuset && error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                    let why = "process scheduler can't be used together with AllowedCPUs";
                    return Err(Error::invalid("set the scheduler", why));
                }
                result => result.step(|| "set the scheduler".into())?,
            }
        }
        if let Some((class, level)) = self.io_priority {
            schedule::set_io_priority(pid, class, level).step(|| "set the I/O priority".into())?;
        }
        Ok(())
    }
}

/// While it lives this process runs where a further one is to be born.
#[derive(Debug)]
pub(crate) struct Birth {
    before: Vec<u8>,
    now: Vec<u8>,
}

impl Birth {
    /// The first 64 processors as bits.
    pub fn mask(&self) -> u64 {
        self.now.iter().take(8).rev().fold(0, |mask, byte| mask << 8 | u64::from(*byte))
    }
}

impl Drop for Birth {
    fn drop(&mut self) {
        let _ = schedule::set_affinity(0, &self.before);
    }
}

fn find(list: &[(&str, u32)], word: &str) -> Option<u32> {
    list.iter().find(|(name, _)| *name == word).map(|(_, number)| *number)
}

fn personality(wish: &LinuxPersonality) -> Result<u32, Error> {
    let wrong = || Error::invalid("read the personality", format!("invalid personality domain {:?}", wish.domain));
    find(&PERSONALITIES, &wish.domain).ok_or_else(wrong)
}

fn policy(wish: &Scheduler) -> Result<Policy, Error> {
    let wrong = |why: String| Error::invalid("read the scheduler", why);
    let name = wish.policy.as_str();
    if name.is_empty() {
        return Err(wrong("scheduler policy is required".into()));
    }
    let number = find(&POLICIES, name).ok_or_else(|| wrong(format!("invalid scheduler policy: {name}")))?;
    if matches!(name, "SCHED_OTHER" | "SCHED_BATCH") && !(-20..=19).contains(&wish.nice) {
        return Err(wrong(format!("invalid scheduler.nice: {} when scheduler.policy is {name}", wish.nice)));
    }
    if wish.priority != 0 && !matches!(name, "SCHED_FIFO" | "SCHED_RR") {
        return Err(wrong("scheduler.priority can only be specified for SchedFIFO or SchedRR policy".into()));
    }
    if (wish.runtime, wish.deadline, wish.period) != (0, 0, 0) && name != "SCHED_DEADLINE" {
        let why = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy";
        return Err(wrong(why.into()));
    }
    let mut flags = 0;
    for flag in &wish.flags {
        let flag = find(&POLICY_FLAGS, flag).ok_or_else(|| wrong(format!("invalid scheduler flag: {flag}")))?;
        flags |= u64::from(flag);
    }
    Ok(Policy {
        policy: number,
        flags,
        nice: wish.nice,
        priority: u32::try_from(wish.priority)
            .map_err(|_| wrong(format!("invalid scheduler.priority: {}", wish.priority)))?,
        runtime_ns: wish.runtime,
        deadline_ns: wish.deadline,
        period_ns: wish.period,
    })
}

fn io_priority(wish: &LinuxIoPriority) -> Result<(u16, u16), Error> {
    let wrong = |why: String| Error::invalid("read the I/O priority", why);
    let level = u16::try_from(wish.priority).ok().filter(|level| *level <= 7);
    let level = level.ok_or_else(|| wrong(format!("invalid ioPriority.Priority: {}", wish.priority)))?;
    let class = find(&IO_CLASSES, &wish.class).and_then(|class| u16::try_from(class).ok());
    Ok((class.ok_or_else(|| wrong(format!("invalid ioPriority.Class: {:?}", wish.class)))?, level))
}

/// A set of processors, where one is named.
type Processors = Option<Vec<u8>>;

fn processors(wish: &CpuAffinity) -> Result<(Processors, Processors), Error> {
    let read = |which: &str, list: &str| {
        if list.is_empty() {
            return Ok(None);
        }
        let wrong = |why| Error::invalid("read the CPU affinity", format!("bad CPUAffinity.{which} {list:?}: {why}"));
        bits::of(list, MOST).map(Some).map_err(wrong)
    };
    Ok((read("Initial", &wish.initial)?, read("Final", &wish.last)?))
}

fn memory_policy(wish: &LinuxMemoryPolicy) -> Result<(u32, Vec<u8>), Error> {
    let wrong = |why: String| Error::invalid("read the memory policy", why);
    let mode = find(&MEMORY_MODES, &wish.mode);
    let mode = mode.ok_or_else(|| wrong(format!("invalid memory policy mode {:?}", wish.mode)))?;
    let nodes = if wish.nodes.is_empty() { Ok(Vec::new()) } else { bits::of(&wish.nodes, MOST) };
    let nodes = nodes.map_err(|why| wrong(format!("invalid memory policy nodes {:?}: {why}", wish.nodes)))?;
    let mut flags = 0;
    for flag in &wish.flags {
        flags |= find(&MEMORY_FLAGS, flag).ok_or_else(|| wrong(format!("invalid memory policy flag {flag:?}")))?;
    }
    match (wish.mode.as_str(), bits::count(&nodes)) {
        ("MPOL_DEFAULT" | "MPOL_LOCAL", count @ 1..) => {
            return Err(wrong(format!("memory policy mode requires 0 nodes but got {count}")));
        }
        // Preferring none is to prefer the nearest.
        ("MPOL_DEFAULT" | "MPOL_LOCAL" | "MPOL_PREFERRED", _) | (_, 1..) => {}
        (_, 0) => return Err(wrong("memory policy mode requires at least one node but got 0".into())),
    }
    Ok((mode | flags, nodes))
}

#[cfg(test)]
mod tests;
