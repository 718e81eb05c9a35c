//! Shares of caches and memory bandwidth: `linux.intelRdt`, kept by the kernel's resctrl file system;
//! Documentation/arch/x86/resctrl.rst.
//!
//! ```text
//! /sys/fs/resctrl/                  the default class of service: closID `/`
//!   info/                           what the processor can do; the last command's status
//!   <closID, or the container's id>/
//!     schemata                      the shares, a line a resource
//!     tasks                         who is in the class
//!     mon_groups/<id>/              a group that is only counted (enableMonitoring)
//!       mon_data/mon_L3_00/         the counters, one directory a cache
//! ```
//!
//! A class that was made for the container goes with it; one that was named stays.

use crate::error::{Context, Error};
use brig_spec::runtime::LinuxIntelRdt;
use rustix::fs::Mode;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel makes room for the file system.
const USUAL: &str = "/sys/fs/resctrl";
const RESCTRL_MAGIC: i64 = 0x0765_5821;

/// A container's class of service, in the form that a state file keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    root: PathBuf,
    path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<PathBuf>,
    /// Whether the class goes with the container.
    ours: bool,
}

impl Group {
    /// Finds the container's class. Errors: no resctrl file system is mounted; the identifier is not one of a class.
    pub fn of_container(wish: &LinuxIntelRdt, id: &str) -> Result<Self, Error> {
        let root = find_mount()?.ok_or_else(|| {
            Error::invalid("use Intel RDT", "intelRdt is specified in config, but Intel RDT is not enabled")
        })?;
        Self::below(&root, wish, id)
    }

    fn below(root: &Path, wish: &LinuxIntelRdt, id: &str) -> Result<Self, Error> {
        let class = Some(wish.clos_id.as_str()).filter(|class| !class.is_empty());
        let path = match class.unwrap_or(id) {
            "/" if class.is_some() => root.to_owned(),
            name if name.contains('/') || matches!(name, "" | "." | ".." | "info" | "mon_groups" | "mon_data") => {
                return Err(Error::invalid("use Intel RDT", format!("invalid intelRdt.ClosID \"{name}\"")));
            }
            name => root.join(name),
        };
        if id.contains('/') || matches!(id, "" | "." | "..") {
            return Err(Error::invalid("use Intel RDT", format!("`{id}` is not the name of a group")));
        }
        let monitor = wish.enable_monitoring.then(|| path.join("mon_groups").join(id));
        Ok(Self { root: root.to_owned(), path, monitor, ours: false })
    }

    /// Makes the class or takes the one that is there, writes the shares, and puts the process into it. Errors: a class that
    /// was named without shares does not exist; the processor cannot do what is asked, which names the kernel's reason.
    pub fn create(&mut self, wish: &LinuxIntelRdt, pid: i32) -> Result<(), Error> {
        let lines = schemata(wish)?;
        let named = !wish.clos_id.is_empty();
        if named && lines.is_empty() {
            self.path.metadata().step(|| {
                format!(
                    "use the class {} (it must exist when schemata, l3CacheSchema and memBwSchema are empty)",
                    self.path.display()
                )
            })?;
        }
        let new = self.path != self.root && self.make(&self.path)?;
        self.ours = new && !named;
        if new || !named {
            self.write_schemata(&lines)?;
        } else if !lines.is_empty() {
            self.agree(&lines)?;
        }
        self.write(&self.path.join("tasks"), &pid.to_string())?;
        if let Some(monitor) = &self.monitor {
            self.make(monitor)?;
            self.write(&monitor.join("tasks"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Writes other shares: `update`.
    pub fn update(&self, wish: &LinuxIntelRdt) -> Result<(), Error> {
        self.write_schemata(&schemata(wish)?)
    }

    /// Removes what was made for the container. A class that was named, or was there before, stays.
    pub fn remove(&self) -> Result<(), Error> {
        let gone = if self.ours { Some(&self.path) } else { self.monitor.as_ref() };
        let Some(path) = gone else { return Ok(()) };
        match rustix::fs::rmdir(path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).step(|| format!("remove the class {}", path.display())),
        }
    }

    fn make(&self, path: &Path) -> Result<bool, Error> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(self.refused(format!("make the class {}", path.display()), errno.into())),
        }
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), Error> {
        let step = || format!("write `{}` to {}", text.trim_end(), path.display());
        fs::write(path, text).map_err(|error| self.refused(step(), error))
    }

    fn write_schemata(&self, lines: &[&str]) -> Result<(), Error> {
        if lines.is_empty() {
            return Ok(());
        }
        self.write(&self.path.join("schemata"), &(lines.join("\n") + "\n"))
    }

    /// A class that was there before must have the shares that are asked for.
    fn agree(&self, lines: &[&str]) -> Result<(), Error> {
        let path = self.path.join("schemata");
        let present = fs::read_to_string(&path).step(|| format!("read {}", path.display()))?;
        for line in lines {
            let (resource, wanted) = parse_line(line)?;
            let there: Vec<(String, String)> = present
                .lines()
                .filter_map(|line| parse_line(line).ok())
                .filter(|(name, _)| *name == resource)
                .flat_map(|(_, shares)| shares)
                .collect();
            // Domains that are not named may be anything.
            if let Some((domain, _)) = wanted.iter().find(|share| !there.contains(share)) {
                return Err(Error::invalid(
                    format!("use the class {}", self.path.display()),
                    format!("its share of {resource} in domain {domain} is not that of `{line}`"),
                ));
            }
        }
        Ok(())
    }

    /// Adds what the kernel says about its last command.
    fn refused(&self, step: String, error: io::Error) -> Error {
        match fs::read_to_string(self.root.join("info/last_cmd_status")) {
            Ok(status) if !status.trim().is_empty() && status.trim() != "ok" => {
                let text = format!("{error}, last_cmd_status: {}", status.trim());
                Error::setup(step, io::Error::new(error.kind(), text))
            }
            _ => Error::setup(step, error),
        }
    }

    /// Reads the shares and counters.
    pub fn stats(&self) -> Result<Stats, Error> {
        let text = |path: PathBuf| fs::read_to_string(&path).step(|| format!("read {}", path.display()));
        let lines = |text: &str| text.trim().lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        let root = lines(&text(self.root.join("schemata"))?);
        let own = lines(&text(self.path.join("schemata"))?);
        let line = |lines: &[String], resource: &str| {
            lines.iter().find(|line| line.starts_with(resource)).cloned().unwrap_or_default()
        };
        let info = self.root.join("info");
        let number = |path: PathBuf| fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
        let mut stats = Stats::default();
        let cache = info.join("L3");
        if cache.is_dir() {
            stats.l3_cache_info = Some(CacheInfo {
                cbm_mask: fs::read_to_string(cache.join("cbm_mask")).unwrap_or_default().trim().to_owned(),
                min_cbm_bits: number(cache.join("min_cbm_bits")),
                num_closids: number(cache.join("num_closids")),
            });
            (stats.l3_cache_schema_root, stats.l3_cache_schema) = (line(&root, "L3"), line(&own, "L3"));
        }
        let bandwidth = info.join("MB");
        if bandwidth.is_dir() {
            stats.mem_bw_info = Some(BandwidthInfo {
                bandwidth_gran: number(bandwidth.join("bandwidth_gran")),
                delay_linear: number(bandwidth.join("delay_linear")),
                min_bandwidth: number(bandwidth.join("min_bandwidth")),
                num_closids: number(bandwidth.join("num_closids")),
            });
            (stats.mem_bw_schema_root, stats.mem_bw_schema) = (line(&root, "MB"), line(&own, "MB"));
        }
        stats.schemata = own;
        let features = fs::read_to_string(info.join("L3_MON/mon_features")).unwrap_or_default();
        self.count(&features, &mut stats);
        Ok(stats)
    }

    fn count(&self, features: &str, stats: &mut Stats) {
        let has = |name: &str| features.lines().any(|line| line == name);
        let (total, local, occupancy) = (has("mbm_total_bytes"), has("mbm_local_bytes"), has("llc_occupancy"));
        let data = self.monitor.as_ref().unwrap_or(&self.path).join("mon_data");
        let entries = fs::read_dir(data).into_iter().flatten().flatten();
        let mut caches: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        caches.sort_unstable();
        let number = |path: PathBuf| fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
        if total || local {
            let count = |at: &PathBuf| BandwidthCount {
                mbm_total_bytes: if total { number(at.join("mbm_total_bytes")) } else { 0 },
                mbm_local_bytes: if local { number(at.join("mbm_local_bytes")) } else { 0 },
            };
            stats.mbm_stats = Some(caches.iter().map(count).collect());
        }
        if occupancy {
            let count = |at: &PathBuf| CacheCount { llc_occupancy: number(at.join("llc_occupancy")) };
            stats.cmt_stats = Some(caches.iter().map(count).collect());
        }
    }
}

/// Finds where resctrl is mounted; none where it is not, or the processor or the kernel has none.
pub fn find_mount() -> Result<Option<PathBuf>, Error> {
    match rustix::fs::statfs(USUAL) {
        Err(Errno::NOENT) => return Ok(None),
        Ok(found) if found.f_type == RESCTRL_MAGIC => return Ok(Some(PathBuf::from(USUAL))),
        Ok(_) => {}
        Err(errno) => return Err(errno).step(|| format!("look at {USUAL}")),
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").step(|| "read the mounts".into())?;
    Ok(mounted_at(&mounts).map(PathBuf::from))
}

fn mounted_at(mountinfo: &str) -> Option<&str> {
    let of_kind = |line: &&str| line.split_once(" - ").is_some_and(|(_, after)| after.starts_with("resctrl "));
    mountinfo.lines().find(of_kind)?.split(' ').nth(4)
}

/// Lists the lines for `schemata` in the order in which they are to be written.
fn schemata(wish: &LinuxIntelRdt) -> Result<Vec<&str>, Error> {
    let wrong = |why: String| Err(Error::invalid("read intelRdt", why));
    let single = [&wish.l3_cache_schema, &wish.mem_bw_schema];
    let all = single.into_iter().chain(&wish.schemata);
    let lines: Vec<&str> = all.map(String::as_str).filter(|line| !line.is_empty()).collect();
    if let Some(line) = lines.iter().find(|line| line.contains('\n')) {
        return wrong(format!("`{}` is more than one line", line.escape_debug()));
    }
    let line = &wish.mem_bw_schema;
    if !line.is_empty() && !line.starts_with("MB:") {
        return wrong(format!("memBwSchema `{line}` does not begin with MB:"));
    }
    lines.iter().try_for_each(|line| parse_line(line).map(drop))?;
    Ok(lines)
}

/// Reads `L3:0=7f0;1=1f` as the resource and its share in each domain, without the zeros that mean nothing.
fn parse_line(line: &str) -> Result<(String, Vec<(String, String)>), Error> {
    let wrong = || Error::invalid("read intelRdt", format!("`{line}` is not of the form RESOURCE:DOMAIN=SHARE;..."));
    let (resource, shares) = line.trim().split_once(':').ok_or_else(wrong)?;
    let short = |text: &str| {
        let text = text.trim();
        let cut = text.trim_start_matches('0');
        if cut.is_empty() && !text.is_empty() { "0".to_owned() } else { cut.to_ascii_lowercase() }
    };
    let mut all = Vec::new();
    for share in shares.split(';').filter(|share| !share.trim().is_empty()) {
        let (domain, value) = share.split_once('=').ok_or_else(wrong)?;
        all.push((short(domain), short(value)));
    }
    if resource.trim().is_empty() || all.is_empty() {
        return Err(wrong());
    }
    Ok((resource.trim().to_owned(), all))
}

/// What `events --stats` prints of the class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// What the processor can do with its L3 caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<CacheInfo>,
    /// The L3 line of the default class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// The L3 line of the container's class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// What the processor can do with memory bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<BandwidthInfo>,
    /// The bandwidth line of the default class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// The bandwidth line of the container's class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// All lines of the container's class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// Memory bandwidth that was used, a cache at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<BandwidthCount>>,
    /// Cache that is occupied, a cache at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<CacheCount>>,
}

/// What the processor can do with its L3 caches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheInfo {
    /// The mask that means the whole cache, in hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cbm_mask: String,
    /// The fewest bits of a mask.
    pub min_cbm_bits: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// What the processor can do with memory bandwidth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BandwidthInfo {
    /// The step in which it is given, in percent.
    pub bandwidth_gran: u64,
    /// Whether the scale is linear.
    pub delay_linear: u64,
    /// The least that can be given, in percent.
    pub min_bandwidth: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// Memory bandwidth used through one cache, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BandwidthCount {
    /// To all memory.
    pub mbm_total_bytes: u64,
    /// To the memory of the cache's own node.
    pub mbm_local_bytes: u64,
}

/// One cache's occupancy, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheCount {
    /// What is occupied.
    pub llc_occupancy: u64,
}

/// The kernel's side is played by a directory: no machine of the tests has resctrl. What is tested is what is read and
/// written where, not what the kernel makes of it.
#[cfg(test)]
mod tests;
