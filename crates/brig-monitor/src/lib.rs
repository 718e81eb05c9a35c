//! The process that outlives its starter: executes one container's plan, keeps its output, and writes down how it ended.

pub mod plan;
pub mod protocol;
pub mod state;
