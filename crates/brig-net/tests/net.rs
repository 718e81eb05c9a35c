//! The network floor against the real kernel: every test is a small world of network namespaces of its own.
//!
//! ```text
//!   outside 198.51.100.2 ---- 198.51.100.1 host ---- brig0 10.88.0.1 ---- containers 10.88.0.x
//! ```
//!
//! Root is needed. Nothing is changed in the namespace that the tests are started in.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "net/attacks.rs"]
mod attacks;
#[path = "net/devices.rs"]
mod devices;
#[path = "net/firewalls.rs"]
mod firewalls;
#[path = "net/leases.rs"]
mod leases;
#[path = "net/lifecycle.rs"]
mod lifecycle;
#[path = "net/relays.rs"]
mod relays;
#[path = "net/traffic.rs"]
mod traffic;
#[path = "net/world.rs"]
mod world;
