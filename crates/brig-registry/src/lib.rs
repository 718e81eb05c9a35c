//! The wire: images come and go by the OCI distribution protocol.
//!
//! ```text
//!   GET /v2/<name>/manifests/<tag|digest>     a manifest or an index, at most 4 MiB
//!   GET /v2/<name>/blobs/<digest>             a blob, from any byte on; redirects to a store elsewhere
//!   POST, PATCH, PUT /v2/<name>/blobs/uploads/    a blob goes out, see `upload`
//!   PUT /v2/<name>/manifests/<tag|digest>     and then what points at it
//!     401 WWW-Authenticate: Bearer realm=..   --> GET realm?service=..&scope=..  --> the same request with the token
//!     401 WWW-Authenticate: Basic             --> the same request with user and password
//! ```
//!
//! The face is blocking: a [`Client`] owns a small runtime of its own, and a [`Blob`] is a `Read`. Names are resolved
//! without the C library, which a static program must not ask. Secrets go to the host that they are for and nowhere
//! else: not to the target of a redirect, not into errors, not into logs.

pub mod artifact;
mod auth;
mod blob;
mod body;
mod bundle;
mod client;
mod config_file;
mod credentials;
mod error;
mod helper;
mod hosts;
mod http;
mod login;
mod notice;
mod pieces;
mod policy;
mod ranges;
mod search;
mod signature;
mod tokens;
mod transport;
mod upload;

pub use blob::Blob;
pub use client::{Client, Manifest, Options};
pub use credentials::{Credentials, Secret};
pub use error::Error;
pub use login::{Kept, login, logout};
pub use notice::{Notice, Notices};
pub use policy::{Mirror, Policy, Rule, Signing, Transport};
pub use ranges::Ranges;
pub use search::Found;
pub use transport::Proxies;
pub use upload::{Content, Pushed, PushedManifest};
