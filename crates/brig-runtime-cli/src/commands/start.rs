//! `start`: tells a container that was created to run its program.

use super::{Command, container_id};
use crate::arguments::{Ends, Parsed};
use crate::container::{Container, DOOR, Status};
use crate::failure::{Failure, Step};
use crate::global::Global;
use brig_runtime::hooks::{self, Moment};
use brig_runtime::launch::{self, AtDoor};
use std::os::fd::AsFd;

pub(crate) const COMMAND: Command = Command {
    name: "start",
    operands: "CONTAINER",
    about: "start a container that was created",
    options: &[],
    ends: Ends::Never,
    enters: false,
    run,
};

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let container = Container::load(&global.root, container_id(parsed)?)?;
    match container.status() {
        Status::Created => {}
        Status::Stopped => return Err(Failure::new("cannot start a container that has stopped")),
        status => return Err(Failure::new(format!("cannot start an already {} container", status.word()))),
    }
    let spec = container.spec()?;
    let description = container.description(&spec);
    let pidfd = container.pidfd()?;
    let waiting = AtDoor {
        directory: container.directory_fd(),
        name: DOOR,
        pid: container.record.init.pid,
        pidfd: pidfd.as_fd(),
        spec: &spec,
        description: &description,
    };
    for warning in launch::start(&waiting)
        .map_err(|error| Failure::from(error).during(&format!("{} start failed", crate::own_name())))?
    {
        global.log.warning(&warning);
    }
    let _ = rustix::fs::unlinkat(container.directory_fd(), DOOR, rustix::fs::AtFlags::empty());
    let after = spec.hooks.as_ref().map(|hooks| Moment::Poststart.of(hooks)).unwrap_or_default();
    let state = description.state("running", container.record.init.pid);
    if let Err(error) = hooks::run(Moment::Poststart, after, &state, description.bundle()) {
        brig_sys::signals::send_to(pidfd.as_fd(), 9).step(|| "end the container")?;
        return Err(Failure::from(error).during(&format!("{} start failed", crate::own_name())));
    }
    Ok(0)
}
