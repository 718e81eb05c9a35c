//! What a user should hear while a request takes longer than it should.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Something that happened below a request that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The registry limits the rate; the request is made again after the wait.
    RateLimited {
        /// The host that was asked.
        host: String,
        /// How long the wait is.
        wait: Duration,
    },
    /// A mirror did not have it or could not be reached; the next address is asked.
    Mirror {
        /// The mirror.
        host: String,
        /// What it said.
        reason: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimited { host, wait } => {
                write!(f, "registry `{host}` limits the rate of requests; going on in {} s", wait.as_secs().max(1))
            }
            Self::Mirror { host, reason } => write!(f, "mirror `{host}` does not help: {reason}"),
        }
    }
}

type Listener = dyn Fn(&Notice) + Send + Sync;

/// Whom to tell; nobody by default. It is called from any thread, and must return soon.
#[derive(Clone, Default)]
pub struct Notices(Option<Arc<Listener>>);

impl Notices {
    /// Tells a function.
    pub fn to(function: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(function)))
    }

    pub(crate) fn tell(&self, notice: &Notice) {
        if let Some(function) = &self.0 {
            function(notice);
        }
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notices")
    }
}
