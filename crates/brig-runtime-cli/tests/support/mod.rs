//! A container made by hand: a plan, a root of busybox, and the real program as its monitor.

#![allow(dead_code, clippy::unwrap_used, clippy::new_without_default, missing_docs)] // each test file uses a part

use brig_monitor::client::{Connection, Event, Exited};
use brig_monitor::plan::{FORMAT, Log, Plan, Restart, Rootfs, Undo};
use brig_monitor::protocol::HELLO_OUTPUT;
use brig_monitor::spawn::{Job, spawn};
use brig_spec::id::ContainerId;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A scratch engine, gone with the value.
pub struct Scratch {
    pub directory: tempfile::TempDir,
    pub id: ContainerId,
}

pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_brig-runtime"))
}

impl Scratch {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("brig-monitor-").tempdir().unwrap();
        let mut bytes = [7u8; 32];
        let text = directory.path().to_string_lossy().into_owned();
        for (at, b) in text.bytes().enumerate() {
            bytes[at % 32] = bytes[at % 32].wrapping_mul(31).wrapping_add(b);
        }
        let scratch = Self { directory, id: ContainerId::from_random(bytes) };
        let lower = scratch.path("lower");
        for directory in ["bin", "proc", "dev", "sys", "etc", "tmp"] {
            std::fs::create_dir_all(lower.join(directory)).unwrap();
        }
        std::fs::copy("/bin/busybox", lower.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "cat", "echo", "ls", "id", "sleep", "true", "hostname", "ps", "mount", "stty", "env", "kill", "test",
            "touch", "dd", "wc", "readlink", "grep",
        ] {
            std::os::unix::fs::symlink("busybox", lower.join("bin").join(applet)).unwrap();
        }
        std::fs::write(lower.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n")
            .unwrap();
        std::fs::write(lower.join("etc/group"), "root:x:0:\nweb:x:33:\nlog:x:4:web\n").unwrap();
        for directory in ["c/upper", "c/work"] {
            std::fs::create_dir_all(scratch.path(directory)).unwrap();
        }
        scratch
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The configuration of a container that runs `args`, close to what `runc spec` writes.
    pub fn spec(&self, args: &[&str]) -> Value {
        json!({
            "ociVersion": "1.2.0",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": {
                    "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"],
                    "effective": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"],
                    "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]
                },
                "noNewPrivileges": true
            },
            "root": {"path": "rootfs"},
            "hostname": "study",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]}
            ],
            "linux": {
                "cgroupsPath": format!("/brig-test/{}", self.id),
                "resources": {
                    "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}, {"allow": true, "type": "c", "major": 5, "access": "rwm"}, {"allow": true, "type": "c", "major": 136, "access": "rwm"}],
                    "pids": {"limit": 100}, "memory": {"limit": 268_435_456}
                },
                "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
            }
        })
    }

    /// The plan around a configuration.
    pub fn plan(&self, spec: Value) -> Plan {
        let spec = serde_json::from_value(spec).unwrap();
        Plan {
            format: FORMAT,
            id: self.id.clone(),
            name: "test".into(),
            container_dir: self.path("c"),
            run_dir: self.path("r"),
            spec,
            rootfs: Rootfs::Overlay {
                lowers: vec![self.path("lower")],
                upper: Some(self.path("c/upper")),
                work: Some(self.path("c/work")),
                submounts: Vec::new(),
                volatile: false,
                idmap: None,
            },
            copy_up: Vec::new(),
            network: None,
            stdin: false,
            log: Log { path: Some(self.path("c/log")), max_size: 0, max_files: 1 },
            restart: Restart::No,
            undo: vec![Undo::Cgroup(format!("/brig-test/{}", self.id)), Undo::Directory(self.path("r"))],
            remove: false,
            durable: false,
        }
    }

    /// Writes the plan and spawns its monitor.
    pub fn start(&self, plan: &Plan, flags: u8) -> Connection {
        std::fs::write(self.path("c/plan"), serde_json::to_vec(plan).unwrap()).unwrap();
        spawn(&program(), Job::Run, &self.path("c"), flags).unwrap()
    }

    /// Runs a shell script to its end: output, errors, and how it ended.
    pub fn sh(&self, script: &str) -> Output {
        self.run(&self.plan(self.spec(&["sh", "-c", script])))
    }

    pub fn run(&self, plan: &Plan) -> Output {
        collect(&mut self.start(plan, HELLO_OUTPUT))
    }

    /// The directories of the container's cgroup that exist.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let cgroup = brig_runtime::cgroup::Cgroup::open(Path::new(&format!("/brig-test/{}", self.id))).unwrap();
        cgroup.directories().filter(|d| d.exists()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let cgroup = brig_runtime::cgroup::Cgroup::open(Path::new(&format!("/brig-test/{}", self.id))).unwrap();
        if !cgroup.pids().is_empty() {
            let _ = cgroup.kill_all();
        }
        let _ = cgroup.remove();
        for hierarchy in &cgroup.layout().hierarchies {
            let _ = std::fs::remove_dir(hierarchy.mount.join("brig-test"));
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    pub failed: Option<(u8, String)>,
    pub exited: Option<Exited>,
}

/// Reads events to the end.
pub fn collect(connection: &mut Connection) -> Output {
    let mut output = Output::default();
    while let Ok(Some(event)) = connection.receive() {
        match event {
            Event::Stdout(bytes) => output.stdout.push_str(&String::from_utf8_lossy(bytes)),
            Event::Stderr(bytes) => output.stderr.push_str(&String::from_utf8_lossy(bytes)),
            Event::Started(_) => {}
            Event::Failed(status, text) => output.failed = Some((status, text)),
            Event::Exited(exited) => output.exited = Some(exited),
        }
    }
    output
}
