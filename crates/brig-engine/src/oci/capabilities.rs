//! Which capabilities a container gets: Docker's fourteen, more or fewer on request.

use super::{Host, Name};
use crate::config::{ContainerConfig, UserMode};
use crate::error::{Error, Kind, Result};
use brig_spec::runtime::LinuxCapabilities;
use std::collections::BTreeSet;

/// The capabilities that a container has when nothing is said.
pub const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// All that the kernel knows, in the order of their numbers: capabilities(7).
pub const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// All of them as bits.
const EVERY: u64 = (1 << ALL.len()) - 1;

/// Returns the names of a bit set as /proc/PID/status prints it.
pub fn from_bits(bits: u64) -> BTreeSet<Name> {
    ALL.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0).map(|(_, name)| (*name).to_owned()).collect()
}

fn bit(name: &str) -> Option<u64> {
    brig_runtime::capabilities::number(name).map(|n| 1 << n)
}

fn defaults() -> u64 {
    DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |all, bit| all | bit)
}

/// Returns the capabilities that a container may come to have, as bits: those that the engine is worth being asked for.
pub fn wished_for(config: &ContainerConfig) -> u64 {
    let add = parse(&config.cap_add).map_or(EVERY, |add| if add.all { EVERY } else { add.bits });
    if config.privileged { EVERY } else { defaults() | add }
}

/// Decides the set: all that the engine has under `--privileged`, else the defaults with what was added and dropped.
pub fn names(config: &ContainerConfig, host: &Host) -> Result<BTreeSet<Name>> {
    let add = parse(&config.cap_add)?;
    let drop = parse(&config.cap_drop)?;
    // In a user namespace every capability is there, whatever the engine itself has.
    let available = if config.userns == UserMode::Host { host.capabilities } else { EVERY };
    if config.privileged {
        return Ok(from_bits(available));
    }
    let set = match (add.all, drop.all) {
        (true, _) => EVERY,
        (false, true) => 0,
        (false, false) => defaults(),
    };
    if let Some(missing) = from_bits(add.bits & !available).first() {
        return Err(Error::new(Kind::Unsupported, format!("capability {missing} cannot be given to a container"))
            .reason("brig itself does not have it here")
            .hint("`--userns=auto` gives it within the container's own user namespace"));
    }
    Ok(from_bits((set & !drop.bits | add.bits) & available))
}

/// Makes the five sets of the specification: nothing is inheritable or ambient.
pub fn sets(names: &BTreeSet<Name>) -> LinuxCapabilities {
    let set: Vec<Name> = names.iter().cloned().collect();
    LinuxCapabilities { bounding: set.clone(), effective: set.clone(), permitted: set, ..LinuxCapabilities::default() }
}

#[derive(Default)]
struct Parsed {
    all: bool,
    bits: u64,
}

fn parse(list: &[String]) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    for text in list {
        let upper = text.to_ascii_uppercase();
        let name = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if name == "CAP_ALL" {
            parsed.all = true;
        } else if let Some(bit) = bit(&name) {
            parsed.bits |= bit;
        } else {
            return Err(Error::invalid(format!("`{text}` is not a capability"))
                .hint("capabilities(7) lists the names; `ALL` means all of them"));
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host { capabilities: EVERY, ..Host::default() }
    }

    fn of(add: &[&str], drop: &[&str]) -> Vec<String> {
        let list = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
        let config = ContainerConfig { cap_add: list(add), cap_drop: list(drop), ..ContainerConfig::default() };
        names(&config, &host()).unwrap().into_iter().collect()
    }

    #[test]
    fn add_and_drop_work_as_in_docker() {
        assert_eq!(of(&[], &[]), DEFAULT);
        assert_eq!(of(&[], &["all"]), Vec::<String>::new());
        assert_eq!(of(&["net_admin"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert_eq!(of(&["ALL"], &["CAP_SYS_ADMIN"]).len(), 40);
        assert_eq!(of(&["CAP_CHOWN"], &["chown"]).len(), 14);
        assert_eq!(of(&[], &["chown", "kill"]).len(), 12);
    }

    #[test]
    fn every_name_is_known_to_the_runtime() {
        let numbers: Vec<_> = ALL.iter().map(|name| brig_runtime::capabilities::number(name)).collect();
        assert_eq!(numbers, (0..41).map(Some).collect::<Vec<_>>());
        assert_eq!(sets(&from_bits(host().capabilities)).bounding.len(), ALL.len());
        assert_eq!(from_bits((1 << 41) - 1).len(), 41);
    }

    #[test]
    fn unknown_and_unavailable_names_are_refused() {
        let config = ContainerConfig { cap_add: vec!["FLY".into()], ..ContainerConfig::default() };
        assert_eq!(names(&config, &host()).unwrap_err().kind, Kind::InvalidArgument);
        let poor = Host { capabilities: defaults(), ..Host::default() };
        let config = ContainerConfig { cap_add: vec!["SYS_BOOT".into()], ..ContainerConfig::default() };
        assert_eq!(names(&config, &poor).unwrap_err().kind, Kind::Unsupported);
        let config = ContainerConfig { privileged: true, ..ContainerConfig::default() };
        assert_eq!(names(&config, &poor).unwrap().len(), 14);
    }
}
