//! The systemd cgroup driver against a running systemd.
//!
//! Place: a machine with systemd and cgroup v2, as root or in a user's own session: `tools/systemd-tests`. There
//! `BRIG_TEST_PLACE=systemd` is set, and every test does its work. On a machine without systemd each test asserts instead
//! that the driver says so, and touches nothing.

#![allow(clippy::unwrap_used)] // helpers of tests may panic, as tests do

use brig_runtime::cgroup::{Bus, Cgroup, Driver, SubCgroups};
use brig_spec::runtime::LinuxResources;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The systemd of this process's user; none where there is none, which must not be its place then.
fn bus() -> Option<Bus> {
    if std::env::var("BRIG_TEST_PLACE").is_ok_and(|place| place == "systemd") {
        assert!(Path::new("/run/systemd/system").is_dir(), "this place has no systemd");
        if rustix::process::geteuid().is_root() {
            return Some(Bus::System);
        }
        let directory = std::env::var("XDG_RUNTIME_DIR").expect("a user's session has a runtime directory");
        return Some(Bus::User { directory: Some(directory.into()), address: None });
    }
    let error = enclose_error(&Bus::System);
    assert!(error.contains("systemd not running on this host"), "{error}");
    None
}

fn enclose_error(bus: &Bus) -> String {
    let cgroup = Cgroup::of_container(None, "brig-test-nowhere", &Driver::Systemd(bus.clone())).unwrap();
    let error = cgroup.enclose(1, None, |_| Ok(())).unwrap_err();
    format!("{error}: {}", error.source)
}

fn show(bus: &Bus, unit: &str, property: &str) -> String {
    let mut command = Command::new("systemctl");
    if *bus != Bus::System {
        command.arg("--user");
    }
    let output = command.args(["show", "--value", "-p", property, unit]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A process that waits, and goes with the test.
struct Waiting(Child);

impl Waiting {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap())
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

struct Scope {
    cgroup: Cgroup,
    unit: String,
}

impl Scope {
    fn new(bus: &Bus, name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let slice = if *bus == Bus::System { "system.slice" } else { "user.slice" };
        let path = format!("{slice}:brig-test:{name}");
        let driver = Driver::Systemd(bus.clone());
        let cgroup = Cgroup::of_container(Some(Path::new(&path)), "unused", &driver).unwrap();
        // A user may not load the program that guards the devices.
        let cgroup = cgroup.rootless(!rustix::process::geteuid().is_root());
        Self { cgroup, unit: format!("brig-test-{name}.scope") }
    }

    fn directory(&self) -> PathBuf {
        self.cgroup.directories().next().unwrap()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.directory().join(file)).unwrap().trim().to_owned()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = self.cgroup.kill_all();
        let _ = self.cgroup.remove();
    }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_scope_is_made_limited_changed_and_removed() {
    let Some(bus) = bus() else { return };
    let scope = Scope::new(&bus, "life");
    let annotations = BTreeMap::from([
        ("org.systemd.property.TimeoutStopSec".to_owned(), "7".to_owned()),
        ("org.systemd.property.CollectMode".to_owned(), "'inactive-or-failed'".to_owned()),
    ]);
    let cgroup = scope.cgroup.clone().annotations(&annotations).unwrap();
    assert!(!cgroup.takes_births());
    assert!(cgroup.create(None).is_err(), "a scope needs a process");
    let process = Waiting::new();
    let first = resources(
        r#"{"memory":{"limit":67108864,"reservation":33554432},"pids":{"limit":20},
            "cpu":{"shares":1024,"quota":50000,"period":100000},"unified":{"memory.high":"50331648"}}"#,
    );
    let made = cgroup.enclose(process.pid(), Some(&first), |_| Ok(())).unwrap();
    assert!(!made.nothing && made.missing.is_empty());
    let of = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap();
    assert!(of.trim().ends_with(&scope.unit), "{of}");
    assert_eq!(cgroup.pids(), [process.pid()]);
    for (property, want) in [
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("MemoryHigh", "50331648"),
        ("TasksMax", "20"),
        ("Delegate", "yes"),
        ("CollectMode", "inactive-or-failed"),
        ("TimeoutStopUSec", "7s"),
        ("ActiveState", "active"),
    ] {
        assert_eq!(show(&bus, &scope.unit, property), want, "{property}");
    }
    assert_eq!((scope.read("memory.max"), scope.read("pids.max")), ("67108864".into(), "20".into()));
    // A user's session is not given every controller.
    if bus == Bus::System {
        assert_eq!(scope.read("cpu.max"), "50000 100000");
        assert_eq!(show(&bus, &scope.unit, "CPUQuotaPerSecUSec"), "500ms");
        assert_eq!(show(&bus, &scope.unit, "CPUWeight"), "100");
    }
    // Another process opens it from its record, and changes it.
    let record = serde_json::to_string(&cgroup.to_record()).unwrap();
    let again = Cgroup::from_record(&serde_json::from_str(&record).unwrap()).unwrap();
    again.update(&resources(r#"{"memory":{"limit":134217728},"pids":{"limit":0}}"#)).unwrap();
    assert_eq!((scope.read("memory.max"), scope.read("pids.max")), ("134217728".into(), "1".into()));
    assert_eq!(show(&bus, &scope.unit, "MemoryMax"), "134217728");
    assert_eq!(show(&bus, &scope.unit, "TasksMax"), "1");
    again.update(&resources(r#"{"pids":{"limit":-1}}"#)).unwrap();
    assert_eq!(show(&bus, &scope.unit, "TasksMax"), "infinity");
    again.freeze().unwrap();
    assert!(cgroup.is_frozen());
    again.thaw().unwrap();
    again.kill_all().unwrap();
    again.remove().unwrap();
    assert!(!scope.directory().exists());
    assert_eq!(show(&bus, &scope.unit, "LoadState"), "not-found");
    again.remove().unwrap();
}

#[test]
fn further_processes_enter_the_scope_and_cgroups_below_it() {
    let Some(bus) = bus() else { return };
    let scope = Scope::new(&bus, "enter");
    let processes = [Waiting::new(), Waiting::new(), Waiting::new()];
    scope.cgroup.enclose(processes[0].pid(), None, |_| Ok(())).unwrap();
    scope.cgroup.add(processes[1].pid()).unwrap();
    std::fs::create_dir(scope.directory().join("below")).unwrap();
    scope.cgroup.add_to(processes[2].pid(), &SubCgroups::parse(&["below"]).unwrap()).unwrap();
    let mut pids = scope.cgroup.pids();
    pids.sort_unstable();
    let mut want: Vec<i32> = processes.iter().map(Waiting::pid).collect();
    want.sort_unstable();
    assert_eq!(pids, want);
}

#[test]
fn a_name_that_is_taken_is_refused_and_its_scope_is_left_alone() {
    let Some(bus) = bus() else { return };
    let scope = Scope::new(&bus, "taken");
    let (first, second) = (Waiting::new(), Waiting::new());
    scope.cgroup.enclose(first.pid(), None, |_| Ok(())).unwrap();
    let error = scope.cgroup.enclose(second.pid(), None, |_| Ok(())).unwrap_err();
    assert!(error.source.to_string().contains("UnitExists"), "{error:?}");
    let error = scope.cgroup.clone().exclusive(true).enclose(second.pid(), None, |_| Ok(())).unwrap_err();
    assert!(error.source.to_string().contains("container's cgroup is not empty"), "{error:?}");
    assert_eq!(scope.cgroup.pids(), [first.pid()]);
    assert_eq!(show(&bus, &scope.unit, "ActiveState"), "active");
}

#[test]
fn what_systemd_refuses_is_told_in_its_words() {
    let Some(bus) = bus() else { return };
    let scope = Scope::new(&bus, "refused");
    let process = Waiting::new();
    let wrong = BTreeMap::from([("org.systemd.property.TimeoutStopUSec".to_owned(), "'soon'".to_owned())]);
    let cgroup = scope.cgroup.clone().annotations(&wrong).unwrap();
    let error = cgroup.enclose(process.pid(), None, |_| Ok(())).unwrap_err();
    let text = format!("{error}: {}", error.source);
    assert!(text.contains(&scope.unit) && text.contains("Failed to set unit properties"), "{text}");
    assert_eq!(show(&bus, &scope.unit, "LoadState"), "not-found");
}

#[test]
fn a_bus_between_does_as_well() {
    let Some(bus) = bus() else { return };
    let address = match &bus {
        Bus::System => "unix:path=/run/dbus/system_bus_socket".to_owned(),
        Bus::User { directory, .. } => format!("unix:path={}/bus", directory.as_ref().unwrap().display()),
    };
    let over_bus = Bus::User { directory: None, address: Some(address) };
    let scope = Scope::new(&over_bus, "bus");
    let process = Waiting::new();
    scope.cgroup.enclose(process.pid(), Some(&resources(r#"{"pids":{"limit":5}}"#)), |_| Ok(())).unwrap();
    assert_eq!(scope.read("pids.max"), "5");
    assert_eq!(show(&bus, &scope.unit, "TasksMax"), "5");
    scope.cgroup.kill_all().unwrap();
    scope.cgroup.remove().unwrap();
    assert_eq!(show(&bus, &scope.unit, "LoadState"), "not-found");
}

#[test]
fn cpus_idleness_and_odd_quotas_reach_systemd() {
    let Some(bus) = bus() else { return };
    if bus != Bus::System {
        return; // the controllers cpu and cpuset are not delegated to users by default
    }
    let scope = Scope::new(&bus, "cpu");
    let process = Waiting::new();
    let wish = resources(r#"{"cpu":{"cpus":"0","quota":5001,"period":100000,"idle":1}}"#);
    scope.cgroup.enclose(process.pid(), Some(&wish), |_| Ok(())).unwrap();
    assert_eq!((scope.read("cpuset.cpus"), scope.read("cpu.max")), ("0".into(), "6000 100000".into()));
    assert_eq!(scope.read("cpu.idle"), "1");
    assert_eq!(show(&bus, &scope.unit, "AllowedCPUs"), "0");
    // A reload has systemd write all of its properties again.
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    assert_eq!((scope.read("cpu.max"), scope.read("cpu.idle")), ("6000 100000".into(), "1".into()));
}
