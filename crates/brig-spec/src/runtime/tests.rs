//! Configurations as they are met: sparse, with nulls, with words of tomorrow.

use super::*;
use serde_json::{Value, json};

fn spec(text: &str) -> Result<Spec, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn what_is_missing_null_or_unknown_is_zero() {
    assert_eq!(spec("{}").unwrap(), Spec::default());
    let nulls =
        r#"{"ociVersion": null, "process": null, "mounts": null, "annotations": null, "linux": null, "windows": {}}"#;
    assert_eq!(spec(nulls).unwrap(), Spec::default());
    let sparse = spec(
        r#"{"process": {"args": ["sh"], "user": null, "capabilities": {"bounding": null, "ambient": ["CAP_OF_TOMORROW"]},
             "execCPUAffinity": {"final": "0-1"}},
            "mounts": [{"destination": "/x", "options": null}],
            "linux": {"resources": {"pids": {}, "devices": [{"allow": true, "type": ""}]}, "memoryPolicy": {},
                      "namespaces": [{"type": "time", "path": null}]}}"#,
    )
    .unwrap();
    let process = sparse.process.as_ref().unwrap();
    assert_eq!((process.user.uid, process.cwd.as_os_str().is_empty()), (0, true));
    assert_eq!(process.capabilities.as_ref().unwrap().ambient, ["CAP_OF_TOMORROW"]);
    assert_eq!(process.exec_cpu_affinity.as_ref().unwrap().last, "0-1");
    let linux = sparse.linux.as_ref().unwrap();
    let resources = linux.resources.as_ref().unwrap();
    assert_eq!((resources.pids, resources.devices[0].typ), (Some(LinuxPids { limit: None }), None));
    assert_eq!(linux.memory_policy, Some(LinuxMemoryPolicy::default()));
    assert_eq!(sparse.namespace(LinuxNamespaceType::Time).map(LinuxNamespace::joined), Some(None));
    assert_eq!(sparse.namespace(LinuxNamespaceType::User), None);
}

#[test]
fn an_unknown_word_is_an_error_that_names_field_and_word() {
    for (text, want) in [
        (
            r#"{"linux":{"namespaces":[{"type":"moon"}]}}"#,
            r#"linux.namespaces[].type cannot be "moon": it is one of pid, "#,
        ),
        (r#"{"linux":{"namespaces":[{}]}}"#, "missing field `type`"),
        (r#"{"linux":{"devices":[{"type":"x"}]}}"#, r#"a device's type cannot be "x": it is one of a, b, c, u, p"#),
        (r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_MAYBE"}}}"#, r#"an action cannot be "SCMP_ACT_MAYBE""#),
        (
            r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_LOG","architectures":["SCMP_ARCH_Z80"]}}}"#,
            r#"linux.seccomp.architectures[] cannot be "SCMP_ARCH_Z80""#,
        ),
        (r#"{"process":{"args":"sh"}}"#, r#"invalid type: string "sh", expected a sequence"#),
    ] {
        let error = spec(text).unwrap_err();
        assert!(error.contains(want), "{text}: {error}");
    }
}

/// Everything that the specification has for Linux comes back as it was.
#[test]
fn a_whole_configuration_comes_back() {
    let text = r#"{
        "ociVersion": "1.3.0", "hostname": "h", "domainname": "d", "annotations": {"a": "b"},
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [{"destination": "/x", "type": "tmpfs", "source": "s", "options": ["ro"],
            "uidMappings": [{"containerID": 0, "hostID": 7, "size": 1}], "gidMappings": [{"containerID": 0, "hostID": 8, "size": 1}]}],
        "process": {
            "terminal": true, "consoleSize": {"height": 2, "width": 3}, "args": ["sh"], "env": ["A=b"], "cwd": "/",
            "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [5], "username": "u"},
            "capabilities": {"bounding": ["CAP_A"], "effective": ["CAP_B"], "inheritable": ["CAP_C"], "permitted": ["CAP_D"], "ambient": ["CAP_E"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2, "soft": 1}], "noNewPrivileges": true, "apparmorProfile": "p",
            "oomScoreAdj": -1, "selinuxLabel": "l", "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "scheduler": {"policy": "SCHED_DEADLINE", "nice": 1, "priority": 2, "flags": ["SCHED_FLAG_RECLAIM"], "runtime": 1, "deadline": 2, "period": 3},
            "execCPUAffinity": {"initial": "0", "final": "1-2"}
        },
        "hooks": {
            "prestart": [{"path": "/a", "args": ["a"], "env": [], "timeout": 1}], "createRuntime": [{"path": "/b"}],
            "createContainer": [{"path": "/c"}], "startContainer": [{"path": "/d"}], "poststart": [{"path": "/e"}], "poststop": [{"path": "/f"}]
        },
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
            "sysctl": {"net.x": "1"}, "cgroupsPath": "/c", "namespaces": [{"type": "pid"}, {"type": "network", "path": "/n"}],
            "devices": [{"path": "/dev/x", "type": "b", "major": 8, "minor": 1, "fileMode": 432, "uid": 1, "gid": 2}], "netDevices": {"eth0": {"name": "e"}}, "rootfsPropagation": "slave", "maskedPaths": ["/m"],
            "readonlyPaths": ["/r"], "mountLabel": "m", "personality": {"domain": "LINUX32", "flags": ["f"]},
            "intelRdt": {"closID": "c", "schemata": ["L3:0=f"], "l3CacheSchema": "L3:0=1", "memBwSchema": "MB:0=1", "enableMonitoring": true},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
            "timeOffsets": {"boottime": {"secs": -5, "nanosecs": 7}},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"], "flags": [],
                "listenerPath": "/l", "listenerMetadata": "m",
                "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "errnoRet": 2,
                    "args": [{"index": 1, "value": 2, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]
            },
            "resources": {
                "devices": [{"allow": false, "type": "c", "major": 1, "minor": 2, "access": "rwm"}],
                "memory": {"limit": 1, "reservation": 2, "swap": 3, "kernel": 4, "kernelTCP": 5, "swappiness": 6,
                    "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true},
                "cpu": {"shares": 1, "quota": -1, "burst": 2, "period": 3, "realtimeRuntime": 4, "realtimePeriod": 5, "cpus": "0", "mems": "0", "idle": 1},
                "pids": {"limit": 0},
                "blockIO": {"weight": 10, "leafWeight": 11, "weightDevice": [{"major": 8, "minor": 0, "weight": 1, "leafWeight": 2}],
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}], "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 9}],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 9}], "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 9}]},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
                "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 2}]},
                "rdma": {"mlx": {"hcaHandles": 1, "hcaObjects": 2}}, "unified": {"memory.high": "1"}
            }
        }
    }"#;
    let whole: Value = serde_json::from_str(text).unwrap();
    let read: Spec = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), whole);
}

#[test]
fn what_is_zero_is_not_written_but_ids_and_paths_are() {
    let spec = Spec {
        process: Some(Box::default()),
        root: Some(Root::default()),
        linux: Some(Box::new(Linux { resources: Some(LinuxResources::default()), ..Linux::default() })),
        ..Spec::default()
    };
    let written: Value = serde_json::to_value(&spec).unwrap();
    assert_eq!(
        written,
        json!({"ociVersion": "", "process": {"user": {"uid": 0, "gid": 0}, "cwd": ""}, "root": {"path": ""}, "linux": {"resources": {}}})
    );
}
