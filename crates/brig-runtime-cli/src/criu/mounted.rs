//! Whether the mounts of a restored container are those of its configuration: part of `criu/verify.rs`.
//!
//! ```text
//! /proc/PID/mountinfo   36 35 98:0 /dir /point rw,noatime opt... - ext4 /dev/root rw
//!                             device, root    options            type
//! ```
//!
//! Each mount of the configuration is there, is of its type or shows its source, and has the restrictions that it asks for.
//! Nothing else is mounted but what lies within a bind, and what hides or protects a path.

use super::externals::{clean, is_bind, is_cgroup, point};
use super::verify::refused;
use crate::failure::{Failure, Step};
use brig_runtime::cgroup::Cgroup;
use brig_spec::runtime::{Mount, Spec};
use brig_sys::root::Root;
use rustix::fs::{FileType, StatVfsMountFlags as Flags};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of a mount table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    device: String,
    root: String,
    pub point: PathBuf,
    options: String,
    kind: String,
}

/// Compares the mounts of the process `init` with a configuration whose root file system is mounted at `staged`.
pub(super) fn check(spec: &Spec, staged: &Path, cgroup: &Cgroup, init: i32) -> Result<(), Failure> {
    let table = table(&format!("/proc/{init}/mountinfo"))?;
    let path = format!("/proc/{init}/root");
    let inside = Root::open_directory(Path::new(&path)).step(|| format!("open {path}"))?;
    check_root(spec, staged, &table, init)?;
    let mut allowed = Allowed::default();
    for mount in &spec.mounts {
        let destination = clean(&mount.destination);
        let wrong = |why: &str| refused(init, &format!("has a mount on {} that {why}", destination.display()));
        let Some(place) = point(&inside, &destination)? else { return Err(wrong("is missing")) };
        let Some(found) = table.iter().rev().find(|mounted| mounted.point == place) else {
            return Err(wrong("is missing"));
        };
        if is_bind(mount) {
            check_source(mount, &inside, &destination)?.then_some(()).ok_or_else(|| wrong("shows something else"))?;
            allowed.below.insert(place);
        } else if is_cgroup(mount) {
            allowed
                .points
                .extend(cgroup.layout().hierarchies.iter().filter_map(|h| Some(place.join(h.mount.file_name()?))));
            allowed.points.insert(place);
        } else {
            if !mount.typ.is_empty() && mount.typ != found.kind {
                return Err(wrong(&format!("is of type {}", found.kind)));
            }
            allowed.points.insert(place);
        }
        if let Some(missing) = missing_restriction(mount, &found.options) {
            return Err(wrong(&format!("is not {missing}")));
        }
    }
    check_hidden(spec, &inside, &table, init, &mut allowed)?;
    allowed.points.insert("/dev/console".into());
    for device in super::externals::devices(spec) {
        allowed.points.extend(point(&inside, &device)?);
    }
    match table.iter().find(|mounted| !allowed.has(&mounted.point)) {
        None => Ok(()),
        Some(other) => {
            let (place, kind) = (other.point.display(), &other.kind);
            Err(refused(init, &format!("has a mount on {place} ({kind}) that the configuration does not have")))
        }
    }
}

/// The places where something may be mounted.
#[derive(Debug, Default)]
struct Allowed {
    points: BTreeSet<PathBuf>,
    /// The binds: what is mounted below their source comes along.
    below: BTreeSet<PathBuf>,
}

impl Allowed {
    fn has(&self, place: &Path) -> bool {
        place == Path::new("/") || self.points.contains(place) || self.below.iter().any(|bind| place.starts_with(bind))
    }
}

fn check_root(spec: &Spec, staged: &Path, table: &[Mounted], init: i32) -> Result<(), Failure> {
    let own = self::table("/proc/self/mountinfo")?;
    let expected = own.iter().rev().find(|mounted| mounted.point == staged);
    let found = table.iter().rev().find(|mounted| mounted.point == Path::new("/"));
    let (Some(expected), Some(found)) = (expected, found) else { return Err(refused(init, "has no root mount")) };
    if (&expected.device, &expected.root) != (&found.device, &found.root) {
        return Err(refused(init, "has another root file system than the configuration says"));
    }
    let readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
    if readonly && !found.options.split(',').any(|option| option == "ro") {
        return Err(refused(init, "may write to its root file system, which the configuration makes read-only"));
    }
    Ok(())
}

/// Says whether a bind shows its source.
fn check_source(mount: &Mount, inside: &Root, destination: &Path) -> Result<bool, Failure> {
    let source = mount.source.as_path();
    let expected = rustix::fs::stat(source).step(|| format!("look at {}", source.display()))?;
    let step = || format!("look at {} in the container", destination.display());
    let found = rustix::fs::fstat(inside.locate(destination).step(step)?).step(step)?;
    Ok((expected.st_dev, expected.st_ino) == (found.st_dev, found.st_ino))
}

/// The first restriction that a mount asks for and has not.
fn missing_restriction(mount: &Mount, has: &str) -> Option<&'static str> {
    let asked = &mount.options;
    let pairs = [("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec")];
    let last = |on: &str, off: &str| {
        // `rro` and its like hold for the mounts below, too.
        let plain =
            |option: &str| option.strip_prefix('r').filter(|rest| *rest == on || *rest == off).map(str::to_owned);
        let mut said = asked.iter().map(|option| plain(option).unwrap_or_else(|| option.clone()));
        said.rfind(|option| option == on || option == off).is_some_and(|option| option == on)
    };
    let missing = |(on, off): &(&str, &str)| last(on, off) && !has.split(',').any(|option| option == *on);
    pairs.iter().find(|pair| missing(pair)).map(|(on, _)| *on)
}

/// Checks the paths that are hidden and those that are read-only.
fn check_hidden(
    spec: &Spec,
    inside: &Root,
    table: &[Mounted],
    init: i32,
    allowed: &mut Allowed,
) -> Result<(), Failure> {
    let Some(linux) = &spec.linux else { return Ok(()) };
    for path in &linux.masked_paths {
        let Some(place) = point(inside, Path::new(path))? else { continue };
        let step = || format!("look at {path} in the container");
        let stat = rustix::fs::fstat(inside.locate(Path::new(path)).step(step)?).step(step)?;
        let hidden = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let top = table.iter().rev().find(|mounted| mounted.point == place);
            top.is_some_and(|top| top.kind == "tmpfs" && top.options.split(',').any(|option| option == "ro"))
        } else {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == rustix::fs::makedev(1, 3)
        };
        if !hidden {
            return Err(refused(init, &format!("sees {path}, which the configuration hides")));
        }
        allowed.points.insert(place);
    }
    for path in &linux.readonly_paths {
        let Some(place) = point(inside, Path::new(path))? else { continue };
        let step = || format!("look at {path} in the container");
        let flags = rustix::fs::fstatvfs(inside.locate(Path::new(path)).step(step)?).step(step)?.f_flag;
        if !flags.contains(Flags::RDONLY) {
            return Err(refused(init, &format!("may write to {path}, which the configuration makes read-only")));
        }
        allowed.below.insert(place);
    }
    Ok(())
}

/// Reads a mount table, in the order in which one lies over the other.
pub(super) fn table(path: &str) -> Result<Vec<Mounted>, Failure> {
    let text = std::fs::read(path).step(|| format!("read {path}"))?;
    let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| parse(line).ok_or_else(|| Failure::new(format!("{path} has an unknown form")))).collect()
}

fn parse(line: &[u8]) -> Option<Mounted> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    Some(Mounted {
        device: text(fields.get(2)?),
        root: text(fields.get(3)?),
        point: PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.get(4)?))),
        options: text(fields.get(5)?),
        kind: text(fields.get(dash + 1)?),
    })
}

/// Blanks, tabs, new lines and backslashes stand as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut at = 0;
    while let Some(byte) = field.get(at) {
        let digits = field.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.filter(|_| *byte == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.unwrap_or(*byte));
        at += if code.is_some() { 4 } else { 1 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_taken_apart() {
        let line = br"36 35 98:0 /mnt1 /a\040b\134c rw,nosuid master:1 shared:2 - ext3 /dev/root rw";
        let mounted = parse(line).unwrap();
        assert_eq!((mounted.device.as_str(), mounted.root.as_str()), ("98:0", "/mnt1"));
        assert_eq!((mounted.point.as_path(), mounted.kind.as_str()), (Path::new(r"/a b\c"), "ext3"));
        assert_eq!(parse(b"36 35 98:0 / / rw - proc proc rw").unwrap().kind, "proc");
        assert_eq!(parse(b"36 35 98:0 / / rw"), None);
    }

    #[test]
    fn restrictions_are_those_that_were_said_last() {
        let mount = |options: &[&str]| {
            let json = serde_json::json!({"destination": "/x", "options": options});
            serde_json::from_value::<Mount>(json).unwrap()
        };
        assert_eq!(missing_restriction(&mount(&["rbind", "ro"]), "rw,relatime"), Some("ro"));
        assert_eq!(missing_restriction(&mount(&["rbind", "rro"]), "rw,relatime"), Some("ro"));
        assert_eq!(missing_restriction(&mount(&["ro", "rw"]), "rw"), None);
        assert_eq!(missing_restriction(&mount(&["nosuid", "noexec"]), "rw,nosuid"), Some("noexec"));
        assert_eq!(missing_restriction(&mount(&["nodev"]), "ro,nodev"), None);
        assert_eq!(missing_restriction(&mount(&[]), "rw"), None);
    }

    #[test]
    fn binds_bring_what_lies_below_them() {
        let mut allowed = Allowed::default();
        allowed.below.insert("/data".into());
        allowed.points.insert("/proc".into());
        for good in ["/", "/data", "/data/x/y", "/proc"] {
            assert!(allowed.has(Path::new(good)), "{good}");
        }
        for bad in ["/database", "/proc/self", "/etc"] {
            assert!(!allowed.has(Path::new(bad)), "{bad}");
        }
    }
}
