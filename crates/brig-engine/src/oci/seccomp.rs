//! The system call filter: the built-in profile, and profiles that users bring.
//!
//! The built-in one is the runtime's own, and named here only: see [`brig_runtime::seccomp::builtin`]. User profiles come in Docker's form (with `includes` and `excludes`)
//! or in the OCI's (`defaultAction`, `architectures`, `syscalls`): see [`parse`].

mod user;

pub use user::parse;
