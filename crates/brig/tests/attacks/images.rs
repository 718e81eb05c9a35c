//! What an image and its configuration put in the place of what an engine touches. Classes 4, 5, 8, 10 and 16.

use crate::support::{Engine, patiently};
use crate::{image, outside, untouched};
use std::path::Path;
use testkit::image::Layer;

#[test]
fn what_an_image_puts_where_engines_touch_leads_nowhere() {
    let engine = Engine::new();
    let outside = outside(&engine);
    let secret = outside.join("secret").to_str().unwrap().to_owned();
    let climb = format!("../../../../..{secret}");
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let host_dir = outside.to_str().unwrap();
    let cases: Vec<(&str, Layer)> = vec![
        ("dev", Layer::new().symlink("dev", "/proc/sys/kernel")),
        ("dev-out", Layer::new().symlink("dev", host_dir)),
        ("dev-null", Layer::new().symlink("dev/null", "/proc/sysrq-trigger")),
        ("dev-file", Layer::new().file("dev/null", "x").file("dev/pts/ptmx", "x").file("dev/console", "x")),
        ("dev-pts", Layer::new().symlink("dev/pts", host_dir)),
        ("dev-pts-0", Layer::new().symlink("dev/pts/0", &secret).symlink("dev/console", &secret)),
        ("dev-fd", Layer::new().symlink("dev/fd", host_dir).symlink("dev/stdout", &secret)),
        ("proc", Layer::new().symlink("proc", host_dir)),
        ("proc-sys", Layer::new().symlink("proc", "/sys").symlink("sys", "/proc")),
        ("proc-self", Layer::new().symlink("proc", "/dev/shm")),
        ("sys", Layer::new().symlink("sys", "/proc/1/root")),
        ("sys-file", Layer::new().file("sys", "x")),
        ("hosts-out", Layer::new().symlink("etc/hosts", &climb).symlink("etc/resolv.conf", &secret)),
        ("hosts-proc", Layer::new().symlink("etc/hosts", "/proc/sysrq-trigger")),
        ("hosts-mask", Layer::new().symlink("etc/hosts", "/proc/kcore").symlink("etc/hostname", "/proc/sys")),
        ("hosts-null", Layer::new().symlink("etc/hosts", "/dev/null")),
        ("hosts-fd", Layer::new().symlink("etc/hosts", "/proc/self/fd/3")),
        ("hosts-dir", Layer::new().directory("etc/hosts", 0o755)),
        ("hosts-loop", Layer::new().symlink("etc/hosts", "hosts")),
        ("etc", Layer::new().symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")),
        ("passwd-out", Layer::new().symlink("etc/passwd", &climb).symlink("etc/group", "/proc/self/mem")),
        ("passwd-huge", Layer::new().file("etc/passwd", vec![b'x'; 9 << 20])),
        ("passwd-zero", Layer::new().symlink("etc/passwd", "/dev/zero")),
        ("passwd-dir", Layer::new().directory("etc/passwd", 0o755)),
        ("init", Layer::new().symlink("sbin/docker-init", &secret)),
    ];
    let script =
        "echo ran; echo x > /proc/sys/kernel/core_pattern; echo b > /proc/sysrq-trigger; head -c 1 /proc/kcore";
    let mut ran = 0;
    for (name, layer) in cases {
        image(&engine, name, layer, "{}");
        for flags in [&[][..], &["-t"], &["--init"], &["--userns", "auto"], &["-u", "nobody"], &["--read-only"]] {
            let all = [&["run", "--rm", "--network", "none"], flags, &[name, "sh", "-c", script]].concat();
            let output = engine.brig(&all);
            let text = output.stdout.replace('\r', "");
            assert!(
                text.starts_with("ran\n") || [125, 126, 127].contains(&output.status),
                "{name} {flags:?}: {output:?}"
            );
            ran += u32::from(text.starts_with("ran\n"));
            assert!(!text.contains("of the machine"), "{name}: {output:?}");
            assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern, "{name}");
            untouched(&outside);
        }
    }
    assert!(ran > 70, "images with links are not refused, but resolved inside: {ran}");
    assert!(!Path::new("/proc/sys/kernel/null").exists() && !Path::new("/run/systemd/resolve/brig").exists());
}

#[test]
fn users_that_are_no_users_are_refused_everywhere() {
    let engine = Engine::new();
    engine.idle("web", &["--network", "none"]);
    let bad = [
        "0:0:",
        "+1",
        "-1",
        "4294967296",
        "4294967295",
        "2147483648",
        "0x0",
        "1 ",
        "0:",
        "root:",
        "18446744073709551616",
    ];
    for (n, user) in bad.into_iter().enumerate() {
        let run = engine.brig(&["run", "--rm", "--network", "none", &format!("--user={user}"), "busybox", "id", "-u"]);
        let exec = engine.brig(&["exec", &format!("--user={user}"), "web", "id", "-u"]);
        let name = format!("user{n}");
        image(&engine, &name, Layer::new(), &format!(r#"{{"User": "{user}"}}"#));
        let of_image = engine.brig(&["run", "--rm", "--network", "none", &name, "id", "-u"]);
        for output in [run, exec, of_image] {
            assert_eq!((output.status, output.stdout.as_str()), (125, ""), "{user}: {output:?}");
        }
    }
}

#[test]
fn an_images_configuration_commands_nothing() {
    let engine = Engine::new();
    let labels = r#""brig.user": "0", "brig.groups": "0", "brig.privileged": "true", "io.kubernetes.x": "$(touch /x)", "a\nb": "c\u0000d""#;
    let process = format!(
        r#"{{"User": "65534:65534", "Labels": {{{labels}}}, "Env": ["A=1\nB=2", "=x", "C", "LD_PRELOAD=/x.so"],
            "Entrypoint": ["env"], "Volumes": {{"/proc/sys": {{}}, "/etc/hosts": {{}}}}, "StopSignal": "99; x"}}"#
    );
    image(&engine, "odd", Layer::new(), &process);
    let output = engine.brig(&["run", "--rm", "--network", "none", "odd"]);
    assert_eq!(output.status, 125, "a stop signal that is none is refused: {output:?}");
    image(&engine, "labels", Layer::new(), &process.replace("99; x", "TERM"));
    let output = engine.brig(&["run", "--rm", "--network", "none", "--entrypoint", "id", "labels"]);
    assert!(output.status == 125 || output.stdout.contains("uid=65534"), "{output:?}");
    image(&engine, "zero", Layer::new(), r#"{"Env": ["A=\u0000"], "Cmd": ["env"]}"#);
    let output = engine.brig(&["run", "--rm", "--network", "none", "zero"]);
    assert_eq!((output.status, output.stdout.as_str()), (125, ""), "{output:?}");
    image(&engine, "bell", Layer::new(), r#"{"Cmd": ["\u001b]0;owned\u0007\nerror: forged"]}"#);
    let output = engine.brig(&["run", "--rm", "--network", "none", "bell"]);
    assert_eq!(output.status, 127);
    assert!(!output.stderr.contains(['\u{1b}', '\u{7}']) && !output.stderr.contains("\nerror: forged"), "{output:?}");
}

#[test]
fn names_that_a_container_gives_do_not_drive_the_readers_terminal() {
    let engine = Engine::new();
    let script = "touch \"$(printf '/tmp/\\033]0;owned\\007x')\"; mkdir -p \"$(printf '/tmp/\\nA /forged')\"; \
                  ln -s /bin/busybox \"$(printf '/tmp/\\033[31m')\"; sh -c 'sleep 1000; :' \"$(printf '\\033[31m')\"";
    engine.brig(&["run", "-d", "--name", "odd", "--network", "none", "busybox", "sh", "-c", script]).ok();
    assert!(patiently(|| engine.brig(&["diff", "odd"]).stdout.matches("A /tmp/").count() >= 3));
    for listing in [&["diff", "odd"][..], &["top", "odd"], &["ps"]] {
        let text = engine.brig(listing).ok();
        assert!(!text.contains(['\u{1b}', '\u{7}']) && !text.contains("\nA /forged"), "{listing:?}: {text}");
    }
}
