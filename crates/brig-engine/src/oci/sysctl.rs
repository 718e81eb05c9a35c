//! Kernel settings: only those that belong to a namespace of the container's own, by a list of what is allowed.
//!
//! Names are compared whole, after `/` became `.`; anything that could be read as more than one name is refused
//! (CVE-2022-0811).

use crate::config::{ContainerConfig, IpcMode, NetworkMode, UtsMode};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Returns the settings: defaults of a new network namespace, then the user's.
pub fn all(config: &ContainerConfig, user_namespace: bool) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let own_network = matches!(config.network, NetworkMode::Bridge | NetworkMode::None);
    if own_network && !config.privileged {
        // A service may listen on port 80 without being root, and ping works without a capability. Group ids beyond the
        // map of a user namespace would be refused there.
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        if !user_namespace {
            all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        }
    }
    for (key, value) in &config.sysctls {
        let key = key.replace('/', ".");
        check(&key, value, config, own_network)?;
        all.insert(key, value.clone());
    }
    Ok(all)
}

fn check(key: &str, value: &str, config: &ContainerConfig, own_network: bool) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let named = !key.is_empty() && key.bytes().all(plain) && !key.starts_with('.') && !key.contains("..");
    if !named || value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        return Err(Error::invalid(format!("`{key}` is not a kernel setting that can be written")));
    }
    let own_ipc = matches!(config.ipc, IpcMode::Private | IpcMode::Shareable | IpcMode::None);
    let (family, allowed) = if brig_runtime::IPC_SYSCTLS.contains(&key) || key.starts_with("fs.mqueue.") {
        ("IPC", own_ipc)
    } else if key.starts_with("net.") {
        ("network", own_network)
    } else if key == "kernel.domainname" {
        ("UTS", config.uts == UtsMode::Private)
    } else {
        return Err(Error::invalid(format!("kernel setting `{key}` belongs to the whole machine"))
            .hint("a container can set what is its own: net.*, fs.mqueue.*, and kernel settings of System V IPC"));
    };
    if allowed {
        Ok(())
    } else {
        Err(Error::invalid(format!("kernel setting `{key}` needs a {family} namespace of the container's own")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> Result<BTreeMap<String, String>> {
        let sysctls = [(key.to_owned(), value.to_owned())].into();
        all(&ContainerConfig { sysctls, ..ContainerConfig::default() }, false)
    }

    #[test]
    fn only_namespaced_settings_pass() {
        for good in ["net.core.somaxconn", "kernel.shmmax", "fs.mqueue.msg_max", "net/ipv4/ip_forward"] {
            assert!(with(good, "1").is_ok(), "{good}");
        }
        for bad in [
            "kernel.core_pattern",
            "kernel.shm_rmid_forced+kernel.core_pattern",
            "net.../../kernel.core_pattern",
            "net.a b",
            "vm.overcommit_memory",
            "",
            ".net.x",
            "kernel.shm/../core_pattern",
        ] {
            assert!(with(bad, "1").is_err(), "{bad}");
        }
        assert!(with("net.core.somaxconn", "1\nkernel.core_pattern=x").is_err());
    }

    #[test]
    fn the_machines_own_namespace_is_not_set() {
        let sysctls = [("net.core.somaxconn".to_owned(), "1".to_owned())].into();
        let config = ContainerConfig { sysctls, network: NetworkMode::Host, ..ContainerConfig::default() };
        assert!(all(&config, false).is_err());
    }

    #[test]
    fn a_new_network_namespace_has_dockers_defaults() {
        let config = ContainerConfig::default();
        assert_eq!(all(&config, false).unwrap().len(), 2);
        assert_eq!(all(&config, true).unwrap().len(), 1);
        assert!(all(&ContainerConfig { network: NetworkMode::Host, ..config }, false).unwrap().is_empty());
    }
}
