//! A bundle of busybox and the real program, as a caller of an OCI runtime has them.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Answers each line with its number and the line: what it counts is what a checkpoint keeps.
pub const COUNTER: &str = "i=0; while read line; do i=$((i+1)); echo $i:$line; done; exit 7";

/// The criu of this place; none where there is none.
pub fn criu() -> Option<PathBuf> {
    if std::env::var("BRIG_TEST_PLACE").is_ok_and(|place| place == "criu") {
        return Some(std::env::var_os("CRIU").expect("$CRIU names the program of this place").into());
    }
    None
}

/// A scratch bundle, gone with the value, as are its containers.
pub struct Bundle {
    directory: tempfile::TempDir,
    pub name: String,
    pub spec: Value,
}

/// What a command ended with.
#[derive(Debug)]
pub struct Done {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    #[track_caller]
    pub fn fails(self, with: &str) {
        assert_ne!(self.status, 0, "{}", self.stdout);
        assert!(self.stderr.contains(with), "{}", self.stderr);
    }
}

/// The ends of a container's standard descriptors that are ours.
pub struct Ends {
    pub input: PipeWriter,
    pub output: BufReader<PipeReader>,
}

impl Ends {
    /// Sends a line and returns the answer.
    pub fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

impl Bundle {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("brig-checkpoint-").tempdir().unwrap();
        let name = directory.path().file_name().unwrap().to_string_lossy().into_owned();
        let root = directory.path().join("rootfs");
        for directory in ["bin", "proc", "dev", "sys", "etc", "tmp"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in ["sh", "cat", "echo", "ls", "sleep", "ip", "nc", "touch", "mount", "readlink", "grep", "true"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let spec = json!({
            "ociVersion": "1.2.0",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["sh", "-c", COUNTER],
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": {
                    "bounding": ["CAP_CHOWN", "CAP_KILL"],
                    "effective": ["CAP_CHOWN", "CAP_KILL"],
                    "permitted": ["CAP_CHOWN", "CAP_KILL"]
                },
                "noNewPrivileges": true
            },
            "root": {"path": "rootfs", "readonly": true},
            "hostname": "study",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]}
            ],
            "linux": {
                "cgroupsPath": format!("/brig-test/{name}"),
                "resources": {"pids": {"limit": 100}},
                "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
            }
        });
        Self { directory, name, spec }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Adds a mount to the configuration.
    pub fn mount(&mut self, destination: &str, source: &Path, options: &[&str]) {
        let mount = json!({"destination": destination, "type": "bind", "source": source, "options": options});
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
    }

    fn command(&self, words: &[&str]) -> Command {
        std::fs::write(self.path("config.json"), self.spec.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_brig-runtime"));
        command.current_dir(self.directory.path()).arg("--root").arg(self.path("run"));
        if let Some(criu) = criu() {
            command.arg("--criu").arg(criu);
        }
        command.args(words);
        command
    }

    /// Runs a command of the program on a container that has nothing of this process open.
    pub fn call(&self, words: &[&str]) -> Done {
        // What stays open in a container would keep a pipe from ending.
        let output = |name: &str| std::fs::File::create(self.path(name)).unwrap();
        let status =
            self.command(words).stdin(Stdio::null()).stdout(output("stdout")).stderr(output("stderr")).status();
        let text = |name: &str| std::fs::read_to_string(self.path(name)).unwrap();
        Done { status: status.unwrap().code().unwrap_or(-1), stdout: text("stdout"), stderr: text("stderr") }
    }

    /// Runs `run` or `restore`, with pipes as the container's standard descriptors.
    pub fn piped(&self, words: &[&str]) -> Ends {
        let mut child = self.piped_child(words);
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        assert!(child.1.wait().unwrap().success(), "{log}{}", std::fs::read_to_string(self.path("log")).unwrap());
        child.0
    }

    /// The same without waiting for the command.
    pub fn piped_child(&self, words: &[&str]) -> (Ends, std::process::Child) {
        let (stdin, input) = std::io::pipe().unwrap();
        let (output, stdout) = std::io::pipe().unwrap();
        let log = self.path("log");
        let mut all = vec!["--log", log.to_str().unwrap()];
        all.extend(words);
        let mut command = self.command(&all);
        let stderr = stdout.try_clone().unwrap();
        let child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
        drop(command);
        (Ends { input, output: BufReader::new(output) }, child)
    }

    /// Starts a detached container that counts.
    pub fn run(&self) -> Ends {
        self.piped(&["run", "-d", &self.name])
    }

    /// Restores it detached.
    pub fn restore(&self) -> Ends {
        self.piped(&["restore", "-d", "--image-path", "images", &self.name])
    }

    /// Writes it down.
    #[track_caller]
    pub fn checkpoint(&self) {
        self.call(&["checkpoint", "--image-path", "images", &self.name]).ok();
    }

    pub fn state(&self) -> Value {
        serde_json::from_str(&self.call(&["state", &self.name]).ok()).unwrap()
    }

    pub fn pid(&self) -> i64 {
        self.state()["pid"].as_i64().unwrap()
    }

    /// Reads a file of the container's first process below /proc.
    pub fn proc(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.pid())).unwrap()
    }

    /// Makes the socket that takes a terminal.
    pub fn console(&self) -> UnixListener {
        UnixListener::bind(self.path("console")).unwrap()
    }

    /// Asks for a restore that has to fail for this reason, and to leave nothing behind.
    #[track_caller]
    pub fn refuses(&self, why: &str) {
        self.call(&["restore", "-d", "--image-path", "images", &self.name]).fails(why);
        assert!(self.remains().is_empty(), "{why}: {:?}", self.remains());
    }

    /// What a container leaves behind: its directory, its cgroups, mounts.
    pub fn remains(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.path("run").join(&self.name).exists() {
            found.push("directory".to_owned());
        }
        let cgroup = self.cgroup();
        found.extend(cgroup.directories().filter(|d| d.exists()).map(|d| d.display().to_string()));
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(table.lines().filter(|line| line.contains(&self.name)).map(str::to_owned));
        found
    }

    fn cgroup(&self) -> brig_runtime::cgroup::Cgroup {
        brig_runtime::cgroup::Cgroup::open(Path::new(&format!("/brig-test/{}", self.name))).unwrap()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.call(&["delete", "-f", &self.name]);
        let cgroup = self.cgroup();
        let _ = cgroup.kill_all();
        let _ = cgroup.remove();
        for hierarchy in &cgroup.layout().hierarchies {
            let _ = std::fs::remove_dir(hierarchy.mount.join("brig-test"));
        }
    }
}
