//! Gives the program the entry point of `brig-sys`'s `early.rs`, where that knows the processor.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=BRIG_LIBC"); // read by tools/rustc-static, which sets this:
    println!("cargo::rustc-check-cfg=cfg(brig_musl)");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|name| name == "x86_64") {
        println!("cargo:rustc-link-arg-bins=-Wl,-e,brig_early_start");
    }
}
