//! Attaching to a running container's input and output.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::record::Record;
use brig_monitor::client::Connection;
use brig_monitor::protocol::{HELLO_OUTPUT, HELLO_STDIN};

/// Connects to a running container; `stdin`: also to its standard input, if that was left open.
pub fn attach(config: &Config, record: &Record, stdin: bool) -> Result<Connection> {
    let status = super::status::of(config, record);
    if status.phase == super::Phase::Paused {
        return Err(Error::conflict(format!("container `{}` is paused", record.name))
            .hint(format!("continue it with `brig unpause {}`", record.name)));
    }
    let flags = HELLO_OUTPUT | if stdin && record.config.stdin { HELLO_STDIN } else { 0 };
    super::connect(config, record, flags)
}
