//! What ends a command: one line of text, as the callers of OCI runtimes read it, and the exit status.

use std::fmt;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    /// The exit status.
    pub status: u8,
}

impl Failure {
    /// A failure with exit status 1.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), status: 1 }
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
        Self::new(format!("cannot {step}: {}", brig_monitor::chain::one_line(cause)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<brig_runtime::Error> for Failure {
    fn from(error: brig_runtime::Error) -> Self {
        Self::new(brig_monitor::chain::one_line(&error))
    }
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
