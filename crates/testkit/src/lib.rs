//! What tests share: small images, registries on loopback. Only tests depend on it.

pub mod image;
pub mod registry;
pub mod relay;
