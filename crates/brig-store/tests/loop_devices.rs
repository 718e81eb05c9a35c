//! Images mounted from loop devices, as on kernels that do not mount them from files: the devices go with the mounts.
//!
//! Place: any machine, as root, with EROFS and loop devices.

#![allow(clippy::unwrap_used)] // tests

mod common;

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use brig_store::{Backing, LayerForm, mount_layer_from};
use common::{Place, add_layers};
use testkit::image::Layer;

/// Names the image for a process that this program starts of itself.
const IMAGE: &str = "BRIG_TEST_IMAGE";

/// Makes a store with one image of one layer; returns where the layer's image lies.
fn place() -> (Place, PathBuf) {
    let place = Place::with(LayerForm::Erofs);
    let layer = Layer::new().directory("d", 0o755).file("d/f", vec![7; 50_000]).file("small", "x").finish();
    let image = add_layers(&place.store, &[layer]).unwrap();
    assert!(brig_store::is_image(&image.layers[0]));
    (place, image.layers[0].clone())
}

/// The loop devices whose file lies below a directory.
fn devices(below: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
    all.filter(|device| {
        std::fs::read_to_string(device.join("loop/backing_file")).is_ok_and(|text| Path::new(&text).starts_with(below))
    })
    .collect()
}

/// Waits until the kernel has let go of all devices: the end of a process that was killed comes in its own time.
fn all_gone(below: &Path) {
    for _ in 0..1000 {
        if devices(below).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("left behind: {:?}", devices(below));
}

fn look(image: &Path) {
    let mount = mount_layer_from(image, Backing::LoopDevice).unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    assert_eq!(std::fs::read(root.join("d/f")).unwrap(), vec![7; 50_000]);
    assert_eq!(std::fs::read(root.join("small")).unwrap(), b"x");
    assert!(std::fs::write(root.join("small"), "y").is_err());
}

/// Starts this program again, for one test alone; `before` is a script that ends by `exec "$@"`.
fn again(test: &str, image: &Path, before: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-euc", before, "sh"]).arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(IMAGE, image);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_device_goes_with_the_mount() {
    let (place, image) = place();
    for _ in 0..5 {
        let mount = mount_layer_from(&image, Backing::LoopDevice).unwrap();
        assert_eq!(devices(place.directory.path()).len(), 1);
        let file = std::fs::File::open(format!("/proc/self/fd/{}/d/f", mount.as_raw_fd())).unwrap();
        drop(mount);
        // An open file keeps the mount, as it does everywhere.
        assert_eq!(devices(place.directory.path()).len(), 1);
        drop(file);
        all_gone(place.directory.path());
    }
}

#[test]
fn an_attached_mount_keeps_the_device_until_it_is_unmounted() {
    let (place, image) = place();
    let target = place.directory.path().join("mnt");
    std::fs::create_dir(&target).unwrap();
    // A namespace of its own: the machine's mounts are left alone, whatever happens to this test.
    let script = format!(r#""$@"; [ -s {0}/d/f ]; umount {0}; ! ls {0}/d 2>/dev/null"#, target.to_str().unwrap());
    let output = again("child_attaches", &image, &script).env("BRIG_TEST_TARGET", &target).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    all_gone(place.directory.path());
}

/// Not a test by itself.
#[test]
fn child_attaches() {
    use rustix::mount::{MoveMountFlags, move_mount};
    let Ok(image) = std::env::var(IMAGE) else { return };
    let mount = mount_layer_from(Path::new(&image), Backing::LoopDevice).unwrap();
    let target = std::env::var("BRIG_TEST_TARGET").unwrap();
    move_mount(&mount, "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
}

#[test]
fn many_processes_at_once_find_a_device_each() {
    let (place, image) = place();
    let children: Vec<_> = (0..8)
        .map(|_| again("child_looks", &image, r#"exec "$@""#).env("BRIG_TEST_TIMES", "20").spawn().unwrap())
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("looked"));
    }
    all_gone(place.directory.path());
}

#[test]
fn a_process_that_is_killed_leaves_no_device() {
    let (place, image) = place();
    let mut seen = 0;
    for round in 0..40 {
        let mut child = again("child_looks", &image, r#"exec "$@""#).env("BRIG_TEST_TIMES", "100000").spawn().unwrap();
        while devices(place.directory.path()).is_empty() {
            assert!(child.try_wait().unwrap().is_none());
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(round * 137 % 3000));
        child.kill().unwrap();
        seen += usize::from(!devices(place.directory.path()).is_empty());
        child.wait().unwrap();
        all_gone(place.directory.path());
    }
    println!("killed 40 times, {seen} times with a device in use");
}

/// Not a test by itself.
#[test]
fn child_looks() {
    let Ok(image) = std::env::var(IMAGE) else { return };
    for _ in 0..std::env::var("BRIG_TEST_TIMES").unwrap().parse().unwrap() {
        look(Path::new(&image));
    }
    println!("looked");
}

#[test]
fn a_dev_without_loop_devices_is_told() {
    let (place, image) = place();
    let without = |nodes: &str, told: &str| {
        let script = format!(r#"mount -t tmpfs tmpfs /dev; mknod /dev/null c 1 3; {nodes}; exec "$@""#);
        let output = again("child_fails", &image, &script).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(told), "{text}");
    };
    without(":", "cannot open `/dev/loop-control` for a loop device: No such file");
    let control = "mknod /dev/loop-control c 10 237";
    without(control, " for a loop device: No such file");
    without(
        &format!("{control}; for n in $(seq 0 99); do ln -s /dev/null /dev/loop$n; done"),
        "` is not the loop device ",
    );
    all_gone(place.directory.path());
}

/// Not a test by itself.
#[test]
fn child_fails() {
    let Ok(image) = std::env::var(IMAGE) else { return };
    let image = Path::new(&image);
    println!("{}", common::chain(&mount_layer_from(image, Backing::LoopDevice).unwrap_err()));
}
