//! Gives the program the entry point of `brig-sys`'s `early.rs`, where that knows the processor, and puts what a start calls side by
//! side, for which `tools/start-order` writes the list.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=start.ld");
    println!("cargo:rerun-if-env-changed=BRIG_LIBC"); // read by tools/rustc-static, which sets this:
    println!("cargo::rustc-check-cfg=cfg(brig_musl)");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|set| set == value);
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        println!("cargo:rustc-link-arg-bins=-Wl,-e,brig_early_start");
        if is("PROFILE", "release") {
            let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
            println!("cargo:rustc-link-arg-bins=-Wl,-T,{here}/start.ld");
        }
    }
}
