//! The options before the command, and what every command gets.

use crate::arguments::{self, Ends, Opt, Parsed, flag, value};
use crate::failure::Failure;
use crate::log::Log;
use brig_runtime::cgroup::{Bus, Driver};
use std::path::PathBuf;

/// The options that stand before the command.
pub(crate) const OPTIONS: &[Opt] = &[
    flag("debug", '\0', "log every step"),
    value("log", '\0', "the file for errors and warnings (default: standard error)"),
    value("log-format", '\0', "the form of the log: text or json (default: text)"),
    value("root", '\0', "the directory of the containers' state (default: /run/brig-runtime)"),
    value("criu", '\0', "the program for checkpoints (default: criu in the PATH)"),
    flag("systemd-cgroup", '\0', "let systemd make the cgroups; cgroupsPath is then slice:prefix:name"),
    value("rootless", '\0', "whether cgroups that cannot be made are done without: true, false, auto (default: auto)"),
    flag("version", 'v', "print the version"),
    flag("help", 'h', "print this help"),
];

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Global {
    /// Where the containers' state lies.
    pub root: PathBuf,
    /// Whether the caller named it.
    pub root_given: bool,
    /// Where errors go.
    pub log: Log,
    /// The program for checkpoints.
    pub criu: Option<String>,
    /// Who makes the cgroups.
    pub cgroup_driver: Driver,
    /// Whether limits that cannot be set are done without.
    pub rootless: bool,
}

impl Global {
    /// Reads what stands before the command, and returns it with the command and its words.
    pub fn parse(words: &[String]) -> Result<(Self, Parsed, Vec<String>), Failure> {
        let mut parsed = arguments::parse(words, OPTIONS, Ends::After(1))?;
        // Everything from the first operand on is the command's.
        let rest = std::mem::take(&mut parsed.operands);
        let user = rustix::process::geteuid();
        let rootless = match parsed.filled("rootless") {
            None | Some("auto") => !user.is_root(),
            Some("true") => true,
            Some("false") => false,
            Some(other) => {
                return Err(Failure::new(format!("invalid value {other:?} for --rootless: true, false or auto")));
            }
        };
        let root = match (parsed.filled("root"), std::env::var_os("XDG_RUNTIME_DIR")) {
            (Some(root), _) => std::path::absolute(root).unwrap_or_else(|_| root.into()),
            (None, Some(runtime)) if !user.is_root() => PathBuf::from(runtime).join("brig-runtime"),
            (None, _) => "/run/brig-runtime".into(),
        };
        let log = Log::open(parsed.value("log"), parsed.value("log-format"), parsed.has("debug"))?;
        let criu = parsed.filled("criu").map(str::to_owned);
        let cgroup_driver = if parsed.has("systemd-cgroup") { Driver::Systemd(bus()) } else { Driver::Cgroupfs };
        let root_given = parsed.filled("root").is_some();
        Ok((Self { root, root_given, log, criu, cgroup_driver, rootless }, parsed, rest))
    }
}

/// The systemd that makes the caller's cgroups: the machine's, or that of the user's session.
fn bus() -> Bus {
    if rustix::process::geteuid().is_root() {
        return Bus::System;
    }
    Bus::User {
        directory: std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
        address: std::env::var("DBUS_SESSION_BUS_ADDRESS").ok(),
    }
}
