//! brig-runtime-cli

fn main() {}
