//! What configurations say, as numbers; and what is refused, in the words that callers know.

use super::*;

fn spec(json: &str) -> Spec {
    serde_json::from_str(json).unwrap()
}

fn first(json: &str) -> Result<Attributes, String> {
    let spec = spec(json);
    let process = spec.process.clone().unwrap_or_default();
    Attributes::of_first(&process, &spec).map_err(|error| error.source.to_string())
}

#[test]
fn words_become_the_kernels_numbers() {
    let all = first(
        r#"{"process": {
                "scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_UTIL_CLAMP_MAX"],
                              "runtime": 1, "deadline": 2, "period": 3},
                "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 5}},
            "linux": {"personality": {"domain": "LINUX32", "flags": ["X"]},
                      "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0,9", "flags": ["MPOL_F_STATIC_NODES"]},
                      "resources": {"cpu": {"cpus": "0"}}}}"#,
    )
    .unwrap();
    let policy = Policy { policy: 6, flags: 0x41, runtime_ns: 1, deadline_ns: 2, period_ns: 3, ..Policy::default() };
    assert_eq!((all.policy, all.io_priority, all.personality), (Some(policy), Some((3, 5)), Some(8)));
    assert_eq!((all.memory, all.has_cpuset), (Some((0x8002, vec![1, 2])), true));
    assert_eq!(all.warnings, ["ignoring unsupported personality flags: [\"X\"]"]);
    let none = first("{}").unwrap();
    assert!(none.policy.is_none() && none.io_priority.is_none() && none.personality.is_none() && none.memory.is_none());
}

#[test]
fn a_further_process_has_what_it_says_and_else_the_containers() {
    let spec = spec(
        r#"{"process": {"scheduler": {"policy": "SCHED_BATCH"}, "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "execCPUAffinity": {"initial": "0", "final": "1-2"}}}"#,
    );
    let further = |json: &str| {
        let process: Process = serde_json::from_str(json).unwrap();
        Attributes::of_further(&process, &spec).unwrap()
    };
    let bare = further("{}");
    assert_eq!((bare.policy.unwrap().policy, bare.io_priority), (3, Some((2, 4))));
    assert_eq!((bare.initial, bare.last), (Some(vec![1]), Some(vec![6])));
    let own = further(
        r#"{"scheduler": {"policy": "SCHED_IDLE"}, "ioPriority": {"class": "IOPRIO_CLASS_IDLE"}, "execCPUAffinity": {"initial": "1"}}"#,
    );
    assert_eq!((own.policy.unwrap().policy, own.io_priority), (5, Some((3, 0))));
    assert_eq!((own.initial, own.last), (Some(vec![2]), None));
    // The container's first process has no processors of an exec.
    let of_first = Attributes::of_first(spec.process.as_ref().unwrap(), &spec).unwrap();
    assert!(of_first.initial.is_none() && of_first.last.is_none());
}

#[test]
fn nonsense_is_refused_in_words_that_callers_know() {
    let scheduler = |text: &str| format!(r#"{{"process": {{"scheduler": {text}}}}}"#);
    let io = |text: &str| format!(r#"{{"process": {{"ioPriority": {text}}}}}"#);
    let memory = |text: &str| format!(r#"{{"linux": {{"memoryPolicy": {text}}}}}"#);
    for (json, want) in [
        (scheduler("{}"), "scheduler policy is required"),
        (scheduler(r#"{"policy": "SCHED_FAIR"}"#), "invalid scheduler policy: SCHED_FAIR"),
        (scheduler(r#"{"policy": "SCHED_BATCH", "flags": ["F"]}"#), "invalid scheduler flag: F"),
        (
            scheduler(r#"{"policy": "SCHED_OTHER", "nice": 20}"#),
            "invalid scheduler.nice: 20 when scheduler.policy is SCHED_OTHER",
        ),
        (scheduler(r#"{"policy": "SCHED_OTHER", "priority": 1}"#), "can only be specified for SchedFIFO or SchedRR"),
        (scheduler(r#"{"policy": "SCHED_RR", "priority": -1}"#), "invalid scheduler.priority: -1"),
        (scheduler(r#"{"policy": "SCHED_RR", "runtime": 1}"#), "can only be specified for SchedDeadline"),
        (io("{}"), "invalid ioPriority.Class: \"\""),
        (io(r#"{"class": "IOPRIO_CLASS_BE", "priority": 8}"#), "invalid ioPriority.Priority: 8"),
        (io(r#"{"class": "IOPRIO_CLASS_BE", "priority": -1}"#), "invalid ioPriority.Priority: -1"),
        (memory("{}"), "invalid memory policy mode \"\""),
        (memory(r#"{"mode": "INTERLEAVE", "nodes": "0"}"#), "invalid memory policy mode \"INTERLEAVE\""),
        (memory(r#"{"mode": "MPOL_BIND", "nodes": "0", "flags": ["bad"]}"#), "invalid memory policy flag \"bad\""),
        (
            memory(r#"{"mode": "MPOL_BIND", "nodes": "0-9876543210"}"#),
            "invalid memory policy nodes \"0-9876543210\": 9876543210 is more than 1023",
        ),
        (memory(r#"{"mode": "MPOL_BIND"}"#), "memory policy mode requires at least one node but got 0"),
        (memory(r#"{"mode": "MPOL_DEFAULT", "nodes": "0-7"}"#), "memory policy mode requires 0 nodes but got 8"),
        (r#"{"linux": {"personality": {"domain": "DOS"}}}"#.into(), "invalid personality domain \"DOS\""),
    ] {
        let why = first(&json).unwrap_err();
        assert!(why.contains(want), "{json}: {why}");
    }
    assert!(first(&memory(r#"{"mode": "MPOL_DEFAULT"}"#)).is_ok());
    assert!(first(&memory(r#"{"mode": "MPOL_PREFERRED"}"#)).is_ok());
    let process: Process = serde_json::from_str(r#"{"execCPUAffinity": {"final": "2-1"}}"#).unwrap();
    let why = Attributes::of_further(&process, &Spec::default()).unwrap_err().source.to_string();
    assert!(why.contains("bad CPUAffinity.Final \"2-1\""), "{why}");
}

#[test]
fn whoever_bears_takes_its_own_processors_back() {
    let before = schedule::affinity(0).unwrap();
    let attributes = Attributes { initial: Some(vec![1]), ..Attributes::default() };
    {
        let birth = attributes.begin_birth().unwrap().unwrap();
        assert_eq!(birth.mask(), 1);
        assert_eq!(schedule::affinity(0).unwrap()[0], 1);
    }
    assert_eq!(schedule::affinity(0).unwrap(), before);
    assert!(Attributes::default().begin_birth().unwrap().is_none());
}
