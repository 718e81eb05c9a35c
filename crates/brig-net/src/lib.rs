//! brig-net
