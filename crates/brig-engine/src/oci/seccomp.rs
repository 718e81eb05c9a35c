//! Seccomp profiles that users bring, in Docker's form or in the OCI's. The built-in one is the runtime's own:
//! [`brig_runtime::seccomp::builtin`].
//!
//! Docker's form adds `archMap` and, to each rule, `includes` and `excludes` by capability, processor and kernel. A rule that
//! tests one argument twice means "either": it becomes one rule a test, as the other runtimes have it.

use crate::error::{Error, Result};
use brig_runtime::seccomp::builtin::architectures;
use brig_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArch, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The most bytes that a profile may have: 1 MiB.
const PROFILE_MAX: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<LinuxSeccompArch>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Reads a profile for a container with these capabilities on this kernel, `(major, minor)`; none when it allows everything.
pub fn parse(text: &str, capabilities: &BTreeSet<String>, kernel: (u32, u32)) -> Result<Option<LinuxSeccomp>> {
    if text.len() > PROFILE_MAX {
        return Err(Error::invalid("the seccomp profile is larger than 1 MiB"));
    }
    let profile: Profile = serde_json::from_str(text).map_err(|error| {
        Error::invalid("cannot read the seccomp profile")
            .because(error)
            .hint("it is neither in Docker's nor in the OCI's form")
    })?;
    if profile.listener_path.is_some() {
        return Err(Error::invalid("a seccomp profile cannot name a listener here"));
    }
    let (names, _) = architectures();
    let mut syscalls = Vec::new();
    for rule in profile.syscalls.into_iter().flatten() {
        let includes = rule.includes.as_ref().is_none_or(|f| f.includes(capabilities, names, kernel));
        let excludes = rule.excludes.as_ref().is_some_and(|f| f.excludes(capabilities, names, kernel));
        if includes && !excludes {
            add(rule, &mut syscalls)?;
        }
    }
    if syscalls.is_empty() && profile.default_action == LinuxSeccompAction::Allow {
        return Ok(None);
    }
    Ok(Some(LinuxSeccomp {
        default_action: profile.default_action,
        default_errno_ret: profile.default_errno_ret,
        architectures: targets(profile.architectures, profile.arch_map)?,
        flags: profile.flags,
        listener_path: PathBuf::new(),
        listener_metadata: String::new(),
        syscalls,
        builtin: false,
    }))
}

/// The architectures: as listed, or this one's entry of the map, or this one and its companions.
fn targets(list: Option<Vec<LinuxSeccompArch>>, map: Option<Vec<ArchMap>>) -> Result<Vec<LinuxSeccompArch>> {
    let (_, own) = architectures();
    if let Some(list) = list.filter(|l| !l.is_empty()) {
        if map.is_some_and(|m| !m.is_empty()) {
            return Err(Error::invalid("the seccomp profile has both `architectures` and `archMap`"));
        }
        return Ok(list);
    }
    let is_native = |entry: &ArchMap| own.first().is_some_and(|native| native.as_str() == entry.architecture);
    let entry = map.into_iter().flatten().find(is_native);
    let Some(entry) = entry else { return Ok(own) };
    let subs = entry.sub_architectures.unwrap_or_default();
    Ok(own
        .into_iter()
        .enumerate()
        .filter(|(n, a)| *n == 0 || subs.iter().any(|s| s == a.as_str()))
        .map(|(_, a)| a)
        .collect())
}

fn add(rule: Rule, syscalls: &mut Vec<LinuxSyscall>) -> Result<()> {
    let names = match (rule.name, rule.names) {
        (Some(name), None) => vec![name],
        (None, Some(names)) => names,
        (Some(_), Some(_)) => return Err(Error::invalid("a rule of the seccomp profile has both `name` and `names`")),
        (None, None) => return Err(Error::invalid("a rule of the seccomp profile names no system call")),
    };
    let make = |args| LinuxSyscall { names: names.clone(), action: rule.action, errno_ret: rule.errno_ret, args };
    let args = rule.args.unwrap_or_default();
    let mut seen = BTreeSet::new();
    if args.iter().all(|arg| seen.insert(arg.index)) {
        syscalls.push(make(args));
    } else {
        syscalls.extend(args.into_iter().map(|arg| make(vec![arg])));
    }
    Ok(())
}

impl Filter {
    /// Every condition of `includes` must hold.
    fn includes(&self, capabilities: &BTreeSet<String>, arches: &[&str], kernel: (u32, u32)) -> bool {
        self.caps.iter().flatten().all(|cap| capabilities.contains(cap))
            && self.arches.as_ref().is_none_or(|l| l.is_empty() || l.iter().any(|a| arches.contains(&a.as_str())))
            && self.min_kernel.as_deref().is_none_or(|v| version(v).is_none_or(|v| kernel >= v))
    }

    /// Any condition of `excludes` suffices.
    fn excludes(&self, capabilities: &BTreeSet<String>, arches: &[&str], kernel: (u32, u32)) -> bool {
        self.caps.iter().flatten().any(|cap| capabilities.contains(cap))
            || self.arches.iter().flatten().any(|a| arches.contains(&a.as_str()))
            || self.min_kernel.as_deref().and_then(version).is_some_and(|v| kernel >= v)
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X32"]},
                    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
            {"names": ["s390_x"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}
        ]}"#;

    fn names(profile: &LinuxSeccomp) -> Vec<&str> {
        profile.syscalls.iter().flat_map(|r| r.names.iter().map(String::as_str)).collect()
    }

    #[test]
    fn dockers_form_is_filtered_by_capability_kernel_and_processor() {
        let plain = parse(DOCKER, &BTreeSet::new(), (6, 1)).unwrap().unwrap();
        assert_eq!(names(&plain), ["read", "write", "clone3", "ptrace", "personality", "personality"]);
        let admin = parse(DOCKER, &BTreeSet::from(["CAP_SYS_ADMIN".to_owned()]), (4, 7)).unwrap().unwrap();
        assert_eq!(names(&admin), ["read", "write", "mount", "personality", "personality"]);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(plain.architectures, [LinuxSeccompArch::X86_64, LinuxSeccompArch::X32]);
        }
    }

    #[test]
    fn the_ocis_form_is_taken_as_it_stands() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#;
        let profile = parse(text, &BTreeSet::new(), (6, 1)).unwrap().unwrap();
        assert_eq!(profile.default_action, LinuxSeccompAction::Allow);
        assert_eq!(names(&profile), ["mkdir"]);
        assert!(parse(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#, &BTreeSet::new(), (6, 1)).unwrap().is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "[]",
            r#"{"defaultAction":"MAYBE"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ALLOW"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/run/x","syscalls":[]}"#,
        ] {
            assert!(parse(bad, &BTreeSet::new(), (6, 1)).is_err(), "{bad}");
        }
    }
}
