//! `state`: prints what a container is doing, as JSON; runtime.md, "State".

use super::{Command, container_id};
use crate::arguments::{Ends, Parsed};
use crate::container::Container;
use crate::failure::Failure;
use crate::global::Global;
use crate::log::rfc3339_nanos;
use serde_json::{Value, json};

pub(crate) const COMMAND: Command = Command {
    name: "state",
    operands: "CONTAINER",
    about: "print the state of a container",
    options: &[],
    ends: Ends::Never,
    enters: false,
    run,
};

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    let container = Container::load(&global.root, container_id(parsed)?)?;
    let text = serde_json::to_string_pretty(&describe(&container)).unwrap_or_default();
    println!("{text}");
    Ok(0)
}

/// The state as `state` and `list -f json` print it.
pub(crate) fn describe(container: &Container) -> Value {
    let record = &container.record;
    let status = container.status();
    let annotations = container.spec().ok().and_then(|spec| spec.annotations().clone());
    let pid = if status == crate::container::Status::Stopped { 0 } else { record.init.pid };
    let owner = if record.owner == 0 { "root".to_owned() } else { format!("#{}", record.owner) };
    let mut state = json!({
        "ociVersion": crate::SPEC_VERSION,
        "id": record.id,
        "pid": pid,
        "status": status.word(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": rfc3339_nanos(record.created),
        "owner": owner,
    });
    if let Some(annotations) = annotations.filter(|a| !a.is_empty()) {
        state["annotations"] = json!(annotations);
    }
    state
}
