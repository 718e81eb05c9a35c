//! The systemd driver: the container's cgroup is a unit that systemd makes, and its limits are told to systemd too.
//!
//! ```text
//! cgroupsPath  system.slice:brig:web          slice, prefix, name
//! unit         brig-web.scope
//! cgroup       /system.slice/brig-web.scope   a slice a-b.slice lies in a.slice
//! ```
//!
//! A scope cannot be made before it has a process, so the container's is started first and moved by systemd. From then on
//! the directory is the container's (Delegate=yes), and everything else works as without systemd.

mod annotations;
mod connection;
mod properties;
mod wire;

use super::place::Place;
use super::{Cgroup, Layout};
use crate::error::Error;
use brig_spec::runtime::LinuxResources;
use connection::Connection;
use properties::{Property, Target};
use rustix::net::SocketAddrUnix;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wire::Value;

/// The prefix of a unit whose configuration names none.
const PREFIX: &str = "brig";

/// Which systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Bus {
    /// The machine's.
    System,
    /// A user's own.
    User {
        /// The user's runtime directory: `$XDG_RUNTIME_DIR`.
        directory: Option<PathBuf>,
        /// The address of the session's bus: `$DBUS_SESSION_BUS_ADDRESS`.
        address: Option<String>,
    },
}

impl Bus {
    /// Where it may be reached, with a bus between or without.
    fn addresses(&self) -> io::Result<Vec<(SocketAddrUnix, bool)>> {
        let mut all = Vec::new();
        match self {
            Self::System => {
                all.push((SocketAddrUnix::new("/run/systemd/private")?, false));
                all.push((SocketAddrUnix::new("/run/dbus/system_bus_socket")?, true));
            }
            Self::User { directory, address } => {
                if let Some(directory) = directory {
                    all.push((SocketAddrUnix::new(directory.join("systemd/private"))?, false));
                }
                for address in address.as_deref().unwrap_or_default().split(';') {
                    all.extend(parse_address(address).transpose()?.map(|address| (address, true)));
                }
                if let Some(directory) = directory {
                    all.push((SocketAddrUnix::new(directory.join("bus"))?, true));
                }
            }
        }
        Ok(all)
    }
}

/// Reads an address such as `unix:path=/run/user/1000/bus`; the D-Bus Specification, "Server Addresses". None is one of
/// another transport.
fn parse_address(address: &str) -> Option<io::Result<SocketAddrUnix>> {
    let pairs = address.strip_prefix("unix:")?;
    pairs.split(',').filter_map(|pair| pair.split_once('=')).find_map(|(key, value)| {
        let mut bytes = Vec::new();
        let mut rest = value.bytes();
        while let Some(byte) = rest.next() {
            let hex = |b: Option<u8>| char::from(b?).to_digit(16).and_then(|d| u8::try_from(d).ok());
            bytes.push(if byte == b'%' { hex(rest.next())? << 4 | hex(rest.next())? } else { byte });
        }
        match key {
            "path" => Some(SocketAddrUnix::new(bytes).map_err(io::Error::from)),
            "abstract" => Some(SocketAddrUnix::new_abstract_name(&bytes).map_err(io::Error::from)),
            _ => None,
        }
    })
}

/// What went wrong in a conversation.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// systemd said no.
    #[error("{text} ({name})")]
    Refused {
        /// The error's name, such as `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// Its words.
        text: String,
    },
}

impl From<rustix::io::Errno> for Fault {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl Fault {
    fn is(&self, short: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name.rsplit('.').next() == Some(short))
    }

    fn step(self, step: String) -> Error {
        match self {
            Self::Io(source) => Error::setup(step, source),
            refused @ Self::Refused { .. } => Error::setup(step, io::Error::other(refused.to_string())),
        }
    }
}

/// A container's unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Unit {
    name: String,
    bus: Bus,
    /// The slice it lies in, needed only to make it.
    #[serde(skip)]
    slice: String,
    /// Properties that the container's annotations ask for.
    #[serde(skip)]
    extra: Vec<Property>,
}

/// Writes the path of a slice: `a-b.slice` lies in `a.slice`. `-.slice` is the root.
fn expand_slice(slice: &str) -> Result<PathBuf, Error> {
    let wrong = || Error::invalid("use the cgroup path", format!("invalid slice name: {slice}"));
    let stem = slice.strip_suffix(".slice").filter(|stem| !stem.is_empty() && !stem.contains('/')).ok_or_else(wrong)?;
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    let mut path = PathBuf::new();
    for (at, part) in stem.split('-').scan(0, |at, part| {
        *at += part.len() + 1;
        Some((*at - 1, part))
    }) {
        if part.is_empty() {
            return Err(wrong());
        }
        path.push(format!("{}.slice", &stem[..at]));
    }
    Ok(path)
}

/// Finds the unit and the place of a container by its `cgroupsPath`.
pub(super) fn find(cgroups_path: Option<&Path>, id: &str, bus: &Bus) -> Result<(Unit, Place), Error> {
    let wrong = |why: String| Err(Error::invalid("use the cgroup path", why));
    let text = cgroups_path.map(|path| path.to_str().unwrap_or("\u{fffd}")).filter(|text| !text.is_empty());
    let (slice, prefix, name) = match text.map(|text| text.split(':').collect::<Vec<_>>()).as_deref() {
        None => ("", PREFIX, id),
        Some([slice, prefix, name]) => (*slice, *prefix, *name),
        Some(_) => {
            return wrong(format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"{}\" instead",
                text.unwrap_or_default()
            ));
        }
    };
    let usual = if *bus == Bus::System { "system.slice" } else { "user.slice" };
    let slice = if slice.is_empty() { usual } else { slice };
    if name.strip_suffix(".slice").is_some() {
        return wrong(format!("`{name}` is a slice, which holds no processes itself"));
    }
    let unit = format!("{prefix}-{name}.scope");
    let known = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@+".contains(c);
    if name.is_empty() || unit.len() > 255 || !unit.chars().all(known) {
        return wrong(format!("`{unit}` is not the name of a unit"));
    }
    let mut path = expand_slice(slice)?.join(&unit);
    if *bus != Bus::System {
        let base = open(bus)?
            .property("ControlGroup")
            .map_err(|fault| fault.step("find the cgroup of the user's systemd".into()))?;
        path = Path::new(base.trim_start_matches('/')).join(path);
    }
    let unit = Unit { name: unit, bus: bus.clone(), slice: slice.to_owned(), extra: Vec::new() };
    Ok((unit, Place::Same(path)))
}

fn open(bus: &Bus) -> Result<Connection, Error> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(Error::invalid(
            "use the systemd cgroup driver",
            "systemd not running on this host, cannot use systemd cgroups manager",
        ));
    }
    Connection::open(bus).map_err(|fault| fault.step("reach systemd over D-Bus".into()))
}

/// Reads the number in `252.38-1~deb12u1`, or `v245.4-1.fc32`.
fn version(text: &str) -> u32 {
    let digits = text.trim_start_matches(['v', '"']);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

/// Says whether a translation depends on systemd's version.
fn needs_version(resources: &LinuxResources) -> bool {
    let cpu = resources.cpu.as_ref();
    cpu.is_some_and(|c| c.idle.is_some() || c.period.is_some() || !c.cpus.is_empty() || !c.mems.is_empty())
        || !resources.unified.is_empty()
}

impl Unit {
    fn target(connection: &mut Connection, layout: &Layout, resources: &LinuxResources) -> Result<Target, Error> {
        let version = if needs_version(resources) {
            let text = connection.property("Version").map_err(|fault| fault.step("ask systemd's version".into()))?;
            version(&text)
        } else {
            0
        };
        Ok(Target { version, v2: layout.is_pure_v2() })
    }

    /// What every container's unit has.
    fn properties(&self, pid: i32, v2: bool) -> Vec<Property> {
        let yes = |name| Property::new(name, Value::Bool(true));
        let pid = Value::U32(u32::try_from(pid).unwrap_or(0));
        let mut all = vec![
            Property::new("Description", Value::Text(format!("container {}", self.name))),
            Property::new("Slice", Value::text(&self.slice)),
            yes("Delegate"),
            Property::new("PIDs", Value::Array("u".into(), vec![pid])),
        ];
        all.extend(["MemoryAccounting", "CPUAccounting", "TasksAccounting"].map(yes));
        all.push(yes(if v2 { "IOAccounting" } else { "BlockIOAccounting" }));
        all.push(Property::new("DefaultDependencies", Value::Bool(false)));
        for extra in &self.extra {
            all.retain(|p| p.name != extra.name);
            all.push(extra.clone());
        }
        all
    }

    fn start(&self, connection: &mut Connection, properties: &[Property]) -> Result<(), Error> {
        let body = || {
            let aux = Value::Array("(sa(sv))".into(), Vec::new());
            vec![Value::text(&self.name), Value::text("replace"), properties::list(properties), aux]
        };
        let mut result = connection.job("StartTransientUnit", body());
        if result.as_ref().is_err_and(|fault| fault.is("UnitExists")) {
            // One of that name that failed stays known until it is reset.
            let _ = connection.manager("ResetFailedUnit", vec![Value::text(&self.name)]);
            result = connection.job("StartTransientUnit", body());
        }
        let why = match result {
            Ok(result) if result == "done" => return Ok(()),
            Ok(result) => {
                Fault::Io(io::Error::other(format!("error creating systemd unit `{}`: got `{result}`", self.name)))
            }
            Err(fault) => fault,
        };
        let _ = connection.manager("ResetFailedUnit", vec![Value::text(&self.name)]);
        Err(why.step(format!("make the systemd unit {}", self.name)))
    }

    fn change(&self, connection: &mut Connection, properties: &[Property]) -> Result<(), Error> {
        if properties.is_empty() {
            return Ok(());
        }
        let body = vec![Value::text(&self.name), Value::Bool(true), properties::list(properties)];
        let result = connection.manager("SetUnitProperties", body);
        result.map(drop).map_err(|fault| fault.step(format!("change the systemd unit {}", self.name)))
    }

    /// Stops the unit and forgets it. One that is gone is no error.
    pub(super) fn stop(&self) -> Result<(), Error> {
        let step = || format!("stop the systemd unit {}", self.name);
        let mut connection = open(&self.bus)?;
        match connection.job("StopUnit", vec![Value::text(&self.name), Value::text("replace")]) {
            Err(fault) if !fault.is("NoSuchUnit") => return Err(fault.step(step())),
            _ => {}
        }
        match connection.manager("ResetFailedUnit", vec![Value::text(&self.name)]) {
            Err(fault @ Fault::Io(_)) => Err(fault.step(step())),
            // It had not failed, or is forgotten already.
            _ => Ok(()),
        }
    }
}

impl Cgroup {
    /// Takes the properties of the container's unit that its annotations `org.systemd.property.*` ask for. Without systemd
    /// they mean nothing. Errors: one is not a typed value, or reaches beyond the container.
    pub fn annotations(mut self, annotations: &BTreeMap<String, String>) -> Result<Self, Error> {
        if let Some(unit) = &mut self.unit {
            Arc::make_mut(unit).extra = annotations::parse(annotations)?;
        }
        Ok(self)
    }

    /// Has systemd make the cgroup around a process. Returns the resources as they are then to be written.
    pub(super) fn start_unit(
        &self,
        unit: &Unit,
        pid: i32,
        resources: &LinuxResources,
    ) -> Result<LinuxResources, Error> {
        let mut connection = open(&unit.bus)?;
        let target = Unit::target(&mut connection, &self.layout, resources)?;
        let mut resources = resources.clone();
        let mut properties = unit.properties(pid, target.v2);
        properties.extend(properties::of(&mut resources, target)?);
        if !target.v2 {
            properties.extend(properties::devices(&resources.devices)?);
        }
        if target.version >= 253
            && let Some(group) = resources.unified.get("memory.oom.group")
        {
            let policy = if group.trim() == "1" { "kill" } else { "continue" };
            properties.push(Property::new("OOMPolicy", Value::text(policy)));
        }
        unit.start(&mut connection, &properties)?;
        Ok(resources)
    }

    /// Tells systemd of changed limits. Returns the resources as they are then to be written.
    pub(super) fn set_unit(&self, unit: &Unit, resources: &LinuxResources) -> Result<LinuxResources, Error> {
        let mut connection = open(&unit.bus)?;
        let target = Unit::target(&mut connection, &self.layout, resources)?;
        let mut resources = resources.clone();
        if target.v2
            && let Some(memory) = &resources.memory
        {
            // Refused here, before systemd lets the kernel kill for it.
            super::v2::check_memory(&self.directory(0), memory)?;
        }
        let mut properties = properties::of(&mut resources, target)?;
        let rules = Some(&resources.devices).filter(|rules| !target.v2 && !rules.is_empty());
        if let Some(rules) = rules {
            properties.extend(properties::devices(rules)?);
        }
        // systemd takes everything away before it gives some back: nobody may be about then.
        let hold = rules.is_some() && !self.is_frozen() && self.freeze().is_ok();
        let result = unit.change(&mut connection, &properties);
        if hold {
            self.thaw()?;
        }
        result.map(|()| resources)
    }

    /// Has systemd move a process: a user's own may where the user may not.
    pub(super) fn attach_by_systemd(&self, pid: i32, below: &Path) -> Result<(), Error> {
        let Some(unit) = &self.unit else {
            return Err(Error::invalid("move a process by systemd", "the cgroup is not a unit"));
        };
        let pids = Value::Array("u".into(), vec![Value::U32(u32::try_from(pid).unwrap_or(0))]);
        let below = Path::new("/").join(below).to_string_lossy().into_owned();
        let body = vec![Value::text(&unit.name), Value::Text(below), pids];
        let result = open(&unit.bus)?.manager("AttachProcessesToUnit", body);
        result.map(drop).map_err(|fault| fault.step(format!("enter the cgroup by adding pid {pid} to cgroups")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_each_other() {
        for (slice, path) in [
            ("system.slice", "system.slice"),
            ("test-a-b.slice", "test.slice/test-a.slice/test-a-b.slice"),
            ("-.slice", ""),
        ] {
            assert_eq!(expand_slice(slice).unwrap(), Path::new(path));
        }
        for bad in ["", ".slice", "a", "a.scope", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "../x.slice"] {
            assert!(expand_slice(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cgroups_path_names_a_unit() {
        let find = |path: Option<&str>| {
            let (unit, place) = find(path.map(Path::new), "the-id", &Bus::System).map_err(|e| e.source.to_string())?;
            Ok::<_, String>((unit.name, unit.slice, place.below(0).to_str().unwrap().to_owned()))
        };
        let want = |name: &str, slice: &str, path: &str| Ok((name.to_owned(), slice.to_owned(), path.to_owned()));
        assert_eq!(find(None), want("brig-the-id.scope", "system.slice", "system.slice/brig-the-id.scope"));
        assert_eq!(
            find(Some("machine-x.slice:libpod:7")),
            want("libpod-7.scope", "machine-x.slice", "machine.slice/machine-x.slice/libpod-7.scope")
        );
        assert_eq!(find(Some(":cri:7")), want("cri-7.scope", "system.slice", "system.slice/cri-7.scope"));
        assert_eq!(find(Some("a.slice::x")), want("-x.scope", "a.slice", "a.slice/-x.scope"));
        assert!(find(Some("/a/b")).unwrap_err().contains("\"slice:prefix:name\""));
        for bad in [
            "a:b:c",
            "a.slice:b:",
            "a.slice:b:a-b.slice",
            "a.slice:b:c/d",
            "a.slice:b:../c",
            "a.slice:b:c d",
            "x:a.slice:b:c",
        ] {
            assert!(find(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_and_addresses_are_read() {
        for (text, number) in [("252.38-1~deb12u1", 252), ("v245.4-1.fc32", 245), ("\"v242\"", 242), ("x", 0)] {
            assert_eq!(version(text), number);
        }
        let path = |text: &str| parse_address(text).map(|a| a.unwrap().path_bytes().map(<[u8]>::to_vec));
        assert_eq!(path("unix:path=/run/user/1000/bus"), Some(Some(b"/run/user/1000/bus".to_vec())));
        assert_eq!(path("unix:guid=1,path=/a%20b"), Some(Some(b"/a b".to_vec())));
        assert_eq!(path("unix:abstract=x"), Some(None));
        assert!(path("tcp:host=1").is_none() && path("unix:path=%zz").is_none() && path("").is_none());
    }

    #[test]
    fn without_systemd_the_error_says_so() {
        if Path::new("/run/systemd/system").is_dir() {
            return;
        }
        let error = open(&Bus::System).unwrap_err();
        assert!(error.source.to_string().contains("systemd not running on this host"), "{error:?}");
    }
}
