//! The words of the field: identifiers, digests, references, platforms and the OCI types. Pure: nothing here does I/O.

pub mod digest;
pub mod id;
pub mod image;
pub mod platform;
pub mod reference;
pub mod runtime;
