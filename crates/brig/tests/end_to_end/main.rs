//! The program as its users meet it: the built `brig`, real containers, each test with an engine of its own.
//!
//! Place: the machine itself, as root, with Debian's busybox-static.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod containers;
mod network;
mod sandbox;
mod terminal;
