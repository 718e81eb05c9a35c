//! Failures of the store and of registries as failures of a use case.

use std::io;

use crate::error::{Error, Kind};

/// Turns a failure of the store into one of a use case; `message` says what was being done, on what.
pub(crate) fn store(message: impl Into<String>, error: brig_store::Error) -> Error {
    use brig_store::Error as E;
    let message = message.into();
    let full = || "make room on the disk: `brig image prune` removes what nothing uses".to_owned();
    let is_full = |source: &io::Error| source.kind() == io::ErrorKind::StorageFull;
    let (kind, hint) = match &error {
        E::NoSuchImage(_) => (Kind::NotFound, Some("see `brig images` for those that are here".to_owned())),
        E::Ambiguous(_) => (Kind::InvalidArgument, Some("give more digits of the id".to_owned())),
        E::InUse { .. } => (Kind::Conflict, Some("remove what uses it first, or force it with `-f`".to_owned())),
        E::Busy(_) => (Kind::Unavailable, None),
        E::Cancelled => (Kind::Cancelled, None),
        E::Fetch { source, .. } => return fetch(message, error_of(source), error),
        E::Io { source, .. } | E::Layer { source: brig_store::Fault::Io { source, .. }, .. } => match source.kind() {
            _ if is_full(source) => (Kind::Internal, Some(full())),
            io::ErrorKind::NotFound => (Kind::NotFound, None),
            io::ErrorKind::PermissionDenied => (Kind::PermissionDenied, None),
            _ => (Kind::Internal, None),
        },
        E::Digest { .. } | E::Size { .. } => {
            (Kind::Unavailable, Some("what was received is not what was announced; nothing of it was kept".to_owned()))
        }
        E::Layer { .. } | E::Document { .. } | E::Malformed { .. } | E::Archive { .. } | E::ArchiveTar { .. } => {
            (Kind::InvalidArgument, None)
        }
        E::Users { source } => match source.downcast_ref::<Error>() {
            Some(error) => (error.kind, error.hint.clone()),
            None => (Kind::Internal, None),
        },
        E::Record { .. } => (Kind::Internal, Some("remove that file to give the record up".to_owned())),
    };
    with_hint(Error::new(kind, message).because(error), hint)
}

/// Turns a failure of a registry into one of a use case.
pub(super) fn registry(message: impl Into<String>, error: brig_registry::Error) -> Error {
    let (kind, hint) = registry_kind(&error);
    let message = message.into();
    if let brig_registry::Error::Unreachable { source, .. } = &error {
        // Of the many layers of an HTTP client, the innermost names the cause.
        let mut innermost: &dyn std::error::Error = source;
        while let Some(deeper) = innermost.source() {
            innermost = deeper;
        }
        let cause = Error::new(kind, error.to_string()).reason(innermost.to_string());
        return with_hint(Error::new(kind, message).because(cause), hint);
    }
    with_hint(Error::new(kind, message).because(error), hint)
}

/// A blob could not be fetched: the kind is that of the registry's failure, if it was one.
fn fetch(message: String, kind: (Kind, Option<String>), error: brig_store::Error) -> Error {
    with_hint(Error::new(kind.0, message).because(error), kind.1)
}

fn error_of(source: &io::Error) -> (Kind, Option<String>) {
    match source.get_ref().and_then(|inner| inner.downcast_ref::<brig_registry::Error>()) {
        Some(error) => registry_kind(error),
        None => (Kind::Unavailable, None),
    }
}

fn registry_kind(error: &brig_registry::Error) -> (Kind, Option<String>) {
    use brig_registry::Error as E;
    match error {
        E::NotFound { .. } => (Kind::NotFound, Some("check the name and the tag".to_owned())),
        E::Denied { .. } => (
            Kind::PermissionDenied,
            Some("check the name, or log in: the repository may not exist or be private".to_owned()),
        ),
        E::Unreachable { .. } => (Kind::Unavailable, Some("check the registry's address and the network".to_owned())),
        E::Silent { .. } => (Kind::Unavailable, Some("try again later".to_owned())),
        E::RateLimited { .. } => {
            (Kind::Unavailable, Some("try again later, or log in: many registries then allow more".to_owned()))
        }
        E::Blocked(_) | E::Unsigned { .. } => (Kind::PermissionDenied, None),
        E::Unsupported { .. } => (Kind::Unsupported, None),
        E::Source { source, .. } => error_of(source),
        E::Write { source, .. } => (Error::io("", source.kind()).kind, None),
        E::Status { .. } | E::Protocol { .. } | E::TooLarge { .. } | E::Digest { .. } => (Kind::Unavailable, None),
        E::Setup(_) => (Kind::Internal, None),
        E::Certificates { .. } => (Kind::Internal, Some("install the package ca-certificates".to_owned())),
        E::Policy { .. } | E::Helper { .. } | E::Credentials { .. } => (Kind::InvalidArgument, None),
    }
}

fn with_hint(error: Error, hint: Option<String>) -> Error {
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
