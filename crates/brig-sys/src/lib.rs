//! brig-sys
