//! `-v`, `--mount` and `--tmpfs`: three ways to write a mount.

use super::values::{absolute, bytes};
use brig_engine::config::{MountConfig, MountKind, VolumesFrom};
use brig_engine::{Error, Result};
use brig_spec::id::Name;
use std::path::{Path, PathBuf};

/// Interprets all three, in the order -v, --mount, --tmpfs.
pub fn all(volumes: &[String], mounts: &[String], tmpfs: &[String]) -> Result<Vec<MountConfig>> {
    let volumes = volumes.iter().map(|t| volume(t));
    let mounts = mounts.iter().map(|t| mount(t));
    let tmpfs = tmpfs.iter().map(|t| self::tmpfs(t));
    volumes.chain(mounts).chain(tmpfs).collect()
}

const PROPAGATIONS: [&str; 6] = ["shared", "rshared", "slave", "rslave", "private", "rprivate"];

fn destination(text: &str, whole: &str) -> Result<PathBuf> {
    brig_engine::config::merge::clean_absolute(Path::new(text)).ok_or_else(|| {
        Error::invalid(format!("`{text}` in `{whole}` is not a place to mount at"))
            .hint("a destination is an absolute path without `..`, and not `/` itself")
    })
}

/// `CONTAINER[:ro|rw]`.
pub fn volumes_from(text: &str) -> Result<VolumesFrom> {
    let (container, mode) = text.split_once(':').unwrap_or((text, ""));
    let mut read_only = None;
    for word in mode.split(',').filter(|w| !w.is_empty()) {
        match word {
            "ro" => read_only = Some(true),
            "rw" => read_only = Some(false),
            "z" | "Z" => {}
            _ => return Err(Error::invalid(format!("`{word}` in `--volumes-from {text}` is not `ro` or `rw`"))),
        }
    }
    if container.is_empty() {
        return Err(Error::invalid("`--volumes-from` needs a container"));
    }
    Ok(VolumesFrom { container: container.to_owned(), read_only })
}

/// `[SOURCE:]DESTINATION[:OPTIONS]`.
fn volume(text: &str) -> Result<MountConfig> {
    let bad = || Error::invalid(format!("`{text}` is not of the form [SOURCE:]DESTINATION[:OPTIONS]"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, inside, options) = match parts.as_slice() {
        [inside] => (None, *inside, ""),
        [source, inside] => (Some(*source), *inside, ""),
        [source, inside, options] => (Some(*source), *inside, *options),
        _ => return Err(bad()),
    };
    let kind = match source {
        None => MountKind::Volume { name: None, no_copy: false, subpath: None },
        Some(path) if path.starts_with('/') || path.starts_with('.') || path.starts_with('~') => {
            MountKind::Bind { source: absolute(path)?, create: true, non_recursive: false }
        }
        Some(name) => {
            Name::parse(name).map_err(|error| {
                Error::invalid(format!("`{text}` names no volume"))
                    .because(error)
                    .hint("a directory begins with `/` or `./`")
            })?;
            MountKind::Volume { name: Some(name.to_owned()), no_copy: false, subpath: None }
        }
    };
    let mut mount = MountConfig::new(kind, destination(inside, text)?);
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" | "readonly" => mount.read_only = true,
            "rw" => mount.read_only = false,
            // SELinux relabelling and consistency have no meaning here, and are accepted as Docker's users write them.
            "z" | "Z" | "cached" | "delegated" | "consistent" | "rbind" => {}
            "nocopy" => set_no_copy(&mut mount),
            "noexec" | "nosuid" | "nodev" | "exec" | "suid" | "dev" => mount.options.push(option.to_owned()),
            "bind" => set_non_recursive(&mut mount),
            _ if PROPAGATIONS.contains(&option) => mount.propagation = Some(option.to_owned()),
            _ => return Err(Error::invalid(format!("`{option}` in `{text}` is not an option of a mount"))),
        }
    }
    Ok(mount)
}

fn set_no_copy(mount: &mut MountConfig) {
    if let MountKind::Volume { no_copy, .. } = &mut mount.kind {
        *no_copy = true;
    }
}

fn set_non_recursive(mount: &mut MountConfig) {
    if let MountKind::Bind { non_recursive, .. } = &mut mount.kind {
        *non_recursive = true;
    }
}

#[derive(Default)]
struct Words {
    kind: String,
    source: Option<String>,
    destination: Option<String>,
    read_only: bool,
    propagation: Option<String>,
    options: Vec<String>,
    no_copy: bool,
    non_recursive: bool,
    create: bool,
    subpath: Option<PathBuf>,
}

/// `type=...,src=...,dst=...,...`.
fn mount(text: &str) -> Result<MountConfig> {
    let mut words = Words { kind: "volume".into(), ..Words::default() };
    let unknown = |word: &str| {
        Error::invalid(format!("`{word}` is not a word of `--mount`"))
            .hint("for example `type=bind,src=/srv,dst=/data,readonly` or `type=tmpfs,dst=/tmp,tmpfs-size=64m`")
    };
    for word in text.split(',').filter(|w| !w.is_empty()) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let yes = matches!(value, "" | "true" | "1");
        match key {
            "type" => value.clone_into(&mut words.kind),
            "source" | "src" => words.source = Some(value.to_owned()),
            "destination" | "dst" | "target" => words.destination = Some(value.to_owned()),
            "readonly" | "ro" => words.read_only = yes,
            "bind-propagation" if PROPAGATIONS.contains(&value) => words.propagation = Some(value.to_owned()),
            "bind-nonrecursive" => words.non_recursive = yes,
            "bind-recursive" => words.non_recursive = value == "disabled",
            "bind-create-src" | "create-host-path" => words.create = yes,
            "volume-nocopy" => words.no_copy = yes,
            "volume-subpath" | "image-subpath" => words.subpath = Some(value.into()),
            "tmpfs-size" => words.options.push(format!("size={}", bytes("tmpfs-size", value)?)),
            "tmpfs-mode" if u32::from_str_radix(value, 8).is_ok_and(|m| m <= 0o7777) => {
                words.options.push(format!("mode={value}"));
            }
            "tmpfs-options" => words.options.extend(value.split(':').map(str::to_owned)),
            "consistency" => {}
            _ => return Err(unknown(word)),
        }
    }
    let inside =
        words.destination.as_deref().ok_or_else(|| Error::invalid(format!("`--mount {text}` names no destination")))?;
    let inside = destination(inside, text)?;
    let kind = match words.kind.as_str() {
        "bind" => {
            let source = words.source.filter(|s| !s.is_empty());
            let source = source.ok_or_else(|| Error::invalid(format!("`--mount {text}` names no source")))?;
            MountKind::Bind { source: absolute(&source)?, create: words.create, non_recursive: words.non_recursive }
        }
        "volume" => {
            let name = words.source.filter(|s| !s.is_empty());
            if let Some(name) = &name {
                Name::parse(name)
                    .map_err(|error| Error::invalid(format!("`--mount {text}` names no volume")).because(error))?;
            }
            MountKind::Volume { name, no_copy: words.no_copy, subpath: words.subpath }
        }
        "tmpfs" => MountKind::Tmpfs,
        "image" => {
            let name = words.source.filter(|s| !s.is_empty());
            MountKind::Image { name: name.ok_or_else(|| Error::invalid(format!("`--mount {text}` names no image")))? }
        }
        other => {
            return Err(Error::invalid(format!("`{other}` is not a type of mount"))
                .hint("known are `bind`, `volume`, `tmpfs` and `image`"));
        }
    };
    let mut mount = MountConfig::new(kind, inside);
    (mount.read_only, mount.propagation, mount.options) = (words.read_only, words.propagation, words.options);
    Ok(mount)
}

/// `DESTINATION[:OPTIONS]`.
fn tmpfs(text: &str) -> Result<MountConfig> {
    let (inside, options) = text.split_once(':').unwrap_or((text, ""));
    let mut mount = MountConfig::tmpfs(destination(inside, text)?);
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "size" if value.ends_with('%') => mount.options.push(option.to_owned()),
            "size" => mount.options.push(format!("size={}", bytes("--tmpfs size", value)?)),
            "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks" | "noexec" | "nosuid" | "nodev" | "exec" | "suid"
            | "dev" | "noatime" | "relatime" | "strictatime" | "nodiratime" => mount.options.push(option.to_owned()),
            _ => return Err(Error::invalid(format!("`{option}` in `{text}` is not an option of a tmpfs"))),
        }
    }
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms() {
        let anonymous = volume("/data").unwrap();
        assert!(matches!(anonymous.kind, MountKind::Volume { name: None, .. }));
        let named = volume("db:/data:ro,nocopy").unwrap();
        assert!(matches!(&named.kind, MountKind::Volume { name: Some(n), no_copy: true, .. } if n == "db"));
        assert!(named.read_only);
        let bind = volume("/a/../b:/data:rslave,z").unwrap();
        assert!(matches!(&bind.kind, MountKind::Bind { source, create: true, .. } if source == Path::new("/b")));
        assert_eq!(bind.propagation.as_deref(), Some("rslave"));
        for bad in ["", ":", "a:b", "db:/", "/a:/b:/c:d", "/a:rel", "a b:/x", "/a:/b/..:ro"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn long_forms() {
        let bind = mount("type=bind,source=/a,target=/b,readonly,bind-propagation=rshared").unwrap();
        assert!(bind.read_only && matches!(bind.kind, MountKind::Bind { create: false, .. }));
        let volume = mount("src=db,dst=/data,volume-nocopy,volume-subpath=x/y").unwrap();
        assert!(matches!(volume.kind, MountKind::Volume { no_copy: true, subpath: Some(_), .. }));
        let tmpfs = mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap();
        assert_eq!(tmpfs.options, ["size=1048576", "mode=1777"]);
        assert!(matches!(mount("type=image,src=debian,dst=/i").unwrap().kind, MountKind::Image { .. }));
        for bad in [
            "",
            "type=bind,dst=/a",
            "type=tmpfs",
            "type=tmpfs,dst=/a,tmpfs-mode=9",
            "type=bind,src=/a,dst=/b,x=y",
            "type=bind,src=/a,dst=/b,bind-propagation=x",
        ] {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory() {
        assert_eq!(tmpfs("/t:size=1m,exec").unwrap().options, ["size=1048576", "exec"]);
        assert!(tmpfs("/t:lowerdir=/").is_err());
    }
}
