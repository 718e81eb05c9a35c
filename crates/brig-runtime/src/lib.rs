//! The OCI runtime as a library: a configuration and a root file system in, a container out.
//!
//! No threads, no async, no daemon. The caller is single-threaded (see `brig_sys::clone`). Read `protocol.rs` first: it
//! draws the conversation of which `create.rs` and `init.rs` are the two halves.

pub mod attributes;
pub mod binds;
mod birth;
mod bits;
pub mod capabilities;
pub mod cgroup;
pub mod copy;
pub mod create;
pub mod enter;
pub mod error;
mod handover;
pub mod hooks;
mod init;
pub mod launch;
mod limits;
mod listener;
mod mounts;
mod null;
mod program;
mod protocol;
pub mod rdt;
pub mod reaper;
mod rootfs;
pub mod seccomp;
pub mod selinux;
mod settings;
mod shared;
pub mod user;

pub use error::{Context, Error, Kind};
pub use mounts::NO_SYMLINKS;
pub use program::{GROUPS_ANNOTATION, USER_ANNOTATION};
pub use settings::IPC_SYSCTLS;
pub use shared::shares_mounts;
