//! Where a container's cgroup lies: what `linux.cgroupsPath` means, what a state file keeps of it, and cgroups below it.
//!
//! ```text
//! cgroupsPath   v1, in each hierarchy                      v2
//! /a/b          a/b below the hierarchy's root             a/b below the root
//! a/b           a/b below the runtime's own cgroup         a/b beside the runtime's own cgroup
//! none          as the relative path <id>                  as the relative path <id>
//! ```
//!
//! On v2 it is "beside" because a cgroup that holds processes, as the runtime's own does, cannot hand controllers down.
//! With systemd (`systemd.rs`) the path is `slice:prefix:name`.

use super::layout::{Hierarchy, Layout};
use super::systemd::{Bus, Unit};
use super::{Cgroup, file};
use crate::error::{Context, Error};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Who makes the cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Driver {
    /// This program, by making directories.
    #[default]
    Cgroupfs,
    /// systemd, which is asked for a unit over D-Bus.
    Systemd(Bus),
}

/// The cgroup's path below the mount of each hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The same below all.
    Same(PathBuf),
    /// One a hierarchy, in the layout's order.
    Each(Vec<PathBuf>),
}

impl Place {
    /// The path below the mount of hierarchy number `index`.
    pub(super) fn below(&self, index: usize) -> &Path {
        match self {
            Self::Same(path) => path,
            Self::Each(paths) => paths.get(index).map_or(Path::new(""), PathBuf::as_path),
        }
    }
}

/// Takes `.`, `..` and doubled slashes out of a path without looking at the disk; what leads above the root ends at it.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Finds the place of a container without systemd.
pub(super) fn find(layout: &Layout, cgroups_path: Option<&Path>, id: &str) -> Result<Place, Error> {
    let given = cgroups_path.filter(|path| !path.as_os_str().is_empty());
    let path = given.unwrap_or(Path::new(id));
    let inner = clean(path);
    if inner.as_os_str().is_empty() {
        return Err(Error::invalid("use the cgroup path", format!("`{}` is not below a cgroup", path.display())));
    }
    if path.is_absolute() {
        return Ok(Place::Same(inner));
    }
    let own = layout.own_cgroups().step(|| "find the runtime's own cgroup".into())?;
    let place = |mut own: PathBuf| {
        if layout.is_pure_v2() {
            own.pop();
        }
        own.join(&inner)
    };
    Ok(Place::Each(own.into_iter().map(place).collect()))
}

/// A cgroup as a state file keeps it: from it another process opens the very same one, without looking at the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    hierarchies: Vec<RecordedHierarchy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    rootless: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordedHierarchy {
    mount: PathBuf,
    controllers: Vec<String>,
    unified: bool,
    path: PathBuf,
}

impl Record {
    /// The directories by controller, the one of v2 under the empty name: the form that runc's state has.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let mut paths = BTreeMap::new();
        for hierarchy in &self.hierarchies {
            let directory = hierarchy.mount.join(&hierarchy.path);
            if hierarchy.unified {
                paths.insert(String::new(), directory);
            } else {
                paths.extend(hierarchy.controllers.iter().map(|name| (name.clone(), directory.clone())));
            }
        }
        paths
    }
}

impl Cgroup {
    /// Writes down where the cgroup is and who made it.
    pub fn to_record(&self) -> Record {
        let recorded = |(index, hierarchy): (usize, &Hierarchy)| RecordedHierarchy {
            mount: hierarchy.mount.clone(),
            controllers: hierarchy.controllers.clone(),
            unified: hierarchy.unified,
            path: self.place.below(index).to_owned(),
        };
        Record {
            hierarchies: self.layout.hierarchies.iter().enumerate().map(recorded).collect(),
            unit: self.unit.as_deref().cloned(),
            rootless: self.rootless,
        }
    }

    /// Opens the cgroup that `to_record` wrote down. Errors: the record names a path that no cgroup can have.
    pub fn from_record(record: &Record) -> Result<Self, Error> {
        let mut layout = Layout { hierarchies: Vec::with_capacity(record.hierarchies.len()) };
        let mut paths = Vec::with_capacity(record.hierarchies.len());
        for recorded in &record.hierarchies {
            let plain = |path: &Path| clean(path) == path && !path.as_os_str().is_empty();
            if !plain(&recorded.path) || !recorded.mount.is_absolute() {
                let path = recorded.mount.join(&recorded.path);
                return Err(Error::invalid("read the cgroup's record", format!("`{}` is no cgroup", path.display())));
            }
            paths.push(recorded.path.clone());
            let RecordedHierarchy { mount, controllers, unified, .. } = recorded.clone();
            layout.hierarchies.push(Hierarchy { mount, controllers, unified });
        }
        if paths.is_empty() {
            return Err(Error::invalid("read the cgroup's record", "it names no hierarchy"));
        }
        let place = match paths.split_first() {
            Some((first, others)) if others.iter().all(|path| path == first) => Place::Same(first.clone()),
            _ => Place::Each(paths),
        };
        Ok(Self {
            rootless: record.rootless,
            unit: record.unit.clone().map(Arc::new),
            ..Self::at(Arc::new(layout), place)
        })
    }
}

/// Cgroups below a container's that a further process is put into: `exec --cgroup`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubCgroups {
    everywhere: Option<PathBuf>,
    each: BTreeMap<String, PathBuf>,
}

impl SubCgroups {
    /// Reads the values of the flag: one PATH, or any number of CONTROLLER[,CONTROLLER...]:PATH.
    pub fn parse<S: AsRef<str>>(values: &[S]) -> Result<Self, Error> {
        let wrong = |why: String| Err(Error::invalid("read the sub-cgroups", why));
        let mut all = Self::default();
        for value in values.iter().map(AsRef::as_ref) {
            let Some((controllers, path)) = value.split_once(':') else {
                if values.len() != 1 {
                    return wrong(format!("invalid --cgroup argument: {value} (missing <controller>: prefix)"));
                }
                all.everywhere = Some(sub_path(value)?);
                continue;
            };
            for controller in controllers.split(',') {
                if controller.is_empty() {
                    return wrong(format!("invalid --cgroup argument: {value} (empty <controller> prefix)"));
                }
                if all.each.insert(controller.to_owned(), sub_path(path)?).is_some() {
                    return wrong(format!(
                        "invalid --cgroup argument(s): controller {controller} specified multiple times"
                    ));
                }
            }
        }
        Ok(all)
    }

    /// Says whether a sub-cgroup was named; then no other may be taken in its stead.
    pub fn is_named(&self) -> bool {
        self.everywhere.is_some() || !self.each.is_empty()
    }

    /// Returns the path below the container's cgroup in one hierarchy: where none was named the cgroup itself, so that no
    /// limit of the container is lost.
    fn below(&self, hierarchy: &Hierarchy, pure_v2: bool) -> &Path {
        if self.each.is_empty() || pure_v2 {
            return self.everywhere.as_deref().unwrap_or(Path::new(""));
        }
        let named = |name: &str| self.each.get(name).or_else(|| self.each.get(name.strip_prefix("name=")?));
        hierarchy.controllers.iter().find_map(|controller| named(controller)).map_or(Path::new(""), PathBuf::as_path)
    }

    /// The directory of the sub-cgroup of a v2 cgroup.
    pub(super) fn on_v2(&self, cgroup: &Path) -> PathBuf {
        self.everywhere.as_ref().map_or_else(|| cgroup.to_owned(), |below| cgroup.join(below))
    }

    fn check(&self, layout: &Layout) -> Result<(), Error> {
        for controller in self.each.keys() {
            let known = |h: &Hierarchy| h.has(controller) || h.has(&format!("name={controller}"));
            if !layout.hierarchies.iter().any(known) {
                return Err(Error::invalid(
                    "put the process into a sub-cgroup",
                    format!("unknown controller {controller} in SubCgroupPaths"),
                ));
            }
        }
        Ok(())
    }
}

/// A path below a cgroup; `/` is the cgroup itself.
fn sub_path(text: &str) -> Result<PathBuf, Error> {
    let path = Path::new(text);
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(Error::invalid("read the sub-cgroups", format!("bad sub cgroup path: {text}")));
    }
    Ok(clean(path))
}

impl Cgroup {
    /// Moves a process into sub-cgroups, in the hierarchies that they name. Errors: one does not exist.
    pub fn add_to(&self, pid: i32, sub: &SubCgroups) -> Result<(), Error> {
        sub.check(&self.layout)?;
        let pure = self.layout.is_pure_v2();
        for (index, hierarchy) in self.layout.hierarchies.iter().enumerate() {
            let below = sub.below(hierarchy, pure);
            let directory = self.directory(index).join(below);
            match super::move_process(&directory, pid) {
                Ok(()) => {}
                Err(Errno::ACCESS | Errno::PERM) if self.unit.is_some() => return self.attach_by_systemd(pid, below),
                Err(Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::ROFS) if self.may_lack(index) => {}
                Err(errno) => {
                    let error = file::refused(&directory.join("cgroup.procs"), &pid.to_string(), errno);
                    return Err(Error::setup(
                        format!("enter the cgroup by adding pid {pid} to cgroups"),
                        source(&error),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// An error as the cause of another, with its step.
fn source(error: &Error) -> std::io::Error {
    std::io::Error::new(error.source.kind(), format!("{error}: {}", error.source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_without_the_disk() {
        for (path, want) in
            [("/a/b", "a/b"), ("a//b/./c/", "a/b/c"), ("/../../a", "a"), ("../../etc/x", "etc/x"), ("a/../..", "")]
        {
            assert_eq!(clean(Path::new(path)), Path::new(want), "{path}");
        }
    }

    #[test]
    fn a_relative_path_begins_at_the_own_cgroup() {
        let layout = Layout::detect().unwrap();
        let own = layout.own_cgroups().unwrap();
        let below =
            |path: Option<&str>, index| find(&layout, path.map(Path::new), "the-id").unwrap().below(index).to_owned();
        for (index, own) in own.iter().enumerate() {
            let base = if layout.is_pure_v2() { own.parent().unwrap_or(Path::new("")) } else { own };
            assert_eq!(below(Some("x/y"), index), base.join("x/y"));
            assert_eq!(below(None, index), base.join("the-id"));
            assert_eq!(below(Some(""), index), base.join("the-id"));
            assert_eq!(below(Some("/x/../y"), index), Path::new("y"));
        }
        assert!(find(&layout, Some(Path::new("/")), "x").is_err());
        assert!(find(&layout, Some(Path::new("/a/..")), "x").is_err());
    }

    #[test]
    fn a_record_opens_the_same_cgroup() {
        for path in ["/brig-tests/record", "brig-record"] {
            let cgroup = Cgroup::of_container(Some(Path::new(path)), "x", &Driver::Cgroupfs).unwrap().rootless(true);
            let text = serde_json::to_string(&cgroup.to_record()).unwrap();
            let back = Cgroup::from_record(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(back.directories().collect::<Vec<_>>(), cgroup.directories().collect::<Vec<_>>());
            assert_eq!((back.to_record(), back.layout()), (cgroup.to_record(), cgroup.layout()));
            assert!(back.to_record().paths().values().all(|p| p.is_absolute()));
        }
    }

    #[test]
    fn a_record_that_leads_elsewhere_is_refused() {
        for (mount, path) in [("/sys/fs/cgroup", "../../etc"), ("sys", "x"), ("/sys/fs/cgroup", "/x"), ("/sys", "")] {
            let json =
                format!(r#"{{"hierarchies":[{{"mount":"{mount}","controllers":[],"unified":true,"path":"{path}"}}]}}"#);
            assert!(Cgroup::from_record(&serde_json::from_str(&json).unwrap()).is_err(), "{json}");
        }
        assert!(Cgroup::from_record(&serde_json::from_str(r#"{"hierarchies":[]}"#).unwrap()).is_err());
    }

    #[test]
    fn sub_cgroups_are_read_as_the_flag_is_written() {
        let error = |values: &[&str]| SubCgroups::parse(values).unwrap_err().source.to_string();
        assert_eq!(error(&[".."]), "bad sub cgroup path: ..");
        assert_eq!(error(&["cpu:a/../.."]), "bad sub cgroup path: a/../..");
        assert_eq!(error(&["a", "b"]), "invalid --cgroup argument: a (missing <controller>: prefix)");
        assert_eq!(error(&["cpu,:a"]), "invalid --cgroup argument: cpu,:a (empty <controller> prefix)");
        assert_eq!(error(&["cpu:a", "cpu:b"]), "invalid --cgroup argument(s): controller cpu specified multiple times");
        let hierarchy = |controllers: &[&str]| Hierarchy {
            mount: PathBuf::new(),
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
            unified: false,
        };
        let sub = SubCgroups::parse(&["memory:m", "cpu,cpuacct:/c/d"]).unwrap();
        assert_eq!(sub.below(&hierarchy(&["cpu", "cpuacct"]), false), Path::new("c/d"));
        assert_eq!(sub.below(&hierarchy(&["memory"]), false), Path::new("m"));
        assert_eq!(sub.below(&hierarchy(&["pids"]), false), Path::new(""));
        let sub = SubCgroups::parse(&["/"]).unwrap();
        assert_eq!(sub.below(&hierarchy(&["pids"]), false), Path::new(""));
        assert!(sub.is_named() && !SubCgroups::parse::<&str>(&[]).unwrap().is_named());
    }
}
