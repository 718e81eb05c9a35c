//! brig-spec
