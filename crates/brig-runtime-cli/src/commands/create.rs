//! `create`: makes a container that waits for its start.

use super::{Command, container_id};
use crate::arguments::{Ends, Opt, Parsed, flag, value};
use crate::failure::Failure;
use crate::global::Global;
use crate::make::{self, Start};

/// The options that `create` and `run` share.
pub(crate) const SHARED: [Opt; 7] = [
    value("bundle", 'b', "the bundle's directory (default: the present one)"),
    value("console-socket", '\0', "a socket that receives the terminal's controlling side"),
    value("pidfd-socket", '\0', "a socket that receives a descriptor of the first process"),
    value("pid-file", '\0', "a file that receives the pid of the first process"),
    flag("no-pivot", '\0', "change the root by chroot(2): for a machine that runs from a ramfs"),
    flag("no-new-keyring", '\0', "keep the session keyring of the caller"),
    value("preserve-fds", '\0', "how many descriptors after the standard ones the program gets"),
];

pub(crate) const COMMAND: Command = Command {
    name: "create",
    operands: "CONTAINER",
    about: "make a container that waits for its start",
    options: &SHARED,
    ends: Ends::Never,
    enters: true,
    run,
};

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    make::make(global, container_id(parsed)?, &make::Options::read(parsed, true)?, Start::Later)
        .map_err(|failure| failure.during(&format!("{} create failed", crate::own_name())))?;
    Ok(0)
}
