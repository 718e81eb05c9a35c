//! Capability sets of a container's process, capabilities(7).
//!
//! Inheritable stays as the specification says it, which is empty by default: a non-empty set let a program regain what
//! it had given up. Names that this kernel or this build does not know are an error of the configuration.

use crate::error::{Context, Error};
use brig_spec::runtime::{Capabilities, LinuxCapabilities};
use rustix::thread::{CapabilitySet, CapabilitySets};

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

/// Returns the name of a capability, with `CAP_`.
pub fn name(number: u32) -> Option<String> {
    NAMES.get(usize::try_from(number).ok()?).map(|n| format!("CAP_{n}"))
}

/// Returns the bounding set of the caller: what it can give to a container at most, unless that has a user namespace.
pub fn available() -> u64 {
    let inside = |n: &u32| {
        let set = CapabilitySet::from_bits_retain(1 << n);
        rustix::thread::capability_is_in_bounding_set(set).unwrap_or(false)
    };
    (0..64u32).filter(inside).fold(0, |mask, n| mask | 1 << n)
}

impl Sets {
    /// Reads the sets of a configuration; what the caller itself lacks is left out, as it could never be granted.
    pub fn parse(capabilities: Option<&LinuxCapabilities>, available: u64) -> Result<Self, Error> {
        let Some(c) = capabilities else { return Ok(Self::default()) };
        let read = |set: &Option<Capabilities>| -> Result<u64, Error> {
            let mut mask = 0;
            for capability in set.iter().flatten() {
                let text = format!("{capability:?}");
                let n = from_variant(&text)
                    .ok_or_else(|| Error::invalid("read the capabilities", format!("`{text}` is unknown")))?;
                mask |= 1 << n;
            }
            Ok(mask & available)
        };
        Ok(Self {
            bounding: read(c.bounding())?,
            effective: read(c.effective())?,
            inheritable: read(c.inheritable())?,
            permitted: read(c.permitted())?,
            ambient: read(c.ambient())?,
        })
    }

    /// Says in words which of the ambient capabilities the kernel will refuse.
    pub fn warnings(self) -> Vec<String> {
        let refused = self.ambient & !(self.inheritable & self.permitted);
        let numbers = (0..64u32).filter(|n| refused & (1 << n) != 0);
        let text =
            |n| format!("can't raise ambient capability {}: it is not inheritable and permitted", name(n)?).into();
        numbers.filter_map(text).collect()
    }

    /// Drops everything outside the bounding set; needs CAP_SETPCAP, so it comes before the ids change. What there is to drop
    /// is asked here and now: a new user namespace has all capabilities, those that its maker lacks too.
    pub fn apply_bounding(self) -> Result<(), Error> {
        let present = available();
        for n in 0..64u32 {
            let bit = 1 << n;
            if present & bit != 0 && self.bounding & bit == 0 {
                let set = CapabilitySet::from_bits_retain(bit);
                rustix::thread::remove_capability_from_bounding_set(set)
                    .step(|| format!("drop {}", name(n).unwrap_or_default()))?;
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

/// `SysAdmin` -> 21: the types name the variants in camel case, the kernel in upper case with underscores.
fn from_variant(variant: &str) -> Option<u32> {
    let folded: String = variant.chars().filter(char::is_ascii_alphanumeric).collect();
    NAMES
        .iter()
        .position(|n| n.bytes().filter(|b| *b != b'_').eq(folded.bytes().map(|b| b.to_ascii_uppercase())))
        .and_then(|n| u32::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use brig_spec::runtime::Capability;

    #[test]
    fn every_name_of_the_types_is_known() {
        for n in 0..u32::try_from(NAMES.len()).unwrap() {
            let text = format!("\"{}\"", name(n).unwrap());
            let parsed: Capability = serde_json::from_str(&text).unwrap();
            assert_eq!(from_variant(&format!("{parsed:?}")), Some(n), "{text}");
        }
    }

    #[test]
    fn names_are_read_with_and_without_prefix() {
        assert_eq!(number("cap_sys_admin"), Some(21));
        assert_eq!(number("NET_RAW"), Some(13));
        assert_eq!(number("NET_ROW"), None);
    }
}
