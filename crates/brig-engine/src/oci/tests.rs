//! Whole specifications, compared with files; and what each switch changes.

use super::*;
use crate::config::{MountConfig, Resources};
use brig_spec::runtime::LinuxIdMapping;
use serde_json::Value;

fn host() -> Host {
    Host { capabilities: u64::MAX, kernel: (6, 1), ..Host::default() }
}

fn place() -> Place {
    Place {
        id: "ab".repeat(32),
        hostname: Some("abababababab".into()),
        cgroup: format!("/brig/{}", "ab".repeat(32)).into(),
        etc_files: vec![("/var/lib/brig/containers/x/hosts".into(), "/etc/hosts")],
        ..Place::default()
    }
}

fn config() -> ContainerConfig {
    ContainerConfig { image: "debian".into(), command: vec!["true".into()], ..ContainerConfig::default() }
}

fn map() -> IdMap {
    let one = LinuxIdMapping { container_id: 0, host_id: 1 << 30, size: 65_536 };
    IdMap { uids: vec![one], gids: vec![one] }
}

/// The specification as a value whose sets are in order.
fn value(config: &ContainerConfig, place: &Place) -> Value {
    let mut value = serde_json::to_value(spec(config, &host(), place).unwrap()).unwrap();
    for set in ["bounding", "effective", "permitted"] {
        let list = value["process"]["capabilities"][set].as_array_mut().unwrap();
        list.sort_by_key(|v| v.as_str().unwrap().to_owned());
    }
    value
}

fn golden(name: &str, expected: &str, actual: &Value) {
    let expected: Value = serde_json::from_str(expected).unwrap_or_default();
    assert!(
        expected == *actual,
        "oci/golden/{name}.json differs; if the change is meant, the file becomes:\n{}",
        serde_json::to_string_pretty(actual).unwrap()
    );
}

#[test]
fn the_plainest_container_is_dockers() {
    golden("plain", include_str!("golden/plain.json"), &value(&config(), &place()));
}

#[test]
fn a_privileged_container() {
    let config = ContainerConfig { privileged: true, ..config() };
    golden("privileged", include_str!("golden/privileged.json"), &value(&config, &place()));
}

#[test]
fn a_limited_terminal_with_a_user_namespace() {
    let config = ContainerConfig {
        tty: true,
        init: true,
        user: "www:33".into(),
        groups: vec!["audio".into(), "44".into()],
        env: vec!["PATH=/x".into(), "A=b".into()],
        userns: UserMode::Auto,
        network: NetworkMode::Host,
        read_only: true,
        time_offsets: Some((0, 3600)),
        resources: Resources {
            memory: Some(64 << 20),
            nano_cpus: Some(500_000_000),
            pids: Some(9),
            ..Resources::default()
        },
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 10, hard: 20 }],
        ..config()
    };
    let mut place = Place { idmap: Some(map()), init_program: Some("/usr/bin/brig-runtime".into()), ..place() };
    place.mounts = vec![
        mounts::Ready {
            source: Some("/srv".into()),
            destination: "/data".into(),
            read_only: true,
            ..Default::default()
        },
        mounts::Ready { destination: "/tmp".into(), options: vec!["size=1m".into()], ..Default::default() },
    ];
    golden("limited", include_str!("golden/limited.json"), &value(&config, &place));
}

fn namespaces_of(config: &ContainerConfig, place: &Place) -> Vec<(String, Option<String>)> {
    let spec = value(config, place);
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let list = spec["linux"]["namespaces"].as_array().unwrap().iter();
    list.map(|n| (text(&n["type"]).unwrap(), text(&n["path"]))).collect()
}

#[test]
fn a_shared_namespace_is_left_out_or_named() {
    let host = ContainerConfig {
        network: NetworkMode::Host,
        pid: PidMode::Host,
        ipc: IpcMode::Host,
        uts: UtsMode::Host,
        cgroupns: CgroupMode::Host,
        ..config()
    };
    assert_eq!(namespaces_of(&host, &place()), [("mount".to_owned(), None)]);
    let joined = ContainerConfig { network: NetworkMode::Container("web".into()), ..config() };
    let running = Place { joined: Joined { network: Some(42), ..Joined::default() }, ..place() };
    let all = namespaces_of(&joined, &running);
    assert!(all.contains(&("network".to_owned(), Some("/proc/42/ns/net".to_owned()))));
    assert!(spec(&joined, &self::host(), &place()).is_err());
}

#[test]
fn no_command_is_an_error_with_a_hint() {
    let error = spec(&ContainerConfig { image: "debian".into(), ..ContainerConfig::default() }, &host(), &place());
    let error = error.unwrap_err();
    assert_eq!(error.kind, crate::Kind::InvalidArgument);
    assert!(error.hint.unwrap().contains("brig run debian COMMAND"));
}

#[test]
fn a_users_annotations_cannot_pose_as_brigs() {
    let annotations = [("brig.user".to_owned(), "0".to_owned()), ("a".to_owned(), "b".to_owned())].into();
    let config = ContainerConfig { annotations, user: "7".into(), ..config() };
    let spec = value(&config, &place());
    assert_eq!(spec["annotations"]["brig.user"], "7");
    assert_eq!(spec["annotations"]["a"], "b");
    assert_eq!(spec["process"]["user"]["uid"], 7);
}

#[test]
fn an_unconfined_filter_leaves_the_rest_confined() {
    let mut config = config();
    config.security.seccomp = Seccomp::Unconfined;
    config.mounts = vec![MountConfig::tmpfs("/x")];
    let spec = value(&config, &place());
    assert!(spec["linux"].get("seccomp").is_none());
    assert_eq!(spec["linux"]["maskedPaths"].as_array().unwrap().len(), MASKED_PATHS.len());
}

#[test]
fn a_kernel_that_is_too_old_is_refused_by_name() {
    let old = Host { kernel: (5, 11), ..host() };
    let error = spec(&ContainerConfig::default(), &old, &place()).unwrap_err();
    assert_eq!(error.kind, crate::error::Kind::Unsupported);
    assert!(error.causes().join(" ").contains("Linux 5.11, and brig needs 5.12 or newer"), "{:?}", error.causes());
}
