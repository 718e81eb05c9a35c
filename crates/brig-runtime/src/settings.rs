//! What the configuration says about the container beside its process and mounts: names, sysctls, paths, namespaces.

use crate::error::{Context, Error};
use crate::selinux;
use brig_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, LinuxTimeOffset, Spec};
use brig_sys::clone::{flags, setns};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The settings, read and checked before the fork.
#[derive(Debug)]
pub(crate) struct Settings {
    pub namespaces: Namespaces,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub sysctls: BTreeMap<String, String>,
    pub masked: Vec<String>,
    pub readonly: Vec<String>,
    pub root_readonly: bool,
    pub propagation: MountPropagationFlags,
    /// The propagation of the container's own root, where it is named.
    pub root_propagation: Option<MountPropagationFlags>,
    pub uid_map: Vec<LinuxIdMapping>,
    pub gid_map: Vec<LinuxIdMapping>,
    pub time_offsets: Option<String>,
    /// The SELinux label of what is mounted.
    pub mount_label: Option<String>,
    /// What is granted otherwise than asked for.
    pub warnings: Vec<String>,
}

/// The namespaces of a container: which are new, and which are those of others.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// Flags of clone(2) for the new ones.
    pub new: u64,
    /// Descriptors of those that are joined, with their flags, in the order in which they are entered; the mount namespace is not
    /// among them.
    pub joined: Vec<(u64, OwnedFd)>,
    /// Whose mounts the program has around it.
    pub mounts: MountNamespace,
}

/// The mount namespace in which the program runs. What is mounted for a container is made in a new one, whatever it runs in: see
/// `shared.rs`.
#[derive(Debug, Default)]
pub(crate) enum MountNamespace {
    /// That new one.
    #[default]
    Own,
    /// The maker's.
    Makers(OwnedFd),
    /// Another's, which also has the root file system and what is bound.
    Joined(OwnedFd),
}

impl MountNamespace {
    /// The namespace that others have too.
    pub fn shared(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Own => None,
            Self::Makers(fd) | Self::Joined(fd) => Some(fd.as_fd()),
        }
    }

    /// The namespace of others in which paths are looked up.
    pub fn joined(&self) -> Option<BorrowedFd<'_>> {
        if let Self::Joined(fd) = self { Some(fd.as_fd()) } else { None }
    }
}

impl Namespaces {
    fn read(linux: &Linux) -> Result<Self, Error> {
        let mut namespaces = Self::default();
        for namespace in &linux.namespaces {
            let flag = match namespace.typ {
                LinuxNamespaceType::Mount => flags::NEWNS,
                LinuxNamespaceType::Cgroup => flags::NEWCGROUP,
                LinuxNamespaceType::Uts => flags::NEWUTS,
                LinuxNamespaceType::Ipc => flags::NEWIPC,
                LinuxNamespaceType::User => flags::NEWUSER,
                LinuxNamespaceType::Pid => flags::NEWPID,
                LinuxNamespaceType::Network => flags::NEWNET,
                LinuxNamespaceType::Time => flags::NEWTIME,
            };
            let Some(path) = namespace.joined() else {
                namespaces.new |= flag;
                continue;
            };
            let step = || format!("open the namespace {}", path.display());
            let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(step)?;
            if flag == flags::NEWNS {
                namespaces.mounts = MountNamespace::Joined(fd);
            } else {
                namespaces.joined.push((flag, fd));
            }
        }
        namespaces.settle_mounts()?;
        Ok(namespaces)
    }

    /// Finds the mount namespace of a container that names none.
    fn settle_mounts(&mut self) -> Result<(), Error> {
        if !self.has(flags::NEWNS) && self.mounts.joined().is_none() {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let own = rustix::fs::open("/proc/self/ns/mnt", flags, Mode::empty());
            self.mounts = MountNamespace::Makers(own.step(|| "open the mount namespace of the machine".into())?);
        }
        let others_users = match self.mounts {
            MountNamespace::Own => false,
            MountNamespace::Makers(_) => self.is_own(flags::NEWUSER),
            MountNamespace::Joined(_) => self.has(flags::NEWUSER),
        };
        self.new |= flags::NEWNS;
        if others_users {
            let why = "a user namespace of its own has no rights there: give it a mount namespace of its own too";
            return Err(Error::invalid("put the container into the mount namespace of others", why));
        }
        Ok(())
    }

    /// The user namespace that is joined.
    pub fn joined_userns(&self) -> Option<BorrowedFd<'_>> {
        self.joined.iter().find(|(flag, _)| *flag == flags::NEWUSER).map(|(_, fd)| fd.as_fd())
    }

    /// Says whether the process that bears the container's first one has to enter those that are joined: the user namespace, or what
    /// the root of a new one would have no rights over.
    pub fn needs_bearer(&self) -> bool {
        self.joined_userns().is_some() || self.has(flags::NEWUSER) && !self.joined.is_empty()
    }

    /// Enters those that are joined, but for the pid namespace, which only a child enters. The user namespace comes last: it may
    /// not own the others, and then only the caller's present rights reach them.
    pub fn join(&self) -> Result<(), Error> {
        let user = |(flag, _): &&(u64, OwnedFd)| *flag == flags::NEWUSER;
        let others = self.joined.iter().filter(|one| !user(one) && one.0 != flags::NEWPID);
        for (flag, fd) in others.chain(self.joined.iter().filter(user)) {
            setns(fd.as_fd(), *flag).step(|| "join a namespace".into())?;
        }
        Ok(())
    }

    /// Says whether the container has this namespace for itself.
    pub fn has(&self, flag: u64) -> bool {
        self.new & flag != 0
    }

    /// Says whether the namespace is not the machine's: new, or another container's.
    pub fn is_own(&self, flag: u64) -> bool {
        self.has(flag) || self.joined.iter().any(|(f, _)| *f == flag)
    }
}

impl Settings {
    /// Reads and checks them. Errors: a sysctl that would change the machine, a name without its namespace.
    pub fn read(spec: &Spec) -> Result<Self, Error> {
        let default = Linux::default();
        let linux = spec.linux.as_deref().unwrap_or(&default);
        let namespaces = Namespaces::read(linux)?;
        let (uid_map, gid_map) = (linux.uid_mappings.clone(), linux.gid_mappings.clone());
        if namespaces.has(flags::NEWUSER) && (uid_map.is_empty() || gid_map.is_empty()) {
            return Err(Error::invalid("make the user namespace", "it has no id maps"));
        }
        let hostname = Some(spec.hostname.clone()).filter(|h| !h.is_empty());
        if hostname.is_some() && !namespaces.is_own(flags::NEWUTS) {
            return Err(Error::invalid("set the host name", "the container has no uts namespace of its own"));
        }
        for key in linux.sysctl.keys() {
            check_sysctl(key, &namespaces)?;
        }
        let propagation = match linux.rootfs_propagation.as_str() {
            "rshared" | "shared" => MountPropagationFlags::SHARED,
            "rslave" | "slave" => MountPropagationFlags::DOWNSTREAM,
            _ => MountPropagationFlags::PRIVATE,
        };
        let root_propagation = match linux.rootfs_propagation.as_str() {
            "shared" | "rshared" => Some(MountPropagationFlags::SHARED),
            "slave" | "rslave" => Some(MountPropagationFlags::DOWNSTREAM),
            "unbindable" | "runbindable" => Some(MountPropagationFlags::UNBINDABLE),
            _ => None,
        };
        let line = |(clock, o): (&String, &LinuxTimeOffset)| format!("{clock} {} {}\n", o.secs, o.nanosecs);
        let time_offsets =
            Some(linux.time_offsets.iter().map(line).collect()).filter(|lines: &String| !lines.is_empty());
        let mut warnings = Vec::new();
        let mount_label = selinux::take(&linux.mount_label, "what is mounted", &mut warnings)?;
        Ok(Self {
            mount_label,
            warnings,
            namespaces,
            hostname,
            domainname: Some(spec.domainname.clone()).filter(|d| !d.is_empty()),
            sysctls: linux.sysctl.clone(),
            masked: once_each(&linux.masked_paths),
            readonly: once_each(&linux.readonly_paths),
            root_readonly: spec.root.as_ref().is_some_and(|root| root.readonly),
            propagation,
            root_propagation,
            uid_map,
            gid_map,
            time_offsets,
        })
    }
}

/// Each path once: to mask a mask is a mount for nothing.
fn once_each(paths: &[String]) -> Vec<String> {
    let mut once: Vec<String> = Vec::new();
    for path in paths {
        if !once.contains(path) {
            once.push(path.clone());
        }
    }
    once
}

/// The settings of an IPC namespace, beside those of `fs.mqueue.`; ipc_namespaces(7).
pub const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Only settings that the kernel keeps for each namespace, and only when the container has that namespace.
fn check_sysctl(key: &str, namespaces: &Namespaces) -> Result<(), Error> {
    let step = || format!("set the sysctl {key}");
    let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'));
    if !plain {
        return Err(Error::invalid(step(), "the key has characters that no sysctl has"));
    }
    // Both separators are accepted; the first one decides how the rest is read, and only dots are allowed to decide.
    let (flag, what) = if key.starts_with("net.") {
        (flags::NEWNET, "network")
    } else if IPC_SYSCTLS.contains(&key) || key.starts_with("fs.mqueue.") {
        (flags::NEWIPC, "ipc")
    } else if key == "kernel.domainname" {
        (flags::NEWUTS, "uts")
    } else {
        return Err(Error::invalid(step(), "it is not kept for each namespace, and would change the whole machine"));
    };
    if namespaces.is_own(flag) {
        return Ok(());
    }
    Err(Error::invalid(
        step(),
        format!("the container has no {what} namespace of its own, and it would change the machine's"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_of_the_machine_are_refused() {
        let own = Namespaces {
            new: flags::NEWNET | flags::NEWIPC | flags::NEWUTS,
            joined: Vec::new(),
            mounts: MountNamespace::Own,
        };
        let none = Namespaces::default();
        for good in [
            "net.ipv4.ip_forward",
            "net.ipv4.conf.eth0/1.forwarding",
            "kernel.shmmax",
            "fs.mqueue.msg_max",
            "kernel.domainname",
        ] {
            assert!(check_sysctl(good, &own).is_ok(), "{good}");
            assert!(check_sysctl(good, &none).is_err(), "{good}");
        }
        for bad in [
            "kernel.core_pattern",
            "kernel.shm_rmid_forced+kernel.core_pattern",
            "vm.swappiness",
            "kernel/shmmax",
            "net/ipv4/x",
            "kernel.shmmax\n",
            "",
        ] {
            assert!(check_sysctl(bad, &own).is_err(), "{bad}");
        }
    }
}
