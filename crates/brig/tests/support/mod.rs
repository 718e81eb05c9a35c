//! An engine of its own for each test: directories, a network namespace, a busybox image; and the proof that nothing is left.
//!
//! ```text
//!   /tmp/brig-e2e-XXXXXX/   root/  run/  home/  and whatever the test writes
//!   the test's thread       in a network namespace of its own, with loopback up; so is all that it starts
//!   drop                    `brig rm -f` of all, `brig network prune`; then every process, mount, cgroup and link is looked for
//! ```

#![allow(dead_code, clippy::unwrap_used, clippy::new_without_default, missing_docs)] // each test file uses a part

pub mod pty;
pub mod world;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for anything that ends at all, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The beginning of the names of all directories of such engines.
const PREFIX: &str = "brig-e2e-";

const APPLETS: &[&str] = &[
    "ash", "awk", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "dirname", "echo", "env", "expr", "false",
    "find", "grep", "head", "hostname", "id", "ifconfig", "ip", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod",
    "mount", "mv", "nc", "nproc", "ping", "printf", "ps", "pwd", "readlink", "rm", "route", "sed", "seq", "sh",
    "sleep", "sort", "stat", "stty", "sync", "tail", "tee", "test", "timeout", "touch", "tr", "true", "tty", "umount",
    "uname", "unshare", "wc", "wget", "which", "whoami", "yes",
];

/// What a command has said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit status; 128 and the signal for one that was killed.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Panics unless it succeeded silently; returns standard output without the last line's end.
    #[track_caller]
    pub fn ok(&self) -> String {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "standard output: {}", self.stdout);
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// Panics unless it failed with this status and exactly this text on standard error.
    #[track_caller]
    pub fn fails(&self, status: i32, text: &str) {
        assert_eq!((self.status, self.stderr.as_str()), (status, text), "standard output: {}", self.stdout);
    }
}

/// An engine, gone with the value.
pub struct Engine {
    pub directory: tempfile::TempDir,
    home: Option<OwnedFd>,
    cgroups: BTreeSet<PathBuf>,
    /// `BRIG_LAYERS`.
    pub layers: &'static str,
}

#[expect(deprecated, reason = "the safe face of unshare; only NEWNET is asked for, which concerns this thread alone")]
pub fn leave_network() {
    rustix::thread::unshare(UnshareFlags::NEWNET).expect("the tests need root");
}

pub fn this_network() -> OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
}

impl Engine {
    /// An engine without images.
    pub fn bare() -> Self {
        let home = this_network();
        leave_network();
        sh("ip link set lo up");
        let mut engine = Self::beside();
        engine.home = Some(home);
        engine
    }

    /// A further engine in the network namespace of this thread.
    pub fn beside() -> Self {
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir().unwrap();
        for name in ["root", "run", "home"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory, home: None, cgroups: cgroups(), layers: "" }
    }

    /// An engine with the image `busybox`.
    pub fn new() -> Self {
        let engine = Self::bare();
        engine.import();
        engine
    }

    /// The same, with layers that can be looked into, and spoiled, as directories.
    pub fn on_directories() -> Self {
        let mut engine = Self::bare();
        engine.layers = "directories";
        engine.import();
        engine
    }

    /// Imports the image `busybox`.
    pub fn import(&self) {
        let tar = self.path("busybox.tar");
        std::fs::write(&tar, testkit::image::busybox_layer(APPLETS)).unwrap();
        self.brig(&["import", "-c", "CMD [\"sh\"]", tar.to_str().unwrap(), "busybox"]).ok();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A `brig` that is about to be run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.prepare(Path::new(env!("CARGO_BIN_EXE_brig")), arguments)
    }

    /// Any program, in the environment of this engine.
    pub fn prepare(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path("home"))
            .env("BRIG_ROOT", self.path("root"))
            .env("BRIG_RUN", self.path("run"))
            .env("BRIG_LAYERS", self.layers)
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `brig` to its end.
    #[track_caller]
    pub fn brig(&self, arguments: &[&str]) -> Output {
        finish(self.command(arguments), b"", arguments)
    }

    /// Runs `brig` with something on its standard input, which then ends.
    #[track_caller]
    pub fn brig_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        finish(self.command(arguments), input, arguments)
    }

    /// Runs a shell script in a fresh container of busybox, with these flags: its output.
    #[track_caller]
    pub fn sh(&self, flags: &[&str], script: &str) -> Output {
        self.brig(&[&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat())
    }

    /// Starts `brig` and leaves it running.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts a container in the background that waits.
    #[track_caller]
    pub fn idle(&self, name: &str, flags: &[&str]) -> String {
        self.brig(&[&["run", "-d", "--name", name], flags, &["busybox", "sleep", "1000"]].concat()).ok()
    }

    /// One field of a container.
    #[track_caller]
    pub fn inspect(&self, name: &str, template: &str) -> String {
        self.brig(&["inspect", "-f", template, name]).ok()
    }

    /// Waits until one field of a container is as wanted.
    #[track_caller]
    pub fn until(&self, name: &str, template: &str, wanted: &str) {
        let mut last = String::new();
        let is = || {
            self.brig(&["inspect", "-f", template, name]).stdout.trim_end().clone_into(&mut last);
            last == wanted
        };
        assert!(patiently(is), "{template} of {name} is `{last}`, not `{wanted}`");
    }

    /// The value of one file of a container's cgroup, in whichever hierarchy has it.
    #[track_caller]
    pub fn cgroup(&self, name: &str, files: &[&str]) -> String {
        let id = self.inspect(name, "{{.Id}}");
        let all = cgroups();
        let found = all.iter().filter(|d| d.ends_with(format!("brig/{id}")));
        let mut texts = found.flat_map(|d| files.iter().filter_map(move |f| std::fs::read_to_string(d.join(f)).ok()));
        texts.next().unwrap_or_else(|| panic!("no file of {files:?} among {all:?}")).trim_end().to_owned()
    }

    /// The names in a directory below the engine's.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(directory))
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The bytes of downloads that were broken off, which the next attempt goes on from.
    pub fn downloaded(&self) -> u64 {
        let parts = self.names("root/tmp").into_iter().filter(|name| name.rsplit('.').next() == Some("part"));
        // One may be gone by now.
        parts.filter_map(|name| self.path("root/tmp").join(name).metadata().ok()).map(|part| part.len()).sum()
    }

    /// Removes all containers and the bridge.
    pub fn clear(&self) {
        let ids = self.brig(&["ps", "-aq", "--no-trunc"]);
        let ids: Vec<&str> = ids.stdout.lines().collect();
        if !ids.is_empty() {
            let removed = self.brig(&[&["rm", "-f", "-v"], ids.as_slice()].concat());
            assert_eq!((removed.status, removed.stderr.as_str()), (0, ""), "`brig rm -f` removes everything");
        }
        self.brig(&["network", "prune", "-f"]).ok();
        // Layers stay mounted for the next container, which does not come.
        self.brig(&["image", "unmount", "--all"]).ok();
    }

    /// Everything of this engine's containers that is still there. Layers are not theirs, and stay mounted for the next one.
    pub fn remains(&self) -> Vec<String> {
        let mut left = Vec::new();
        let own = self.directory.path().to_str().unwrap();
        let is_layer =
            |line: &str| line.contains(&format!("{own}/run/mnt/layers/")) || line.contains(&format!(" {own}/run/mnt "));
        let is_own = |text: &str| text.lines().any(|line| line.contains(own) && !is_layer(line));
        for directory in
            ["root/containers", "root/containers/.names", "root/ids", "run/containers", "run/mnt/images", "root/tmp"]
        {
            let names =
                self.names(directory).into_iter().filter(|name| name != ".names" && !name.starts_with("sha256-"));
            left.extend(names.map(|name| format!("{directory}/{name}")));
        }
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = process.file_name().to_str().unwrap_or_default().parse::<u32>() else { continue };
            if pid == std::process::id() {
                continue;
            }
            for file in ["cmdline", "environ", "mountinfo"] {
                let text = std::fs::read(process.path().join(file)).unwrap_or_default();
                if is_own(&String::from_utf8_lossy(&text)) {
                    let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                    let line = String::from_utf8_lossy(&line).replace('\0', " ");
                    left.push(format!("process {pid} (`{line}`) by its {file}"));
                    break;
                }
            }
        }
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|l| is_own(l) && !l.contains("e2e-own")).map(|l| format!("mount {l}")));
        // A cgroup that is empty, and that no engine of a test knows, is left over.
        for cgroup in cgroups().difference(&self.cgroups) {
            let id = cgroup.file_name().unwrap_or_default();
            let known = engines().iter().any(|e| e.join("root/containers").join(id).exists());
            let empty = std::fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|p| p.is_empty());
            if empty && !known {
                left.push(format!("cgroup {}", cgroup.display()));
            }
        }
        if self.home.is_some() {
            let links = sh("ip -o link");
            let brigs = links.lines().filter(|l| l.contains("brig") || l.contains("veth"));
            left.extend(brigs.map(|l| format!("link {l}")));
        }
        left
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let before = if std::thread::panicking() { None } else { Some(()) };
        if before.is_some() {
            self.clear();
            let mut left = Vec::new();
            let gone = patiently_for(Duration::from_secs(10), || {
                left = self.remains();
                left.is_empty()
            });
            assert!(gone, "left behind: {left:#?}");
        } else {
            // The test has failed already: only clean up.
            let ids = self.command(&["ps", "-aq", "--no-trunc"]).output();
            let ids = String::from_utf8_lossy(&ids.map(|o| o.stdout).unwrap_or_default()).into_owned();
            for id in ids.lines() {
                let _ = self.command(&["rm", "-f", "-v", id]).output();
            }
            let _ = self.command(&["image", "unmount", "--all"]).output();
        }
        if let Some(home) = &self.home {
            let _ = move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network));
        }
    }
}

/// Directories of all engines of tests.
fn engines() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX)).map(|e| e.path()).collect()
}

/// The cgroups of all containers, in every hierarchy.
fn cgroups() -> BTreeSet<PathBuf> {
    let mut hierarchies = vec![PathBuf::from("/sys/fs/cgroup")];
    hierarchies.extend(std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path()));
    let below = |h: PathBuf| std::fs::read_dir(h.join("brig")).into_iter().flatten().flatten().map(|e| e.path());
    hierarchies.into_iter().flat_map(below).filter(|p| p.is_dir()).collect()
}

/// Asks until the answer is yes, within bounds.
pub fn patiently(question: impl FnMut() -> bool) -> bool {
    patiently_for(Duration::from_secs(30), question)
}

pub fn patiently_for(bound: Duration, mut question: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < bound {
        if question() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    question()
}

/// Runs a shell line in the calling thread's namespaces and gives its output; panics when it fails.
#[track_caller]
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Feeds a command and reads it to the end, within bounds.
#[track_caller]
fn finish(mut command: Command, input: &[u8], what: &[&str]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // Its reader may end before it has read all.
    std::thread::spawn(move || stdin.write_all(&input).is_ok());
    collect(child, what)
}

/// Reads a child to its end, within bounds.
#[track_caller]
pub fn collect(mut child: Child, what: &[&str]) -> Output {
    let drain = |stream: Option<Box<dyn Read + Send>>| {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut bytes);
            }
            let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        receiver
    };
    let stdout = drain(child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let stderr = drain(child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("`brig {}` does not end: {:?} {:?}", what.join(" "), stdout.recv(), stderr.recv());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let held = |_| panic!("`brig {}` has ended, and something still holds its output", what.join(" "));
    let stdout = stdout.recv_timeout(PATIENCE).unwrap_or_else(held);
    let stderr = stderr.recv_timeout(PATIENCE).unwrap_or_else(held);
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    Output { status: status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default()), stdout, stderr }
}
