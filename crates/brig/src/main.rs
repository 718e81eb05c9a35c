//! brig

fn main() {}
