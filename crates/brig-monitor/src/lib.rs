//! The process that outlives its starter: executes one container's plan, keeps its output, and writes down how it ended.
//!
//! Single-threaded and without async. `entry.rs` is its `main`, `run.rs` the life of a container, `serve.rs` the loop in
//! which it spends that life. The engine uses `plan`, `state`, `spawn`, `client`, `hold` and `undo`.

pub mod chain;
pub mod client;
mod clients;
pub mod entry;
mod exec;
pub mod hold;
pub mod logfile;
pub mod overlay;
mod packets;
pub mod plan;
pub mod protect;
pub mod protocol;
pub mod records;
pub mod run;
mod serve;
pub mod spawn;
mod start;
pub mod state;
mod stdio;
pub mod undo;
