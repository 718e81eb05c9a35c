//! Real cgroups, made and removed by each test, on whatever the machine has: hybrid here, pure v2 in user-mode Linux.

use super::*;
use brig_spec::runtime::LinuxResources;
use std::process::{Child, Command, Stdio};

/// A cgroup that goes with the test, whatever becomes of it.
struct Temporary(Cgroup);

impl Temporary {
    fn new(name: &str) -> Self {
        let path = format!("/brig-cgroup-test-{}-{name}", std::process::id());
        Self(Cgroup::of_container(Some(Path::new(&path)), "unused", &Driver::Cgroupfs).unwrap())
    }

    fn read(&self, controller: &str, v1: &str, v2: &str) -> String {
        let (directory, unified) = self.0.controller(controller).unwrap();
        fs::read_to_string(directory.join(if unified { v2 } else { v1 })).unwrap().trim().to_owned()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = self.0.thaw();
        let _ = self.0.kill_all();
        let _ = self.0.remove();
    }
}

/// A process that waits, and goes with the test.
struct Waiting(Child);

impl Waiting {
    fn new() -> Self {
        Self(Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn cause(error: &Error) -> String {
    format!("{error}: {}", error.source)
}

fn has(controller: &str) -> bool {
    Layout::of_machine().unwrap().hierarchy(controller).is_some()
}

#[test]
fn limits_are_written_and_changed() {
    let test = Temporary::new("limits");
    let first = resources(
        r#"{"memory":{"limit":67108864,"reservation":33554432},"pids":{"limit":0},
            "cpu":{"shares":2048,"quota":50000,"period":100000}}"#,
    );
    let made = test.0.create(Some(&first)).unwrap();
    assert!(!made.nothing && made.missing.is_empty(), "{made:?}");
    let memory = |test: &Temporary| test.read("memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory(&test), "67108864");
    assert_eq!(test.read("memory", "memory.soft_limit_in_bytes", "memory.low"), "33554432");
    assert_eq!(test.read("pids", "pids.max", "pids.max"), "1");
    assert_eq!(test.read("cpu", "cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("50000"));
    // A period alone leaves the quota.
    test.0.update(&resources(r#"{"cpu":{"period":200000}}"#)).unwrap();
    assert_eq!(test.read("cpu", "cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("50000"));
    // Both up and both down, which want opposite orders.
    test.0.update(&resources(r#"{"memory":{"limit":134217728,"swap":268435456},"pids":{"limit":7}}"#)).unwrap();
    assert_eq!((memory(&test), test.read("pids", "pids.max", "pids.max")), ("134217728".into(), "7".into()));
    test.0.update(&resources(r#"{"memory":{"limit":33554432,"swap":33554432},"pids":{"limit":-1}}"#)).unwrap();
    assert_eq!((memory(&test), test.read("pids", "pids.max", "pids.max")), ("33554432".into(), "max".into()));
    test.0.update(&resources(r#"{"memory":{"limit":-1},"cpu":{"quota":-1}}"#)).unwrap();
    assert!(memory(&test) == "max" || memory(&test).parse::<u64>().unwrap() > 1 << 60);
    assert!(matches!(test.read("cpu", "cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("-1" | "max")));
}

#[test]
fn a_limit_below_another_is_taken_in_the_right_order() {
    let parent = Temporary::new("order");
    parent.0.create(Some(&resources(r#"{"cpu":{"quota":50000,"period":100000}}"#))).unwrap();
    let child = Cgroup::open(&parent.0.path().join("child")).unwrap();
    child.create(Some(&resources(r#"{"cpu":{"quota":40000,"period":100000}}"#))).unwrap();
    // The old quota in the new period would be four times what the parent has.
    child.update(&resources(r#"{"cpu":{"quota":3000,"period":10000}}"#)).unwrap();
    let error = child.update(&resources(r#"{"cpu":{"quota":9000}}"#));
    let v1 = !parent.0.layout().is_pure_v2();
    assert_eq!(error.is_err(), v1, "v2 lets a child's limit be larger than its parent's");
    if let Err(error) = error {
        assert!(cause(&error).contains("9000") && cause(&error).contains("over that of the parent"), "{error:?}");
    }
    child.remove().unwrap();
}

#[test]
fn an_idle_cgroup_keeps_the_kernels_weight() {
    let test = Temporary::new("idle");
    let (probe, idle) = (Temporary::new("idle-probe"), resources(r#"{"cpu":{"idle":1,"shares":512}}"#));
    probe.0.create(None).unwrap();
    let (directory, _) = probe.0.controller("cpu").unwrap();
    assert!(directory.join("cpu.idle").exists(), "every kernel of the tests has it");
    test.0.create(Some(&idle)).unwrap();
    assert_eq!(test.read("cpu", "cpu.idle", "cpu.idle"), "1");
    test.0.update(&resources(r#"{"cpu":{"idle":0,"shares":512}}"#)).unwrap();
    assert_eq!(test.read("cpu", "cpu.idle", "cpu.idle"), "0");
    assert_eq!(test.read("cpu", "cpu.shares", "cpu.weight"), if test.0.layout().is_pure_v2() { "59" } else { "512" });
}

#[test]
fn what_the_machine_cannot_limit_is_an_error_only_when_asked_for() {
    let test = Temporary::new("missing");
    let missing: Vec<&str> = ["hugetlb", "rdma", "cpuset"].into_iter().filter(|c| !has(c)).collect();
    for controller in missing {
        let json = match controller {
            "hugetlb" => r#"{"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]}"#,
            "rdma" => r#"{"rdma":{"mlx5_1":{"hcaHandles":3}}}"#,
            _ => r#"{"cpu":{"cpus":"0"}}"#,
        };
        let error = cause(&test.0.create(Some(&resources(json))).unwrap_err());
        assert!(error.contains(&format!("cannot set {controller} limit")), "{error}");
        assert!(test.0.directories().all(|directory| !directory.exists()), "nothing is made before that is known");
    }
    test.0.create(Some(&resources(r#"{"hugepageLimits":[],"rdma":{},"cpu":{"cpus":""}}"#))).unwrap();
}

#[test]
fn unified_files_are_written_on_v2_and_refused_on_v1() {
    let test = Temporary::new("unified");
    let wish = resources(r#"{"unified":{"pids.max":"42","memory.max":"41943040","cpu.max":"5000 50000"}}"#);
    let result = test.0.create(Some(&wish));
    if !test.0.layout().is_pure_v2() {
        let error = cause(&result.unwrap_err());
        assert!(error.contains("invalid configuration"), "{error}");
        return;
    }
    result.unwrap();
    assert_eq!(test.read("pids", "", "pids.max"), "42");
    assert_eq!(test.read("cpu", "", "cpu.max"), "5000 50000");
    for (file, want) in [
        ("../pids.max", "must be a file name"),
        ("pids", "CONTROLLER.PARAMETER"),
        ("cgroup.procs", "is not a limit"),
        ("cgroup.subtree_control", "is not a limit"),
        ("nonsense.max", "controller \\\"nonsense\\\" not available"),
    ] {
        let wish = resources(&format!(r#"{{"unified":{{"{file}":"1"}}}}"#));
        let error = cause(&test.0.update(&wish).unwrap_err());
        assert!(error.contains(&want.replace('\\', "")), "{file}: {error}");
    }
}

#[test]
fn errors_name_the_file_the_value_and_what_is_wrong() {
    let test = Temporary::new("errors");
    test.0.create(None).unwrap();
    let error = cause(&test.0.update(&resources(r#"{"cpu":{"quota":1}}"#)).unwrap_err());
    assert!(error.contains("write `1") && error.contains("/cpu.") && error.contains("range"), "{error}");
    let file = test.0.directory(0).join("nonsense.max");
    let error = cause(&file::write(&file, "7").unwrap_err());
    assert!(error.contains("write `7`") && error.contains("the controller `nonsense` is not enabled"), "{error}");
    if !test.0.layout().is_pure_v2() {
        let error = cause(&test.0.update(&resources(r#"{"cpu":{"shares":262145}}"#)).unwrap_err());
        assert!(error.contains("the maximum allowed cpu-shares is 262144"), "{error}");
        let error = cause(&test.0.update(&resources(r#"{"memory":{"swappiness":101}}"#)).unwrap_err());
        assert!(error.contains("invalid memory swappiness value: 101"), "{error}");
    }
}

#[test]
fn a_creation_that_fails_leaves_what_was_there_and_nothing_else() {
    let test = Temporary::new("undo");
    let (bad, made) =
        (resources(r#"{"cpu":{"quota":1}}"#), |t: &Temporary| t.0.directories().filter(|d| d.exists()).count());
    assert!(test.0.create(Some(&bad)).is_err());
    assert_eq!(made(&test), 0);
    let process = Waiting::new();
    let mut reached = Vec::new();
    let refused = test.0.enclose(process.pid(), Some(&bad), |stage| {
        reached.push((stage, made(&test)));
        Ok(())
    });
    assert!(refused.is_err());
    assert_eq!(reached, [(Stage::Exists, test.0.directories().count())], "it never became the caller's");
    assert_eq!(made(&test), 0);
    let told = test.0.enclose(process.pid(), None, |_| Err(Error::invalid("tell", "nobody hears")));
    assert_eq!((cause(&told.unwrap_err()), made(&test)), ("cannot tell: nobody hears".into(), 0));
    // One hierarchy has it already, in use: that one stays as it is.
    let main = test.0.controller("memory").unwrap().0;
    fs::create_dir(&main).unwrap();
    fs::create_dir(main.join("below")).unwrap();
    fs::write(main.join("cgroup.procs"), process.pid().to_string()).unwrap();
    assert!(test.0.clone().exclusive(true).create(None).is_err());
    assert_eq!(made(&test), 1);
    assert!(main.join("below").exists());
}

#[test]
fn a_cgroup_in_use_is_refused() {
    let test = Temporary::new("in-use");
    test.0.check_unused().unwrap();
    test.0.create(None).unwrap();
    test.0.check_unused().unwrap();
    let again = test.0.clone().exclusive(true);
    again.create(None).unwrap();
    let process = Waiting::new();
    test.0.add(process.pid()).unwrap();
    for error in [test.0.check_unused().unwrap_err(), again.create(None).unwrap_err()] {
        assert!(cause(&error).contains("container's cgroup is not empty: 1 process(es) found"), "{error:?}");
    }
    test.0.create(None).unwrap();
    drop(process);
    test.0.freeze().unwrap();
    for error in [test.0.check_unused().unwrap_err(), again.create(None).unwrap_err()] {
        assert!(cause(&error).contains("container's cgroup unexpectedly frozen"), "{error:?}");
    }
    test.0.thaw().unwrap();
    again.create(None).unwrap();
}

#[test]
fn a_frozen_parent_does_not_make_a_cgroup_frozen() {
    let parent = Temporary::new("frozen-parent");
    parent.0.create(None).unwrap();
    let child = Cgroup::open(&parent.0.path().join("child")).unwrap();
    child.create(None).unwrap();
    parent.0.freeze().unwrap();
    assert!(parent.0.is_frozen() && !child.is_frozen());
    parent.0.thaw().unwrap();
    child.remove().unwrap();
}

#[test]
fn processes_enter_named_sub_cgroups() {
    let test = Temporary::new("sub");
    test.0.create(None).unwrap();
    let (one, two) = (Waiting::new(), Waiting::new());
    let nowhere = SubCgroups::parse(&["nowhere"]).unwrap();
    let error = cause(&test.0.add_to(one.pid(), &nowhere).unwrap_err());
    assert!(error.contains(" adding pid ") && error.contains("No such file or directory"), "{error}");
    if test.0.layout().is_pure_v2() {
        // A cgroup that hands controllers down takes no processes, so this one does not.
        fs::create_dir(test.0.directory(0).join("below")).unwrap();
    } else {
        Cgroup::open(&test.0.path().join("below")).unwrap().create(None).unwrap();
    }
    test.0.add_to(one.pid(), &SubCgroups::parse(&["below"]).unwrap()).unwrap();
    test.0.add_to(two.pid(), &SubCgroups::parse(&["/"]).unwrap()).unwrap();
    let of = |process: &Waiting| fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap();
    let path = test.0.path();
    assert!(of(&one).lines().all(|line| line.ends_with(&format!("{}/below", path.display()))), "{}", of(&one));
    assert!(of(&two).lines().all(|line| line.ends_with(&format!(":{}", path.display()))), "{}", of(&two));
    if test.0.layout().is_pure_v2() {
        assert!(test.0.birthplace_in(&nowhere).is_err());
        assert!(test.0.birthplace_in(&SubCgroups::parse(&["below"]).unwrap()).unwrap().is_some());
        assert!(test.0.birthplace_of(one.pid()).unwrap().is_some());
        return;
    }
    assert!(test.0.birthplace().unwrap().is_none());
    let some = SubCgroups::parse(&["memory,pids:below"]).unwrap();
    test.0.add_to(two.pid(), &some).unwrap();
    for line in of(&two).lines() {
        let below = line.contains(":memory:") || line.contains(":pids:");
        assert_eq!(line.ends_with("/below"), below, "{line}");
    }
    let unknown = SubCgroups::parse(&["whaaat:/"]).unwrap();
    assert!(cause(&test.0.add_to(two.pid(), &unknown).unwrap_err()).contains("unknown controller whaaat"));
}

/// The shell's own words about what it may open, with the rules in force for it.
fn may_open(cgroup: &Cgroup, device: &str) -> bool {
    let directories: Vec<String> = cgroup.directories().map(|d| d.display().to_string()).collect();
    let script =
        format!("for d in {}; do echo 0 > $d/cgroup.procs || exit 9; done; exec 3< {device}", directories.join(" "));
    let status = Command::new("/bin/sh").arg("-c").arg(script).stderr(Stdio::null()).status().unwrap();
    assert_ne!(status.code(), Some(9));
    status.success()
}

#[test]
fn devices_are_refused_by_default_and_replaced_on_update() {
    let test = Temporary::new("devices");
    test.0.create(None).unwrap();
    assert!(may_open(&test.0, "/dev/null"), "the usual devices need no rule");
    assert!(!may_open(&test.0, "/dev/kmsg"));
    let kmsg =
        r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#;
    for _ in 0..2 {
        test.0.update(&resources(kmsg)).unwrap();
        assert!(may_open(&test.0, "/dev/kmsg") && may_open(&test.0, "/dev/null"));
    }
    let all =
        r#"{"devices":[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"r"}]}"#;
    test.0.update(&resources(all)).unwrap();
    assert!(!may_open(&test.0, "/dev/kmsg") && may_open(&test.0, "/dev/null"));
    test.0.update(&resources(r#"{"devices":[]}"#)).unwrap();
    assert!(!may_open(&test.0, "/dev/kmsg") && may_open(&test.0, "/dev/null"));
    test.0.update(&resources(r#"{"pids":{"limit":100}}"#)).unwrap();
    assert!(!may_open(&test.0, "/dev/kmsg"), "an update without rules leaves them");
}

#[test]
fn a_process_that_uses_devices_does_not_notice_an_update() {
    let test = Temporary::new("no-hole");
    test.0.create(None).unwrap();
    let directories: Vec<String> = test.0.directories().map(|d| d.display().to_string()).collect();
    // In the same breath what must always work and what never may.
    let script = format!(
        "for d in {}; do echo 0 > $d/cgroup.procs || exit 9; done; \
         for n in {{1..200}}; do {{ : < /dev/null; }} || exit 3; {{ : < /dev/kmsg; }} && exit 4; done 2> /dev/null; exit 0",
        directories.join(" ")
    );
    let mut child = Command::new("/bin/bash").arg("-c").arg(script).spawn().unwrap();
    let mut minors = (100..103).cycle();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let minor = minors.next().unwrap();
        let rules = format!(r#"{{"devices":[{{"allow":true,"type":"c","major":10,"minor":{minor},"access":"rw"}}]}}"#);
        test.0.update(&resources(&rules)).unwrap();
    };
    assert_eq!(status.code(), Some(0), "3: an allowed device was refused; 4: a refused one was opened");
}

#[test]
fn numbers_are_read_for_a_process() {
    let test = Temporary::new("metrics");
    test.0.create(Some(&resources(r#"{"memory":{"limit":67108864},"pids":{"limit":50}}"#))).unwrap();
    let process = Waiting::new();
    test.0.add(process.pid()).unwrap();
    let metrics = test.0.metrics();
    assert_eq!((metrics.pids.current, metrics.pids.limit), (1, 50));
    assert_eq!(metrics.memory.usage.limit, 67_108_864);
    assert!(metrics.memory.raw.len() > 10, "{:?}", metrics.memory.raw);
    if !test.0.layout().is_pure_v2() {
        assert_eq!(metrics.cpu.usage.percpu.len(), metrics.cpu.usage.percpu_user.len());
        assert!(!metrics.cpuset.cpus.is_empty() && metrics.cpuset.sched_relax_domain_level == -1);
    }
    let stats = test.0.stats();
    assert_eq!((stats.pids, stats.memory_limit_bytes), (1, Some(67_108_864)));
    assert_eq!(NetworkInterface::read("lo").unwrap().name, "lo");
    assert!(NetworkInterface::read("../lo").is_err() && NetworkInterface::read("no-such-one").is_err());
}

#[test]
fn the_oom_killer_and_the_end_are_heard() {
    let test = Temporary::new("oom");
    test.0.create(Some(&resources(r#"{"memory":{"limit":8388608,"swap":8388608}}"#))).unwrap();
    let keeper = Waiting::new();
    test.0.add(keeper.pid()).unwrap();
    let mut watch = test.0.watch_oom().unwrap();
    assert_eq!(watch.take().unwrap(), OomEvent::Nothing);
    let directories: Vec<String> = test.0.directories().map(|d| d.display().to_string()).collect();
    let script =
        format!("for d in {}; do echo 0 > $d/cgroup.procs || exit 9; done; exec tail /dev/zero", directories.join(" "));
    let status = Command::new("/bin/sh").arg("-c").arg(script).status().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let wait = |watch: &OomWatch| {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
        poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&limit)).unwrap()
    };
    assert_eq!(wait(&watch), 1);
    assert_eq!(watch.take().unwrap(), OomEvent::Oom);
    assert_eq!(test.0.oom_kills(), 1);
    while watch.take().unwrap() == OomEvent::Oom {}
    assert_eq!(watch.take().unwrap(), OomEvent::Nothing, "the other process is still there");
    drop(keeper);
    test.0.remove().unwrap();
    assert_eq!(wait(&watch), 1);
    assert_eq!(watch.take().unwrap(), OomEvent::Gone);
}

#[test]
fn a_v2_cgroup_is_given_to_its_owner() {
    use std::os::unix::fs::MetadataExt;
    let test = Temporary::new("owner");
    test.0.clone().owner(Some(4242)).create(None).unwrap();
    let owned = |path: &Path| fs::metadata(path).unwrap().uid();
    for directory in test.0.directories() {
        let want = if test.0.layout().is_pure_v2() { 4242 } else { 0 };
        assert_eq!((owned(&directory), owned(&directory.join("cgroup.procs"))), (want, want));
        if want != 0 {
            assert_eq!(owned(&directory.join("cgroup.subtree_control")), want);
            assert_eq!(owned(&directory.join("pids.max")), 0, "its own limits are not the owner's");
        }
    }
}

#[test]
fn a_relative_cgroup_lies_below_or_beside_the_own_one() {
    let name = format!("brig-cgroup-test-relative-{}", std::process::id());
    let test = Temporary(Cgroup::of_container(None, &name, &Driver::Cgroupfs).unwrap());
    let process = Waiting::new();
    test.0.enclose(process.pid(), Some(&resources(r#"{"pids":{"limit":9}}"#)), |_| Ok(())).unwrap();
    let back = Cgroup::from_record(&test.0.to_record()).unwrap();
    assert_eq!(back.pids(), [process.pid()]);
    assert_eq!(test.read("pids", "pids.max", "pids.max"), "9");
    let of = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap();
    assert!(of.lines().all(|line| line.ends_with(&format!("/{name}"))), "{of}");
}

/// Runs in a process of its own, as a user who may make nothing.
#[test]
fn without_permission_a_cgroup_is_left_out_unless_a_limit_asks_for_it() {
    const INSIDE: &str = "BRIG_TEST_AS_NOBODY";
    if std::env::var_os(INSIDE).is_none() {
        let name = "cgroup::tests::without_permission_a_cgroup_is_left_out_unless_a_limit_asks_for_it";
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", name, "--nocapture"]).env(INSIDE, "1").current_dir("/");
        let output = std::os::unix::process::CommandExt::uid(&mut command, 65534).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    }
    assert!(!rustix::process::geteuid().is_root());
    let name = format!("brig-cgroup-test-nobody-{}", std::process::id());
    let usual = Cgroup::of_container(None, &name, &Driver::Cgroupfs).unwrap();
    let limits = resources(r#"{"pids":{"limit":5}}"#);
    let error = cause(&usual.create(None).unwrap_err());
    assert!(error.contains("make the cgroup") && error.contains("ermission denied"), "{error}");
    let rootless = usual.rootless(true);
    let made = rootless.create(None).unwrap();
    assert!(made.nothing, "{made:?}");
    assert_eq!(made.missing, rootless.directories().collect::<Vec<_>>());
    assert!(rootless.enclose(std::process::id().cast_signed(), None, |_| Ok(())).unwrap().nothing);
    rootless.remove().unwrap();
    let error = cause(&rootless.create(Some(&limits)).unwrap_err());
    let want = if rootless.layout().is_pure_v2() {
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
    } else {
        "cannot set pids limit: container could not join or create cgroup"
    };
    assert!(error.contains(want), "{error}");
    let chosen = Cgroup::of_container(Some(Path::new("/brig-cgroup-test-nobody")), "x", &Driver::Cgroupfs).unwrap();
    let error = cause(&chosen.rootless(true).create(None).unwrap_err());
    assert!(error.contains("unable to apply cgroup configuration") && error.contains("permission denied"), "{error}");
}
