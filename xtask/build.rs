//! Gives the programs that brig-runtime is compared with its entry point; see `brig-sys`'s `early.rs` and `program.rs`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=BRIG_LIBC"); // read by tools/rustc-static, which sets this:
    println!("cargo::rustc-check-cfg=cfg(brig_musl)");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|name| name == "x86_64") {
        for name in ["bench-bare", "bench-noop"] {
            println!("cargo:rustc-link-arg-bin={name}=-Wl,-e,brig_early_start");
        }
    }
}
