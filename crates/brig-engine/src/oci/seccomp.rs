//! The system call filter: the built-in profile, and profiles that users bring.
//!
//! The built-in one is a text, `seccomp/default.profile`, whose header explains its form; it is read anew for each container
//! because it depends on the container's capabilities. User profiles come in Docker's form (with `includes` and `excludes`)
//! or in the OCI's (`defaultAction`, `architectures`, `syscalls`): see [`parse`].

mod table;
mod user;

use super::Name;
use brig_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArch};
use std::collections::BTreeSet;
use std::path::PathBuf;

pub use user::parse;

/// The built-in profile's text.
const DEFAULT: &str = include_str!("seccomp/default.profile");
/// EPERM, the answer to a call that is not allowed.
const EPERM: u32 = 1;

/// Names of this processor and those whose programs it can run too: as profiles spell them, and for the specification.
fn architectures() -> (&'static [&'static str], Vec<LinuxSeccompArch>) {
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

/// Makes the built-in profile for a container with these capabilities.
pub fn default_profile(capabilities: &BTreeSet<Name>, _kernel: (u32, u32)) -> LinuxSeccomp {
    let (names, architectures) = architectures();
    let syscalls =
        table::read(DEFAULT, capabilities, names).expect("the built-in profile is well formed, as a test shows");
    LinuxSeccomp {
        default_action: LinuxSeccompAction::Errno,
        default_errno_ret: Some(EPERM),
        architectures,
        flags: None,
        listener_path: PathBuf::new(),
        listener_metadata: String::new(),
        syscalls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::capabilities;

    fn set(names: &[&str]) -> BTreeSet<Name> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn allowed(profile: &LinuxSeccomp, name: &str) -> Vec<LinuxSeccompAction> {
        let rules = profile.syscalls.iter();
        rules.filter(|r| r.names.iter().any(|n| n == name)).map(|r| r.action).collect()
    }

    #[test]
    fn the_default_profile_is_closed_where_it_must_be() {
        let profile = default_profile(&set(&capabilities::DEFAULT), (6, 1));
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
        let profile = default_profile(&set(&["CAP_SYS_ADMIN"]), (6, 1));
        assert_eq!(allowed(&profile, "mount"), [LinuxSeccompAction::Allow]);
        assert_eq!(allowed(&profile, "clone3"), [LinuxSeccompAction::Allow]);
        assert_eq!(allowed(&profile, "clone").len(), 1);
        assert_eq!(allowed(&profile, "chroot"), []);
        assert_eq!(allowed(&profile, "kexec_load"), []);
    }

    #[test]
    fn clone_may_not_make_namespaces() {
        let profile = default_profile(&BTreeSet::new(), (6, 1));
        let rules = &profile.syscalls;
        let clone = rules.iter().find(|r| r.names == ["clone"]).unwrap();
        let test = clone.args[0];
        assert_eq!((test.index, test.value, test.value_two), (0, 0x7e02_0000, Some(0)));
    }

    #[test]
    fn vsock_and_alg_sockets_are_not_listed() {
        let profile = default_profile(&BTreeSet::new(), (6, 1));
        let rules = profile.syscalls.iter().filter(|r| r.names == ["socket"]);
        let mut count = 0;
        for rule in rules {
            let test = rule.args[0];
            assert!(![38, 40].contains(&test.value));
            count += 1;
        }
        assert_eq!(count, 14);
    }
}
