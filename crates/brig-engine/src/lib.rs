//! The use cases: images, containers, volumes, networks, recovery. One verb a file, synchronous, without output.
//!
//! Every front door (the command line today, an HTTP or gRPC service tomorrow) turns what it was asked into the types of
//! [`config`] and calls the same verbs. Nothing here reads the environment: paths and limits come down in a
//! [`config::Config`].
//!
//! ```text
//!   config   what a container shall be          oci        ... as an OCI runtime specification (pure)
//!   error    what went wrong, in 8 kinds        record     ... as it lies on disk
//!   images   have it, or fetch it               containers create, start, stop, remove, list ...
//!   registries  short names, what must be signed
//!   volumes  networks  idpool  names            recovery   what a crash left behind
//!   layers   mounted where they are images     host       what this machine can do
//!   system   the store checked and measured
//! ```

pub mod config;
pub mod containers;
pub mod disk;
pub mod error;
pub mod host;
pub mod idpool;
pub mod images;
pub mod layers;
pub mod names;
pub mod networks;
pub mod oci;
pub mod record;
pub mod recovery;
pub mod registries;
pub mod system;
pub mod time;
pub mod volumes;

pub use brig_store::{LayerChoice, UnknownForm};
pub use config::Config;
pub use error::{Error, Kind, Result};
