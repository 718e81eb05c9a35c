//! `pause` and `resume`: freeze all processes of a container, and let them go on.

use super::{Command, container_id};
use crate::arguments::{Ends, Parsed};
use crate::container::{Container, Status};
use crate::failure::Failure;
use crate::global::Global;

pub(crate) const PAUSE: Command = Command {
    name: "pause",
    operands: "CONTAINER",
    about: "freeze all processes of a container",
    options: &[],
    ends: Ends::Never,
    enters: false,
    run: pause,
};

pub(crate) const RESUME: Command = Command {
    name: "resume",
    operands: "CONTAINER",
    about: "let the processes of a paused container go on",
    options: &[],
    ends: Ends::Never,
    enters: false,
    run: resume,
};

fn pause(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let container = Container::load(&global.root, container_id(parsed)?)?;
    match container.status() {
        Status::Running | Status::Created => container.cgroup()?.freeze()?,
        status => return Err(Failure::new(format!("container not running: it is {}", status.word()))),
    }
    Ok(0)
}

fn resume(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let container = Container::load(&global.root, container_id(parsed)?)?;
    match container.status() {
        Status::Paused => container.cgroup()?.thaw()?,
        status => return Err(Failure::new(format!("container not paused: it is {}", status.word()))),
    }
    Ok(0)
}
