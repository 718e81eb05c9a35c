//! From the configuration of one of brig's containers to what its rivals run: a bundle for runc and crun, and ready
//! system calls for the kernel alone.

use super::place::Place;
use anyhow::{Context, Result};
use brig_spec::runtime::Spec;
use brig_sys::clone::flags;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The cgroup of peers that are told which.
pub const CGROUP: &str = "brig-bench";
const MS_RDONLY: u64 = 1;

/// The status by which the no-op proves that it ran.
pub const STATUS: &str = "42";

/// Turns the plan of a running container into a configuration that does not depend on that container.
pub fn configuration(place: &Place, plan: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(plan).with_context(|| format!("cannot read {}", plan.display()))?;
    let plan: Value = serde_json::from_str(&text).context("cannot understand a plan")?;
    let mut spec = plan["spec"].clone();
    spec["root"] = json!({"path": place.text("rootfs")});
    spec["process"]["args"] = json!(["/bin/noop", STATUS]);
    spec["hostname"] = json!("bench");
    if spec["linux"]["seccomp"]["x-brig.builtin"] == true {
        // The others know no profile by its name.
        let read: Spec = serde_json::from_value(spec.clone()).context("cannot understand the plan's configuration")?;
        let has = |name: &str| brig_runtime::capabilities::grants(&read, name);
        spec["linux"]["seccomp"] = json!(brig_runtime::seccomp::builtin::spelled_out(has));
    }
    for mount in spec["mounts"].as_array_mut().context("a plan without mounts")? {
        if mount["type"] == "bind" {
            // The container's own files are gone with it: copies serve.
            let source = PathBuf::from(mount["source"].as_str().unwrap_or_default());
            let copy = place.path("files").join(source.file_name().unwrap_or_default());
            std::fs::create_dir_all(place.path("files"))?;
            std::fs::copy(&source, &copy).with_context(|| format!("cannot copy {}", source.display()))?;
            mount["source"] = json!(copy);
        }
    }
    Ok(spec)
}

/// What a recipe differs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An overlay with a new writable layer beside the image, as brig has it.
    Overlay,
    /// A plain directory, as runc and crun are given it.
    Plain,
    /// A plain directory and no filter, as `runc spec` writes it.
    Unfiltered,
    /// The moves between cgroups alone. A network namespace would be taken down, by one worker of the kernel for all, at
    /// the same time as whatever is measured next.
    Warm,
}

impl Kind {
    /// The file of the recipe.
    pub fn file(self) -> &'static str {
        match self {
            Self::Overlay => "overlay.recipe",
            Self::Plain => "plain.recipe",
            Self::Unfiltered => "unfiltered.recipe",
            Self::Warm => "warm.recipe",
        }
    }
}

/// Writes a bundle of runc and crun.
pub fn write_bundle(place: &Place, spec: &Value, name: &str) -> Result<()> {
    let mut spec = spec.clone();
    // Debian's crun knows no later one; nothing in it is newer.
    spec["ociVersion"] = json!("1.0.2");
    spec["linux"]["cgroupsPath"] = json!(format!("/{CGROUP}/{name}"));
    std::fs::create_dir_all(place.path(name))?;
    std::fs::write(place.path(name).join("config.json"), serde_json::to_vec_pretty(&spec)?)?;
    Ok(())
}

/// Where controllers are mounted: every hierarchy of v1, or the one of v2.
fn hierarchies() -> Result<(Vec<PathBuf>, bool)> {
    let layout = brig_runtime::cgroup::Cgroup::open(&Path::new("/").join(CGROUP))?;
    let mounts = layout.layout().hierarchies.iter().map(|h| h.mount.clone()).collect();
    Ok((mounts, layout.layout().is_pure_v2()))
}

/// The parents of the groups that the peers of a bundle make, to be removed in the end.
pub fn parents() -> Result<Vec<PathBuf>> {
    Ok(hierarchies()?.0.into_iter().map(|h| h.join(CGROUP)).collect())
}

/// Removes them.
pub fn remove_parents() -> Result<()> {
    for directory in parents()?.iter().filter(|d| d.exists()) {
        std::fs::remove_dir(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

/// Writes the recipe of the kernel alone.
pub fn write(place: &Place, spec: &Value, kind: Kind) -> Result<()> {
    write_as(place, spec, kind, "bare", kind.file())
}

/// Writes it for a cgroup of that name, to that file.
pub fn write_as(place: &Place, spec: &Value, kind: Kind, group: &str, file: &str) -> Result<()> {
    let (hierarchies, pure_v2) = hierarchies()?;
    let mut out = String::new();
    if kind == Kind::Warm {
        parent(&mut out, spec, &hierarchies, pure_v2, group, flags::NEWNS)?;
        writeln!(out, "moved\t0\nexec\t{}\t{STATUS}", place.text("rootfs/bin/noop"))?;
        std::fs::write(place.path(file), out)?;
        return Ok(());
    }
    if kind != Kind::Unfiltered {
        write_filter(place, spec)?;
    }
    let (root, work) = (place.text("rootfs"), place.text("bare"));
    let overlay = kind == Kind::Overlay;
    if overlay {
        for directory in ["", "/upper", "/work", "/root"] {
            writeln!(out, "directory\t{work}{directory}")?;
        }
    }
    let namespaces = flags::NEWNS | flags::NEWUTS | flags::NEWIPC | flags::NEWPID | flags::NEWNET;
    parent(&mut out, spec, &hierarchies, pure_v2, group, namespaces)?;
    let root = if overlay {
        let data = format!(
            "lowerdir={root},upperdir={work}/upper,workdir={work}/work,redirect_dir=nofollow,metacopy=off,index=off,xino=off"
        );
        writeln!(out, "mount\toverlay\toverlay\t{work}/root\t0\t{data}")?;
        format!("{work}/root")
    } else {
        writeln!(out, "bind\t{root}\t{root}\t0")?;
        root
    };
    mounts(&mut out, spec, &root, &hierarchies, pure_v2, group)?;
    rest(&mut out, spec, &root)?;
    process(&mut out, place, spec, kind)?;
    std::fs::write(place.path(file), out)?;
    Ok(())
}

fn write_filter(place: &Place, spec: &Value) -> Result<()> {
    let parsed: Spec = serde_json::from_value(spec.clone()).context("cannot understand the configuration")?;
    let filter = parsed.linux.as_ref().and_then(|l| l.seccomp.as_ref()).context("the container had no filter")?;
    let mut bytes = Vec::new();
    for i in brig_runtime::seccomp::compile(filter, |_| false)?.instructions {
        bytes.extend_from_slice(&i.code.to_ne_bytes());
        bytes.extend_from_slice(&[i.jt, i.jf]);
        bytes.extend_from_slice(&i.k.to_ne_bytes());
    }
    std::fs::write(place.path("filter"), bytes)?;
    Ok(())
}

/// Whether the container sees its own part of the hierarchies alone.
fn has_cgroup_namespace(spec: &Value) -> bool {
    spec["linux"]["namespaces"].as_array().into_iter().flatten().any(|n| n["type"] == "cgroup")
}

fn list(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn parent(
    out: &mut String,
    spec: &Value,
    hierarchies: &[PathBuf],
    pure_v2: bool,
    group: &str,
    namespaces: u64,
) -> Result<()> {
    let mut new = namespaces;
    for hierarchy in hierarchies {
        let group = hierarchy.join(CGROUP).join(group);
        let shown = group.display();
        writeln!(out, "cgroup\t{shown}")?;
        for file in ["memory.limit_in_bytes", "memory.max"] {
            if let Some(limit) = spec["linux"]["resources"]["memory"]["limit"].as_i64()
                && hierarchy.join(CGROUP).join(file).exists()
            {
                writeln!(out, "set\t{shown}/{file}\t{limit}")?;
            }
        }
        if pure_v2 {
            new |= if has_cgroup_namespace(spec) { flags::NEWCGROUP } else { 0 };
            writeln!(out, "birth\t{shown}")?;
            continue;
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let file_above = hierarchy.join(file);
            if file_above.exists() {
                let value = std::fs::read_to_string(&file_above)?;
                // A group without processors takes nobody; so the parent gets them here, once.
                let above = hierarchy.join(CGROUP);
                std::fs::create_dir_all(&above)?;
                std::fs::write(above.join(file), value.trim())?;
                writeln!(out, "set\t{shown}/{file}\t{}", value.trim())?;
            }
        }
        if hierarchy.join("devices.list").exists() {
            for (file, rule) in device_rules(spec) {
                writeln!(out, "set\t{shown}/{file}\t{rule}")?;
            }
        }
        writeln!(out, "move\t{shown}/cgroup.procs")?;
    }
    writeln!(out, "clone\t{new}")?;
    Ok(())
}

/// The device rules of a configuration, and those that every runtime adds; the file of v1 for each.
fn device_rules(spec: &Value) -> Vec<(&'static str, String)> {
    let mut rules = Vec::new();
    for rule in spec["linux"]["resources"]["devices"].as_array().into_iter().flatten() {
        let number = |key: &str| rule[key].as_i64().map_or("*".into(), |n| n.to_string());
        let kind = rule["type"].as_str().unwrap_or("a");
        let access = rule["access"].as_str().unwrap_or("rwm");
        let file = if rule["allow"] == true { "devices.allow" } else { "devices.deny" };
        rules.push((file, format!("{kind} {}:{} {access}", number("major"), number("minor"))));
    }
    for device in ["c *:* m", "b *:* m"] {
        rules.push(("devices.allow", device.to_owned()));
    }
    for number in ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:2", "136:*"] {
        rules.push(("devices.allow", format!("c {number} rwm")));
    }
    let mut seen = std::collections::BTreeSet::new();
    rules.retain(|(_, rule)| seen.insert(rule.clone()));
    rules
}

fn mounts(
    out: &mut String,
    spec: &Value,
    root: &str,
    hierarchies: &[PathBuf],
    pure_v2: bool,
    group: &str,
) -> Result<()> {
    for mount in spec["mounts"].as_array().into_iter().flatten() {
        let text = |key: &str| mount[key].as_str().unwrap_or_default();
        let (mut flags, mut data) = (0u64, Vec::new());
        for option in list(&mount["options"]) {
            flags |= match option {
                "ro" => MS_RDONLY,
                "nosuid" => 2,
                "nodev" => 4,
                "noexec" => 8,
                "strictatime" => 1 << 24,
                "rbind" | "bind" | "rprivate" | "relatime" => 0,
                other => {
                    data.push(other);
                    0
                }
            };
        }
        let to = format!("{root}{}", text("destination"));
        match text("type") {
            "bind" => {
                // A root that is written to has no such file yet.
                writeln!(out, "file\t{to}\nbind\t{}\t{to}\t0", text("source"))?;
            }
            "cgroup" => {
                let group = if has_cgroup_namespace(spec) {
                    writeln!(out, "moved\t{}", if pure_v2 { 0 } else { flags::NEWCGROUP })?;
                    None
                } else {
                    Some(group)
                };
                cgroups(out, &to, flags, hierarchies, pure_v2, group)?;
            }
            kind => {
                let source = text("source");
                // What the root has on the disk need not be made.
                if !Path::new(&to).exists() {
                    writeln!(out, "mkdir\t{to}")?;
                }
                writeln!(out, "mount\t{kind}\t{source}\t{to}\t{flags}\t{}", data.join(","))?;
            }
        }
    }
    Ok(())
}

/// The view of the hierarchies: mounts in a namespace of their own, else binds of the groups by their name.
fn cgroups(
    out: &mut String,
    to: &str,
    flags: u64,
    hierarchies: &[PathBuf],
    pure_v2: bool,
    group: Option<&str>,
) -> Result<()> {
    if pure_v2 {
        writeln!(out, "mount\tcgroup2\tcgroup\t{to}\t{flags}\t")?;
        return Ok(());
    }
    writeln!(out, "mount\ttmpfs\ttmpfs\t{to}\t{}\tmode=755", flags & !MS_RDONLY)?;
    for hierarchy in hierarchies {
        let name = hierarchy.file_name().and_then(|n| n.to_str()).context("a hierarchy without a name")?;
        writeln!(out, "mkdir\t{to}/{name}")?;
        if let Some(group) = group {
            writeln!(out, "bind\t{}\t{to}/{name}\t{flags}", hierarchy.join(CGROUP).join(group).display())?;
            continue;
        }
        match name {
            "unified" => writeln!(out, "mount\tcgroup2\tcgroup\t{to}/{name}\t{flags}\t")?,
            "systemd" => writeln!(out, "mount\tcgroup\tcgroup\t{to}/{name}\t{flags}\tnone,name=systemd")?,
            _ => writeln!(out, "mount\tcgroup\tcgroup\t{to}/{name}\t{flags}\t{name}")?,
        }
    }
    writeln!(out, "remount\t{to}\t{flags}")?;
    Ok(())
}

fn rest(out: &mut String, spec: &Value, root: &str) -> Result<()> {
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        writeln!(out, "node\t{root}/dev/{name}\t1\t{minor}")?;
    }
    writeln!(out, "node\t{root}/dev/tty\t5\t0")?;
    for (to, name) in [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ] {
        writeln!(out, "link\t{to}\t{root}/dev/{name}")?;
    }
    writeln!(out, "pivot\t{root}\nhostname\tbench\nloopback")?;
    for (name, value) in spec["linux"]["sysctl"].as_object().into_iter().flatten() {
        let file = name.replace('.', "/");
        writeln!(out, "put\t/proc/sys/{file}\t{}", value.as_str().unwrap_or_default())?;
    }
    for path in list(&spec["linux"]["readonlyPaths"]).filter(|p| Path::new(p).exists()) {
        writeln!(out, "readonly\t{path}")?;
    }
    let mut empty: Option<&Path> = None;
    for path in list(&spec["linux"]["maskedPaths"]).map(Path::new).filter(|p| p.exists()) {
        let shown = path.display();
        match empty {
            _ if !path.is_dir() => writeln!(out, "bind\t/dev/null\t{shown}\t0")?,
            Some(empty) => writeln!(out, "bind\t{}\t{shown}\t0", empty.display())?,
            None => {
                writeln!(out, "mount\ttmpfs\ttmpfs\t{shown}\t{MS_RDONLY}\t")?;
                empty = Some(path);
            }
        }
    }
    if spec["root"]["readonly"] == true {
        writeln!(out, "remount\t/\t{MS_RDONLY}")?;
    }
    Ok(())
}

/// What holds for the process, and the program.
fn process(out: &mut String, place: &Place, spec: &Value, kind: Kind) -> Result<()> {
    if !has_cgroup_namespace(spec) {
        // As late as it can be, so that both sides work at the same time.
        writeln!(out, "moved\t0")?;
    }
    for limit in spec["process"]["rlimits"].as_array().into_iter().flatten() {
        let which = if limit["type"] == "RLIMIT_NOFILE" { "files" } else { "processes" };
        writeln!(out, "limit\t{which}\t{}", limit["hard"])?;
    }
    let mask = |set: &str| {
        list(&spec["process"]["capabilities"][set])
            .filter_map(brig_runtime::capabilities::number)
            .fold(0u64, |mask, n| mask | 1 << n)
    };
    if kind != Kind::Unfiltered {
        writeln!(out, "seccomp\t{}", place.text("filter"))?;
    }
    let dropped = brig_runtime::capabilities::available() & !mask("bounding");
    writeln!(out, "capabilities\t{dropped}\t{}", mask("effective"))?;
    if spec["process"]["noNewPrivileges"] == true {
        writeln!(out, "no-new-privileges")?;
    }
    let arguments: Vec<&str> = list(&spec["process"]["args"]).collect();
    writeln!(out, "exec\t{}", arguments.join("\t"))?;
    Ok(())
}
