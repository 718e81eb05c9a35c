//! brig-store
