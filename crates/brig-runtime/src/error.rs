//! What can go wrong between a configuration and a running process.

use std::io;

/// Which of Docker's exit statuses a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The container could not be set up: 125.
    Setup = 125,
    /// The command exists and cannot be executed: 126.
    NotExecutable = 126,
    /// The command does not exist: 127.
    NotFound = 127,
}

impl Kind {
    /// Reads the exit status form.
    pub fn from_status(status: u8) -> Self {
        match status {
            126 => Self::NotExecutable,
            127 => Self::NotFound,
            _ => Self::Setup,
        }
    }
}

/// A failed step, with the object it was about.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub struct Error {
    /// Whose fault it is.
    pub kind: Kind,
    /// What was being done, on what: `mount tmpfs on /dev`.
    pub step: String,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl Error {
    /// Makes an error of set-up.
    pub fn setup(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { kind: Kind::Setup, step: step.into(), source: source.into() }
    }

    /// Makes an error about a configuration that asks for what cannot be.
    pub fn invalid(step: impl Into<String>, why: impl Into<String>) -> Self {
        Self::setup(step, io::Error::new(io::ErrorKind::InvalidInput, why.into()))
    }

    /// Writes the error for the other side of the handshake: status, errno, step, NUL, text of the cause.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind as u8];
        bytes.extend(self.source.raw_os_error().unwrap_or(0).to_le_bytes());
        bytes.extend(self.step.as_bytes());
        if self.source.raw_os_error().is_none() {
            bytes.push(0);
            bytes.extend(self.source.to_string().as_bytes());
        }
        bytes.truncate(2000);
        bytes
    }

    /// Reads what `to_bytes` wrote.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let kind = Kind::from_status(bytes.first().copied().unwrap_or(125));
        let errno = bytes.get(1..5).and_then(|b| b.try_into().ok()).map_or(0, i32::from_le_bytes);
        let text = String::from_utf8_lossy(bytes.get(5..).unwrap_or_default()).into_owned();
        let (step, cause) = text.split_once('\0').unwrap_or((&text, ""));
        let source = if errno == 0 { io::Error::other(cause.to_owned()) } else { io::Error::from_raw_os_error(errno) };
        Self { kind, step: step.to_owned(), source }
    }
}

/// Adds the step to an error of the kernel.
pub trait Context<T> {
    /// Names the step, made only upon failure.
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::setup(step(), source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_the_handshake_whole() {
        let error = Error { kind: Kind::NotFound, step: "execute `x`".into(), source: io::Error::from_raw_os_error(2) };
        let back = Error::from_bytes(&error.to_bytes());
        assert_eq!(
            (back.kind, back.step.as_str(), back.source.raw_os_error()),
            (Kind::NotFound, "execute `x`", Some(2))
        );
        let back = Error::from_bytes(&Error::invalid("parse it", "it is odd").to_bytes());
        assert_eq!((back.step.as_str(), back.source.to_string().as_str()), ("parse it", "it is odd"));
    }
}
