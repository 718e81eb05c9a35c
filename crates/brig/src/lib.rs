//! The command line of brig: what was typed becomes the engine's types, and what the engine answers becomes text.
//!
//! ```text
//!   argv --> app      globals, then the one subcommand that was named; no other is built
//!            commands one file a command; each returns an exit status
//!            flags    what was typed for a container --> ContainerConfig
//!            session  a terminal or pipes <--> a monitor's socket
//!            output   tables, --format, inspect's JSON
//!            report   errors in three lines, exit codes
//! ```
//!
//! Only this crate reads the environment and prints.

mod app;
mod commands;
mod flags;
mod output;
mod progress;
mod report;
mod session;
mod terminal;

pub use app::{command, run};

use brig_engine::Config;

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where the engine keeps its things.
    pub config: Config,
    /// The whole command line, for the line that a user without rights is told to type.
    pub typed: Vec<String>,
}
