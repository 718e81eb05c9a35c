//! `delete`: takes a container apart that has ended, or ends it first.

use super::{Command, container_id};
use crate::arguments::{Ends, Opt, Parsed, flag};
use crate::container::{self, CONFIG_FILE, Container, Status};
use crate::failure::Failure;
use crate::global::Global;
use crate::{make, teardown};

const OPTIONS: [Opt; 1] =
    [flag("force", 'f', "end the container first if it runs; one that does not exist is no error")];

pub(crate) const COMMAND: Command = Command {
    name: "delete",
    operands: "CONTAINER",
    about: "take a container apart",
    options: &OPTIONS,
    ends: Ends::Never,
    enters: false,
    run,
};

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let id = container_id(parsed)?;
    let force = parsed.has("force");
    let container = match Container::load(&global.root, id) {
        Ok(container) => container,
        Err(failure) => return without_record(global, id, force, failure),
    };
    match container.status() {
        Status::Stopped => {}
        Status::Created => teardown::end(&container)?,
        _ if force => teardown::end(&container)?,
        status => {
            let text = format!("cannot delete container {id} that is not stopped: {}", status.word());
            return Err(Failure::new(text));
        }
    }
    let spec = container.spec().ok();
    teardown::tear_down(global, &container, spec.as_ref())?;
    Ok(0)
}

/// What a `create` that was killed half way leaves: a directory without a record, and perhaps a cgroup.
fn without_record(global: &Global, id: &str, force: bool, failure: Failure) -> Result<u8, Failure> {
    container::check_id(id)?;
    if !force {
        return Err(failure);
    }
    let directory = global.root.join(id);
    let spec = std::fs::read(directory.join(CONFIG_FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(spec) = spec {
        let cgroup = make::cgroup_of(global, &spec, id)?;
        // Its process ended with its maker. Whoever is in there is another's.
        if cgroup.pids().is_empty() {
            cgroup.remove()?;
        }
    }
    container::forget(&directory)?;
    Ok(0)
}
