//! What a use case answers when it fails: a kind for programs, and a text of up to three lines for people.
//!
//! ```text
//!   error: cannot start container `web`                                              message
//!     because: port 8080 on 0.0.0.0 is already in use by container `old-web`          the chain of sources
//!   hint: stop it with `brig stop old-web`, or publish another port with `-p`         hint
//! ```
//!
//! The three tables that turn a kind outward (exit code, HTTP status, gRPC code) belong to the front doors.

use std::error::Error as StdError;
use std::fmt;

/// A result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it is, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The object does not exist.
    NotFound,
    /// The object's state or another object forbids it.
    Conflict,
    /// What was asked makes no sense.
    InvalidArgument,
    /// The kernel, a registry or a policy refused.
    PermissionDenied,
    /// Something outside is out of reach for now; trying again may help.
    Unavailable,
    /// This machine or this build cannot do it.
    Unsupported,
    /// The caller gave up.
    Cancelled,
    /// brig or the machine failed.
    Internal,
}

/// A failed use case.
#[derive(Debug)]
pub struct Error {
    /// The kind, for programs.
    pub kind: Kind,
    /// What was being done, on what object.
    pub message: String,
    /// Why it failed.
    pub because: Option<Box<dyn StdError + Send + Sync>>,
    /// What the user can do.
    pub hint: Option<String>,
    /// The exit status that a container's program would have had: 126 or 127 for a command that could not be started.
    pub exit_code: Option<u8>,
}

/// A cause that is only a text: what another process told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Reason(pub String);

impl Error {
    /// Makes an error of a kind with what was being done.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), because: None, hint: None, exit_code: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.because = Some(cause.into());
        self
    }

    /// Adds a cause that is only a text.
    #[must_use]
    pub fn reason(self, text: impl Into<String>) -> Self {
        self.because(Reason(text.into()))
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Makes an error of [`Kind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Makes an error of [`Kind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// Makes an error of [`Kind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    /// Makes an error of [`Kind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Makes an error of a failed system call or file operation; its kind follows from the error number.
    pub fn io(message: impl Into<String>, cause: impl Into<std::io::Error>) -> Self {
        let cause = cause.into();
        let kind = match cause.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
            std::io::ErrorKind::AlreadyExists => Kind::Conflict,
            std::io::ErrorKind::Unsupported => Kind::Unsupported,
            _ => Kind::Internal,
        };
        let hint = (cause.kind() == std::io::ErrorKind::StorageFull)
            .then(|| "make room on the disk: `brig prune` removes what nothing uses".to_owned());
        Self { hint, ..Self::new(kind, message).because(cause) }
    }

    /// Returns the causes below the message, the nearest first, each text once.
    pub fn causes(&self) -> Vec<String> {
        let mut texts = Vec::new();
        let mut next = self.because.as_deref().map(|b| b as &(dyn StdError + 'static));
        while let Some(cause) = next {
            let text = cause.to_string();
            if !text.is_empty() && texts.last() != Some(&text) {
                texts.push(text);
            }
            next = cause.source();
        }
        texts
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.because.as_deref().map(|b| b as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_listed_once_and_in_order() {
        let inner = Error::internal("cannot bind").reason("address in use");
        let outer = Error::conflict("cannot start container `web`").because(inner);
        assert_eq!(outer.to_string(), "cannot start container `web`");
        assert_eq!(outer.causes(), ["cannot bind", "address in use"]);
    }

    #[test]
    fn a_full_disk_has_a_hint() {
        let error = Error::io("cannot write record", std::io::Error::from_raw_os_error(28));
        assert_eq!(error.kind, Kind::Internal);
        assert!(error.hint.is_some());
    }
}
