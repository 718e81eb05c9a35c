//! Whether what criu has made is what the configuration describes: nobody knows who wrote the images.
//!
//! ```text
//! post-restore   every process in the container's cgroups; its namespaces new, joined or the machine's, as configured;
//!                the id maps; no mount that the configuration does not have, none of it laxer (criu/mounted.rs)
//! pre-resume     no capability beyond the configured ones, no_new_privs, seccomp filter, security profile, the user
//! ```
//!
//! At both moments the processes stand still, and have not done anything yet. What a container may do to itself afterwards
//! it may also have done before its checkpoint: one with CAP_SYS_ADMIN mounts as it likes.

use super::mounted;
use crate::failure::{Failure, Step};
use brig_runtime::capabilities::Sets;
use brig_runtime::cgroup::Cgroup;
use brig_spec::runtime::{LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, Spec};
use rustix::fs::Stat;
use std::collections::BTreeSet;
use std::path::Path;

const KILL: i32 = 9;
/// The most processes that are looked at.
const MOST: usize = 1 << 17;

/// The kinds of namespaces, and their names below /proc/PID/ns.
const KINDS: [(LinuxNamespaceType, &str); 7] = [
    (LinuxNamespaceType::Cgroup, "cgroup"),
    (LinuxNamespaceType::Ipc, "ipc"),
    (LinuxNamespaceType::Mount, "mnt"),
    (LinuxNamespaceType::Network, "net"),
    (LinuxNamespaceType::Pid, "pid"),
    (LinuxNamespaceType::User, "user"),
    (LinuxNamespaceType::Uts, "uts"),
];

/// What a restored container has to be.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    spec: &'a Spec,
    /// Where its root file system is mounted for the restore.
    root: &'a Path,
    cgroup: &'a Cgroup,
    /// The text of /proc/PID/cgroup of a process in the container's cgroups.
    cgroups: String,
    /// Whether the caller names another security profile than the configuration.
    relabelled: bool,
    /// Whether criu restores no_new_privs; an older one loses it, whatever the images say.
    keeps_no_new_privs: bool,
    granted: u64,
}

impl<'a> Expected<'a> {
    /// Takes down what is to be expected, while the process `criu` is in the container's cgroups.
    pub fn new(spec: &'a Spec, root: &'a Path, cgroup: &'a Cgroup, criu: i32) -> Result<Self, Failure> {
        let configured = spec.process.as_ref().and_then(|process| process.capabilities.as_ref());
        let (sets, _) = Sets::parse(configured, true);
        let granted = sets.bounding | sets.permitted | sets.effective | sets.inheritable | sets.ambient;
        let cgroups = read(criu, "cgroup")?;
        Ok(Self { spec, root, cgroup, cgroups, relabelled: false, keeps_no_new_privs: true, granted })
    }

    /// Tells that the caller names another security profile than the configuration.
    pub fn relabelled(self, relabelled: bool) -> Self {
        Self { relabelled, ..self }
    }

    /// Tells whether criu restores no_new_privs.
    pub fn keeps_no_new_privs(self, keeps: bool) -> Self {
        Self { keeps_no_new_privs: keeps, ..self }
    }

    /// Checks cgroups, namespaces, ids and mounts of the process `init` and all below it.
    pub fn check_place(&self, init: i32) -> Result<(), Failure> {
        for pid in processes(init)? {
            self.check_cgroups(pid)?;
            self.check_namespaces(init, pid)?;
        }
        self.check_maps(init)?;
        // Whoever may mount may have changed all of it since.
        if self.may_mount() { Ok(()) } else { mounted::check(self.spec, self.root, self.cgroup, init) }
    }

    /// Checks the rights of the process `init` and all below it.
    pub fn check_identity(&self, init: i32) -> Result<(), Failure> {
        for pid in processes(init)? {
            for thread in threads(pid)? {
                self.check_rights(pid, &thread)?;
            }
        }
        self.check_user(init)?;
        self.check_profile(init)
    }

    /// Ends the process `init` and all below it.
    pub fn kill(init: i32) {
        for pid in processes(init).unwrap_or_default() {
            let _ = brig_sys::signals::send(pid, KILL);
        }
    }

    fn may_mount(&self) -> bool {
        let number = brig_runtime::capabilities::number("SYS_ADMIN").unwrap_or(0);
        self.granted & (1 << number) != 0
    }

    /// In each hierarchy a process is in the container's cgroup or below it.
    fn check_cgroups(&self, pid: i32) -> Result<(), Failure> {
        let text = read(pid, "cgroup")?;
        for line in self.cgroups.lines() {
            let found = text.lines().find_map(|other| below(other, line));
            if found != Some(true) {
                return Err(refused(pid, &format!("is outside of the container's cgroup {line}")));
            }
        }
        Ok(())
    }

    fn check_namespaces(&self, init: i32, pid: i32) -> Result<(), Failure> {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        for (kind, name) in KINDS {
            let Some(found) = namespace(pid, name)? else { return Ok(()) };
            let Some(machine) = namespace(own, name)? else { continue };
            let configured = self.spec.namespace(kind);
            let same = |a: &Stat, b: &Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
            let right = match (configured, configured.and_then(LinuxNamespace::joined)) {
                (None, _) => same(&found, &machine),
                (Some(_), None) => !same(&found, &machine),
                (Some(_), Some(path)) => {
                    let joined = rustix::fs::stat(path).step(|| format!("look at the namespace {}", path.display()))?;
                    same(&found, &joined)
                }
            };
            // With the right to make namespaces there may be further ones inside, but never the machine's for its own.
            let nested = pid != init && self.may_mount() && configured.is_some() && !same(&found, &machine);
            if !right && !nested {
                return Err(refused(pid, &format!("has another {kind} namespace than the configuration says")));
            }
            // All of a container that cannot make namespaces share those of its first process.
            if pid != init && !self.may_mount() && namespace(init, name)?.is_some_and(|of_init| !same(&found, &of_init))
            {
                return Err(refused(pid, &format!("has a {kind} namespace of its own")));
            }
        }
        Ok(())
    }

    fn check_maps(&self, init: i32) -> Result<(), Failure> {
        let Some(linux) = &self.spec.linux else { return Ok(()) };
        if self.spec.namespace(LinuxNamespaceType::User).is_none_or(|n| n.joined().is_some()) {
            return Ok(());
        }
        let maps = [("uid_map", &linux.uid_mappings), ("gid_map", &linux.gid_mappings)];
        for (name, configured) in maps {
            let line = |m: &LinuxIdMapping| vec![m.container_id, m.host_id, m.size];
            let configured: BTreeSet<Vec<u32>> = configured.iter().map(line).collect();
            let text = read(init, name)?;
            let numbers = |line: &str| line.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
            let found: BTreeSet<Vec<u32>> = text.lines().map(numbers).collect();
            if found != configured {
                return Err(refused(init, &format!("has another {name} than the configuration says")));
            }
        }
        Ok(())
    }

    fn check_rights(&self, pid: i32, thread: &str) -> Result<(), Failure> {
        let status = read(pid, &format!("task/{thread}/status"))?;
        let field = |name: &str| field(&status, name);
        // One that has ended never goes on, and has nothing that could be limited.
        if field("State").is_some_and(|state| state.starts_with(['Z', 'X'])) {
            return Ok(());
        }
        for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let has = field(name).and_then(|text| u64::from_str_radix(text, 16).ok());
            if has.is_none_or(|has| has & !self.granted != 0) {
                return Err(refused(pid, &format!("has capabilities that the configuration does not grant ({name})")));
            }
        }
        let forbidden = self.spec.process.as_ref().is_some_and(|process| process.no_new_privileges);
        if forbidden && self.keeps_no_new_privs && field("NoNewPrivs") != Some("1") {
            return Err(refused(pid, "may gain new privileges, which the configuration forbids"));
        }
        let filtered = self.spec.linux.as_ref().is_some_and(|linux| linux.seccomp.is_some());
        if filtered && field("Seccomp") != Some("2") {
            return Err(refused(pid, "has no seccomp filter, and the configuration has one"));
        }
        Ok(())
    }

    /// The first process has the configured user, unless it may become another one.
    fn check_user(&self, init: i32) -> Result<(), Failure> {
        let Some(process) = &self.spec.process else { return Ok(()) };
        let setuid = brig_runtime::capabilities::number("SETUID").unwrap_or(0);
        let may_change = self.granted & (1 << setuid) != 0 || !process.no_new_privileges;
        let named = self.spec.annotations.contains_key(brig_runtime::USER_ANNOTATION);
        if may_change || named {
            return Ok(());
        }
        let maps = self.spec.linux.as_ref().map(|linux| linux.uid_mappings.as_slice()).unwrap_or_default();
        let uid = process.user.uid;
        let inside = |m: &&LinuxIdMapping| m.container_id <= uid && uid - m.container_id < m.size;
        let uid = maps.iter().find(inside).map_or(uid, |m| m.host_id + (uid - m.container_id));
        let status = read(init, "status")?;
        let ids = field(&status, "Uid").unwrap_or_default();
        if ids.split_ascii_whitespace().all(|id| id.parse() == Ok(uid)) {
            return Ok(());
        }
        Err(refused(init, &format!("has the user ids {ids}, and the configuration says {uid}")))
    }

    fn check_profile(&self, init: i32) -> Result<(), Failure> {
        let profile = self.spec.process.as_ref().map(|process| process.apparmor_profile.as_str());
        let enabled = || std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.starts_with(b"Y"));
        let Some(profile) = profile.filter(|p| !p.is_empty() && !self.relabelled && enabled()) else { return Ok(()) };
        let found = read(init, "attr/apparmor/current").or_else(|_| read(init, "attr/current"))?;
        // `name (enforce)`
        if found.trim_end().rsplit_once(" (").map_or(found.trim_end(), |(name, _)| name) == profile {
            return Ok(());
        }
        Err(refused(init, &format!("has the AppArmor profile {:?} instead of {profile:?}", found.trim_end())))
    }
}

/// The failure of an image that describes another container than the configuration.
pub(super) fn refused(pid: i32, why: &str) -> Failure {
    Failure::new(format!("the checkpoint does not belong to this configuration: process {pid} {why}"))
}

fn read(pid: i32, name: &str) -> Result<String, Failure> {
    let path = format!("/proc/{pid}/{name}");
    std::fs::read_to_string(&path).step(|| format!("read {path}"))
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Says whether a line of /proc/PID/cgroup names the cgroup of another line or one below it; none when it is about another
/// hierarchy.
fn below(line: &str, expected: &str) -> Option<bool> {
    let parts = |line: &'_ str| -> Option<(String, String)> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some((controllers.to_owned(), path.to_owned()))
    };
    let ((controllers, path), (wanted, above)) = (parts(line)?, parts(expected)?);
    (controllers == wanted).then(|| Path::new(&path).starts_with(&above) && !path.contains("/.."))
}

/// A namespace of a process; none of one that has ended.
fn namespace(pid: i32, name: &str) -> Result<Option<Stat>, Failure> {
    let path = format!("/proc/{pid}/ns/{name}");
    match rustix::fs::stat(&path) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error).step(|| format!("look at {path}")),
    }
}

fn threads(pid: i32) -> Result<Vec<String>, Failure> {
    let path = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&path).step(|| format!("read {path}"))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// A process and all its descendants.
fn processes(init: i32) -> Result<Vec<i32>, Failure> {
    let mut found = vec![init];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        for thread in threads(pid)? {
            let children = read(pid, &format!("task/{thread}/children"))?;
            found.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        if found.len() > MOST {
            return Err(Failure::new(format!("the checkpoint has more than {MOST} processes")));
        }
        at += 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_below_itself_and_its_parents() {
        for (line, expected, found) in [
            ("4:memory:/a/b", "4:memory:/a/b", Some(true)),
            ("0::/a/b/c", "0::/a/b", Some(true)),
            ("0::/a/bc", "0::/a/b", Some(false)),
            ("0::/", "0::/a", Some(false)),
            ("0::/a/b/../../x", "0::/a", Some(false)),
            ("3:cpu:/a", "0::/a", None),
        ] {
            assert_eq!(below(line, expected), found, "{line} {expected}");
        }
    }

    #[test]
    fn a_status_has_fields() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nCapBnd:\t00000000a80425fb\n";
        assert_eq!(field(status, "CapBnd"), Some("00000000a80425fb"));
        assert_eq!(field(status, "Uid"), Some("1\t2\t3\t4"));
        assert_eq!(field(status, "Cap"), None);
    }

    #[test]
    fn descendants_are_found() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let found = processes(own).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&i32::try_from(child.id()).unwrap()), "{found:?}");
    }
}
