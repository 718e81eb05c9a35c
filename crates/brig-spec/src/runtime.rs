//! The OCI runtime specification's types, as every crate names them.

pub use oci_spec::runtime::*;
