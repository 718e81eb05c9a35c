//! An engine of a test's own: root, run directory and a busybox image below one scratch directory, removed at the end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A scratch engine.
pub struct Sandbox {
    dir: tempfile::TempDir,
}

/// Reads bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const APPLETS: [&str; 24] = [
    "sh", "ls", "cat", "sleep", "echo", "true", "id", "ps", "wc", "grep", "hostname", "kill", "touch", "mkdir", "dd",
    "seq", "stat", "stty", "env", "ping", "ip", "nc", "wget", "printf",
];

/// Makes the image's tar: Debian's static busybox, linked to the names of its applets.
fn rootfs() -> Vec<u8> {
    let busybox = std::fs::read("/usr/bin/busybox").expect("the package busybox-static is installed");
    let mut tar = testkit::image::Layer::new()
        .directory("bin", 0o755)
        .directory("etc", 0o755)
        .directory("tmp", 0o1777)
        .program("bin/busybox", busybox)
        .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/bin/sh\n")
        .file("etc/group", "root:x:0:\n");
    for applet in APPLETS {
        tar = tar.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    tar.finish()
}

impl Sandbox {
    /// Makes an engine with the image `bb`.
    pub fn new() -> Self {
        let sandbox = Self { dir: tempfile::Builder::new().prefix("brig-test-").tempdir().unwrap() };
        let tar = sandbox.dir.path().join("rootfs.tar");
        std::fs::write(&tar, rootfs()).unwrap();
        sandbox.run(&["import", tar.to_str().unwrap(), "bb", "-c", "CMD [\"sh\"]"]);
        sandbox
    }

    /// The engine's root.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Prepares a command line.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_brig"));
        command.args(arguments).env_clear().env("BRIG_ROOT", self.root()).env("BRIG_RUN", self.dir.path().join("run"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command line, whatever comes of it.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command line that must succeed, and returns what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        assert!(output.status.success(), "{arguments:?}: {} {}", output.status, text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a command line that must fail, and returns the error.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// Runs a command line with standard input, which is written while the output is read.
    pub fn with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input));
            child.wait_with_output().unwrap()
        })
    }

    /// Kills a process that belongs to this sandbox, and waits until it is gone.
    pub fn kill(pid: i32) {
        assert!(pid > 1);
        let id = brig_monitor::state::ProcessId::of(pid).unwrap();
        brig_sys::signals::send(pid, 9).unwrap();
        Self::until(Duration::from_secs(10), || !id.is_alive());
    }

    /// Waits until something holds, with a bound.
    pub fn until(bound: Duration, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + bound;
        while !holds() {
            assert!(Instant::now() < deadline, "it did not come to be within {bound:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asserts that no container, name, id, volume or run directory is left.
    pub fn nothing_left(&self) {
        for place in
            ["root/containers", "root/containers/.names", "root/ids", "root/volumes", "root/tmp", "run/containers"]
        {
            let path = self.dir.path().join(place);
            let here = || entries(&path);
            // A `--rm` container is cleared away by its monitor, which may still be at it.
            let deadline = Instant::now() + Duration::from_secs(10);
            while !here().is_empty() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(here().is_empty(), "{place}: {:?}", here());
        }
    }
}

fn entries(path: &Path) -> Vec<String> {
    let list = std::fs::read_dir(path).into_iter().flatten().flatten();
    list.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n != ".names").collect()
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A failed test leaves nothing behind either.
        let ids = text(&self.try_run(&["ps", "-aq", "--no-trunc"]).stdout);
        for id in ids.lines() {
            let _ = self.try_run(&["rm", "-f", "-v", id]);
        }
        // Layers stay mounted for the next container.
        let _ = self.try_run(&["image", "unmount", "--all"]);
    }
}
