//! Classes of service against a directory that plays resctrl: what is read and written where.

use super::*;

struct Played(PathBuf);

impl Played {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("brig-rdt-{name}-{}", std::process::id()));
        for directory in ["info/L3", "info/MB", "info/L3_MON", "mon_groups", "mon_data"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let files = [
            ("schemata", "    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n"),
            ("info/last_cmd_status", "ok\n"),
            ("info/L3/cbm_mask", "7ff\n"),
            ("info/L3/min_cbm_bits", "2\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("info/MB/delay_linear", "1\n"),
            ("info/MB/min_bandwidth", "10\n"),
            ("info/MB/num_closids", "8\n"),
            ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\n"),
        ];
        for (file, text) in files {
            fs::write(root.join(file), text).unwrap();
        }
        Self(root)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn wish(json: &str) -> LinuxIntelRdt {
    serde_json::from_str(json).unwrap()
}

fn cause(error: &Error) -> String {
    format!("{error}: {}", error.source)
}

#[test]
fn lines_are_written_in_the_order_of_the_specification() {
    let played = Played::new("order");
    let wish = wish(r#"{"schemata":["L2:0=f","L3:1=1f"],"memBwSchema":"MB:0=20;1=70","l3CacheSchema":"L3:0=7f0"}"#);
    let mut group = Group::below(&played.0, &wish, "the-id").unwrap();
    group.create(&wish, 42).unwrap();
    assert_eq!(played.read("the-id/schemata"), "L3:0=7f0\nMB:0=20;1=70\nL2:0=f\nL3:1=1f\n");
    assert_eq!(played.read("the-id/tasks"), "42");
    assert!(group.ours && group.monitor.is_none());
    let back: Group = serde_json::from_str(&serde_json::to_string(&group).unwrap()).unwrap();
    assert_eq!(back, group);
}

#[test]
fn a_named_class_must_be_there_or_have_shares() {
    let played = Played::new("named");
    let bare = wish(r#"{"closID":"gold"}"#);
    let mut group = Group::below(&played.0, &bare, "id").unwrap();
    let error = cause(&group.create(&bare, 1).unwrap_err());
    assert!(error.contains("must exist when") && !played.0.join("gold").exists(), "{error}");
    let full = wish(r#"{"closID":"gold","l3CacheSchema":"L3:0=7f0;1=1f"}"#);
    group.create(&full, 1).unwrap();
    assert!(!group.ours, "a named class stays");
    group.remove().unwrap();
    assert!(played.0.join("gold/tasks").exists());
    // It is there now: without shares it is used, with the same ones (written otherwise) too, with others not.
    group.create(&bare, 2).unwrap();
    fs::write(played.0.join("gold/schemata"), "    MB:0=100;1=100\n    L3:0=7F0;1=01f\n").unwrap();
    group.create(&wish(r#"{"closID":"gold","l3CacheSchema":"L3:1=1f"}"#), 3).unwrap();
    assert_eq!(played.read("gold/tasks"), "3");
    let error = cause(&group.create(&wish(r#"{"closID":"gold","schemata":["L3:1=3f"]}"#), 4).unwrap_err());
    assert!(error.contains("`L3:1=3f`"), "{error}");
}

#[test]
fn the_default_class_is_joined_and_never_made_or_removed() {
    let played = Played::new("default");
    let root = wish(r#"{"closID":"/","enableMonitoring":true}"#);
    let mut group = Group::below(&played.0, &root, "id").unwrap();
    group.create(&root, 7).unwrap();
    assert_eq!((played.read("tasks"), played.read("mon_groups/id/tasks")), ("7".into(), "7".into()));
    fs::remove_file(played.0.join("mon_groups/id/tasks")).unwrap();
    group.remove().unwrap();
    assert!(played.0.exists() && !played.0.join("mon_groups/id").exists());
}

#[test]
fn names_and_lines_that_lead_elsewhere_are_refused() {
    let root = Path::new("/nonexistent");
    for class in ["..", ".", "a/b", "info", "mon_groups"] {
        let wish = wish(&format!(r#"{{"closID":"{class}"}}"#));
        let error = cause(&Group::below(root, &wish, "id").unwrap_err());
        assert!(error.contains(&format!("invalid intelRdt.ClosID \"{class}\"")), "{error}");
    }
    assert!(Group::below(root, &wish(r#"{"closID":"gold","enableMonitoring":true}"#), "../id").is_err());
    for lines in [r#"{"schemata":["L3:0=f\nMB:0=1"]}"#, r#"{"memBwSchema":"L3:0=f"}"#, r#"{"schemata":["L3"]}"#] {
        assert!(schemata(&wish(lines)).is_err(), "{lines}");
    }
}

#[test]
fn the_kernel_says_why_it_refused() {
    let played = Played::new("why");
    fs::write(played.0.join("info/last_cmd_status"), "mask has non-consecutive 1s\n").unwrap();
    let wish = wish(r#"{"closID":"gold","l3CacheSchema":"L3:0=5"}"#);
    let mut group = Group::below(&played.0, &wish, "id").unwrap();
    fs::create_dir_all(played.0.join("id/schemata")).unwrap();
    group.path = played.0.join("id");
    group.ours = true;
    let error = cause(&group.update(&wish).unwrap_err());
    assert!(error.contains("last_cmd_status: mask has non-consecutive 1s"), "{error}");
}

#[test]
fn shares_and_counters_are_read() {
    let played = Played::new("stats");
    let wish = wish(r#"{"enableMonitoring":true,"l3CacheSchema":"L3:0=7f0"}"#);
    let mut group = Group::below(&played.0, &wish, "id").unwrap();
    fs::create_dir_all(played.0.join("id/mon_groups/id/mon_data/mon_L3_01")).unwrap();
    fs::create_dir_all(played.0.join("id/mon_groups/id/mon_data/mon_L3_00")).unwrap();
    fs::write(played.0.join("id/mon_groups/id/mon_data/mon_L3_00/mbm_total_bytes"), "11\n").unwrap();
    fs::write(played.0.join("id/mon_groups/id/mon_data/mon_L3_01/llc_occupancy"), "22\n").unwrap();
    group.create(&wish, 5).unwrap();
    let stats = serde_json::to_value(group.stats().unwrap()).unwrap();
    assert_eq!(stats["l3_cache_info"], serde_json::json!({"cbm_mask": "7ff", "min_cbm_bits": 2, "num_closids": 16}));
    assert_eq!(
        (&stats["l3_cache_schema_root"], &stats["l3_cache_schema"]),
        (&"L3:0=7ff;1=7ff".into(), &"L3:0=7f0".into())
    );
    assert_eq!(stats["mem_bw_info"]["min_bandwidth"], 10);
    assert_eq!(stats["schemata"], serde_json::json!(["L3:0=7f0"]));
    assert_eq!(stats["mbm_stats"][0]["mbm_total_bytes"], 11);
    assert_eq!(stats["cmt_stats"][1]["llc_occupancy"], 22);
}

#[test]
fn the_mount_is_found_by_its_kind() {
    let text = "24 1 0:22 / /sys rw - sysfs sysfs rw\n99 24 0:40 / /mnt/rdt rw shared:7 - resctrl resctrl rw\n";
    assert_eq!(mounted_at(text), Some("/mnt/rdt"));
    assert_eq!(mounted_at("24 1 0:22 / /sys rw - sysfs resctrl rw\n"), None);
}
