//! Flags whose value is one of a few words: namespaces, networks, platforms, when to pull, where the output goes, what confines.

use super::values::{bytes, read_text};
use brig_engine::config::{
    CgroupMode, ContainerConfig, IpcMode, LogConfig, NetworkMode, PidMode, Pull, Seccomp, UserMode, UtsMode,
};
use brig_engine::{Error, Result};
use brig_spec::platform::{Platform, PlatformError};

pub(super) fn container_of(flag: &str, mode: &str) -> Result<Option<String>> {
    match mode.strip_prefix("container:") {
        Some("") => Err(Error::invalid(format!("`{flag} container:` needs a container"))),
        other => Ok(other.map(str::to_owned)),
    }
}

pub(super) fn bad_mode(flag: &str, mode: &str, known: &str) -> Error {
    Error::invalid(format!("`{mode}` is not a mode of `{flag}`")).hint(format!("known are {known}"))
}

pub(super) fn pid(mode: Option<&str>) -> Result<PidMode> {
    let Some(mode) = mode.filter(|m| !m.is_empty()) else { return Ok(PidMode::Private) };
    if let Some(name) = container_of("--pid", mode)? {
        return Ok(PidMode::Container(name));
    }
    match mode {
        "private" => Ok(PidMode::Private),
        "host" => Ok(PidMode::Host),
        _ => Err(bad_mode("--pid", mode, "`host` and `container:NAME`")),
    }
}

pub(super) fn ipc(mode: Option<&str>) -> Result<IpcMode> {
    let Some(mode) = mode.filter(|m| !m.is_empty()) else { return Ok(IpcMode::Private) };
    if let Some(name) = container_of("--ipc", mode)? {
        return Ok(IpcMode::Container(name));
    }
    match mode {
        "private" => Ok(IpcMode::Private),
        "shareable" => Ok(IpcMode::Shareable),
        "none" => Ok(IpcMode::None),
        "host" => Ok(IpcMode::Host),
        _ => Err(bad_mode("--ipc", mode, "`private`, `shareable`, `none`, `host` and `container:NAME`")),
    }
}

pub(super) fn uts(mode: Option<&str>) -> Result<UtsMode> {
    match mode {
        None | Some("" | "private") => Ok(UtsMode::Private),
        Some("host") => Ok(UtsMode::Host),
        Some(other) => Err(bad_mode("--uts", other, "`host`")),
    }
}

pub(super) fn network(mode: Option<&str>, host_image: bool) -> Result<NetworkMode> {
    let Some(mode) = mode.filter(|m| !m.is_empty()) else {
        // A throwaway copy of the machine is not confined for reading: it has no network unless asked.
        return Ok(if host_image { NetworkMode::None } else { NetworkMode::Bridge });
    };
    if let Some(name) = container_of("--network", mode)? {
        return Ok(NetworkMode::Container(name));
    }
    match mode {
        "bridge" | "default" => Ok(NetworkMode::Bridge),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        _ => Err(Error::not_found(format!("no such network: {mode}"))
            .hint("known are `bridge`, `none`, `host` and `container:NAME`")),
    }
}

pub(super) fn cgroupns(mode: Option<&str>) -> Result<CgroupMode> {
    match mode {
        None | Some("" | "private") => Ok(CgroupMode::Private),
        Some("host") => Ok(CgroupMode::Host),
        Some(other) => Err(bad_mode("--cgroupns", other, "`private` and `host`")),
    }
}

pub(super) fn userns(mode: Option<&str>) -> Result<UserMode> {
    let Some(mode) = mode.filter(|m| !m.is_empty()) else { return Ok(UserMode::Host) };
    if let Some(name) = container_of("--userns", mode)? {
        return Ok(UserMode::Container(name));
    }
    match mode {
        "host" => Ok(UserMode::Host),
        "auto" => Ok(UserMode::Auto),
        _ => Err(bad_mode("--userns", mode, "`host`, `auto` and `container:NAME`")),
    }
}

pub(super) fn pull(when: Option<&str>) -> Result<Pull> {
    match when {
        None | Some("missing") => Ok(Pull::Missing),
        Some("always") => Ok(Pull::Always),
        Some("never") => Ok(Pull::Never),
        Some(other) => Err(bad_mode("--pull", other, "`missing`, `always` and `never`")),
    }
}

pub(super) fn log(driver: Option<&str>, options: &[String]) -> Result<LogConfig> {
    let mut log = LogConfig::default();
    match driver {
        None | Some("json-file" | "local" | "k8s-file" | "brig") => {}
        Some("none") => log.none = true,
        Some(other) => return Err(bad_mode("--log-driver", other, "`local` and `none`")),
    }
    for option in options {
        match option.split_once('=') {
            Some(("max-size", "-1")) => log.max_size = Some(0),
            Some(("max-size", size)) => log.max_size = Some(bytes("--log-opt max-size", size)?),
            Some(("max-file", count)) => {
                let count = count.parse().ok().filter(|n| *n > 0);
                log.max_files =
                    Some(count.ok_or_else(|| Error::invalid("`--log-opt max-file` needs a number above 0"))?);
            }
            _ => return Err(bad_mode("--log-opt", option, "`max-size=BYTES` and `max-file=N`")),
        }
    }
    Ok(log)
}

/// Interprets one `--security-opt`; Docker's old form with a colon is accepted.
pub(super) fn security(option: &str, config: &mut ContainerConfig) -> Result<()> {
    let security = &mut config.security;
    let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
    match (key, value) {
        ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
        ("no-new-privileges", "false") => security.no_new_privileges = false,
        ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
        ("seccomp", "builtin") => security.seccomp = Seccomp::Default,
        ("seccomp", path) if !path.is_empty() => {
            let text = read_text(path, "the seccomp profile")?;
            security.seccomp = Seccomp::Profile(text);
        }
        ("apparmor", profile) if !profile.is_empty() => security.apparmor = Some(profile.to_owned()),
        ("label", part) if !part.is_empty() => security.label.push(part.to_owned()),
        ("systempaths", "unconfined") => security.unmask_all = true,
        _ => {
            return Err(bad_mode(
                "--security-opt",
                option,
                "`seccomp=FILE`, `seccomp=unconfined`, `no-new-privileges`, `apparmor=PROFILE`, `label=...`, `systempaths=unconfined`",
            ));
        }
    }
    Ok(())
}

/// Processors for which Linux images are made, as image-spec spells them.
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x", "sparc64",
];

/// Reads `--platform`, before any registry is asked for one that cannot be.
pub fn platform(text: Option<&str>) -> Result<Option<Platform>> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
    let hint = "write it as `linux/amd64` or `linux/arm64/v8`";
    let platform: Platform = text.parse().map_err(|error: PlatformError| {
        Error::invalid(format!("`{text}` is not a platform")).because(error).hint(hint)
    })?;
    let because = if platform.os != "linux" {
        format!("images for `{}` do not run here: brig runs Linux containers", platform.os)
    } else if !ARCHITECTURES.contains(&platform.architecture.as_str()) {
        format!("`{}` is not a processor that images are made for", platform.architecture)
    } else {
        return Ok(Some(platform));
    };
    Err(Error::invalid(format!("`{text}` is not a platform")).reason(because).hint(hint))
}
