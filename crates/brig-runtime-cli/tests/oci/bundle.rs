//! A bundle of busybox, and the runtime that runs it.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long something is waited for that comes at all.
const PATIENCE: Duration = Duration::from_secs(20);
const APPLETS: [&str; 24] = [
    "sh", "cat", "echo", "ls", "id", "sleep", "true", "false", "hostname", "ps", "mount", "stty", "env", "kill",
    "test", "touch", "dd", "wc", "readlink", "grep", "stat", "mkdir", "pwd", "ln",
];

/// A bundle directory with its root file system, a configuration, and a state directory of its own.
pub struct Bundle {
    directory: tempfile::TempDir,
    pub config: Value,
    /// The program that is called.
    pub program: PathBuf,
    id: String,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// The output of a command that succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.stdout
    }

    /// The words of one that failed.
    #[track_caller]
    pub fn failed(self) -> String {
        assert_ne!(self.status, 0, "{self:?}");
        self.stderr + &self.stdout
    }
}

/// The runtime under test.
pub fn runtime() -> PathBuf {
    std::env::var_os("BRIG_OCI_RUNTIME").map_or_else(|| env!("CARGO_BIN_EXE_brig-runtime").into(), PathBuf::from)
}

impl Bundle {
    /// A bundle whose container runs a shell script.
    pub fn new(script: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::Builder::new().prefix("brig-oci-").tempdir().unwrap();
        let id = format!("test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let rootfs = directory.path().join("rootfs");
        for name in ["bin", "proc", "dev", "sys", "etc", "tmp", "root"] {
            std::fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/tmp:/bin/sh\n")
            .unwrap();
        let config = config(script, &id);
        Self { directory, config, program: runtime(), id }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn rootfs(&self, name: &str) -> PathBuf {
        self.path("rootfs").join(name)
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// A command of the runtime, without its output.
    pub fn command(&self, words: &[&str]) -> Command {
        std::fs::write(self.path("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.path("state")).args(words).current_dir(self.directory.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end. What it leaves running writes to /dev/null, or to the file that the test names.
    pub fn call(&self, words: &[&str]) -> Said {
        let output = self.command(words).output().unwrap();
        Said {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs the container in the foreground.
    pub fn run(&self) -> Said {
        self.call(&["run", &self.id])
    }

    /// Runs a command that leaves a container behind: its output goes to a file, and so does the container's.
    #[track_caller]
    pub fn leave(&self, words: &[&str]) {
        let file = std::fs::File::create(self.path("output")).unwrap();
        let status = self.command(words).stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        assert!(status.success(), "{words:?}: {}", self.output());
    }

    /// What the container that was left has said.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.path("output")).unwrap_or_default()
    }

    pub fn state(&self) -> Value {
        serde_json::from_str(&self.call(&["state", &self.id]).ok()).unwrap()
    }

    pub fn pid(&self) -> i64 {
        self.state()["pid"].as_i64().unwrap()
    }

    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        wait(&format!("`{status}`, it is {}", self.state()), || self.state()["status"] == status);
    }

    /// Runs a shell script in the container that runs.
    pub fn exec(&self, script: &str) -> Said {
        self.call(&["exec", &self.id, "sh", "-c", script])
    }

    /// Adds a mount.
    pub fn mount(&mut self, mount: Value) {
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// Gives the container a user namespace in which its root is another user of the machine, and the files to that user.
    pub fn with_user_namespace(mut self) -> Self {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        self.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 700_000, "size": 65536}]);
        self.config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 700_000, "size": 65536}]);
        let chown = Command::new("chown").args(["-Rh", "700000:700000"]).arg(self.path("rootfs")).status().unwrap();
        assert!(chown.success());
        // The way to it must be open to that user.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(self.directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        self
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let entries = std::fs::read_dir(self.path("state")).into_iter().flatten().flatten();
        let ids: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        for id in &ids {
            let _ = self.call(&["delete", "--force", id]);
        }
        let below = format!("brig-test/{}", self.id);
        let left = cgroups().into_iter().map(|root| root.join(&below)).find(|path| path.exists());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted =
            mounts.lines().find(|line| line.contains(self.directory.path().to_str().unwrap())).map(str::to_owned);
        for root in cgroups() {
            let _ = std::fs::remove_dir(root.join("brig-test"));
        }
        if !std::thread::panicking() {
            assert_eq!(left, None, "a cgroup is left");
            assert_eq!(mounted, None, "a mount is left");
        }
    }
}

/// The mounted cgroup hierarchies.
pub fn cgroups() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let kind = |line: &str| line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    let cgroup = |line: &&str| matches!(kind(line).as_deref(), Some("cgroup" | "cgroup2"));
    mounts.lines().filter(cgroup).filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// Waits until something holds.
#[track_caller]
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a file that holds something, and returns that.
#[track_caller]
pub fn wait_for_file(path: &Path) -> String {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    wait(&path.display().to_string(), || !read().is_empty());
    read()
}

fn config(script: &str, id: &str) -> Value {
    let capabilities = json!(["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "study",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "cgroupsPath": format!("/brig-test/{id}"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
