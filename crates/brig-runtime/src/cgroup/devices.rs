//! Which device nodes a container may make, read and write.
//!
//! ```text
//! rules of the configuration, then what every container may do
//!    | v1: a table (devices/table.rs), written as the difference to the one in force
//!    | v2: a program of extended BPF (devices/program.rs), which takes the place of the one in force at once
//! ```
//!
//! In both the last rule that speaks about an access decides it, and what no rule speaks about is refused.

mod program;
mod table;

use super::file::{self, Writer};
use crate::error::{Context, Error};
use brig_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use brig_sys::device_programs as programs;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::path::Path;
use table::{Change, Table};

/// What every container may do: make any node, and use these. (kind, major, minor, access)
pub const DEFAULT_RULES: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 10] = [
    (LinuxDeviceType::C, None, None, "m"),
    (LinuxDeviceType::B, None, None, "m"),
    (LinuxDeviceType::C, Some(1), Some(3), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(5), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(7), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(8), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(9), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(0), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(2), "rwm"),
    (LinuxDeviceType::C, Some(136), None, "rwm"),
];

/// By this name our programs are told from those of others at the same cgroup.
const PROGRAM_NAME: &std::ffi::CStr = c"brig_devices";

/// Making a node, one of the three kinds of access; the numbers are those of struct `bpf_cgroup_dev_ctx`.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const EVERYTHING: u8 = MKNOD | READ | WRITE;

/// One rule, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// Block or character devices; none is both.
    block: Option<bool>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Rule {
    fn parse(rule: &LinuxDeviceCgroup) -> Result<Self, Error> {
        let wrong = |why: String| Error::invalid("read the device rules", why);
        let block = match rule.typ {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(true),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(false),
            Some(LinuxDeviceType::P) => return Err(wrong("a FIFO is not a device".into())),
        };
        let number = |n: Option<i64>| match n {
            None | Some(..0) => Ok(None),
            Some(n) => u32::try_from(n).map(Some).map_err(|_| wrong(format!("{n} is not a device number"))),
        };
        let mut access = 0;
        for letter in rule.access.chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                // No kernel knows this letter. Where something is forbidden it can only be meant to forbid more.
                'a' if !rule.allow => EVERYTHING,
                other => return Err(wrong(format!("`{other}` is not an access: they are r, w and m"))),
            };
        }
        if access == 0 {
            access = EVERYTHING;
        }
        Ok(Self { allow: rule.allow, block, major: number(rule.major)?, minor: number(rule.minor)?, access })
    }

    /// Says whether it is about every device and every access.
    fn is_whole(&self) -> bool {
        self.block.is_none() && self.major.is_none() && self.minor.is_none() && self.access == EVERYTHING
    }
}

/// Understands the rules, and adds to them what every container may do: make nodes, and use the devices of the default /dev.
/// Where everything is allowed but what is named, that has been said already.
fn with_defaults(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, Error> {
    let mut all = rules.iter().map(Rule::parse).collect::<Result<Vec<_>, _>>()?;
    let whole = all.iter().rposition(Rule::is_whole);
    if whole.is_some_and(|at| all[at].allow) {
        return Ok(all);
    }
    let given = all.len();
    for (kind, major, minor, access) in DEFAULT_RULES {
        let rule =
            Rule::parse(&LinuxDeviceCgroup { allow: true, typ: Some(kind), major, minor, access: access.into() })?;
        // What was said and not taken back needs no second word, which would only make the list longer.
        let said = all[..given].iter().rposition(|r| *r == rule);
        if said.is_none_or(|at| all[at..given].iter().any(|r| !r.allow)) {
            all.push(rule);
        }
    }
    Ok(all)
}

/// What is to be written into the files of a v1 cgroup.
#[derive(Debug)]
pub(super) struct Plan {
    changes: Vec<Change>,
    /// Whether more is allowed between two of the writes than before and after.
    pub(super) opens_meanwhile: bool,
}

/// Compares the rules with those in force; a new cgroup gets them all.
pub(super) fn plan_v1(directory: &Path, rules: &[LinuxDeviceCgroup], new: bool) -> Result<Plan, Error> {
    let target = Table::of(&with_defaults(rules)?)?;
    let present = if new {
        Table::unknown()
    } else {
        let path = directory.join("devices.list");
        Table::parse(&file::read(&path).step(|| format!("read {}", path.display()))?)
    };
    let changes = present.changes_to(&target);
    Ok(Plan { opens_meanwhile: !new && target.allows_by_default() && changes.len() > 1, changes })
}

impl Plan {
    /// Writes the rules. In a user namespace the kernel takes none, and the devices are the namespace's limits'.
    pub(super) fn apply(&self, directory: &Path) -> Result<(), Error> {
        let mut files: [Option<Writer>; 2] = [None, None];
        for change in &self.changes {
            let (slot, name) = if change.allow { (0, "devices.allow") } else { (1, "devices.deny") };
            let writer = match &files[slot] {
                Some(writer) => writer,
                None => files[slot].insert(Writer::open(directory.join(name))?),
            };
            match writer.write(&change.line) {
                Err(error) if file::is(&error, Errno::PERM) && in_user_namespace() => return Ok(()),
                other => other?,
            }
        }
        Ok(())
    }
}

/// Device rules as a unit of systemd has them: the policy, and what is allowed, with the access.
pub(super) type UnitRules = (&'static str, Vec<(String, String)>);

/// Translates the rules for systemd, which on v1 writes its own into the same files.
pub(super) fn for_systemd(rules: &[LinuxDeviceCgroup]) -> Result<UnitRules, Error> {
    let table = Table::of(&with_defaults(rules)?)?;
    if !table.allows_by_default() {
        return Ok(("strict", table.units()));
    }
    // It cannot allow everything but something: until the files are written it allows nothing then.
    Ok(if table.units().is_empty() { ("auto", Vec::new()) } else { ("strict", Vec::new()) })
}

/// Puts a program with these rules in the place of the one in force; until then that one counts, and never neither.
pub(super) fn set_v2(directory: &Path, rules: &[LinuxDeviceCgroup], new: bool) -> Result<(), Error> {
    let rules = with_defaults(rules)?;
    let step = || format!("control the devices of {}", directory.display());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cgroup = rustix::fs::open(directory, flags, Mode::empty()).step(step)?;
    let loaded = match programs::load(PROGRAM_NAME, &program::of(&rules)) {
        // Without privileges over the machine nothing is loaded; its devices are then guarded by their owners alone.
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) && in_user_namespace() => return Ok(()),
        other => other.step(step)?,
    };
    let mut ours = Vec::new();
    if !new {
        for attached in programs::attached(cgroup.as_fd()).step(step)? {
            if programs::name(attached.as_fd()).step(step)?.as_bytes() == PROGRAM_NAME.to_bytes() {
                ours.push(attached);
            }
        }
    }
    let replaced = if ours.len() == 1 { ours.pop() } else { None };
    programs::attach(cgroup.as_fd(), loaded.as_fd(), replaced.as_ref().map(AsFd::as_fd)).step(step)?;
    for old in ours {
        programs::detach(cgroup.as_fd(), old.as_fd()).step(step)?;
    }
    Ok(())
}

/// Says whether this process has less than all ids of the machine.
fn in_user_namespace() -> bool {
    file::read_if_there(Path::new("/proc/self/uid_map"))
        .is_some_and(|map| map.split_ascii_whitespace().ne(["0", "0", "4294967295"]))
}
