//! Device nodes and the rules of the device cgroup.

use super::Host;
use crate::config::ContainerConfig;
use crate::error::{Error, Result};
use brig_runtime::cgroup::DEFAULT_DEVICE_RULES;
use brig_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};
use std::path::PathBuf;

/// A device node of the machine, as stat(2) tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The path.
    pub path: PathBuf,
    /// Whether it is a block device, else a character device.
    pub block: bool,
    /// The major number.
    pub major: i64,
    /// The minor number.
    pub minor: i64,
    /// Permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
}

fn rule(allow: bool, typ: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str) -> LinuxDeviceCgroup {
    LinuxDeviceCgroup { allow, typ: Some(typ), major, minor, access: access.into() }
}

/// Returns the nodes to be made besides the usual ones, and the rules of the device cgroup.
pub fn all(config: &ContainerConfig, host: &Host) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>)> {
    if config.privileged {
        let nodes = host.devices.iter().map(|node| device(node, node.path.clone())).collect();
        return Ok((nodes, vec![rule(true, LinuxDeviceType::A, None, None, "rwm")]));
    }
    let mut nodes = Vec::new();
    let mut rules = vec![rule(false, LinuxDeviceType::A, None, None, "rwm")];
    rules.extend(
        DEFAULT_DEVICE_RULES.iter().map(|(typ, major, minor, access)| rule(true, *typ, *major, *minor, access)),
    );
    rules.push(rule(true, LinuxDeviceType::C, Some(5), Some(1), "rwm"));
    for request in &config.devices {
        let found: Vec<&Node> = host.devices.iter().filter(|node| node.path.starts_with(&request.host)).collect();
        if found.is_empty() {
            return Err(Error::invalid(format!("`{}` is not a device of this machine", request.host.display())));
        }
        for node in found {
            let below = node.path.strip_prefix(&request.host).unwrap_or(&node.path);
            let inside =
                if below.as_os_str().is_empty() { request.container.clone() } else { request.container.join(below) };
            nodes.push(device(node, inside));
            let typ = if node.block { LinuxDeviceType::B } else { LinuxDeviceType::C };
            rules.push(rule(true, typ, Some(node.major), Some(node.minor), &request.access));
        }
    }
    for text in &config.device_cgroup_rules {
        rules.push(parse_rule(text)?);
    }
    Ok((nodes, rules))
}

fn device(node: &Node, inside: PathBuf) -> LinuxDevice {
    LinuxDevice {
        path: inside,
        typ: if node.block { LinuxDeviceType::B } else { LinuxDeviceType::C },
        major: node.major,
        minor: node.minor,
        file_mode: Some(node.mode & 0o7777),
        uid: Some(node.uid),
        gid: Some(node.gid),
    }
}

/// Reads a rule as the kernel's documentation writes it: `c 1:3 rwm`, with `*` for any number.
fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let bad = || {
        Error::invalid(format!("`{text}` is not a device rule"))
            .hint("write it as `c MAJOR:MINOR rwm`, with `*` for any")
    };
    let mut words = text.split_ascii_whitespace();
    let typ = match words.next().ok_or_else(bad)? {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(bad()),
    };
    let (major, minor) = words.next().and_then(|w| w.split_once(':')).ok_or_else(bad)?;
    let number = |word: &str| match word {
        "*" => Ok(None),
        digits => digits.parse::<u32>().map(|n| Some(i64::from(n))).map_err(|_| bad()),
    };
    let access = words.next().ok_or_else(bad)?;
    if access.is_empty() || access.len() > 3 || !access.bytes().all(|b| b"rwm".contains(&b)) || words.next().is_some() {
        return Err(bad());
    }
    Ok(rule(true, typ, number(major)?, number(minor)?, access))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DeviceRequest;

    #[test]
    fn rules_are_read_as_the_kernel_writes_them() {
        let rule = parse_rule("c 42:* rm").unwrap();
        assert_eq!((rule.major, rule.minor, rule.access.as_str()), (Some(42), None, "rm"));
        for bad in ["", "c", "c 1", "c 1:2", "x 1:2 r", "c 1:2 rx", "c -1:2 r", "c 1:2 r w", "c 1:2 rwmr"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_brings_the_devices_below_it() {
        let node = |path: &str, minor| Node {
            path: path.into(),
            block: false,
            major: 116,
            minor,
            mode: 0o660,
            uid: 0,
            gid: 29,
        };
        let host = Host { devices: vec![node("/dev/snd/a", 1), node("/dev/snd/b", 2)], ..Host::default() };
        let devices =
            vec![DeviceRequest { host: "/dev/snd".into(), container: "/dev/sound".into(), access: "rw".into() }];
        let config = ContainerConfig { devices, ..ContainerConfig::default() };
        let (nodes, rules) = all(&config, &host).unwrap();
        assert_eq!(nodes.len(), 2);
        assert_eq!(nodes[1].path, std::path::Path::new("/dev/sound/b"));
        assert_eq!(rules.last().unwrap().access, "rw");
        assert!(all(&config, &Host::default()).is_err());
    }
}
