//! What confines a container: sockets, kernel settings, capabilities, keys, cgroups, the filter. Classes 12, 14, 15, 17, 22.

use crate::support::{Engine, collect};
use crate::{perl, piped};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

#[test]
fn nothing_of_the_engine_is_open_to_others() {
    let engine = Engine::new();
    engine.idle("web", &["--network", "none", "-v", "data:/data", "--restart", "always"]);
    let shut = |base: &Path| {
        for entry in std::fs::read_dir(base).unwrap().flatten() {
            let mode = entry.metadata().unwrap().mode();
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", entry.path().display());
        }
    };
    shut(&engine.path("root"));
    shut(&engine.path("run"));
    let id = engine.inspect("web", "{{.Id}}");
    shut(&engine.path(&format!("run/containers/{id}")));
    // A container on the machine's network sees every socket there is, in a namespace where all of them are ours.
    let sockets = engine.sh(&["--network", "host"], "cat /proc/net/unix").ok();
    assert!(!sockets.contains('@'), "{sockets}");
    let environ = engine.inspect("web", "{{.State.MonitorPid}}");
    let environ = std::fs::read(format!("/proc/{environ}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environ).contains("HOME="), "the caller's environment stays with the caller");
}

#[test]
fn kernel_settings_of_the_machine_are_out_of_reach() {
    let engine = Engine::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let before = read();
    for key in [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "kernel.shm_rmid_forced+kernel.core_pattern",
        "net.core/../../kernel/core_pattern",
        "net/../kernel/core_pattern",
        "net.//.kernel.core_pattern",
        "net.core.somaxconn\nkernel.core_pattern",
        "net.core.somaxconn,kernel.core_pattern",
        "net..kernel.core_pattern",
        "net/./../kernel/modprobe",
        "fs.mqueue.../../kernel/modprobe",
        "kernel.modprobe",
        " kernel.core_pattern",
        "vm.drop_caches",
    ] {
        let output = engine.sh(&["--network", "none", &format!("--sysctl={key}=|/bin/x")], "true");
        assert_eq!(output.status, 125, "{key}: {output:?}");
    }
    let value = "net.core.somaxconn=1\nkernel.core_pattern=|/bin/x";
    assert_eq!(engine.sh(&["--network", "none", "--sysctl", value], "true").status, 125);
    let output = engine.sh(&["--network", "none", "--annotation", "brig.user=0", "-u", "nobody"], "id -u");
    assert!(output.status == 125 || output.stdout == "65534\n", "{output:?}");
    assert_eq!(read(), before);
}

#[test]
fn capabilities_and_groups_are_exactly_those_asked_for() {
    let engine = Engine::new();
    engine.idle("web", &["--network", "none", "--group-add", "7"]);
    let script = "grep -E '^(Cap|Groups|NoNewPrivs)' /proc/self/status";
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("no {key} in {text}"));
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    let zero = "0".repeat(16);
    let usual = "00000000a80425fb";
    for (arguments, effective, bounding, groups) in [
        (&["run", "--rm", "--network", "none", "busybox"][..], usual, usual, ""),
        (&["run", "--rm", "--network", "none", "-u", "nobody", "busybox"], &zero, usual, ""),
        (&["run", "--rm", "--network", "none", "-u", "5:6", "--group-add", "7", "busybox"], &zero, usual, "7"),
        (&["run", "--rm", "--network", "none", "--cap-drop", "ALL", "busybox"], &zero, &zero, ""),
        (&["run", "--rm", "--network", "none", "--userns", "auto", "busybox"], usual, usual, ""),
        (&["exec", "web"], usual, usual, "7"),
        (&["exec", "-u", "nobody", "web"], &zero, usual, "7"),
    ] {
        let text = engine.brig(&[arguments, &["sh", "-c", script]].concat()).ok();
        let got = ["CapInh", "CapAmb", "CapEff", "CapBnd", "Groups"].map(|key| field(&text, key));
        assert_eq!(got, [&zero, &zero, effective, bounding, groups], "{arguments:?}");
    }
    let text = engine.brig(&["exec", "--privileged", "web", "sh", "-c", script]).ok();
    assert_eq!((field(&text, "CapInh"), field(&text, "CapAmb")), (zero.clone(), zero));
    // All that the engine has itself; the container keeps its filter.
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!((field(&text, "CapEff"), field(&text, "CapBnd")), (field(&own, "CapBnd"), field(&own, "CapBnd")));
}

#[test]
fn keys_of_the_caller_stay_with_it() {
    let engine = Engine::new();
    let brig = env!("CARGO_BIN_EXE_brig");
    // keyctl JOIN_SESSION_KEYRING, add_key to it; inside, keyctl SEARCH from the session keyring.
    let search =
        r#"my ($t, $d) = ("user", "brig-secret"); print syscall(250, 10, -3, $t, $d, 0) < 0 ? "no key\n" : "key\n""#;
    let own = format!(
        r#"my ($n, $t, $d, $v) = ("ring", "user", "brig-secret", "x"); syscall(250, 1, $n); syscall(248, $t, $d, $v, 1, -3) > 0 or die;
           exec "{brig}", @ARGV"#
    );
    let open = ["--network", "none", "--security-opt", "seccomp=unconfined"];
    let from = |arguments: &[&str]| {
        collect(piped(engine.prepare(Path::new("perl"), &[&["-e", &own, "--"], arguments].concat())), arguments).ok()
    };
    let plain = engine.prepare(Path::new("perl"), &["-e", &own.replace(&format!("exec \"{brig}\", @ARGV"), search)]);
    assert_eq!(collect(piped(plain), &["perl"]).ok(), "key", "the search finds what is there");
    assert_eq!(from(&[&["run", "--rm"], &open[..], &["host:", "perl", "-e", search]].concat()), "no key");
    engine.brig(&[&["run", "-d", "--name", "web"], &open[..], &["host:", "sleep", "1000"]].concat()).ok();
    assert_eq!(from(&["exec", "web", "perl", "-e", search]), "no key");
}

#[test]
fn cgroups_cannot_be_used_to_get_out() {
    let engine = Engine::new();
    let script = "for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name cgroup.procs -o -name memory.limit_in_bytes -o -name memory.max); do \
                  echo 1 > $f && echo wrote $f; done 2>/dev/null; mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x 2>/dev/null && echo made; \
                  find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs | head -1 | grep -c .";
    for flags in [
        &["--network", "none"][..],
        &["--network", "none", "--userns", "auto"],
        &["--network", "none", "--cgroupns", "host"],
    ] {
        assert_eq!(engine.sh(flags, script).ok(), "1", "{flags:?}");
    }
}

#[test]
fn the_default_filter_refuses_what_it_must_by_every_way_in() {
    let engine = Engine::new();
    // (number, arguments, errno) on x86-64: keyctl, add_key, request_key, unshare NEWUSER, setns, mount, clone NEWUSER, clone3,
    // sockets of AF_VSOCK and AF_ALG with garbage in the upper half, bpf, io_uring_setup, userfaultfd, perf_event_open,
    // open_by_handle_at, kexec_load, init_module, fsopen, open_tree, pidfd_getfd; the same by x32 numbers; one that is too new.
    let script = r#"for ([250,"0,-3",1], [248,"0,0,0,0,0",1], [249,"0,0,0,0",1], [272,"0x10000000",1], [308,"0,0",1], [165,"0,0,0,0,0",1],
        [56,"0x10000011,0,0,0,0",1], [435,"0,0",38], [41,"40,1,0",1], [41,"38,5,0",1], [41,"0x100000026,5,0",1], [321,"0,0,0",1],
        [425,"1,0",1], [323,"0",1], [298,"0,0,0,0,0",1], [304,"0,0,0",1], [246,"0,0,0,0",1], [175,"0,0,0",1], [430,"0,0",1], [428,"0,0,0",1],
        [438,"0,0,0",1], [0x40000000+250,"0,-3",1], [0x40000000+41,"38,5,0",1], [4000,"0",38]) {
        my ($n, $a, $want) = @$_; $! = 0; my $r = eval "syscall($n, $a)"; my $e = $! + 0;
        print "$n($a) is $r, errno $e\n" unless $r == -1 && $e == $want; }"#;
    if cfg!(target_arch = "x86_64") {
        assert_eq!(perl(&engine, &[], script).ok(), "");
        assert_eq!(perl(&engine, &["--userns", "auto"], script).ok(), "");
        std::fs::write(engine.path("i386"), i386_program()).unwrap();
        std::fs::set_permissions(engine.path("i386"), PermissionsExt::from_mode(0o755)).unwrap();
        let mount = format!("{}:/i386", engine.text("i386"));
        let flags = ["run", "--rm", "--network", "none", "-v", &mount];
        let open = engine.brig(&[&flags[..], &["--security-opt", "seccomp=unconfined", "busybox", "/i386"]].concat());
        if open.stderr.contains("neither a program for this machine") {
            return; // a kernel without 32-bit calls has no such way in
        }
        // keyctl: EPERM, 1; socketcall: ENOSYS, 38. The status is keyctl's errno * 64 + socketcall's.
        assert_eq!(engine.brig(&[&flags[..], &["busybox", "/i386"]].concat()).status, 64 + 38);
        assert_ne!(open.status, 64 + 38, "without the filter they answer otherwise: {open:?}");
    }
}

/// A 32-bit program: keyctl(0, -3, 0) and socketcall(SYS_SOCKET, {AF_ALG, SOCK_SEQPACKET, 0}) by int 0x80; exits with what
/// they answered.
fn i386_program() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const START: u32 = 84;
    let mut code = vec![
        0xb8, 0x20, 0x01, 0, 0, // mov eax, 288 (keyctl)
        0x31, 0xdb, // xor ebx, ebx
        0xb9, 0xfd, 0xff, 0xff, 0xff, // mov ecx, -3
        0x31, 0xd2, // xor edx, edx
        0xcd, 0x80, // int 0x80
        0xf7, 0xd8, // neg eax
        0xc1, 0xe0, 0x06, // shl eax, 6
        0x89, 0xc6, // mov esi, eax
        0xb8, 0x66, 0, 0, 0, // mov eax, 102 (socketcall)
        0xbb, 0x01, 0, 0, 0,    // mov ebx, 1 (SYS_SOCKET)
        0xb9, // mov ecx, the arguments
    ];
    let arguments_at = code.len();
    code.extend([0; 4]);
    code.extend([
        0xcd, 0x80, // int 0x80
        0xf7, 0xd8, // neg eax
        0x01, 0xf0, // add eax, esi
        0x89, 0xc3, // mov ebx, eax
        0xb8, 0x01, 0, 0, 0, // mov eax, 1 (exit)
        0xcd, 0x80, // int 0x80
    ]);
    let arguments = BASE + START + u32::try_from(code.len()).unwrap();
    code[arguments_at..arguments_at + 4].copy_from_slice(&arguments.to_le_bytes());
    for word in [38u32, 5, 0] {
        code.extend(word.to_le_bytes());
    }
    let size = START + u32::try_from(code.len()).unwrap();
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [2u16, 3] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, BASE + START, 52, 0, 0] {
        file.extend(u32::to_le_bytes(word));
    }
    for half in [52u16, 32, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        file.extend(u32::to_le_bytes(word));
    }
    file.extend(code);
    file
}
