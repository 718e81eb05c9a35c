//! brig-registry
