//! Capability sets of a container's process, capabilities(7).
//!
//! Inheritable stays as the specification says it, which is empty by default: a non-empty set let a program regain what
//! it had given up. Names that this build does not know are passed over with a warning: configurations are written for kernels to come.

use crate::error::{Context, Error};
use brig_spec::runtime::{LinuxCapabilities, Spec};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::collections::BTreeSet;

/// The sets as bit masks, ready to be applied between fork and exec.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// The bounding set.
    pub bounding: u64,
    /// The effective set.
    pub effective: u64,
    /// The inheritable set.
    pub inheritable: u64,
    /// The permitted set.
    pub permitted: u64,
    /// The ambient set.
    pub ambient: u64,
}

const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Returns the number of a capability from its name, with or without `CAP_`.
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|n| *n == name).and_then(|n| u32::try_from(n).ok())
}

/// Says whether a configuration's process may ever have a capability (`CAP_CHOWN` and the like).
pub fn grants(spec: &Spec, name: &str) -> bool {
    let sets = spec.process.as_ref().and_then(|process| process.capabilities.as_ref());
    sets.is_some_and(|sets| sets.bounding.iter().any(|other| other == name))
}

/// Returns the name of a capability, with `CAP_`.
pub fn name(number: u32) -> Option<String> {
    NAMES.get(usize::try_from(number).ok()?).map(|n| format!("CAP_{n}"))
}

/// Returns the bounding set of the caller: what it can give to a container at most, unless that has a user namespace.
pub fn available() -> u64 {
    given(u64::MAX)
}

/// Returns which of the capabilities of `mask` the caller has in its bounding set, and so could give to a container. Each is a
/// question to the kernel: only those that matter are asked about, and none beyond its last.
pub fn given(mask: u64) -> u64 {
    let mut given = 0;
    for bit in (0..64).map(|n| 1 << n).filter(|bit| mask & bit != 0) {
        match rustix::thread::capability_is_in_bounding_set(CapabilitySet::from_bits_retain(bit)) {
            Ok(true) => given |= bit,
            Ok(false) => {}
            Err(_) => break,
        }
    }
    given
}

impl Sets {
    /// Reads the sets of a configuration, with a warning about each thing that is not granted. Names that this build does not
    /// know are passed over, and what the caller itself lacks could never be granted, unless a user namespace is `own`: it has
    /// every capability.
    pub fn parse(capabilities: Option<&LinuxCapabilities>, own: bool) -> (Self, Vec<String>) {
        let Some(c) = capabilities else { return Default::default() };
        let mut unknown = BTreeSet::new();
        let mut read = |set: &[String]| {
            let mut mask = 0;
            for name in set {
                match number(name) {
                    Some(n) => mask |= 1 << n,
                    None => _ = unknown.insert(name.clone()),
                }
            }
            mask
        };
        let mut sets = Self {
            bounding: read(&c.bounding),
            effective: read(&c.effective),
            inheritable: read(&c.inheritable),
            permitted: read(&c.permitted),
            ambient: read(&c.ambient),
        };
        if !own {
            let all = [sets.bounding, sets.effective, sets.inheritable, sets.permitted, sets.ambient];
            let given = given(all.into_iter().fold(0, |all, set| all | set));
            for set in
                [&mut sets.bounding, &mut sets.effective, &mut sets.inheritable, &mut sets.permitted, &mut sets.ambient]
            {
                *set &= given;
            }
        }
        let mut warnings = Vec::new();
        if !unknown.is_empty() {
            let names = Vec::from_iter(unknown).join(" ");
            warnings.push(format!("ignoring unknown or unavailable capabilities: [{names}]"));
        }
        let refused = sets.ambient & !(sets.inheritable & sets.permitted);
        for name in (0..64u32).filter(|n| refused & (1 << n) != 0).filter_map(name) {
            warnings.push(format!("can't raise ambient capability {name}: it is not inheritable and permitted"));
        }
        (sets, warnings)
    }

    /// Drops everything outside the bounding set; needs CAP_SETPCAP, so it comes before the ids change. One that is not there is
    /// dropped too, which costs less than to ask.
    pub fn apply_bounding(self) -> Result<(), Error> {
        for n in (0..64u32).filter(|n| self.bounding & (1 << n) == 0) {
            let set = CapabilitySet::from_bits_retain(1 << n);
            match rustix::thread::remove_capability_from_bounding_set(set) {
                Ok(()) => {}
                // Beyond the last that this kernel has.
                Err(Errno::INVAL) => break,
                result => result.step(|| format!("drop {}", name(n).unwrap_or_default()))?,
            }
        }
        Ok(())
    }

    /// Sets effective, permitted, inheritable and ambient of the calling thread.
    pub fn apply(self) -> Result<(), Error> {
        let sets = CapabilitySets {
            effective: CapabilitySet::from_bits_retain(self.effective),
            permitted: CapabilitySet::from_bits_retain(self.permitted),
            inheritable: CapabilitySet::from_bits_retain(self.inheritable),
        };
        rustix::thread::set_capabilities(None, sets).step(|| "set the capabilities".into())?;
        rustix::thread::clear_ambient_capability_set().step(|| "clear the ambient capabilities".into())?;
        for n in (0..64u32).filter(|n| self.ambient & (1 << n) != 0) {
            let set = CapabilitySet::from_bits_retain(1 << n);
            // Not inheritable or not permitted: the kernel refuses, and the specification lets a runtime go on.
            let _ = rustix::thread::configure_capability_in_ambient_set(set, true);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn names_are_read_with_and_without_prefix() {
        assert_eq!(number("cap_sys_admin"), Some(21));
        assert_eq!(number("NET_RAW"), Some(13));
        assert_eq!(number("NET_ROW"), None);
    }

    #[test]
    fn what_is_unknown_or_cannot_be_had_is_told_and_left_out() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let wanted = LinuxCapabilities {
            bounding: list(&["CAP_KILL", "CAP_OF_TOMORROW", "CAP_SYS_ADMIN"]),
            permitted: list(&["CAP_KILL", "CAP_OF_TOMORROW"]),
            ambient: list(&["CAP_KILL"]),
            ..LinuxCapabilities::default()
        };
        let (sets, warnings) = Sets::parse(Some(&wanted), true);
        assert_eq!(sets, Sets { bounding: 1 << 5 | 1 << 21, permitted: 1 << 5, ambient: 1 << 5, ..Sets::default() });
        assert_eq!(
            warnings,
            [
                "ignoring unknown or unavailable capabilities: [CAP_OF_TOMORROW]",
                "can't raise ambient capability CAP_KILL: it is not inheritable and permitted"
            ]
        );
        assert_eq!(Sets::parse(None, true), (Sets::default(), Vec::new()));
    }
}
