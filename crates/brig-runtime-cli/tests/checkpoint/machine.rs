//! What of a restored container comes from the machine: mounts, namespaces, cgroups, hooks, criu's configuration.

use super::bundle::Bundle;
use super::here;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;

/// Receives the descriptor that a runtime sends.
pub fn receive(listener: &UnixListener) -> File {
    let (socket, _) = listener.accept().unwrap();
    let (mut bytes, mut space) = ([0; 64], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [std::io::IoSliceMut::new(&mut bytes)];
    recvmsg(&socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut found = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    File::from(found.next().unwrap())
}

/// Types a line on a terminal and returns the answer behind its echo.
pub fn ask(console: &mut File, line: &str) -> String {
    writeln!(console, "{line}").unwrap();
    let mut seen = String::new();
    while seen.matches('\n').count() < 2 {
        let mut bytes = [0; 256];
        let count = console.read(&mut bytes).unwrap();
        seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    seen.lines().last().unwrap().to_owned()
}

fn mount_line(bundle: &Bundle, point: &str) -> String {
    let table = bundle.proc("mountinfo");
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(point));
    line.unwrap_or_else(|| panic!("nothing on {point}: {table}")).to_owned()
}

#[test]
fn binds_come_from_the_configuration() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    for name in ["data", "inner", "conf", "rootfs/real/conf", "rootfs/data"] {
        std::fs::create_dir_all(bundle.path(name)).unwrap();
    }
    std::os::unix::fs::symlink("/real/conf", bundle.path("rootfs/conf")).unwrap();
    std::fs::write(bundle.path("file"), "of the machine").unwrap();
    std::fs::write(bundle.path("conf/a"), "1").unwrap();
    bundle.mount("/data", &bundle.path("data"), &["rbind", "rw", "nosuid"]);
    bundle.mount("/data/for/inner", &bundle.path("inner"), &["bind", "ro"]);
    bundle.mount("/conf", &bundle.path("conf"), &["bind", "ro", "noexec"]);
    bundle.mount("/data/file", "file".as_ref(), &["bind"]);
    // What is mounted below a source comes along, and a second mount of one file system is no laxer for the first.
    bundle.mount("/etc", "/dev".as_ref(), &["rbind", "rro", "nosuid"]);
    let places = ["/data", "/data/for/inner", "/real/conf", "/etc", "/etc/pts"];
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    let before = places.map(|place| options(&mount_line(&bundle, place)));
    bundle.checkpoint();
    // The places to mount on are made anew, in the bind too.
    std::fs::remove_dir_all(bundle.path("data/for")).unwrap();
    std::fs::remove_file(bundle.path("data/file")).unwrap();
    // And what is bound is what lies there now.
    std::fs::write(bundle.path("conf/a"), "2").unwrap();
    let mut ends = bundle.restore();
    assert_eq!(ends.ask("b"), "2:b");
    let after = places.map(|place| options(&mount_line(&bundle, place)));
    assert_eq!(before, after);
    assert_eq!(bundle.call(&["exec", &bundle.name, "cat", "/conf/a", "/data/file"]).ok(), "2of the machine");
    bundle.call(&["exec", &bundle.name, "touch", "/data/written"]).ok();
    assert!(bundle.path("data/written").exists());
}

fn options(line: &str) -> String {
    line.split(' ').nth(5).unwrap().to_owned()
}

#[test]
fn what_is_hidden_stays_hidden() {
    if !here() {
        return;
    }
    let bundle = Bundle::new();
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.checkpoint();
    let _ends = bundle.restore();
    let done = bundle.call(&[
        "exec",
        &bundle.name,
        "sh",
        "-c",
        "cat /proc/keys; ls /sys/firmware; echo > /proc/sys/kernel/domainname",
    ]);
    assert_eq!(done.stdout, "");
    done.fails("Read-only file system");
    bundle.call(&["exec", &bundle.name, "touch", "/etc/x"]).fails("Read-only file system");
    let loopback = bundle.call(&["exec", &bundle.name, "ip", "addr", "show", "lo"]).ok();
    assert!(loopback.contains("127.0.0.1/8") && loopback.contains(",UP"), "{loopback}");
}

/// A network namespace below /run/netns, gone with the value.
struct Network(String);

impl Network {
    fn new(bundle: &Bundle) -> Self {
        let name = bundle.name.clone();
        assert!(std::process::Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
        Self(name)
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn a_network_by_path_is_joined_again() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    let network = Network::new(&bundle);
    bundle.spec["linux"]["namespaces"][1] = json!({"type": "network", "path": network.path()});
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.checkpoint();
    let mut ends = bundle.restore();
    assert_eq!(ends.ask("b"), "2:b");
    let inode = |path: &str| rustix::fs::stat(path).unwrap().st_ino;
    assert_eq!(inode(&format!("/proc/{}/ns/net", bundle.pid())), inode(&network.path()));
    assert_ne!(inode(&format!("/proc/{}/ns/cgroup", bundle.pid())), inode("/proc/self/ns/cgroup"));
}

#[test]
fn the_cgroup_is_that_of_the_configuration() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
    for mode in [&[][..], &["--manage-cgroups-mode", "ignore"], &["--manage-cgroups-mode", "soft"]] {
        let first = format!("/brig-test/{}", bundle.name);
        bundle.spec["linux"]["cgroupsPath"] = first.clone().into();
        let mut ends = bundle.run();
        assert_eq!(ends.ask("a"), "1:a");
        bundle.call(&[&["checkpoint", "--image-path", "images"], mode, &[&bundle.name]].concat()).ok();
        assert!(bundle.remains().is_empty(), "{:?}", bundle.remains());
        // Another one, with a limit of its own.
        let second = format!("/brig-test/{}-again", bundle.name);
        bundle.spec["linux"]["cgroupsPath"] = second.clone().into();
        bundle.spec["linux"]["resources"]["pids"]["limit"] = 77.into();
        let mut ends = bundle.piped(&[&["restore", "-d", "--image-path", "images"], mode, &[&bundle.name]].concat());
        assert_eq!(ends.ask("b"), "2:b", "{mode:?}");
        let memberships = bundle.proc("cgroup");
        assert!(memberships.lines().any(|line| line.ends_with(&second)), "{mode:?}: {memberships}");
        let stats: serde_json::Value =
            serde_json::from_str(&bundle.call(&["events", "--stats", &bundle.name]).ok()).unwrap();
        assert_eq!(stats["data"]["pids"]["limit"], 77, "{mode:?}");
        let inode = |path: String| rustix::fs::stat(path).unwrap().st_ino;
        let own = inode("/proc/self/ns/cgroup".into());
        assert_ne!(inode(format!("/proc/{}/ns/cgroup", bundle.pid())), own, "{mode:?}");
        bundle.call(&["delete", "-f", &bundle.name]).ok();
    }
}

#[test]
fn hooks_run_at_their_moments() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    let list = bundle.path("hooks");
    let hook = |moment: &str| {
        let script = format!(
            "echo {moment} $(cat | tr , '\\n' | grep -E '\"(pid|status)\"' | tr -d '\\n') >> {}",
            list.display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
    };
    let moments = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    for moment in moments {
        // Those that run inside have no place to write to.
        if !matches!(moment, "createContainer" | "startContainer") {
            bundle.spec["hooks"][moment] = hook(moment);
        }
    }
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.checkpoint();
    std::fs::remove_file(&list).unwrap();
    let mut ends = bundle.restore();
    assert_eq!(ends.ask("b"), "2:b");
    let pid = bundle.pid();
    bundle.call(&["delete", "-f", &bundle.name]).ok();
    let ran = std::fs::read_to_string(&list).unwrap();
    let ran: Vec<&str> = ran.lines().collect();
    assert_eq!(ran.len(), 4, "{ran:?}");
    for (line, (moment, status)) in
        ran.iter().zip([("prestart", "creating"), ("createRuntime", "creating"), ("poststart", "running")])
    {
        assert!(line.starts_with(moment) && line.contains(status), "{line}");
        assert!(line.contains(&format!("\"pid\":{pid}")), "{line}: {pid}");
    }
    assert!(ran[3].starts_with("poststop") && ran[3].contains("stopped"), "{ran:?}");
}

#[test]
fn a_hook_that_fails_ends_the_restore() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.checkpoint();
    for moment in ["createRuntime", "poststart"] {
        bundle.spec["hooks"] = json!({moment: [{"path": "/bin/sh", "args": ["sh", "-c", "echo no; exit 3"]}]});
        bundle.refuses(&format!("{moment} hook #0"));
    }
}

#[test]
fn an_annotation_names_the_configuration_of_criu() {
    if !here() {
        return;
    }
    let mut bundle = Bundle::new();
    std::fs::write(bundle.path("criu.conf"), "log-file=other.log\n").unwrap();
    bundle.spec["annotations"]["org.criu.config"] = bundle.path("criu.conf").to_str().unwrap().into();
    let mut ends = bundle.run();
    assert_eq!(ends.ask("a"), "1:a");
    bundle.call(&["checkpoint", "--image-path", "images", "--work-path", "work", &bundle.name]).ok();
    assert!(bundle.path("work/other.log").exists() && !bundle.path("work/dump.log").exists());
    std::fs::remove_file(bundle.path("work/other.log")).unwrap();
    bundle.piped(&["restore", "-d", "--image-path", "images", "--work-path", "work", &bundle.name]);
    assert!(bundle.path("work/other.log").exists() && !bundle.path("work/restore.log").exists());
}
