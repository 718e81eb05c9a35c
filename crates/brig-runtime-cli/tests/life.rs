//! Containers by plan, through the real program: what a process sees, how it ends, what is left.

#![allow(clippy::unwrap_used)] // helpers of tests may panic, as tests do

mod support;

use brig_monitor::client::Exited;
use support::Scratch;

#[allow(clippy::unnecessary_wraps)] // compared with what is optional
fn status(code: u8) -> Option<Exited> {
    Some(Exited { status: Some(code), oom_killed: false })
}

#[test]
fn a_process_sees_a_world_of_its_own() {
    let scratch = Scratch::new();
    let output = scratch.sh("hostname; echo $$; ls /proc | grep -c '^[0-9]'; ls /; echo error >&2; exit 7");
    assert_eq!(output.failed, None);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[..2], ["study", "1"]);
    assert!(lines.contains(&"bin") && !lines.contains(&"usr"), "{lines:?}");
    assert_eq!(output.stderr, "error\n");
    assert_eq!(output.exited, status(7));
    assert_eq!(scratch.cgroups(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_signal_is_128_and_more() {
    assert_eq!(Scratch::new().sh("sh -c 'kill -9 $$'; exit $?").exited, status(137));
    assert_eq!(Scratch::new().sh("exec sh -c 'exit 300'").exited, status(44));
}

#[test]
fn a_missing_command_is_127_and_one_that_cannot_run_126() {
    let scratch = Scratch::new();
    let output = scratch.run(&scratch.plan(scratch.spec(&["nothing-here"])));
    let (code, text) = output.failed.clone().unwrap_or_else(|| panic!("{output:?}"));
    assert_eq!(code, 127);
    assert!(text.contains("nothing-here") && text.contains("PATH"), "{text}");
    let (code, text) = scratch.run(&scratch.plan(scratch.spec(&["/etc/passwd"]))).failed.unwrap();
    assert_eq!(code, 126, "{text}");
    let (code, _) = scratch.run(&scratch.plan(scratch.spec(&["/bin"]))).failed.unwrap();
    assert_eq!(code, 126);
    std::fs::write(scratch.path("lower/bin/odd"), "#!/no/such/interpreter\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(scratch.path("lower/bin/odd"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (code, text) = scratch.run(&scratch.plan(scratch.spec(&["odd"]))).failed.unwrap();
    assert!(code == 127 && text.contains("interpreter"), "{code} {text}");
    assert_eq!(scratch.cgroups(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn capabilities_filters_and_paths_are_as_told() {
    let scratch = Scratch::new();
    let output = scratch.sh("grep -E 'Cap|NoNew' /proc/self/status; cat /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/domainname; ls /proc/acpi");
    assert!(output.stdout.contains("CapInh:\t0000000000000000"), "{}", output.stdout);
    assert!(output.stdout.contains("CapEff:\t00000000000000e1"), "{}", output.stdout);
    assert!(output.stdout.contains("CapBnd:\t00000000000000e1"), "{}", output.stdout);
    assert!(output.stdout.contains("NoNewPrivs:\t1"));
    assert!(output.stdout.contains("\n0\n"), "kcore is empty: {}", output.stdout);
    assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
}

#[test]
fn a_user_by_name_gets_ids_groups_and_home() {
    let scratch = Scratch::new();
    let mut spec = scratch.spec(&["sh", "-c", "id; echo $HOME"]);
    spec["annotations"] = serde_json::json!({"brig.user": "web"});
    let output = scratch.run(&scratch.plan(spec));
    assert!(output.stdout.starts_with("uid=33(web) gid=33(web) groups=4(log)"), "{output:?}");
    assert!(output.stdout.ends_with("/var/www\n"));
}

#[test]
fn the_upper_layer_takes_the_writes() {
    let scratch = Scratch::new();
    assert_eq!(scratch.sh("echo new > /tmp/file; touch /bin/added").exited, status(0));
    assert_eq!(std::fs::read_to_string(scratch.path("c/upper/tmp/file")).unwrap(), "new\n");
    assert!(!scratch.path("lower/bin/added").exists());
}

#[test]
fn only_three_descriptors_are_inherited_and_the_directory_is_inside() {
    let scratch = Scratch::new();
    let output = scratch.sh("ls -l /proc/self/fd; readlink /proc/self/cwd");
    let open: Vec<&str> = output.stdout.lines().filter(|l| l.contains(" -> ")).collect();
    assert_eq!(open.len(), 3, "{open:?}");
    for number in 3..40 {
        let mut spec = scratch.spec(&["ls", "."]);
        spec["process"]["cwd"] = format!("/proc/self/fd/{number}").into();
        let output = scratch.run(&scratch.plan(spec));
        assert!(output.failed.is_some(), "a working directory through a descriptor was entered: {output:?}");
    }
}

#[test]
fn the_oom_killer_is_told() {
    let scratch = Scratch::new();
    let mut spec = scratch.spec(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    spec["linux"]["resources"]["memory"]["limit"] = (16 << 20).into();
    spec["linux"]["resources"]["devices"] = serde_json::json!([{"allow": true, "access": "rwm"}]);
    let exited = scratch.run(&scratch.plan(spec)).exited.unwrap();
    assert_eq!(exited, Exited { status: Some(137), oom_killed: true });
    let record = brig_monitor::state::Exit::read(&scratch.path("c")).unwrap();
    assert!(record.oom_killed);
}

#[test]
fn a_gigabyte_of_output_reaches_the_log_and_the_client_whole() {
    let scratch = Scratch::new();
    let mut plan = scratch.plan(scratch.spec(&["sh", "-c", "dd if=/dev/zero bs=1M count=64 2>/dev/null; echo end"]));
    plan.spec = serde_json::from_value({
        let mut spec = scratch.spec(&["sh", "-c", "dd if=/dev/zero bs=1M count=64 2>/dev/null; echo end"]);
        spec["linux"]["resources"]["devices"] = serde_json::json!([{"allow": true, "access": "rwm"}]);
        spec
    })
    .unwrap();
    plan.log.max_size = 1 << 20;
    plan.log.max_files = 2;
    let mut connection = scratch.start(&plan, brig_monitor::protocol::HELLO_OUTPUT);
    let mut count = 0;
    let mut end = Vec::new();
    while let Ok(Some(event)) = connection.receive() {
        if let brig_monitor::client::Event::Stdout(bytes) = event {
            count += bytes.len();
            end = bytes.to_vec();
        }
    }
    assert_eq!(count, (64 << 20) + 4);
    assert!(end.ends_with(b"end\n"));
    let size = |name: &str| std::fs::metadata(scratch.path(name)).unwrap().len();
    assert!(size("c/log") + size("c/log.1") < 3 << 20);
}

#[test]
fn an_init_buries_orphans_and_passes_signals_on() {
    let scratch = Scratch::new();
    let script = "for i in 1 2 3 4 5; do sh -c 'sleep 0.05 &'; done; sleep 0.3; grep -c 'State:.Z' /proc/[0-9]*/status | grep -c ':1'; exit 6";
    let mut spec = scratch.spec(&["/init", "init-reaper", "--", "sh", "-c", script]);
    spec["mounts"].as_array_mut().unwrap().push(serde_json::json!({
        "destination": "/init", "type": "bind", "source": support::program(), "options": ["bind", "ro"]
    }));
    let output = scratch.run(&scratch.plan(spec.clone()));
    assert_eq!((output.stdout.trim(), output.exited), ("0", status(6)), "{}", output.stderr);

    spec["process"]["args"] = serde_json::json!([
        "/init",
        "init-reaper",
        "--",
        "sh",
        "-c",
        "trap 'exit 4' TERM; echo ready; while :; do sleep 0.02; done"
    ]);
    let mut connection = scratch.start(&scratch.plan(spec), brig_monitor::protocol::HELLO_OUTPUT);
    let mut seen = String::new();
    while !seen.contains("ready") {
        match connection.receive().unwrap() {
            Some(brig_monitor::client::Event::Stdout(bytes)) => seen.push_str(&String::from_utf8_lossy(bytes)),
            Some(brig_monitor::client::Event::Started(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    connection.send(brig_monitor::protocol::Kind::Signal, &[15]).unwrap();
    assert_eq!(support::collect(&mut connection).exited, status(4));
}
