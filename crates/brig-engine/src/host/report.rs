//! What this machine can do, line by line: what is there, what is missing, and how to get it.

use super::kernel_version;
use crate::config::Config;
use brig_monitor::chain::one_line;
use brig_runtime::cgroup::Cgroup;
use brig_store::{Backing, LayerChoice, LayerForm};
use std::fs;
use std::path::Path;

/// How a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// It is there.
    Good,
    /// It is missing, and something works less well.
    Limited,
    /// It is missing, and containers do not work.
    Missing,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// How to get what is missing.
    pub remedy: Option<String>,
}

/// The whole report.
#[derive(Debug, Clone)]
pub struct Report {
    /// The lines.
    pub checks: Vec<Check>,
    /// The kernel's release.
    pub kernel: String,
    /// The operating system's name, os-release(5).
    pub system: String,
    /// The processor's architecture.
    pub architecture: &'static str,
    /// Processors.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory: u64,
    /// The machine's name.
    pub hostname: String,
    /// `v2`, `v1` or `hybrid`.
    pub cgroup_layout: &'static str,
    /// The security modules that are active.
    pub security: Vec<String>,
}

fn check(name: &'static str, grade: Grade, found: impl Into<String>, remedy: Option<&str>) -> Check {
    Check { name, grade, found: found.into(), remedy: remedy.map(str::to_owned) }
}

/// Looks at everything. Nothing of the machine is changed; the network is tried in a namespace made for it when the caller
/// hands one in.
pub fn report(config: &Config, scratch_netns: Option<std::os::fd::BorrowedFd<'_>>) -> Report {
    let uname = rustix::system::uname();
    let layout = cgroup_layout();
    let mut checks = vec![kernel(), privileges(), namespaces(), user_namespaces(config)];
    checks.extend(cgroups(layout));
    checks.push(overlay(config));
    checks.push(layers(config));
    checks.push(seccomp());
    checks.push(security_modules());
    checks.extend(network(scratch_netns));
    checks.push(subordinate_ids(config));
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    Report {
        checks,
        kernel: uname.release().to_string_lossy().into_owned(),
        system: os_name(),
        architecture: std::env::consts::ARCH,
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory: total.and_then(|t| t.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024,
        hostname: uname.nodename().to_string_lossy().into_owned(),
        cgroup_layout: layout,
        security: active_modules(),
    }
}

fn os_name() -> String {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    let text = text.unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".into(), |n| n.trim_matches('"').to_owned())
}

fn kernel() -> Check {
    let version = kernel_version();
    let found = rustix::system::uname().release().to_string_lossy().into_owned();
    let tiers = [
        ((6, 12), "EROFS images straight from files"),
        ((6, 8), "overlay layers by the new mount calls"),
        ((5, 19), "user namespaces for images"),
    ];
    let missing: Vec<String> = tiers
        .iter()
        .filter(|(from, _)| version < *from)
        .map(|((major, minor), what)| format!("{what} (from {major}.{minor})"))
        .collect();
    if version < crate::oci::KERNEL_MIN {
        check("kernel", Grade::Missing, found, Some("brig needs Linux 5.12 or newer"))
    } else if missing.is_empty() {
        check("kernel", Grade::Good, found, None)
    } else {
        let remedy = format!("a newer kernel brings {}", missing.join(", "));
        check("kernel", if version < (5, 19) { Grade::Limited } else { Grade::Good }, found, Some(&remedy))
    }
}

fn privileges() -> Check {
    if !rustix::process::geteuid().is_root() {
        return check("privileges", Grade::Missing, "not root", Some("run it as root: `sudo brig doctor`"));
    }
    let held = crate::oci::capabilities::from_bits(brig_runtime::capabilities::available());
    let wanted = crate::oci::capabilities::ALL.iter().filter(|c| !held.contains(**c));
    let lacking: Vec<&str> = wanted.copied().collect();
    if lacking.contains(&"CAP_SYS_ADMIN") {
        return check("privileges", Grade::Missing, "root without CAP_SYS_ADMIN", Some("give brig CAP_SYS_ADMIN"));
    }
    match lacking.as_slice() {
        [] => check("privileges", Grade::Good, "root with every capability", None),
        _ => check(
            "privileges",
            Grade::Limited,
            format!("root without {}", lacking.join(", ")),
            Some("containers get at most what brig has; limits above the machine's own are clamped"),
        ),
    }
}

fn namespaces() -> Check {
    let all = ["mnt", "pid", "net", "uts", "ipc", "cgroup", "user", "time"];
    let missing: Vec<&str> = all.into_iter().filter(|n| !Path::new("/proc/self/ns").join(n).exists()).collect();
    match missing.as_slice() {
        [] => check("namespaces", Grade::Good, all.join(" "), None),
        ["time"] => check(
            "namespaces",
            Grade::Limited,
            "all but time",
            Some("CONFIG_TIME_NS brings clocks of a container's own"),
        ),
        _ => check(
            "namespaces",
            Grade::Missing,
            format!("without {}", missing.join(" ")),
            Some("the kernel must be built with CONFIG_NAMESPACES and its parts"),
        ),
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn user_namespaces(config: &Config) -> Check {
    let name = "user namespaces";
    if !Path::new("/proc/self/ns/user").exists() {
        return check(name, Grade::Limited, "none", Some("CONFIG_USER_NS brings `--userns=auto`"));
    }
    if number("/proc/sys/user/max_user_namespaces") == Some(0) {
        return check(name, Grade::Limited, "turned off", Some("sysctl user.max_user_namespaces=15000"));
    }
    if kernel_version() < (5, 19) {
        return check(
            name,
            Grade::Limited,
            "without id-mapped overlay layers",
            Some("`--userns=auto` needs Linux 5.19"),
        );
    }
    let (first, count) = config.id_pool;
    check(
        name,
        Grade::Good,
        format!("ids {first} to {} for --userns=auto", u64::from(first) + u64::from(count) - 1),
        None,
    )
}

fn cgroup_layout() -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return "v2";
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let has = |kind: &str| mounts.lines().any(|l| l.contains(&format!(" - {kind} ")));
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "none",
    }
}

fn cgroups(layout: &'static str) -> Vec<Check> {
    if layout == "none" || Cgroup::open(Path::new("/brig")).is_err() {
        let remedy = "mount -t cgroup2 none /sys/fs/cgroup";
        return vec![check("cgroups", Grade::Missing, "no hierarchy is mounted", Some(remedy))];
    }
    let controllers = controllers(layout);
    let wanted = ["cpu", "cpuset", "io", "memory", "pids", "devices", "freezer"];
    let missing: Vec<&str> = wanted.into_iter().filter(|c| !controllers.iter().any(|have| have == c)).collect();
    let grade = if missing.is_empty() { Grade::Good } else { Grade::Limited };
    let remedy =
        (!missing.is_empty()).then(|| format!("without {}: limits of these kinds cannot be set", missing.join(", ")));
    let mut checks = vec![check("cgroups", grade, format!("{layout}: {}", controllers.join(" ")), remedy.as_deref())];
    let swap = controllers.iter().any(|c| c == "memory")
        && (layout == "v2" || Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists());
    if !swap {
        checks.push(check(
            "swap limit",
            Grade::Limited,
            "swap is not counted",
            Some("boot the kernel with swapaccount=1"),
        ));
    }
    checks
}

/// The controllers under one set of names; on v2, device rules and the freezer need no controller.
fn controllers(layout: &str) -> Vec<String> {
    if layout == "v2" {
        let text = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        return text.split_ascii_whitespace().chain(["devices", "freezer"]).map(str::to_owned).collect();
    }
    let text = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let enabled = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| {
        let fields: Vec<&str> = l.split_ascii_whitespace().collect();
        (fields.get(3) == Some(&"1")).then(|| if fields[0] == "blkio" { "io" } else { fields[0] }.to_owned())
    });
    enabled.collect()
}

fn overlay(config: &Config) -> Check {
    let name = "overlay";
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.lines().any(|l| l.ends_with("\toverlay")) && !Path::new("/sys/module/overlay").exists() {
        return check(name, Grade::Missing, "not known to the kernel", Some("modprobe overlay"));
    }
    let stat = rustix::fs::statfs(&config.root)
        .or_else(|_| rustix::fs::statfs(config.root.parent().unwrap_or(Path::new("/"))));
    if stat.is_ok_and(|s| u64::try_from(s.f_type).unwrap_or_default() & 0xffff_ffff == 0x794c_7630) {
        return check(
            name,
            Grade::Limited,
            format!("{} lies on an overlay: only `--rm` containers, with their files in memory", config.root.display()),
            Some("put brig's root on a disk of its own with `--root`"),
        );
    }
    let form = match kernel_version() {
        v if v >= (6, 13) => "layers by descriptor",
        v if v >= (6, 8) => "layers by path",
        _ => "layers by mount(2)",
    };
    check(name, Grade::Good, form, None)
}

/// The form of layers that come in from now on, and why.
fn layers(config: &Config) -> Check {
    let name = "layers";
    let works = if privileged() { images_work(config) } else { Err("needs root to be tried".to_owned()) };
    let from = |backing| match backing {
        Backing::File | Backing::FilePages => "mounted from their files",
        Backing::LoopDevice => "mounted from loop devices",
    };
    let found = match (config.layers, works) {
        (LayerChoice::Always(LayerForm::Directories), Ok(backing)) => {
            format!("directories, as asked for; EROFS images work here too, {}", from(backing))
        }
        (LayerChoice::Always(LayerForm::Directories), Err(why)) => {
            format!("directories, as asked for (EROFS images: {why})")
        }
        (LayerChoice::Always(LayerForm::Erofs), Ok(backing)) => {
            format!("EROFS images, {}, as asked for", from(backing))
        }
        (LayerChoice::Sealed, Ok(backing)) => match brig_store::probe_verity(existing(config)) {
            Ok(()) => format!("EROFS images, {}, sealed by fs-verity, as asked for", from(backing)),
            Err(why) => {
                let remedy = "it has to be turned on, such as by `tune2fs -O verity` for ext4; the kernel needs CONFIG_FS_VERITY";
                let found = format!(
                    "EROFS images, {}, not sealed: no fs-verity in {}: {why}",
                    from(backing),
                    config.root.display()
                );
                return check(name, Grade::Limited, found, Some(remedy));
            }
        },
        (LayerChoice::Auto, Ok(Backing::File)) => "EROFS images, mounted from their files".to_owned(),
        (LayerChoice::Auto, Ok(Backing::FilePages)) => {
            "directories; EROFS images would be in memory twice here, and are made with `--layers erofs`".to_owned()
        }
        (LayerChoice::Auto, Ok(Backing::LoopDevice)) => {
            "directories; EROFS images would be mounted from loop devices here, and are made with `--layers erofs`"
                .to_owned()
        }
        (_, Err(why)) => {
            let remedy = "they need root and CONFIG_EROFS_FS; before Linux 6.12, or without \
                          CONFIG_EROFS_FS_BACKED_BY_FILE, loop devices too";
            let found = format!("directories, since EROFS images do not work: {why}");
            return check(name, Grade::Limited, found, Some(remedy));
        }
    };
    check(name, Grade::Good, found, None)
}

fn privileged() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns brig's root, or the directory in which that will be.
fn existing(config: &Config) -> &Path {
    config.root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}

/// Makes an image in brig's root, or where that will be, and mounts it.
fn images_work(config: &Config) -> Result<Backing, String> {
    brig_store::probe_erofs(existing(config)).map_err(|error| one_line(&error))
}

fn seccomp() -> Check {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) => check("seccomp", Grade::Good, actions.trim(), None),
        Err(_) => check(
            "seccomp",
            Grade::Missing,
            "no filters",
            Some(
                "the kernel must be built with CONFIG_SECCOMP_FILTER; `--security-opt seccomp=unconfined` goes without",
            ),
        ),
    }
}

fn active_modules() -> Vec<String> {
    let text = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let mut all: Vec<String> = text.trim().split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
    if all.is_empty() && Path::new("/sys/module/apparmor/parameters/enabled").exists() {
        all.push("apparmor".into());
    }
    all
}

fn security_modules() -> Check {
    let all = active_modules();
    let confining = all.iter().any(|m| m == "apparmor" || m == "selinux");
    let found = if all.is_empty() { "none".to_owned() } else { all.join(" ") };
    if confining {
        check("security modules", Grade::Good, found, None)
    } else {
        let remedy =
            "AppArmor or SELinux would be one more wall; boot with `security=apparmor` where the kernel has it";
        check("security modules", Grade::Limited, found, Some(remedy))
    }
}

fn network(scratch_netns: Option<std::os::fd::BorrowedFd<'_>>) -> Vec<Check> {
    let Some(netns) = scratch_netns else { return Vec::new() };
    let probe = brig_net::probe::probe(netns);
    let mut checks = Vec::new();
    let mut one = |name: &'static str, result: Result<(), String>, remedy: &str| match result {
        Ok(()) => checks.push(check(name, Grade::Good, "works", None)),
        Err(why) => checks.push(check(name, Grade::Missing, why, Some(remedy))),
    };
    one("bridge", probe.bridge.map_err(|e| one_line(&e)), "modprobe bridge; or use `--network host` or `none`");
    one("veth", probe.veth.map_err(|e| one_line(&e)), "modprobe veth; or use `--network host` or `none`");
    one(
        "nftables",
        probe.nftables.map_err(|e| one_line(&e)),
        "modprobe nf_tables nft_nat nft_masq; without it, no NAT and no `-p`",
    );
    match probe.forwarding {
        Ok(true) => checks.push(check("forwarding", Grade::Good, "on", None)),
        Ok(false) => {
            checks.push(check("forwarding", Grade::Good, "off; the first bridged container turns it on", None));
        }
        Err(error) => {
            checks.push(check("forwarding", Grade::Limited, one_line(&error), Some("mount /proc/sys writable")));
        }
    }
    if let Ok(drops) = probe.foreign_drops {
        for drop in drops {
            checks.push(check(
                "other firewall",
                Grade::Limited,
                format!("chain {} of table {} {} drops what it does not know", drop.chain, drop.family, drop.table),
                Some("brig adds one tagged rule there that accepts its containers' traffic, and takes it back with the last one"),
            ));
        }
    }
    checks
}

/// Whether ids of the pool are promised to users already: subuid(5).
fn subordinate_ids(config: &Config) -> Check {
    let name = "subordinate ids";
    let (first, count) = (u64::from(config.id_pool.0), u64::from(config.id_pool.1));
    let mut clash = None;
    for file in ["/etc/subuid", "/etc/subgid"] {
        for line in fs::read_to_string(file).unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let (Some(user), Some(Ok(from)), Some(Ok(size))) =
                (fields.first(), fields.get(1).map(|f| f.parse::<u64>()), fields.get(2).map(|f| f.parse::<u64>()))
            else {
                continue;
            };
            if from < first + count && first < from + size && *user != "brig" {
                clash = Some(format!("{file} promises {from} to {} to {user}", from + size - 1));
            }
        }
    }
    match clash {
        Some(found) => check(name, Grade::Limited, found, Some("choose another pool, or the two share files' owners")),
        None => check(name, Grade::Good, "the pool overlaps nobody's", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_is_not_good_tells_what_to_do() {
        let report = report(&Config::new("/var/lib/brig", "/run/brig"), None);
        assert!(report.checks.len() >= 9);
        for line in &report.checks {
            assert!(line.grade == Grade::Good || line.remedy.is_some(), "{line:?}");
            assert!(!line.found.is_empty(), "{line:?}");
        }
        assert!(report.memory > 0 && report.cpus > 0 && !report.kernel.is_empty());
    }
}
