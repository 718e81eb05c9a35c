//! What tests share: small images, registries on loopback, a killer. Only tests depend on it.

pub mod image;
pub mod killer;
pub mod registry;
pub mod relay;
