//! What ends a command: one line of text, as the callers of OCI runtimes read it, and the exit status.

use brig_monitor::chain::one_line;
use brig_runtime::Kind;
use std::fmt;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    /// The exit status.
    pub status: u8,
    /// What a shell would say, when all that failed is the program's execution.
    pub bare: Option<String>,
}

impl Failure {
    /// A failure with exit status 1.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), status: 1, bare: None }
    }

    /// The same with another exit status.
    pub fn with_status(self, status: u8) -> Self {
        Self { status, ..self }
    }

    /// Says in front what was being done.
    pub fn during(self, what: &str) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }

    /// Says what was being done, on what, and why it failed.
    pub fn step(step: impl fmt::Display, cause: &dyn std::error::Error) -> Self {
        Self::new(format!("cannot {step}: {}", one_line(cause)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<brig_runtime::Error> for Failure {
    fn from(error: brig_runtime::Error) -> Self {
        if let Some((bare, why)) = not_loaded(&error) {
            return Self { bare: Some(bare.clone()), ..Self::new(format!("{bare} ({why})")) };
        }
        Self::new(not_executed(&error).or_else(|| not_mounted(&error)).unwrap_or_else(|| one_line(&error)))
    }
}

/// A mount that failed, in the words that callers look for.
fn not_mounted(error: &brig_runtime::Error) -> Option<String> {
    let what = ["mount ", "bind "].into_iter().find_map(|verb| error.step.strip_prefix(verb))?;
    Some(format!("error mounting {what}: {}", one_line(&error.source)))
}

/// A command that was found and that the kernel would not execute: what a shell says, and why.
fn not_loaded(error: &brig_runtime::Error) -> Option<(String, String)> {
    let name = error.step.strip_prefix("execute `")?.strip_suffix('`')?;
    let cause = error.source.to_string();
    if cause.starts_with("it is neither") {
        Some((format!("exec {name}: exec format error"), cause))
    } else if cause.starts_with("it exists, but") {
        Some((format!("exec {name}: no such file or directory"), cause))
    } else {
        None
    }
}

/// A command that could not be executed, in the words by which engines tell 126 from 127.
fn not_executed(error: &brig_runtime::Error) -> Option<String> {
    let name = error.step.strip_prefix("execute `")?.strip_suffix('`')?;
    let cause = error.source.to_string();
    Some(match error.kind {
        Kind::Setup => return None,
        Kind::NotFound if !name.contains('/') => {
            format!("exec: {name:?}: executable file not found in $PATH ({cause})")
        }
        Kind::NotFound => format!("exec {name}: no such file or directory ({cause})"),
        Kind::NotExecutable if cause.starts_with("it is neither") => {
            format!("exec {name}: exec format error ({cause})")
        }
        Kind::NotExecutable => format!("exec: {name:?}: permission denied ({cause})"),
    })
}

/// Adds to an error of the system what was being done.
pub(crate) trait Step<T> {
    /// Names the step, made only upon failure.
    fn step<S: fmt::Display>(self, step: impl FnOnce() -> S) -> Result<T, Failure>;
}

impl<T, E: Into<std::io::Error>> Step<T> for Result<T, E> {
    fn step<S: fmt::Display>(self, step: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|error| Failure::step(step(), &error.into()))
    }
}
