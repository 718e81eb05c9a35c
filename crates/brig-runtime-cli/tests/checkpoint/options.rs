//! The options of `checkpoint` and `restore`.

use super::bundle::{Bundle, criu};
use super::here;
use std::io::Read;
use std::process::{Command, Stdio};

#[test]
fn mistakes_are_named_before_anything_happens() {
    let mut bundle = Bundle::new();
    let mut ends = bundle.run();
    let name = bundle.name.clone();
    let name = name.as_str();
    let wrong: &[(&[&str], &str)] = &[
        (&["--manage-cgroups-mode", "all"], "invalid manage-cgroups-mode"),
        (&["--empty-ns", "pid"], "not supported"),
        (&["--page-server", "nowhere"], "ADDRESS:PORT"),
        (&["--page-server", "::1:9"], "ADDRESS:PORT"),
        (&["--status-fd", "400"], "not open"),
        (&["--status-fd", "0"], "not writable"),
        (&["--status-fd", "x"], "not a number"),
    ];
    for (words, why) in wrong {
        bundle.call(&[&["checkpoint"], *words, &[name]].concat()).fails(why);
    }
    bundle.call(&["restore", "--lsm-mount-context"]).fails("flag needs an argument");
    bundle.call(&["checkpoint", "none"]).fails("does not exist");
    bundle.call(&["--criu", "/bin/true", "checkpoint", name]).fails("criu ended before it had answered");
    bundle.call(&["--criu", "no-such-criu", "restore", "other"]).fails("`no-such-criu`");
    bundle.spec["linux"]["cgroupsPath"] = format!("/brig-test/{name}-other").into();
    bundle.call(&["create", "other"]).ok();
    bundle.call(&["checkpoint", "other"]).fails("cannot be checkpointed in created state");
    bundle.call(&["delete", "other"]).ok();
    assert_eq!(ends.ask("a"), "1:a");
    let features = bundle.call(&["features"]).ok();
    assert!(features.contains(r#""io.brig.checkpoint.enabled": "true""#), "{features}");
}

#[test]
fn the_images_of_an_earlier_dump_lie_beside() {
    if !here() {
        return;
    }
    let bundle = Bundle::new();
    let mut ends = bundle.run();
    std::fs::write(bundle.path("file"), "").unwrap();
    for (parent, why) in [("../none", "invalid --parent-path"), ("../file", "not a directory"), ("/tmp", "relative")] {
        let words = ["checkpoint", "--image-path", "images", "--parent-path", parent, &bundle.name];
        bundle.call(&words).fails(why);
    }
    assert_eq!(ends.ask("a"), "1:a");
    // Kernels without soft-dirty bits refuse a dump of what has changed, and it is said.
    let done = bundle.call(&["checkpoint", "--pre-dump", "--image-path", "earlier", &bundle.name]);
    if done.status != 0 {
        done.fails("criu is missing features: memory tracking");
        assert_eq!(ends.ask("b"), "2:b");
        return;
    }
    assert_eq!((ends.ask("b"), &bundle.state()["status"]), ("2:b".into(), &"running".into()));
    bundle.call(&["checkpoint", "--image-path", "images", "--parent-path", "../earlier", &bundle.name]).ok();
    assert!(bundle.path("images/parent").exists());
    assert_eq!(bundle.restore().ask("c"), "3:c");
}

/// A process that goes with the test.
struct Helper(std::process::Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn memory_moves_when_it_is_used() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (mut ready, status) = std::io::pipe().unwrap();
    // The program's standard output is the descriptor that is told.
    let program = env!("CARGO_BIN_EXE_brig-runtime");
    let mut checkpoint = Command::new(program);
    let server = format!("127.0.0.1:{port}");
    checkpoint.current_dir(bundle.path("")).arg("--root").arg(bundle.path("run")).arg("--criu").arg(criu().unwrap());
    checkpoint.args(["checkpoint", "--lazy-pages", "--page-server", &server, "--status-fd", "1"]);
    checkpoint.args(["--manage-cgroups-mode", "ignore", "--image-path", "images", &bundle.name]);
    let mut checkpoint = Helper(checkpoint.stdin(Stdio::null()).stdout(status).stderr(Stdio::null()).spawn().unwrap());
    ready.read_exact(&mut [1]).unwrap();
    let port = port.to_string();
    let daemon = ["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port, "-D"];
    let mut daemon = Command::new(criu().unwrap()).args(daemon).arg(bundle.path("images")).spawn().map(Helper).unwrap();
    // Whoever restores asks it for the memory.
    while !bundle.path("images/lazy-pages.socket").exists() {
        assert!(daemon.0.try_wait().unwrap().is_none(), "the daemon ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let (before, again) = (bundle.name.clone(), format!("{}-again", bundle.name));
    bundle.spec["linux"]["cgroupsPath"] = format!("/brig-test/{before}-again").into();
    let words = ["restore", "-d", "--lazy-pages", "--manage-cgroups-mode", "ignore", "--image-path", "images", &again];
    let mut ends = bundle.piped(&words);
    assert_eq!(ends.ask("b"), "2:b");
    assert!(checkpoint.0.wait().unwrap().success() && daemon.0.wait().unwrap().success());
    bundle.call(&["state", &before]).fails("does not exist");
    bundle.call(&["delete", "-f", &again]).ok();
}

#[test]
fn locks_and_sockets_are_kept_when_it_is_asked_for() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    // busybox has no flock(1) everywhere: the machine's comes along.
    for name in ["usr", "lib64", "lib"] {
        std::fs::create_dir(bundle.path("rootfs").join(name)).unwrap();
        bundle.mount(&format!("/{name}"), &std::path::Path::new("/").join(name), &["rbind", "ro"]);
    }
    bundle.spec["process"]["env"] = serde_json::json!(["PATH=/bin:/usr/bin"]);
    let script = "exec 9>/dev/shm/lock; flock 9 || exit 1; read line; flock -n /dev/shm/lock /bin/echo free || echo held; read line";
    bundle.spec["process"]["args"] = serde_json::json!(["sh", "-c", script]);
    let ends = bundle.run();
    // The lock is taken before the process sleeps in its read.
    bundle.call(&["exec", &bundle.name, "sh", "-c", "while flock -n /dev/shm/lock /bin/true; do :; done"]).ok();
    bundle.call(&["checkpoint", "--image-path", "images", &bundle.name]).fails("lock");
    bundle.call(&["checkpoint", "--file-locks", "--image-path", "images", &bundle.name]).ok();
    drop(ends);
    let mut ends = bundle.piped(&["restore", "-d", "--file-locks", "--image-path", "images", &bundle.name]);
    assert_eq!(ends.ask("a"), "held");
}

#[test]
fn connections_stay_when_it_is_asked_for() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    // Two ends of one connection on the container's own loopback: what is said at one is heard at the other.
    let script =
        "nc -l -p 5000 -e /bin/cat & while ! grep -q ':1388 .* 0A' /proc/net/tcp*; do :; done; exec nc 127.0.0.1 5000";
    bundle.spec["process"]["args"] = serde_json::json!(["sh", "-c", script]);
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "a");
    bundle.call(&["checkpoint", "--image-path", "images", &bundle.name]).fails("tcp-established");
    assert_eq!(ends.ask("b"), "b");
    bundle.call(&["checkpoint", "--tcp-established", "--image-path", "images", &bundle.name]).ok();
    let mut ends = bundle.piped(&["restore", "-d", "--tcp-established", "--image-path", "images", &bundle.name]);
    assert_eq!(ends.ask("c"), "c");
}
