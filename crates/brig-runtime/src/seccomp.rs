//! Seccomp: from the configuration's rules to a filter of classic BPF, seccomp(2).
//!
//! ```text
//!   load arch ─┬─ x86-64 ── load nr ─┬─ nr >= 2^30 (x32) ── tree
//!              │                     └─ tree
//!              ├─ i386 ── tree              tree: a binary search over sorted ranges of numbers, each leaf one action
//!              └─ other: kill the process         or a short chain of argument tests
//! ```
//!
//! A search over ranges needs about nine comparisons for any call, where a linear list needs hundreds. Calls newer than
//! every call that the rules name answer ENOSYS rather than the default error, so that programs fall back as on an older
//! kernel. Jumps in BPF reach 255 instructions; further ones go through an unconditional long jump, never cut short.

pub mod builtin;
mod emit;
mod table;
mod text;

use crate::error::Error;
use brig_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArch, LinuxSeccompArg, LinuxSeccompFilterFlag};
use brig_sys::seccomp::Instruction;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0x0000_0000;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const SPEC_ALLOW: u64 = 1 << 2;
const X32_BIT: u32 = 0x4000_0000;

/// A compiled filter.
#[derive(Debug, Clone)]
pub struct Filter {
    /// The program.
    pub instructions: Vec<Instruction>,
    /// Flags for seccomp(2).
    pub flags: u64,
    /// Whether a rule notifies a listener, so that installing returns a descriptor.
    pub notifies: bool,
}

/// One outcome of a call: tests in order, then a final action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    tests: Vec<(Vec<LinuxSeccompArg>, u32)>,
    last: u32,
}

/// The architectures that the program can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Abi {
    X86_64,
    X32,
    I386,
    Arm64,
}

impl Abi {
    fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Arm64 => 0xc000_00b7,
        }
    }

    fn number(self, row: &table::Row) -> Option<u32> {
        let number = match self {
            Self::X86_64 | Self::X32 => row.1,
            Self::I386 => row.2,
            Self::Arm64 => row.3,
        };
        let offset = if self == Self::X32 { X32_BIT } else { 0 };
        (number != table::NONE).then(|| u32::from(number) + offset)
    }

    const NATIVE: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X86_64 };
}

/// A rule without the names of its calls.
struct Rule<'a> {
    result: u32,
    tests: &'a [LinuxSeccompArg],
}

/// Compiles the rules; the built-in ones ([`builtin`]) for a container with these capabilities. Errors: an action or flag that cannot
/// be had, a test of an argument beyond the sixth.
pub fn compile(seccomp: &LinuxSeccomp, has_capability: impl Fn(&str) -> bool) -> Result<Filter, Error> {
    let mut named = Named::default();
    if seccomp.builtin {
        if !seccomp.syscalls.is_empty() {
            return Err(Error::invalid("compile the seccomp filter", "it names the built-in rules, and has rules too"));
        }
        let read = builtin::rules(has_capability);
        let rules = read.iter().enumerate().map(|(at, rule)| {
            named.look_up(at, rule.names());
            Ok(Rule { result: action(rule.action, rule.errno)?, tests: &rule.tests })
        });
        return assemble(seccomp, &rules.collect::<Result<Vec<_>, Error>>()?, &named);
    }
    let rules = seccomp.syscalls.iter().enumerate().map(|(at, rule)| {
        if rule.args.iter().any(|a| a.index > 5) {
            return Err(Error::invalid("compile the seccomp filter", "a system call has six arguments, 0 to 5"));
        }
        named.look_up(at, rule.names.iter().map(String::as_str));
        Ok(Rule { result: action(rule.action, rule.errno_ret)?, tests: &rule.args })
    });
    assemble(seccomp, &rules.collect::<Result<Vec<_>, Error>>()?, &named)
}

fn assemble(seccomp: &LinuxSeccomp, rules: &[Rule<'_>], named: &Named) -> Result<Filter, Error> {
    let default = action(seccomp.default_action, seccomp.default_errno_ret)?;
    let mut abis = vec![Abi::NATIVE];
    for arch in &seccomp.architectures {
        let abi = match arch {
            LinuxSeccompArch::X86 => Abi::I386,
            LinuxSeccompArch::X86_64 => Abi::X86_64,
            LinuxSeccompArch::X32 => Abi::X32,
            LinuxSeccompArch::Aarch64 => Abi::Arm64,
            _ => continue, // never the kernel's word for a process here: such a process is killed below
        };
        if !abis.contains(&abi) {
            abis.push(abi);
        }
    }
    let enosys = matches!(default & 0xffff_0000, RET_ERRNO | RET_KILL_PROCESS | RET_KILL_THREAD if default != (RET_ERRNO | ENOSYS));
    // The native architecture comes first. x32 shares the section of x86-64, after whose numbers it has its own.
    abis.sort_by_key(|abi| *abi == Abi::X32);
    let mut sections: Vec<(u32, Calls)> = Vec::with_capacity(abis.len());
    for abi in &abis {
        let calls = outcomes(*abi, rules, named, default);
        match sections.iter_mut().find(|(audit, _)| *audit == abi.audit()) {
            Some((_, section)) => section.extend(calls),
            None => sections.push((abi.audit(), calls)),
        }
    }
    let parts: Vec<_> = sections.into_iter().map(|(audit, calls)| (audit, ranges(calls, default, enosys))).collect();
    // Without a word about flags, speculation is not made slower: the mitigation costs every program, and the kernel itself has
    // stopped to ask for it.
    let mut flags = if seccomp.flags.is_none() { SPEC_ALLOW } else { 0 };
    for flag in seccomp.flags.iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::Log => 1 << 1,
            LinuxSeccompFilterFlag::SpecAllow => SPEC_ALLOW,
            LinuxSeccompFilterFlag::WaitKillableRecv => 1 << 5,
            // There is no other thread, and a listener could not be had along with it.
            LinuxSeccompFilterFlag::Tsync => 0,
        };
    }
    let notifies = rules.iter().any(|rule| rule.result == RET_USER_NOTIF);
    let instructions = emit::program(&parts);
    if instructions.len() > 4096 {
        return Err(Error::invalid(
            "compile the seccomp filter",
            format!("{} instructions are more than the kernel takes (4096)", instructions.len()),
        ));
    }
    Ok(Filter { instructions, flags: if notifies { flags | 1 << 3 } else { flags }, notifies })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, Error> {
    use LinuxSeccompAction as A;
    let data = errno.unwrap_or(EPERM);
    if data > 4095 {
        return Err(Error::invalid("compile the seccomp filter", format!("errno {data} does not exist")));
    }
    Ok(match action {
        A::Kill | A::KillThread => RET_KILL_THREAD,
        A::KillProcess => RET_KILL_PROCESS,
        A::Trap => RET_TRAP,
        A::Errno => RET_ERRNO | data,
        A::Notify => RET_USER_NOTIF,
        A::Trace => RET_TRACE | data,
        A::Log => RET_LOG,
        A::Allow => RET_ALLOW,
    })
}

/// The calls that the rules name, each with the place of its rule.
#[derive(Default)]
struct Named(Vec<(&'static table::Row, usize)>);

impl Named {
    /// Adds the calls of the rule `at`.
    fn look_up<'n>(&mut self, at: usize, names: impl Iterator<Item = &'n str>) {
        // Profiles are often sorted, so that most names stand right after the one before.
        let mut next = 0;
        for name in names {
            let near = table::TABLE.iter().skip(next).take(4).position(|row| row.0 == name);
            let found = near.map(|n| next + n).or_else(|| table::TABLE.binary_search_by(|row| row.0.cmp(name)).ok());
            // A name that no kernel of ours has is skipped, as libseccomp does: profiles name calls of all kernels.
            let Some(place) = found else { continue };
            self.0.push((&table::TABLE[place], at));
            next = place + 1;
        }
    }
}

/// Calls by number, with what becomes of each.
type Calls = Vec<(u32, Outcome)>;

/// Returns each named call's outcome on one architecture, sorted by its number there.
fn outcomes(abi: Abi, rules: &[Rule<'_>], named: &Named, default: u32) -> Calls {
    // By number; what several rules say of one call stays in the order of the rules.
    let mut found: Vec<(u32, usize)> = Vec::with_capacity(named.0.len());
    found.extend(named.0.iter().filter_map(|(row, rule)| Some((abi.number(row)?, *rule))));
    found.sort_unstable();
    let mut calls = Calls::with_capacity(found.len());
    for same in found.chunk_by(|one, other| one.0 == other.0) {
        calls.push((same[0].0, outcome(same.iter().map(|(_, rule)| &rules[*rule]), default)));
    }
    calls
}

/// What several rules make of one call: the first without a test settles it, alone.
fn outcome<'a>(rules: impl Iterator<Item = &'a Rule<'a>>, default: u32) -> Outcome {
    let mut tests = Vec::new();
    for &Rule { result, tests: of_rule } in rules {
        if of_rule.is_empty() {
            return Outcome { tests: Vec::new(), last: result };
        }
        if repeats_an_argument(of_rule) {
            // Several tests of one argument mean any of them; tests of different ones mean all.
            tests.extend(of_rule.iter().map(|t| (vec![*t], result)));
        } else {
            tests.push((of_rule.to_vec(), result));
        }
    }
    Outcome { tests, last: default }
}

fn repeats_an_argument(tests: &[LinuxSeccompArg]) -> bool {
    tests.iter().enumerate().any(|(at, test)| tests[..at].iter().any(|other| other.index == test.index))
}

/// Turns calls into ranges that cover every number: `(first number, outcome)`, neighbours with one outcome merged.
fn ranges(calls: Calls, default: u32, enosys: bool) -> Vec<(u32, Outcome)> {
    let plain = |last: u32| Outcome { tests: Vec::new(), last };
    let newer = if enosys { RET_ERRNO | ENOSYS } else { default };
    let highest = |below: u32| calls.iter().map(|(number, _)| *number).rfind(|n| *n < below);
    let top = highest(X32_BIT).unwrap_or(0);
    let x32_top = highest(u32::MAX).filter(|number| *number >= X32_BIT).unwrap_or(u32::MAX);
    let gap = |number: u32| {
        let limit = if number >= X32_BIT { x32_top } else { top };
        plain(if number > limit { newer } else { default })
    };
    let mut ranges: Vec<(u32, Outcome)> = Vec::new();
    let mut push = |first: u32, outcome: Outcome| {
        if ranges.last().is_none_or(|(_, last)| *last != outcome) {
            ranges.push((first, outcome));
        }
    };
    let mut next = 0;
    for (number, outcome) in calls {
        if next < X32_BIT && number >= X32_BIT {
            push(next, gap(next));
            next = X32_BIT;
        }
        if number > next {
            push(next, gap(next));
        }
        push(number, outcome);
        next = number + 1;
    }
    push(next, gap(next));
    if next < X32_BIT {
        // The numbers of x32, which the rules do not cover: its calls are as unknown as any other architecture's.
        push(X32_BIT, plain(default));
    }
    ranges
}

#[cfg(test)]
mod tests;
