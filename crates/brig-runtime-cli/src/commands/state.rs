//! `state`: prints what a container is doing, as JSON; runtime.md, "State".

use super::{Command, container_id, say};
use crate::arguments::{Ends, Parsed};
use crate::container::{Container, Status};
use crate::failure::Failure;
use crate::global::Global;
use crate::log::rfc3339_nanos;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

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
    say(serde_json::to_string_pretty(&describe(&container)).unwrap_or_default() + "\n")
}

/// The state as `state` and `list -f json` print it, in the order that scripts have come to rely on.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    oci_version: &'static str,
    pub id: String,
    pub pid: i32,
    pub status: &'static str,
    pub bundle: PathBuf,
    rootfs: PathBuf,
    pub created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    pub owner: String,
}

/// Looks at a container.
pub(crate) fn describe(container: &Container) -> State {
    let record = &container.record;
    let status = container.status();
    let annotations = container.spec().map(|spec| spec.annotations).unwrap_or_default();
    State {
        oci_version: crate::SPEC_VERSION,
        id: record.id.clone(),
        pid: if status == Status::Stopped { 0 } else { record.init.pid },
        status: status.word(),
        bundle: record.bundle.clone(),
        rootfs: record.rootfs.clone(),
        created: rfc3339_nanos(record.created),
        annotations,
        owner: if record.owner == 0 { "root".to_owned() } else { format!("#{}", record.owner) },
    }
}
