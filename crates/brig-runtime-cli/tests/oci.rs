//! The OCI command line against the real kernel: bundles made by hand, and a runtime called as containerd or podman call it.
//!
//! `BRIG_OCI_RUNTIME` names another runtime to call instead. What stands in a module `both` holds for every runtime, and is run
//! with runc too, as a control: a test that runc fails is a wrong test until shown otherwise.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "oci/attacks.rs"]
mod attacks;
#[path = "oci/both.rs"]
mod both;
#[path = "oci/bundle.rs"]
mod bundle;
#[path = "oci/own.rs"]
mod own;
#[path = "oci/shared.rs"]
mod shared;
