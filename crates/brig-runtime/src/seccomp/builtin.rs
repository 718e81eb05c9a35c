//! The built-in profile: the system calls that a container may make when nothing else is said.
//!
//! It is a text, `default.profile`, whose header explains its form. What holds depends on the container's capabilities, so it is
//! read for each container: by the runtime straight into a filter, for a configuration that says no more than that it is meant
//! ([`LinuxSeccomp::builtin`]), and with all its names for whoever else wants to see them.

use super::text::{self, Rule};
use brig_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArch, LinuxSyscall};
use std::path::PathBuf;

/// The profile's text.
const TEXT: &str = include_str!("default.profile");
/// EPERM, the answer to a call that is not allowed.
const EPERM: u32 = 1;

/// Names of this processor and those whose programs it can run too: as profiles spell them, and for the specification.
pub fn architectures() -> (&'static [&'static str], Vec<LinuxSeccompArch>) {
    match std::env::consts::ARCH {
        "x86_64" => (
            &["amd64", "x86_64", "x86", "x32"],
            vec![LinuxSeccompArch::X86_64, LinuxSeccompArch::X86, LinuxSeccompArch::X32],
        ),
        "aarch64" => (&["arm64", "aarch64", "arm"], vec![LinuxSeccompArch::Aarch64, LinuxSeccompArch::Arm]),
        "riscv64" => (&["riscv64"], vec![LinuxSeccompArch::Riscv64]),
        _ => (&[], vec![LinuxSeccompArch::Native]),
    }
}

/// The profile by its name alone, as brig's own plans have it.
pub fn named() -> LinuxSeccomp {
    LinuxSeccomp {
        default_action: LinuxSeccompAction::Errno,
        default_errno_ret: Some(EPERM),
        architectures: architectures().1,
        flags: None,
        listener_path: PathBuf::new(),
        listener_metadata: String::new(),
        syscalls: Vec::new(),
        builtin: true,
    }
}

/// The profile with all its rules, for a container with these capabilities (`CAP_CHOWN` and the like).
pub fn spelled_out(has_capability: impl Fn(&str) -> bool) -> LinuxSeccomp {
    let spell = |rule: Rule<'_>| LinuxSyscall {
        names: rule.names().map(str::to_owned).collect(),
        action: rule.action,
        errno_ret: rule.errno,
        args: rule.tests,
    };
    let syscalls = rules(has_capability).into_iter().map(spell).collect();
    LinuxSeccomp { syscalls, builtin: false, ..named() }
}

/// The rules that hold for a container with these capabilities.
pub(super) fn rules(has_capability: impl Fn(&str) -> bool) -> Vec<Rule<'static>> {
    text::read(TEXT, has_capability, architectures().0).expect("the built-in profile is well formed, as a test shows")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what a container is given when nothing is said, those that open calls, and some that open none.
    const USUAL: [&str; 4] = ["CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE"];

    fn with(capabilities: &[&str]) -> LinuxSeccomp {
        spelled_out(|name| capabilities.contains(&name))
    }

    fn allowed(profile: &LinuxSeccomp, name: &str) -> Vec<LinuxSeccompAction> {
        let rules = profile.syscalls.iter();
        rules.filter(|r| r.names.iter().any(|n| n == name)).map(|r| r.action).collect()
    }

    #[test]
    fn the_default_profile_is_closed_where_it_must_be() {
        let profile = with(&USUAL);
        for gone in [
            "io_uring_setup",
            "io_uring_enter",
            "keyctl",
            "add_key",
            "request_key",
            "userfaultfd",
            "mount",
            "unshare",
            "setns",
            "bpf",
            "perf_event_open",
            "open_by_handle_at",
            "kexec_load",
            "reboot",
            "init_module",
            "swapon",
            "pivot_root",
            "fsopen",
            "kcmp",
            "pidfd_getfd",
            "syslog",
            "iopl",
            "clock_settime",
            "acct",
            "quotactl",
        ] {
            assert_eq!(allowed(&profile, gone), [], "{gone}");
        }
        for there in ["read", "ptrace", "chroot", "socket", "clone", "futex", "openat2", "statmount"] {
            assert!(allowed(&profile, there).contains(&LinuxSeccompAction::Allow), "{there}");
        }
        assert_eq!(allowed(&profile, "clone3"), [LinuxSeccompAction::Errno]);
    }

    #[test]
    fn a_capability_opens_its_calls_and_no_others() {
        let profile = with(&["CAP_SYS_ADMIN"]);
        assert_eq!(allowed(&profile, "mount"), [LinuxSeccompAction::Allow]);
        assert_eq!(allowed(&profile, "clone3"), [LinuxSeccompAction::Allow]);
        assert_eq!(allowed(&profile, "clone").len(), 1);
        assert_eq!(allowed(&profile, "chroot"), []);
        assert_eq!(allowed(&profile, "kexec_load"), []);
    }

    #[test]
    fn clone_may_not_make_namespaces() {
        let profile = with(&[]);
        let rules = &profile.syscalls;
        let clone = rules.iter().find(|r| r.names == ["clone"]).unwrap();
        let test = clone.args[0];
        assert_eq!((test.index, test.value, test.value_two), (0, 0x7e02_0000, Some(0)));
    }

    #[test]
    fn vsock_and_alg_sockets_are_not_listed() {
        let profile = with(&[]);
        let rules = profile.syscalls.iter().filter(|r| r.names == ["socket"]);
        let mut count = 0;
        for rule in rules {
            let test = rule.args[0];
            assert!(![38, 40].contains(&test.value));
            count += 1;
        }
        assert_eq!(count, 14);
    }

    #[test]
    fn by_name_and_spelled_out_it_is_the_same_filter() {
        for capabilities in [&[][..], &USUAL, &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF"]] {
            let has = |name: &str| capabilities.contains(&name);
            let named = super::super::compile(&named(), has).unwrap();
            let spelled = super::super::compile(&with(capabilities), |_| false).unwrap();
            let bytes = |filter: &super::super::Filter| {
                filter.instructions.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect::<Vec<_>>()
            };
            assert!(named.instructions.len() > 500);
            assert_eq!(bytes(&named), bytes(&spelled), "{capabilities:?}");
            assert_eq!((named.flags, named.notifies), (spelled.flags, spelled.notifies));
        }
    }
}
