//! A second look at configurations that are not quite what the types ask for, and that every other runtime takes: fields that
//! have a natural value when they are missing, and capabilities that are newer than this program.

use crate::log::Log;
use brig_spec::runtime::{Process, Spec};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Reads a configuration leniently: its text as it was understood, and what it means. None where something else is wrong.
pub(crate) fn spec(text: &[u8], log: &Log) -> Option<(Vec<u8>, Spec)> {
    let mut value: Value = serde_json::from_slice(text).ok()?;
    complete(value.get_mut("process")?, log);
    let spec = serde_json::from_value(value.clone()).ok()?;
    Some((value.to_string().into_bytes(), spec))
}

/// Reads a process leniently.
pub(crate) fn process(text: &[u8], log: &Log) -> Option<Process> {
    let mut value: Value = serde_json::from_slice(text).ok()?;
    complete(&mut value, log);
    serde_json::from_value(value).ok()
}

fn complete(process: &mut Value, log: &Log) {
    let Some(fields) = process.as_object_mut() else { return };
    fields.entry("cwd").or_insert("/".into());
    let user = fields.entry("user").or_insert(json!({}));
    if let Some(user) = user.as_object_mut() {
        user.entry("uid").or_insert(0.into());
        user.entry("gid").or_insert(0.into());
    }
    let mut unknown = BTreeSet::new();
    let sets = fields.get_mut("capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()) {
        let Some(names) = set.as_array_mut() else { continue };
        names.retain(|name| {
            let known = name.as_str().is_some_and(|name| brig_runtime::capabilities::number(name).is_some());
            if !known {
                unknown.insert(name.to_string());
            }
            known
        });
    }
    if !unknown.is_empty() {
        let unknown: Vec<String> = unknown.into_iter().collect();
        log.warning(&format!("ignoring unknown or unavailable capabilities: {}", unknown.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_has_its_natural_value_and_what_is_unknown_is_not_granted() {
        let log = Log::open(Some("/dev/null"), None, false).unwrap();
        let text = br#"{"args": ["sh"], "capabilities": {"bounding": ["CAP_KILL", "CAP_OF_TOMORROW"]}}"#;
        let process = process(text, &log).unwrap();
        assert_eq!((process.user().uid(), process.cwd().to_str()), (0, Some("/")));
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
        assert!(super::process(br#"{"args": "sh"}"#, &log).is_none());
    }
}
