//! What can go wrong with a registry.

use std::time::Duration;

use brig_spec::digest::Digest;

/// The reason why a request to a registry failed. No variant holds a URL's query, a header or a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client could not be set up.
    #[error("cannot set up the registry client: {0}")]
    Setup(String),
    /// The trusted certificates could not be read.
    #[error("cannot read the trusted certificates in `{path}`")]
    Certificates {
        /// The bundle.
        path: String,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The file of credentials is unreadable.
    #[error("cannot read the registry credentials in `{path}`: {reason}")]
    Credentials {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry could not be reached, or the connection broke.
    #[error("cannot reach registry `{host}`")]
    Unreachable {
        /// The host that was asked.
        host: String,
        /// What went wrong, without the URL.
        source: reqwest::Error,
    },
    /// The registry kept silent.
    #[error("registry `{host}` sent nothing for {} seconds", .after.as_secs())]
    Silent {
        /// The host that was asked.
        host: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// There is no such repository, tag or digest.
    #[error("registry `{host}` has no {what}")]
    NotFound {
        /// The host that was asked.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The registry wants credentials, or other ones, or the repository does not exist: many do not tell which.
    #[error("registry `{host}` denies access to {what}")]
    Denied {
        /// The host that was asked.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The registry limits the rate of requests.
    #[error("registry `{host}` has had too many requests{}", after_text(*.after))]
    RateLimited {
        /// The host that was asked.
        host: String,
        /// How long the registry wants to be left alone, if it says so.
        after: Option<Duration>,
    },
    /// The policy file forbids the registry.
    #[error("registry `{0}` is blocked by the policy file")]
    Blocked(String),
    /// A file of registries, mirrors or certificates cannot be used.
    #[error("cannot use `{path}`: {reason}")]
    Policy {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A program that keeps credentials failed.
    #[error("`{program} {action}` failed: {reason}")]
    Helper {
        /// The program.
        program: String,
        /// `get`, `store` or `erase`.
        action: &'static str,
        /// What it said, or what became of it.
        reason: String,
    },
    /// The registry does not know what was asked of it.
    #[error("registry `{host}` cannot do that: {reason}")]
    Unsupported {
        /// The host that was asked.
        host: String,
        /// What it does not know.
        reason: String,
    },
    /// What was to be sent could not be read.
    #[error("cannot read what is to be sent to registry `{host}`")]
    Source {
        /// The host that it was for.
        host: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// What came could not be written.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: String,
        /// What the file system said.
        source: std::io::Error,
    },
    /// Content that is wanted has no valid signature.
    #[error("{what} is not signed as the policy file wants it: {reason}")]
    Unsigned {
        /// The image.
        what: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// The registry answered with a status that has no meaning here.
    #[error("registry `{host}` answered with status {status} to a request for {what}{}", detail_text(.detail))]
    Status {
        /// The host that was asked.
        host: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// What the registry said about it, shortened; often nothing.
        detail: String,
    },
    /// The registry's answer makes no sense.
    #[error("registry `{host}` sent a bad answer: {reason}")]
    Protocol {
        /// The host that was asked.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest is larger than any that is needed.
    #[error("registry `{host}` sent more than {limit} bytes for {what}")]
    TooLarge {
        /// The host that was asked.
        host: String,
        /// What was asked for.
        what: String,
        /// The most bytes allowed.
        limit: u64,
    },
    /// A manifest is not what its digest says.
    #[error("registry `{host}` sent content with digest {found} for {expected}")]
    Digest {
        /// The host that was asked.
        host: String,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
}

impl Error {
    /// Tells whether the other side is not whom its certificate should make it.
    pub(crate) fn is_certificate(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if is_certificate(source))
    }

    /// Tells whether the same request may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => !source.is_builder() && !is_certificate(source),
            Self::Silent { .. } | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => (*status >= 500 && *status != 501) || *status == 408,
            _ => false,
        }
    }
}

/// The end of a sentence that tells what a registry said.
fn detail_text(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

/// The end of a sentence that tells how long a registry wants to be left alone.
fn after_text(after: Option<Duration>) -> String {
    after.map_or_else(String::new, |after| format!(", and asks to wait {} seconds", after.as_secs()))
}

/// Tells whether a connection failed because the other side is not whom it should be; asking again is no use.
fn is_certificate(error: &reqwest::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.to_string().to_ascii_lowercase().contains("certificate") {
            return true;
        }
        source = error.source();
    }
    false
}
