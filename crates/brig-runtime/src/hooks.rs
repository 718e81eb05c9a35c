//! Hooks: programs that the configuration names for moments of a container's life; runtime specification, config.md, "POSIX-platform Hooks".
//!
//! ```text
//! prestart, createRuntime   the maker, in its own namespaces, when the container's mounts stand
//! createContainer           the container's first process, in its namespaces, before pivot_root
//! startContainer            the same process, inside, after the word to start, with the container's user and capabilities
//! poststart                 whoever starts it, in its own namespaces, when the program runs
//! poststop                  whoever deletes it
//! ```
//!
//! A hook gets the state as JSON on its standard input, the environment of its own entry and nothing of the container's
//! (CVE-2024-0132, CVE-2025-23266), and no descriptor of ours. Those of the machine begin in the
//! bundle, createContainer hooks in the container's root, startContainer hooks in `/`. Only startContainer hooks, which are
//! the image's own programs with the process's own rights, have the process's environment when they name none.

use crate::error::{Context, Error};
use brig_spec::runtime::{Hook, Hooks, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// How much of a failed hook's words an error repeats, bytes.
const MOST_WORDS: u64 = 2048;

/// The moments at which hooks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the specification's own names
pub enum Moment {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Moment {
    /// The name as the configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// The hooks of this moment.
    pub fn of(self, hooks: &Hooks) -> &[Hook] {
        match self {
            Self::Prestart => &hooks.prestart,
            Self::CreateRuntime => &hooks.create_runtime,
            Self::CreateContainer => &hooks.create_container,
            Self::StartContainer => &hooks.start_container,
            Self::Poststart => &hooks.poststart,
            Self::Poststop => &hooks.poststop,
        }
    }
}

/// What the state says of a container beside its status; runtime.md, "State".
#[derive(Debug, Clone)]
pub struct Description {
    fields: serde_json::Map<String, serde_json::Value>,
}

impl Description {
    /// Describes the container `id` of the bundle at `bundle` (an absolute path).
    pub fn new(id: &str, bundle: &Path, spec: &Spec) -> Self {
        let mut fields = serde_json::Map::new();
        fields.insert("ociVersion".into(), spec.version.clone().into());
        fields.insert("id".into(), id.into());
        fields.insert("bundle".into(), bundle.to_string_lossy().into_owned().into());
        if !spec.annotations.is_empty() {
            let annotations = spec.annotations.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
            fields.insert("annotations".into(), serde_json::Value::Object(annotations));
        }
        Self { fields }
    }

    /// The container's identifier.
    pub fn id(&self) -> &str {
        self.fields.get("id").and_then(serde_json::Value::as_str).unwrap_or_default()
    }

    /// The bundle, in which hooks of the machine begin.
    pub fn bundle(&self) -> &Path {
        Path::new(self.fields.get("bundle").and_then(serde_json::Value::as_str).unwrap_or("/"))
    }

    /// The state with this status (`creating`, `created`, `running`, `stopped`) and pid; 0 for none.
    pub fn state(&self, status: &str, pid: i32) -> serde_json::Value {
        let mut fields = self.fields.clone();
        fields.insert("status".into(), status.into());
        if pid != 0 {
            fields.insert("pid".into(), pid.into());
        }
        serde_json::Value::Object(fields)
    }
}

/// Runs the hooks of a moment in order, each to its end and beginning in `directory`. Errors: the first that fails or outlives its
/// time limit.
pub fn run(moment: Moment, hooks: &[Hook], state: &serde_json::Value, directory: &Path) -> Result<(), Error> {
    for (at, hook) in hooks.iter().enumerate() {
        run_one(hook, state, directory)
            .map_err(|why| io::Error::other(format!("error running {} hook #{at}: {why}", moment.name())))
            .step(|| "go through with the container".into())?;
    }
    Ok(())
}

/// Runs one hook; what went wrong comes back as text.
fn run_one(hook: &Hook, state: &serde_json::Value, directory: &Path) -> Result<(), String> {
    let text = |error: io::Error| format!("{}: {error}", hook.path.display());
    if !hook.path.is_absolute() {
        return Err(format!("the path {} is not absolute", hook.path.display()));
    }
    let mut words = memory_file(b"").map_err(text)?;
    let both = |file: &File| file.try_clone().map(Stdio::from);
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .envs(hook.env.iter().flatten().map(|entry| entry.split_once('=').unwrap_or((entry, ""))))
        .current_dir(directory)
        .stdin(memory_file(state.to_string().as_bytes()).map_err(text)?)
        .stdout(both(&words).map_err(text)?)
        .stderr(both(&words).map_err(text)?);
    let mut child = command.spawn().map_err(text)?;
    let limit = hook.timeout.map(|seconds| rustix::time::Timespec { tv_sec: seconds, tv_nsec: 0 });
    if let Some(limit) = limit {
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pidfd = pid.ok_or(rustix::io::Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let ended = pidfd.and_then(|fd| poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)));
        if !matches!(ended, Ok(1)) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{} did not end within {} s and was killed", hook.path.display(), limit.tv_sec));
        }
    }
    let status = child.wait().map_err(text)?;
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    let _ = words.rewind().and_then(|()| words.take(MOST_WORDS).read_to_end(&mut said));
    let said = String::from_utf8_lossy(&said);
    Err(format!("{}, output: {}", told(status), said.trim_end()))
}

/// How a program ended, in the words that people know from their shells.
fn told(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    let Some(signal) = status.signal() else { return status.to_string() };
    let word = match signal {
        6 => "aborted",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        15 => "terminated",
        31 => "bad system call",
        _ => return status.to_string(),
    };
    format!("signal: {signal} ({word})")
}

/// A file in memory: unlike a pipe it neither fills up nor stays open for what a hook leaves running.
fn memory_file(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("brig-hook", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<i64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: Some(vec!["A=1".into()]),
            timeout,
        }
    }

    #[test]
    fn a_hook_gets_the_state_and_its_own_environment_only() {
        let state = serde_json::json!({"id": "x"});
        let script = r#"test "$(cat)" = '{"id":"x"}' && test "$A" = 1 && test -z "$CARGO_PKG_NAME" && test "$PWD" = /"#;
        run(Moment::Prestart, &[hook(script, Some(10))], &state, Path::new("/")).unwrap();
    }

    #[test]
    fn a_failure_names_the_hook_and_its_words() {
        let error = run(
            Moment::Poststart,
            &[hook("true", None), hook("echo no; exit 3", None)],
            &serde_json::Value::Null,
            Path::new("/"),
        )
        .unwrap_err()
        .source
        .to_string();
        assert!(error.contains("error running poststart hook #1: exit status: 3, output: no"), "{error}");
    }

    #[test]
    fn a_hook_that_hangs_is_ended() {
        let error =
            run(Moment::Prestart, &[hook("exec sleep 1000", Some(1))], &serde_json::Value::Null, Path::new("/"))
                .unwrap_err();
        assert!(error.source.to_string().contains("did not end within 1 s"), "{error:?}");
    }
}
