//! Scheduling, priorities, processors, memory nodes and personality of real containers and of what is started in them.
//!
//! `BRIG_OCI_RUNTIME` names another runtime to call instead; what stands in the module `both` holds for every runtime, as in
//! `oci.rs`.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test fails by panicking, and names what it skips

#[allow(dead_code)] // each test file uses a part
#[path = "oci/bundle.rs"]
mod bundle;

use brig_sys::schedule;
use bundle::{Bundle, Said};
use serde_json::{Value, json};

/// What a process says of itself: nice value, policy, processors, personality, disk accesses, memory nodes of its first page.
const REPORT: &str = "set -- $(sed 's/.*) //' /proc/self/stat); echo nice ${17} policy ${39}; \
    grep Cpus_allowed_list /proc/self/status; cat /proc/self/personality; busybox ionice; head -n 1 /proc/self/numa_maps 2>/dev/null || true";

fn bundle(script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    for applet in ["sed", "head"] {
        std::os::unix::fs::symlink("busybox", bundle.rootfs("bin").join(applet)).unwrap();
    }
    bundle
}

/// Runs a container that waits.
fn waiting(change: impl FnOnce(&mut Value)) -> Bundle {
    let mut bundle = bundle("exec sleep 1000");
    change(&mut bundle.config);
    bundle.leave(&["run", "-d", bundle.id()]);
    bundle
}

/// Starts a process that a file describes.
fn exec(bundle: &Bundle, before: &[&str], mut process: Value) -> Said {
    process["cwd"] = json!("/");
    process["env"] = json!(["PATH=/bin"]);
    std::fs::write(bundle.path("process.json"), process.to_string()).unwrap();
    let mut words = before.to_vec();
    words.extend(["exec", "--process", "process.json", bundle.id()]);
    bundle.call(&words)
}

fn processors() -> Vec<usize> {
    let set = schedule::affinity(0).unwrap();
    (0..set.len() * 8).filter(|n| set[n / 8] & (1 << (n % 8)) != 0).collect()
}

/// Two processors that this process may use; none, named, where it has but one.
fn two() -> Option<(usize, usize)> {
    let two = processors().get(..2).map(|two| (two[0], two[1]));
    if two.is_none() {
        eprintln!("skipped: this needs two processors");
    }
    two
}

/// Whether this kernel knows memory nodes; not, named, is a test less.
fn has_memory_nodes() -> bool {
    let has = std::path::Path::new("/proc/self/numa_maps").exists();
    if !has {
        eprintln!("skipped: this needs a kernel with memory nodes");
    }
    has
}

/// Calls the runtime while this process is kept on one processor.
fn on_one(processor: usize, call: impl FnOnce() -> Said) -> Said {
    let before = schedule::affinity(0).unwrap();
    let mut one = vec![0u8; processor / 8 + 1];
    one[processor / 8] = 1 << (processor % 8);
    schedule::set_affinity(0, &one).unwrap();
    let said = call();
    schedule::set_affinity(0, &before).unwrap();
    said
}

fn list(said: Said) -> String {
    said.ok().trim().rsplit('\t').next().unwrap().to_owned()
}

const LIST: &str = "grep Cpus_allowed_list /proc/self/status";

mod both {
    use super::*;

    #[test]
    fn everything_is_set_for_the_first_process_and_for_those_that_follow() {
        let mut bundle = bundle(REPORT);
        bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 11});
        bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
        bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
        let nodes = has_memory_nodes();
        if nodes {
            bundle.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"});
        }
        let is_as_asked = |said: &str| {
            assert!(said.contains("nice 11 policy 3\n"), "{said}");
            assert!(said.contains("best-effort: prio 6\n"), "{said}");
            assert!(!nodes || said.contains(" interleave:0 "), "{said}");
            assert!(said.contains("00000008\n"), "{said}");
        };
        is_as_asked(&bundle.run().ok());
        bundle.config["process"]["args"] = json!(["sleep", "1000"]);
        bundle.leave(&["run", "-d", bundle.id()]);
        is_as_asked(&bundle.exec(REPORT).ok());
        // What a process says for itself counts.
        let own = json!({"args": ["sh", "-c", REPORT], "scheduler": {"policy": "SCHED_IDLE"}, "ioPriority": {"class": "IOPRIO_CLASS_IDLE"}});
        let said = exec(&bundle, &[], own).ok();
        assert!(said.contains("policy 5\n") && said.contains("idle\n"), "{said}");
        assert!(!nodes || said.contains(" interleave:0 "), "{said}");
    }

    #[test]
    fn a_deadline_is_kept_and_does_not_go_with_processors_of_ones_own() {
        let deadline = json!({"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"], "runtime": 42000, "deadline": 1_000_000, "period": 1_000_000});
        let bundle = waiting(|_| {});
        let pids = bundle.path("pid");
        let process = json!({"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], "scheduler": deadline});
        std::fs::write(bundle.path("process.json"), process.to_string()).unwrap();
        bundle.leave(&["exec", "-d", "--pid-file", "pid", "--process", "process.json", bundle.id()]);
        let pid = std::fs::read_to_string(pids).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let policy = stat.rsplit_once(") ").unwrap().1.split(' ').nth(41 - 3).unwrap();
        assert_eq!(policy, "6", "{stat}");
        let Some((first, _)) = two() else { return };
        let mut narrow = super::bundle("true");
        narrow.config["process"]["scheduler"] = deadline;
        narrow.config["linux"]["resources"]["cpu"] = json!({"cpus": first.to_string(), "mems": "0"});
        let said = narrow.run().failed();
        assert!(said.contains("process scheduler can't be used together with AllowedCPUs"), "{said}");
    }

    #[test]
    fn the_callers_processors_are_not_the_containers() {
        let Some((first, second)) = two() else { return };
        let all = list(Bundle::new(LIST).run());
        assert_eq!(list(on_one(first, || Bundle::new(LIST).run())), all);
        let bundle = waiting(|_| {});
        assert_eq!(list(on_one(first, || bundle.exec(LIST))), all);
        // Neither does the caller's set narrow that of the cgroup, even where they have nothing in common.
        let mut narrow = Bundle::new(LIST);
        narrow.config["linux"]["resources"]["cpu"] = json!({"cpus": second.to_string(), "mems": "0"});
        assert_eq!(list(on_one(first, || narrow.run())), second.to_string());
        let narrow = waiting(|config| {
            config["linux"]["resources"]["cpu"] = json!({"cpus": second.to_string(), "mems": "0"});
        });
        assert_eq!(list(on_one(first, || narrow.exec(LIST))), second.to_string());
    }

    #[test]
    fn an_exec_is_born_and_runs_on_the_processors_that_are_named() {
        let Some((first, second)) = two() else { return };
        let bundle = waiting(|config| {
            config["process"]["execCPUAffinity"] = json!({"initial": first.to_string(), "final": second.to_string()});
        });
        let born = |said: &Said, processor: usize| {
            let words = format!("affinity: {:#x}", 1u64 << processor);
            assert!(said.stderr.contains("nsexec") && said.stderr.contains(&words), "{said:?}");
        };
        // The container's own word.
        let said = bundle.call(&["--debug", "exec", bundle.id(), "sh", "-c", LIST]);
        born(&said, first);
        assert_eq!(list(said), second.to_string());
        // The process's own.
        let args = json!(["sh", "-c", LIST]);
        let said = exec(
            &bundle,
            &["--debug"],
            json!({"args": args, "execCPUAffinity": {"initial": second.to_string(), "final": first.to_string()}}),
        );
        born(&said, second);
        assert_eq!(list(said), first.to_string());
        // Where it is born only, it stays.
        let said =
            exec(&bundle, &["--debug"], json!({"args": args, "execCPUAffinity": {"initial": first.to_string()}}));
        born(&said, first);
        let wrong = exec(&bundle, &[], json!({"args": args, "execCPUAffinity": {"final": "x"}})).failed();
        assert!(wrong.contains("CPUAffinity.Final") || wrong.contains("CPUAffinity"), "{wrong}");
        let none = exec(&bundle, &[], json!({"args": args, "execCPUAffinity": {"final": "1023"}})).failed();
        assert!(none.contains("error setting final CPU affinity"), "{none}");
    }

    #[test]
    fn memory_policies_are_as_asked_or_refused() {
        if !has_memory_nodes() {
            return;
        }
        let mut bundle = bundle("head -n 1 /proc/self/numa_maps");
        for (policy, want) in [
            (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), " bind=static:0 "),
            (json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}), "=relative:0 "),
            (json!({"mode": "MPOL_LOCAL"}), " local "),
            (json!({"mode": "MPOL_DEFAULT"}), " default "),
        ] {
            bundle.config["linux"]["memoryPolicy"] = policy.clone();
            let said = bundle.run().ok();
            assert!(said.contains(want), "{policy}: {said}");
        }
        for (policy, want) in [
            (json!({}), "invalid memory policy mode"),
            (json!({"mode": "BIND", "nodes": "0"}), "invalid memory policy mode"),
            (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["x"]}), "invalid memory policy flag"),
            (json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}), "invalid memory policy node"),
            (json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}), "mode requires 0 nodes but got 8"),
            // A node that no machine of this size has.
            (json!({"mode": "MPOL_BIND", "nodes": "1023"}), "invalid argument"),
        ] {
            bundle.config["linux"]["memoryPolicy"] = policy.clone();
            let said = bundle.run().failed();
            assert!(said.to_lowercase().contains(want), "{policy}: {said}");
        }
    }

    #[test]
    fn a_filter_that_forbids_personalities_comes_after_the_containers_own() {
        let mut bundle = bundle("cat /proc/self/personality");
        bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
        bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["personality", "set_mempolicy", "sched_setattr"], "action": "SCMP_ACT_KILL_PROCESS"}]});
        if has_memory_nodes() {
            bundle.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_LOCAL"});
        }
        bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH"});
        assert_eq!(bundle.run().ok(), "00000008\n");
    }
}

mod own {
    use super::*;

    #[test]
    fn a_container_with_ids_of_its_own_gets_what_only_the_machine_can_give() {
        let mut bundle = bundle(REPORT).with_user_namespace();
        bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": -5});
        bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_RT", "priority": 2});
        let said = bundle.run().ok();
        assert!(said.contains("nice -5 policy 0\n") && said.contains("realtime: prio 2\n"), "{said}");
    }

    #[test]
    fn a_configuration_may_be_sparse_and_of_tomorrow() {
        let mut bundle = bundle("id -u; pwd; grep CapPrm /proc/self/status");
        let process = bundle.config["process"].as_object_mut().unwrap();
        process.remove("user");
        process.remove("cwd");
        process.insert("capabilities".into(), json!({"bounding": ["CAP_KILL", "CAP_OF_TOMORROW"], "permitted": ["CAP_KILL", "CAP_OF_TOMORROW"], "ambient": null}));
        bundle.config["linux"]["resources"]["pids"] = json!({});
        bundle.config["tomorrow"] = json!({"x": 1});
        let said = bundle.run();
        assert!(said.stderr.contains("ignoring unknown or unavailable capabilities: [CAP_OF_TOMORROW]"), "{said:?}");
        assert_eq!(said.ok(), "0\n/\nCapPrm:\t0000000000000020\n");
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "moon"}));
        let said = bundle.run().failed();
        assert!(
            said.contains(r#"linux.namespaces[].type cannot be \"moon\""#) || said.contains(r#"type cannot be "moon""#),
            "{said}"
        );
    }
}
