//! Where the bench works: namespaces, programs and image of its own, gone when it ends.
//!
//! ```text
//! /var/tmp/brig-bench.XXXX/
//!   pair/brig, brig-runtime     the installed pair of programs
//!   alone/brig-runtime          the runtime where nothing else of brig is
//!   single/brig                 the one file
//!   rootfs/                     bin/noop, bin/busybox: a plain root for runc and the kernel alone
//!   rootfs.tar, archive.tar     the same as an image
//!   brig/, brig-run/, podman/ ...
//! ```
//!
//! A network namespace keeps bridges and firewall rules away from the machine, a mount namespace all mounts.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::image::{Compression, Image, Layer};

/// The mount of cgroup v2 where controllers lie on v1.
pub const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// The name of the image in every engine.
pub const IMAGE: &str = "localhost/bench:latest";

/// The scratch directory and what lies there.
#[derive(Debug)]
pub struct Place {
    directory: tempfile::TempDir,
    /// Where the strace, the recipe and the bundle go in the end.
    kept: Option<PathBuf>,
}

impl Place {
    /// Builds the programs, without the engine if none is wanted, and makes the image. The caller has one thread only.
    pub fn make(root: &Path, keep: bool, wants_build: bool, wants_engine: bool) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("containers need root here; run it with sudo");
        }
        if wants_build {
            build(root, wants_engine)?;
        }
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        use brig_sys::clone::flags;
        brig_sys::clone::unshare(flags::NEWNS | flags::NEWNET).context("cannot make namespaces for the bench")?;
        use rustix::mount::MountPropagationFlags as Propagation;
        rustix::mount::mount_change("/", Propagation::DOWNSTREAM | Propagation::REC)?;
        brig_sys::interface::loopback_up()?;
        // Where CNI writes whatever it is told, and podman and skopeo which registry had which blob; and /sys shows
        // the interfaces of the namespace it was mounted in.
        for directory in ["/var/lib/cni", "/var/lib/containers"] {
            if Path::new(directory).is_dir() {
                rustix::mount::mount("bench", directory, "tmpfs", rustix::mount::MountFlags::empty(), None)?;
            }
        }
        let directory = tempfile::Builder::new().prefix("brig-bench.").tempdir_in("/var/tmp")?;
        let place = Self { directory, kept: keep.then(|| root.join("target/bench")) };
        // This program was built there too.
        let own = std::env::current_exe().context("cannot find this program")?;
        let built = own.ancestors().nth(2).context("this program lies nowhere")?.join("release");
        let engine = [("brig", "pair/brig"), ("brig-runtime", "pair/brig-runtime"), ("brig", "single/brig")];
        for (program, to) in engine.into_iter().filter(|_| wants_engine).chain([
            ("brig-runtime", "alone/brig-runtime"),
            ("bench-bare", "bench-bare"),
            ("bench-peak", "bench-peak"),
            ("bench-unpack", "bench-unpack"),
            ("bench-read", "bench-read"),
            ("bench-noop", "rootfs/bin/noop"),
        ]) {
            place.copy(&built.join(program), to)?;
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|p| Path::new(p).exists());
        place.copy(
            Path::new(busybox.context("busybox is missing: apt-get install busybox-static")?),
            "rootfs/bin/busybox",
        )?;
        place.make_image()?;
        Ok(place)
    }

    fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.path(to);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        Ok(())
    }

    /// One layer of what lies in rootfs/bin, as a plain tar and as an archive that podman and docker load.
    fn make_image(&self) -> Result<()> {
        let mut layer = Layer::new();
        for directory in ["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/"] {
            layer = layer.directory(directory, 0o755);
            std::fs::create_dir_all(self.path("rootfs").join(directory))?;
        }
        for program in ["noop", "busybox"] {
            let path = format!("bin/{program}");
            layer = layer.program(&path, std::fs::read(self.path("rootfs").join(&path))?);
        }
        for file in ["hosts", "hostname", "resolv.conf"] {
            layer = layer.file(&format!("etc/{file}"), "");
            std::fs::write(self.path("rootfs/etc").join(file), "")?;
        }
        let layer = layer.finish();
        let image = Image::new(&[layer], Compression::Plain, "{}");
        std::fs::write(self.path("archive.tar"), image.docker_archive(IMAGE))?;
        Ok(())
    }

    /// A path in the scratch directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The machine, in one line.
    pub fn describe() -> String {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        let layout = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1 or hybrid" };
        format!("kernel {}, {processors} processors, cgroup {layout}, load {load}", release.trim())
    }

    /// Keeps what was asked for, and removes the rest.
    pub fn close(self) -> Result<()> {
        if let Some(kept) = &self.kept {
            std::fs::create_dir_all(kept)?;
            for name in [
                "bare.strace",
                "overlay.recipe",
                "plain.recipe",
                "unfiltered.recipe",
                "bundle/config.json",
                "runtime.recipe",
                "runtime.strace",
            ] {
                let from = self.path(name);
                if from.exists() {
                    std::fs::copy(&from, kept.join(Path::new(name).file_name().unwrap_or_default()))?;
                }
            }
            println!("\nkept in {}", kept.display());
        }
        let path = self.directory.keep();
        // Podman keeps its storage mounted on itself, and may still be tidying up after its last container.
        for storage in ["podman/overlay", "pull-podman/overlay", "pull-auto-run/mnt", "brig-run/mnt"] {
            let _ = rustix::mount::unmount(path.join(storage), rustix::mount::UnmountFlags::DETACH);
        }
        let mut tries = 0;
        while let Err(error) = std::fs::remove_dir_all(&path) {
            tries += 1;
            if tries > 50 {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Ok(())
    }
}

fn build(root: &Path, engine: bool) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--quiet", "-p", "brig-runtime-cli", "-p", "xtask"]);
    command.args(["-p", "brig"].into_iter().filter(|_| engine));
    let status = command.args(["--bins"]).current_dir(root).status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the release build failed");
    }
    Ok(())
}
