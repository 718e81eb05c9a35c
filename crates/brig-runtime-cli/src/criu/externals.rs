//! What of a container is not part of its checkpoint: mounts and namespaces that come from the machine.
//!
//! ```text
//! checkpoint   mount point as the kernel names it  ->  its name in the images: the destination as the configuration has it
//! restore      that name                           ->  the source, out of the bundle's configuration
//! ```
//!
//! So an image says that there was a bind, and never of what: that is for the configuration alone to say.

use super::mounted::{self, Mounted};
use super::protobuf::Message;
use super::request::{self, options as o};
use super::{Session, bytes};
use crate::failure::{Failure, Step};
use brig_runtime::cgroup::Cgroup;
use brig_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use brig_sys::root::Root;
use rustix::fs::{FileType, Mode, OFlags};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// The device nodes that every container has; with a user namespace they are bound from the machine.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
/// What hides a masked file.
const NULL: &str = "/dev/null";

/// Says whether a mount of the configuration shows something of the machine.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    let named = |option: &String| option == "bind" || option == "rbind";
    mount.typ == "bind" || mount.options.iter().any(named)
}

/// Says whether a mount of the configuration shows cgroups.
pub(crate) fn is_cgroup(mount: &Mount) -> bool {
    !is_bind(mount) && matches!(mount.typ.as_str(), "cgroup" | "cgroup2")
}

/// Every external mount: by its destination, the source on the machine.
pub(crate) fn mounts(spec: &Spec, cgroup: &Cgroup) -> Result<BTreeMap<PathBuf, PathBuf>, Failure> {
    let mut found = BTreeMap::new();
    // In a namespace of cgroups they are file systems that criu makes itself; else they are binds of the container's own.
    let cgroup_binds = spec.namespace(LinuxNamespaceType::Cgroup).is_none();
    for mount in &spec.mounts {
        let destination = clean(&mount.destination);
        if is_bind(mount) {
            let source = &mount.source;
            let source = std::path::absolute(source).step(|| format!("find {}", source.display()))?;
            found.insert(destination, source);
        } else if is_cgroup(mount) && cgroup_binds {
            if cgroup.layout().is_pure_v2() {
                found.extend(cgroup.directories().map(|directory| (destination.clone(), directory)));
                continue;
            }
            let hierarchies = &cgroup.layout().hierarchies;
            let names = hierarchies.iter().filter_map(|hierarchy| hierarchy.mount.file_name());
            found.extend(names.map(|name| destination.join(name)).zip(cgroup.directories()));
        }
    }
    for device in devices(spec) {
        found.entry(clean(&device)).or_insert(device);
    }
    Ok(found)
}

/// The device nodes of a container.
pub(crate) fn devices(spec: &Spec) -> impl Iterator<Item = PathBuf> {
    let configured = spec.linux.iter().flat_map(|linux| &linux.devices);
    DEVICES.iter().map(PathBuf::from).chain(configured.map(|device| device.path.clone()))
}

/// Names the external mounts of a running container, whose root is `root` and whose mounts the file `table` lists.
pub(crate) fn name_mounts(
    options: &mut Message,
    spec: &Spec,
    cgroup: &Cgroup,
    root: &Root,
    table: &str,
) -> Result<(), Failure> {
    let mut named = BTreeMap::new();
    for destination in mounts(spec, cgroup)?.into_keys() {
        if let Some(point) = point(root, &destination)? {
            named.insert(point, destination);
        }
    }
    name_below(&mut named, spec, root, table)?;
    for path in masked(spec) {
        let is_file = |fd: &OwnedFd| {
            rustix::fs::fstat(fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) != FileType::Directory)
        };
        if root.locate(Path::new(path)).is_ok_and(|fd| is_file(&fd))
            && let Some(point) = point(root, Path::new(path))?
        {
            named.insert(point, NULL.into());
        }
    }
    for (point, name) in &named {
        request::add_mount(options, bytes(point), bytes(name));
    }
    Ok(())
}

/// Names what came along with the binds: mounts below their source.
fn name_below(named: &mut BTreeMap<PathBuf, PathBuf>, spec: &Spec, root: &Root, table: &str) -> Result<(), Failure> {
    let mut points = Vec::with_capacity(spec.mounts.len());
    for mount in &spec.mounts {
        let destination = clean(&mount.destination);
        points.extend(point(root, &destination)?.map(|point| (point, destination, is_bind(mount))));
    }
    let table = mounted::table(table)?;
    for (own, destination, _) in points.iter().filter(|(_, _, bind)| *bind) {
        for (below, place) in below(&table, own) {
            // What lies within another mount of the configuration is that one's.
            let nearer = |other: &Path| other != own && place.starts_with(other) && other.starts_with(own);
            if !points.iter().any(|(other, ..)| nearer(other)) {
                named.entry(place.to_owned()).or_insert_with(|| destination.join(below));
            }
        }
    }
    Ok(())
}

/// The mounts of a table that lie below a place: the rest of their path, and the whole of it.
fn below<'a>(table: &'a [Mounted], place: &Path) -> Vec<(&'a Path, &'a Path)> {
    let rest = |mounted: &'a Mounted| Some((mounted.point.strip_prefix(place).ok()?, mounted.point.as_path()));
    table.iter().filter_map(rest).filter(|(rest, _)| !rest.as_os_str().is_empty()).collect()
}

/// Says where the external mounts come from when a container is restored: `binds` are the finished ones, by destination.
pub(crate) fn give_mounts(
    options: &mut Message,
    spec: &Spec,
    cgroup: &Cgroup,
    binds: &[(PathBuf, PathBuf)],
) -> Result<(), Failure> {
    let staged: BTreeMap<&PathBuf, &PathBuf> = binds.iter().map(|(destination, path)| (destination, path)).collect();
    let own = mounted::table("/proc/self/mountinfo")?;
    for (destination, source) in mounts(spec, cgroup)? {
        let source = staged.get(&destination).copied().unwrap_or(&source);
        request::add_mount(options, bytes(&destination), bytes(source));
    }
    for (destination, source) in &staged {
        for (below, source) in below(&own, source) {
            request::add_mount(options, bytes(&destination.join(below)), bytes(source));
        }
    }
    Ok(())
}

fn masked(spec: &Spec) -> &[String] {
    spec.linux.as_ref().map(|linux| linux.masked_paths.as_slice()).unwrap_or_default()
}

/// The path of a place as the container's own mount table has it: without symbolic links. None where nothing is.
pub(crate) fn point(root: &Root, path: &Path) -> Result<Option<PathBuf>, Failure> {
    use std::os::unix::ffi::OsStringExt;
    let step = || format!("find {} in the container", path.display());
    let fd = match root.locate(path) {
        Err(error) if matches!(error.raw_os_error(), Some(2 | 20)) => return Ok(None),
        result => result.step(step)?,
    };
    let name = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new()).step(step)?;
    Ok(Some(PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes()))))
}

/// A destination without dots and doubled slashes, from `/` on.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// criu's key of a namespace that is not part of the images; other runtimes have the same.
fn key(kind: LinuxNamespaceType) -> Option<(&'static str, &'static str)> {
    match kind {
        LinuxNamespaceType::Network => Some(("net", "extRootNetNS")),
        LinuxNamespaceType::Pid => Some(("pid", "extRootPidNS")),
        _ => None,
    }
}

/// Names the namespaces of a running container that are not its own.
pub(crate) fn name_namespaces(options: &mut Message, spec: &Spec, pid: i32) -> Result<(), Failure> {
    for namespace in spec.namespaces().iter().filter(|n| n.joined().is_some()) {
        let Some((name, key)) = key(namespace.typ) else { continue };
        let path = format!("/proc/{pid}/ns/{name}");
        let inode = rustix::fs::stat(&path).step(|| format!("look at {path}"))?.st_ino;
        options.text(o::EXTERNAL, format!("{name}[{inode}]:{key}").as_bytes());
    }
    Ok(())
}

/// Says which namespaces a restored container joins; returns the descriptors that criu needs for it, in order.
pub(crate) fn give_namespaces(options: &mut Message, spec: &Spec) -> Result<Vec<OwnedFd>, Failure> {
    let mut opened = Vec::new();
    let mut next = Session::FIRST_EXTRA;
    for namespace in spec.namespaces() {
        let Some(path) = namespace.joined() else { continue };
        let step = || format!("open the {} namespace {}", namespace.typ, path.display());
        if let Some((_, key)) = key(namespace.typ) {
            let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(step)?;
            request::add_descriptor(options, key, next);
            opened.push(fd);
            next += 1;
            continue;
        }
        let name = match namespace.typ {
            LinuxNamespaceType::Mount => "mnt",
            LinuxNamespaceType::Uts => "uts",
            LinuxNamespaceType::Ipc => "ipc",
            LinuxNamespaceType::User => "user",
            LinuxNamespaceType::Time => "time",
            other => return Err(Failure::new(format!("criu cannot restore into an existing {other} namespace"))),
        };
        request::add_namespace(options, name, bytes(path));
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> Spec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_comes_from_the_machine_is_named_by_its_destination() {
        let spec = spec(serde_json::json!({
            "ociVersion": "1.3.0",
            "mounts": [
                {"destination": "/a/../b//c", "source": "/src", "options": ["ro", "rbind"]},
                {"destination": "/t", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "d", "type": "bind", "source": "."}
            ],
            "linux": {"devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]}
        }));
        let cgroup = Cgroup::open(Path::new("/brig-test/x")).unwrap();
        let found = mounts(&spec, &cgroup).unwrap();
        assert_eq!(found.get(Path::new("/b/c")), Some(&"/src".into()));
        assert_eq!(found.get(Path::new("/d")), Some(&std::env::current_dir().unwrap()));
        assert_eq!(found.get(Path::new("/dev/fuse")), Some(&"/dev/fuse".into()));
        assert_eq!(found.get(Path::new("/t")), None);
        assert_eq!(found.len(), 3 + DEVICES.len());
    }

    #[test]
    fn a_mount_point_is_named_as_the_kernel_has_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("real/conf")).unwrap();
        std::os::unix::fs::symlink("/real/conf", directory.path().join("conf")).unwrap();
        let root = Root::open_directory(directory.path()).unwrap();
        let real = directory.path().join("real/conf").canonicalize().unwrap();
        assert_eq!(point(&root, Path::new("/conf")).unwrap(), Some(real));
        assert_eq!(point(&root, Path::new("/none/at/all")).unwrap(), None);
    }
}
