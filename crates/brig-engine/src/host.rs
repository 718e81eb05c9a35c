//! What this machine has and can do: the facts that a specification depends on, and the report of `info` and `doctor`.

pub mod mounts;
pub mod report;

pub use report::{Check, Grade, Report, report};

use crate::config::ContainerConfig;
use crate::oci::{self, devices::Node};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Gathers the facts for one container: a few system calls, and more only for what it asks for.
pub fn facts(container: &ContainerConfig) -> oci::Host {
    oci::Host {
        capabilities: capabilities(container),
        devices: devices(container),
        thermal_paths: if container.privileged { Vec::new() } else { thermal_paths() },
        kernel: kernel_version(),
        // One look where there is none; a kernel that waits for a policy gives no label a meaning.
        selinux: rustix::fs::access("/sys/fs/selinux/enforce", rustix::fs::Access::EXISTS).is_ok()
            && brig_runtime::selinux::state() == brig_runtime::selinux::State::Active,
    }
}

/// Returns which capabilities the engine can give away, of those that a container may come to have; as bits.
pub fn capabilities(container: &ContainerConfig) -> u64 {
    brig_runtime::capabilities::given(oci::capabilities::wished_for(container))
}

/// The kernel's version, (major, minor): uname(2).
pub fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// The directories that tell how hot the processors run: a side channel to the neighbours' work.
fn thermal_paths() -> Vec<String> {
    let path = |n: usize| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle");
    if rustix::fs::access(path(0), rustix::fs::Access::EXISTS).is_err() {
        return Vec::new();
    }
    (0..4096).map(path).take_while(|p| rustix::fs::access(p.as_str(), rustix::fs::Access::EXISTS).is_ok()).collect()
}

fn devices(container: &ContainerConfig) -> Vec<Node> {
    let mut nodes = Vec::new();
    let limits = &container.resources;
    let throttles =
        [&limits.blkio_weight_device, &limits.read_bps, &limits.write_bps, &limits.read_iops, &limits.write_iops];
    for path in throttles.into_iter().flatten().map(|t| &t.path) {
        gather(path, 0, &mut nodes);
    }
    if container.privileged {
        gather(Path::new("/dev"), 8, &mut nodes);
        nodes.retain(|node| !own_to_a_container(&node.path));
    }
    for request in &container.devices {
        gather(&request.host, 8, &mut nodes);
    }
    nodes.dedup_by(|a, b| a.path == b.path);
    nodes
}

/// Devices that each container has of its own.
fn own_to_a_container(path: &Path) -> bool {
    let own = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console", "/dev/ptmx"];
    own.iter().any(|p| path.starts_with(p))
}

/// Collects a node, or those of a directory, without following links below the first path.
fn gather(path: &Path, depth: u32, nodes: &mut Vec<Node>) {
    let Ok(meta) = (if depth == 8 || depth == 0 { std::fs::metadata(path) } else { std::fs::symlink_metadata(path) })
    else {
        return;
    };
    let kind = meta.file_type();
    if kind.is_block_device() || kind.is_char_device() {
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        nodes.push(Node {
            path: path.to_owned(),
            block: kind.is_block_device(),
            major: i64::from(major),
            minor: i64::from(minor),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
        });
    } else if kind.is_dir() && depth > 1 && !own_to_a_container(path) {
        let mut entries: Vec<_> = std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect();
        entries.sort();
        for entry in entries {
            gather(&entry, depth - 1, nodes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DeviceRequest;

    #[test]
    fn the_facts_are_those_of_this_machine() {
        let container = ContainerConfig {
            devices: vec![DeviceRequest { host: "/dev/null".into(), container: "/dev/nul".into(), access: "r".into() }],
            ..ContainerConfig::default()
        };
        let facts = facts(&container);
        assert!(facts.kernel >= (5, 10));
        let null = &facts.devices[0];
        assert_eq!((null.major, null.minor, null.block), (1, 3, false));
        assert_eq!(facts.devices.len(), 1);
    }

    #[test]
    fn a_privileged_container_sees_the_machines_devices_but_not_its_terminals() {
        let facts = facts(&ContainerConfig { privileged: true, ..ContainerConfig::default() });
        assert!(facts.devices.iter().any(|n| n.path == Path::new("/dev/zero")));
        assert!(!facts.devices.iter().any(|n| n.path.starts_with("/dev/pts") || n.path == Path::new("/dev/ptmx")));
    }
}
