//! Containers in a mount namespace that others have too: one that is joined by path, and the machine's.

use crate::bundle::{Bundle, wait};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Makes the configuration name a mount namespace, or none.
fn mounts_of(bundle: &mut Bundle, path: Option<String>) {
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "mount");
    namespaces.extend(path.map(|path| json!({"type": "mount", "path": path})));
}

/// The mounts of a process's namespace, as they are told there.
fn table(pid: impl std::fmt::Display) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap()
}

/// Those of the machine's mounts that have to do with these bundles: others come and go meanwhile.
fn machines(bundles: &[&Bundle]) -> String {
    let ours = |line: &&str| bundles.iter().any(|bundle| line.contains(bundle.path("").to_str().unwrap()));
    table("self").lines().filter(ours).collect()
}

fn namespace_of(pid: impl std::fmt::Display) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap()
}

/// A container that waits, and has a root file system in its own.
struct Host {
    bundle: Bundle,
    pid: i64,
}

impl Host {
    fn new(change: impl FnOnce(&mut Bundle)) -> Self {
        let mut bundle = Bundle::new("exec sleep 1000");
        let status = Command::new("cp").arg("-a").arg(bundle.rootfs("")).arg(bundle.path("inner")).status().unwrap();
        assert!(status.success());
        std::fs::rename(bundle.path("inner"), bundle.rootfs("inner")).unwrap();
        change(&mut bundle);
        bundle.leave(&["run", "-d", bundle.id()]);
        let pid = bundle.pid();
        Self { bundle, pid }
    }

    /// A container that joins this one's mounts.
    fn guest(&self, script: &str) -> Bundle {
        let mut guest = Bundle::new(script);
        guest.config["root"]["path"] = json!("/inner");
        mounts_of(&mut guest, Some(format!("/proc/{}/ns/mnt", self.pid)));
        // What the machine has at that place is none of its business.
        std::fs::remove_dir_all(guest.rootfs("")).unwrap();
        guest
    }
}

#[test]
fn a_container_runs_in_anothers_mount_namespace_and_changes_nothing_there() {
    let host = Host::new(|_| {});
    let before = table(host.pid);
    let (host_bundle, place) = (&host.bundle, host.pid);
    let unchanged = |guest: &Bundle, moment: &str| {
        assert_eq!(table(place), before, "{moment}");
        assert_eq!(machines(&[host_bundle, guest]), "", "{moment}");
    };
    let mut guest = host.guest("cat /etc/mark; echo out; exec sleep 1000");
    std::fs::write(host.bundle.rootfs("inner/etc/mark"), "inner\n").unwrap();
    std::fs::write(host.bundle.rootfs("etc/bound"), "bound\n").unwrap();
    guest
        .mount(json!({"destination": "/etc/bound", "type": "bind", "source": "/etc/bound", "options": ["bind", "ro"]}));
    guest.leave(&["create", guest.id()]);
    unchanged(&guest, "created");
    guest.call(&["start", guest.id()]).ok();
    wait("its output", || guest.output() == "inner\nout\n");
    unchanged(&guest, "started");
    let pid = guest.pid();
    assert_eq!(namespace_of(pid), namespace_of(host.pid));
    assert_ne!(namespace_of(pid), namespace_of("self"));
    // Inside: its own proc, devices, masks and binds, in every process of it.
    let said = guest.exec("readlink /proc/self/exe; ls /proc/acpi /sys/firmware; cat /proc/kcore; echo x > /proc/sys/kernel/hostname; ls /dev/pts/ptmx /dev/null; cat /etc/bound; echo x > /etc/bound; pwd; readlink /proc/self/ns/mnt | grep -c mnt; cat /proc/1/cmdline");
    for (words, text) in [
        ("/bin/busybox\n", &said.stdout),
        ("/dev/null\n/dev/pts/ptmx\nbound\n/\n1\nsleep\u{0}1000", &said.stdout),
        ("/proc/sys/kernel/hostname: Read-only", &said.stderr),
        ("/etc/bound: Read-only", &said.stderr),
    ] {
        assert!(text.contains(words), "{words:?}: {said:?}");
    }
    assert_eq!(said.stdout.lines().next(), Some("/bin/busybox"), "nothing is seen of what is hidden: {said:?}");
    unchanged(&guest, "entered");
    let seen = host.bundle.exec("ls /inner/proc /inner/dev");
    assert_eq!(seen.stdout.trim(), "/inner/dev:\n\n/inner/proc:", "{seen:?}");
    guest.call(&["delete", "--force", guest.id()]).ok();
    unchanged(&guest, "deleted");
    // A start that fails: before the mounts, after them, and at the very end.
    for (what, value) in [
        ("root", json!({"path": "/nosuch"})),
        ("root", json!({"path": "/etc/passwd"})),
        ("hooks", json!({"createContainer": [{"path": "/bin/false"}]})),
        ("hooks", json!({"createRuntime": [{"path": "/bin/false"}]})),
    ] {
        let good = std::mem::replace(&mut guest.config[what], value.clone());
        guest.call(&["create", guest.id()]).failed();
        assert!(!guest.path("state").join(guest.id()).exists(), "{value}");
        unchanged(&guest, &value.to_string());
        guest.config[what] = good;
    }
    guest.config["process"]["args"] = json!(["nosuch"]);
    assert!(guest.run().failed().contains("executable file not found in $PATH"));
    unchanged(&guest, "nothing to execute");
    // Nor does the host lose its root, and the machine no more than that.
    assert_eq!(host.bundle.exec("ls -d /inner /etc/bound").ok(), "/etc/bound\n/inner\n");
}

#[test]
fn a_kill_at_any_moment_leaves_the_joined_namespace_as_it_was() {
    let host = Host::new(|_| {});
    let guest = host.guest("exec sleep 1000");
    let before = table(host.pid);
    for step in 0..12u64 {
        let mut child = guest.command(&["run", "-d", guest.id()]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(step * 1500));
        let _ = child.kill();
        child.wait().unwrap();
        assert_eq!(table(host.pid), before, "killed at step {step}");
        for _ in 0..2 {
            guest.call(&["delete", "--force", guest.id()]).ok();
        }
        assert_eq!(table(host.pid), before, "deleted after step {step}");
    }
    // Even what nobody deletes is gone with its processes.
    guest.leave(&["run", "-d", guest.id()]);
    host.bundle.call(&["kill", host.bundle.id(), "KILL"]).ok();
    host.bundle.wait_for("stopped");
    assert_eq!(guest.exec("cat /proc/1/cmdline").ok(), "sleep\u{0}1000\u{0}", "it does not need its host");
}

/// Whoever owns the joined namespace has put links where the container's root and mounts are looked for.
#[test]
fn links_of_the_joined_namespace_lead_nowhere() {
    let host = Host::new(|bundle| {
        // With the machine's processes in sight, /proc/1/root is the machine's root.
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
        let rootfs = |name: &str| bundle.rootfs(name);
        let test = format!("/proc/{}/root", std::process::id());
        for (name, target) in [
            ("away", "/proc/1/root"),
            ("test", test.as_str()),
            ("self", "/proc/self/root/../.."),
            ("up", "../../../../../../../../"),
            ("ours", "/proc/self/cwd"),
        ] {
            symlink(target, rootfs(name)).unwrap();
        }
        std::fs::remove_dir(rootfs("inner/proc")).unwrap();
        symlink("/../../../../../../proc", rootfs("inner/proc")).unwrap();
        std::fs::remove_dir(rootfs("inner/sys")).unwrap();
        std::fs::create_dir(rootfs("inner/sys")).unwrap();
        symlink("/../../../../../../../../tmp/brig-shared-outside", rootfs("inner/data")).unwrap();
    });
    let mut guest = host.guest("echo ran; ls /");
    let before = table(host.pid);
    for away in ["/away", "/away/tmp", "/self", "/ours", "/test", "/test/tmp"] {
        guest.config["root"]["path"] = json!(away);
        let words = guest.run().failed();
        assert!(words.contains("open the root file system"), "{away}: {words}");
    }
    // Without magic it ends at the root of that namespace.
    guest.config["root"]["path"] = json!("/up/inner");
    assert!(guest.run().failed().contains("ordinary directory"), "a proc that is a link");
    std::fs::remove_file(host.bundle.rootfs("inner/proc")).unwrap();
    std::fs::create_dir(host.bundle.rootfs("inner/proc")).unwrap();
    guest.mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs"}));
    assert!(guest.run().ok().starts_with("ran\n"));
    assert!(!Path::new("/tmp/brig-shared-outside").exists());
    assert!(host.bundle.rootfs("inner/tmp/brig-shared-outside").is_dir(), "it was made inside");
    for source in ["/away", "/away/etc/passwd", "/ours", "/test/tmp"] {
        guest.config["mounts"].as_array_mut().unwrap().truncate(7);
        guest.mount(json!({"destination": "/mnt", "type": "bind", "source": source, "options": ["rbind"]}));
        let words = guest.run().failed();
        assert!(words.contains(&format!("mounting {source} on /mnt")), "{source}: {words}");
    }
    assert_eq!(table(host.pid), before);
    assert_eq!(machines(&[&host.bundle, &guest]), "");
}

#[test]
fn who_is_trusted_stays_inside_and_mounts_nothing() {
    let host = Host::new(|_| {});
    let before = table(host.pid);
    // The way out of a root that chroot(2) made of a directory, and a mount for all in the namespace to see.
    let mut guest = host.guest(
        "busybox chroot /tmp /no; cd ../../../..; ls -d inner bin; mount -t tmpfs tmpfs /tmp || echo refused; \
         grep -c . /proc/self/mountinfo",
    );
    for set in ["bounding", "effective", "permitted"] {
        let capabilities = guest.config["process"]["capabilities"][set].as_array_mut().unwrap();
        capabilities.extend([json!("CAP_SYS_CHROOT"), json!("CAP_SYS_ADMIN")]);
    }
    let said = guest.run();
    assert_eq!(said.stdout, "bin\nrefused\n0\n", "{said:?}");
    assert_eq!(table(host.pid), before);
}

/// A shell in a mount namespace of its own, whose mounts are shared with whoever copies them.
struct Shell(Child);

impl Shell {
    fn new(propagation: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", propagation, "sh", "-c", "echo ready; exec sleep 1000"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nothing_spreads_from_a_namespace_whose_mounts_are_shared() {
    for propagation in ["unchanged", "shared", "slave"] {
        for wanted in ["", "rshared", "rslave", "rprivate"] {
            let shell = Shell::new(propagation);
            let pid = shell.0.id();
            // A mount of its own, with a peer outside if there can be one.
            let mut guest = Bundle::new("ls /proc/1 > /dev/null && echo ran; exec sleep 1000");
            guest.config["linux"]["rootfsPropagation"] = json!(wanted);
            mounts_of(&mut guest, Some(format!("/proc/{pid}/ns/mnt")));
            // Others' mounts may spread to it meanwhile.
            let place = guest.path("").display().to_string();
            let there = |pid: &str| table(pid).lines().any(|line| line.contains(&place));
            let nothing = || assert!(!there(&pid.to_string()) && !there("self"), "{propagation} {wanted}");
            guest.leave(&["run", "-d", guest.id()]);
            wait("its output", || guest.output() == "ran\n");
            nothing();
            assert_eq!(namespace_of(guest.pid()), namespace_of(pid));
            guest.call(&["delete", "-f", guest.id()]).ok();
            nothing();
        }
    }
}

/// As callers ask for it who want hooks and the machine's view: mounts are made, and none of them on the machine.
#[test]
fn a_container_in_the_machines_mount_namespace_leaves_no_mount_there() {
    let mut bundle =
        Bundle::new("readlink /proc/self/ns/mnt; ls /dev/pts/ptmx; cat /proc/self/mountinfo; exec sleep 1000");
    mounts_of(&mut bundle, None);
    let mark = bundle.path("mark");
    bundle.config["hooks"] =
        json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", format!("touch {}", mark.display())]}]});
    bundle.leave(&["run", "-d", bundle.id()]);
    let own = namespace_of("self").display().to_string();
    wait("its output", || bundle.output() == format!("{own}\n/dev/pts/ptmx\n"));
    assert!(mark.exists());
    assert_eq!(machines(&[&bundle]), "");
    assert_eq!(
        bundle.exec("cat /proc/1/cmdline; ls /proc/acpi; ls /").ok(),
        "sleep\u{0}1000\u{0}bin\ndev\netc\nproc\nroot\nsys\ntmp\n"
    );
    let told = bundle.call(&["checkpoint", "--image-path", "images", bundle.id()]).failed();
    assert!(told.contains("no mount namespace of its own"), "{told}");
    assert!(!bundle.path("images").exists());
    bundle.call(&["delete", "-f", bundle.id()]).ok();
    assert_eq!(machines(&[&bundle]), "");
    let mut refused = Bundle::new("true").with_user_namespace();
    mounts_of(&mut refused, None);
    let told = refused.run().failed();
    assert!(told.contains("user namespace of its own"), "{told}");
    bundle.mount(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["unbindable"]}));
    assert!(bundle.run().failed().contains("unbindable mount"));
    assert_eq!(machines(&[&bundle]), "");
}

#[test]
fn where_nothing_is_to_be_mounted_the_namespaces_own_root_is_the_root() {
    let host = Host::new(|_| {});
    let before = table(host.pid);
    let mut guest = host.guest("readlink /proc/self/exe; grep -c . /proc/self/mountinfo; ls -d /inner");
    guest.config["root"]["path"] = json!("/");
    for list in ["mounts", "maskedPaths", "readonlyPaths"] {
        let place = if list == "mounts" { &mut guest.config } else { &mut guest.config["linux"] };
        place[list] = json!([]);
    }
    // Its proc shows the host's processes.
    let pid = json!({"type": "pid", "path": format!("/proc/{}/ns/pid", host.pid)});
    let namespaces: &mut Value = &mut guest.config["linux"]["namespaces"];
    namespaces.as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    namespaces.as_array_mut().unwrap().push(pid);
    let count = before.lines().count();
    assert_eq!(guest.run().ok(), format!("/bin/busybox\n{count}\n/inner\n"));
    assert_eq!(table(host.pid), before);
}

#[test]
fn mounts_over_the_namespaces_own_root_are_the_containers_alone() {
    let host = Host::new(|bundle| std::fs::create_dir(bundle.rootfs("data")).unwrap());
    let before = table(host.pid);
    let mut guest = host.guest("touch /data/made /made; ls -d /inner; ls /proc/1/exe; exec sleep 1000");
    guest.config["root"]["path"] = json!("/");
    guest.mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs"}));
    guest.leave(&["run", "-d", guest.id()]);
    wait("its output", || guest.output() == "/inner\n/proc/1/exe\n");
    assert_eq!(guest.exec("ls /data").ok(), "made\n");
    // What is mounted is nobody else's, what is not is everybody's.
    assert_eq!(host.bundle.exec("ls /data; ls /made").ok(), "/made\n");
    assert_eq!(table(host.pid), before);
    guest.call(&["delete", "-f", guest.id()]).ok();
    guest.config["root"]["readonly"] = json!(true);
    guest.config["process"]["args"] = json!(["touch", "/again"]);
    let said = guest.run().failed();
    assert!(said.contains("Read-only file system"), "{said}");
    host.bundle.exec("touch /still").ok();
    assert_eq!(table(host.pid), before);
}

#[test]
fn a_joined_user_namespace_has_its_mount_namespace_to_join() {
    let mut host = Bundle::new("exec sleep 1000").with_user_namespace();
    host.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
    host.leave(&["run", "-d", host.id()]);
    let pid = host.pid();
    let before = table(pid);
    let mut guest = Bundle::new(
        "cat /proc/self/uid_map; readlink /proc/self/ns/user; readlink /proc/self/ns/mnt; ls /etc/passwd; exec sleep 1000",
    );
    guest.config["root"]["path"] = json!("/");
    mounts_of(&mut guest, Some(format!("/proc/{pid}/ns/mnt")));
    let namespaces = guest.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
    guest.leave(&["run", "-d", guest.id()]);
    let link = |kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string();
    let wanted = ["0", "700000", "65536", &link("user"), &link("mnt"), "/etc/passwd"].join(" ");
    wait(&format!("{wanted}, it is {}", guest.output()), || {
        guest.output().split_whitespace().collect::<Vec<_>>().join(" ") == wanted
    });
    assert_eq!(guest.exec("cat /proc/1/cmdline").ok(), "sleep\u{0}1000\u{0}");
    assert_eq!(table(pid), before);
    guest.call(&["delete", "-f", guest.id()]).ok();
    assert_eq!(table(pid), before);
    // The machine's is not that user namespace's.
    mounts_of(&mut guest, None);
    guest.config["root"]["path"] = json!("rootfs");
    assert!(guest.run().failed().contains("user namespace of its own"));
}
