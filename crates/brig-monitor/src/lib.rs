//! brig-monitor
