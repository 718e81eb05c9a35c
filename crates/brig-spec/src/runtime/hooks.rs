//! Programs that are run at moments of a container's life; config.md, "POSIX-platform Hooks".

use super::lenient::{is_zero, zero};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The hooks, by their moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hooks {
    /// Deprecated, and still in use: as `create_runtime`.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub prestart: Vec<Hook>,
    /// On the machine, when the namespaces stand and the root is not yet entered.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub create_runtime: Vec<Hook>,
    /// The same in the container's namespaces.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub create_container: Vec<Hook>,
    /// In the container, before its program is executed.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub start_container: Vec<Hook>,
    /// On the machine, after the program was started.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub poststart: Vec<Hook>,
    /// On the machine, after the container was deleted.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub poststop: Vec<Hook>,
}

/// One program.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hook {
    /// Its absolute path.
    #[serde(deserialize_with = "zero")]
    pub path: PathBuf,
    /// Its arguments, the first of which is its name.
    #[serde(deserialize_with = "zero", skip_serializing_if = "is_zero")]
    pub args: Vec<String>,
    /// Its whole environment, `NAME=value` each; without a word it has that of whoever runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// How many seconds it may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}
