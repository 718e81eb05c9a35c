//! Starting a container: write the plan, spawn its monitor, hear whether the program runs.
//!
//! From the moment at which the monitor says `Started`, the container needs no engine any more.

use super::create::Created;
use super::wait::wait_served;
use super::{status, undo};
use crate::config::merge::clean_absolute;
use crate::config::{
    Config, ContainerConfig, IpcMode, MountConfig, MountKind, NetworkMode, PidMode, RestartPolicy, UserMode, UtsMode,
};
use crate::error::{Error, Kind, Result};
use crate::oci::{self, Joined, Place, mounts::Ready};
use crate::record::Record;
use crate::{disk, host, idpool, layers, networks, volumes};
use brig_monitor::client::{Connection, Event};
use brig_monitor::plan::{CopyUp, FORMAT, Log, Plan, Restart, Rootfs};
use brig_monitor::spawn::{Job, spawn};
use std::fs::File;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the monitor of a program that has ended may put things away.
const STOPPING_MAX: Duration = Duration::from_secs(20);

/// A container whose program runs.
#[derive(Debug)]
pub struct Started {
    /// The connection to its monitor, with the flags that were asked for.
    pub connection: Connection,
    /// The first process, on the machine.
    pub pid: i32,
    /// Output that came before the news of the start: (whether it is standard error, bytes).
    pub early: Vec<(bool, Vec<u8>)>,
    /// What was done otherwise than asked, a line each.
    pub warnings: Vec<String>,
}

/// Starts a container that does not run. `flags` are those of a monitor client's `Hello`.
pub fn start(config: &Config, record: &mut Record, flags: u8) -> Result<Started> {
    let held = super::hold(config, &record.id, "start")?;
    // After the wait, the container may have changed or gone.
    *record = Record::read(config, &record.id)?;
    let name = record.name.clone();
    let what = move || format!("cannot start container `{name}`");
    let mut now = status::of(config, record);
    if now.phase == status::Phase::Stopping {
        // Its monitor is about to go, and another one cannot begin before.
        now = wait_served(config, record, Some(Instant::now() + STOPPING_MAX), "start")?;
    }
    match now {
        s if s.phase == status::Phase::Paused => {
            return Err(Error::conflict(what())
                .reason("it is paused")
                .hint(format!("continue it with `brig unpause {}`", record.name)));
        }
        s if s.is_active() => return Err(Error::conflict(what()).reason("it is running already")),
        _ => {}
    }
    start_held(config, record, held, flags)
}

/// Starts a container that was made just now; as [`start`].
pub fn start_created(config: &Config, created: Created, flags: u8) -> (Record, Result<Started>) {
    let Created { mut record, held, .. } = created;
    let started = start_held(config, &mut record, held, flags);
    (record, started)
}

/// Starts a container that is held, and does not run.
fn start_held(config: &Config, record: &mut Record, held: File, flags: u8) -> Result<Started> {
    let name = record.name.clone();
    let what = move || format!("cannot start container `{name}`");
    write_plan(config, record).map_err(|error| wrap(what(), error))?;
    let connection = spawn(&super::monitor_program(config), Job::Run, &record.dir(config), flags)
        .map_err(|error| Error::io(what(), error))?;
    let started = await_start(connection, &what).map_err(|error| name_port_holder(config, record, error));
    drop(held);
    layers::cool(config);
    started
}

/// Says who has a port that is in use already, and what to do about it.
fn name_port_holder(config: &Config, record: &Record, error: Error) -> Error {
    let Some(taken) = error.causes().into_iter().find(|cause| cause.ends_with("is already in use")) else {
        return error;
    };
    let mine = record.network.iter().flat_map(|n| &n.ports);
    let clash = |theirs: &brig_net::plan::Port| {
        let mut mine = mine.clone().filter(|m| m.protocol == theirs.protocol && m.host_port == theirs.host_port);
        mine.any(|m| m.host_address.is_none() || theirs.host_address.is_none() || m.host_address == theirs.host_address)
    };
    let listing = super::list(config).unwrap_or_default();
    let mut others = listing.entries.iter().filter(|e| e.status.is_active() && e.record.id != record.id);
    let holder = others.find(|e| e.record.network.iter().flat_map(|n| &n.ports).any(clash)).map(|e| &e.record.name);
    let (reason, hint) = match holder {
        Some(name) => (
            format!("{taken} by container `{name}`"),
            format!("stop it with `brig stop {name}`, or publish another port with `-p`"),
        ),
        None => {
            (taken, "`ss -lntup` names the program that listens there; or publish another port with `-p`".to_owned())
        }
    };
    let exit_code = error.exit_code;
    Error { exit_code, ..Error::conflict(error.message).reason(reason).hint(hint) }
}

/// Puts the object in front of an error that has none yet.
fn wrap(what: String, error: Error) -> Error {
    let (kind, hint, exit_code) = (error.kind, error.hint.clone(), error.exit_code);
    let mut outer = Error::new(kind, what).because(Error { hint: None, ..error });
    (outer.hint, outer.exit_code) = (hint, exit_code);
    outer
}

/// Listens until the program runs or cannot.
pub(super) fn await_start(mut connection: Connection, what: &impl Fn() -> String) -> Result<Started> {
    let mut early = Vec::new();
    loop {
        match connection.receive().map_err(|error| Error::io(what(), error))? {
            Some(Event::Started(pid)) => {
                let warnings = connection.take_warnings();
                return Ok(Started { connection, pid, early, warnings });
            }
            Some(Event::Failed(status, text)) => return Err(super::start_error(what(), status, &text)),
            Some(Event::Stdout(bytes)) => early.push((false, bytes.to_vec())),
            Some(Event::Stderr(bytes)) => early.push((true, bytes.to_vec())),
            Some(Event::Exited(_)) | None => {
                return Err(Error::internal(what())
                    .reason("its monitor ended without a word")
                    .hint("the kernel's log (`dmesg`) may tell why; the next `brig` command cleans up"));
            }
        }
    }
}

/// Decides everything that is still open, and writes it down for the monitor.
fn write_plan(config: &Config, record: &mut Record) -> Result<()> {
    let dir = record.dir(config);
    let run_dir = record.run_dir(config);
    disk::make_directory(&run_dir)?;
    let before = record.network.take();
    record.network = networks::attachment(config, &record.config, &record.id, before.as_ref())?;
    if record.network != before {
        // Written before anything is attached, so that whoever finds the record can take it back.
        record.write(config)?;
    }
    let place = place(config, record)?;
    let facts = host::facts(&record.config);
    let spec = oci::spec(&record.config, &facts, &place)?;
    let plan = Plan {
        format: FORMAT,
        id: record.id.clone(),
        name: record.name.clone(),
        rootfs: rootfs(config, record, &place)?,
        copy_up: copy_up(config, record),
        network: record.network.clone(),
        stdin: record.config.stdin,
        log: log(config, record),
        restart: match record.config.restart {
            RestartPolicy::No => Restart::No,
            RestartPolicy::Always => Restart::Always,
            RestartPolicy::UnlessStopped => Restart::UnlessStopped,
            RestartPolicy::OnFailure(count) => Restart::OnFailure(count),
        },
        undo: undo::list(config, record, true),
        remove: record.config.remove,
        durable: record.durable(),
        container_dir: dir.clone(),
        run_dir,
        spec,
    };
    let bytes = serde_json::to_vec(&plan).map_err(|error| Error::internal("cannot encode the plan").because(error))?;
    disk::write(&dir.join("plan"), &bytes, record.durable())
}

fn log(config: &Config, record: &Record) -> Log {
    let wish = &record.config.log;
    Log {
        path: (!wish.none).then(|| record.dir(config).join("log")),
        max_size: wish.max_size.unwrap_or(config.log_max_size),
        max_files: wish.max_files.unwrap_or(config.log_max_files),
    }
}

fn rootfs(config: &Config, record: &Record, place: &Place) -> Result<Rootfs> {
    let dir = record.dir(config);
    let upper = dir.join("upper");
    let volatile = !upper.exists() && super::create::volatile(config)?;
    Ok(Rootfs::Overlay {
        lowers: layers::lowers(config, &record.image.layers)?,
        upper: (!volatile).then_some(upper),
        work: (!volatile).then(|| dir.join("work")),
        submounts: record.image.submounts.clone(),
        volatile,
        idmap: place.idmap.clone(),
    })
}

fn copy_up(config: &Config, record: &Record) -> Vec<CopyUp> {
    let wants = |destination: &PathBuf| {
        record.config.mounts.iter().any(|m| {
            m.destination == *destination
                && matches!(&m.kind, MountKind::Volume { no_copy: false, subpath: None, .. })
                && !m.options.iter().any(|o| o == "nocopy")
        })
    };
    let used = record.volumes.iter().filter(|v| wants(&v.destination));
    used.map(|v| CopyUp { destination: v.destination.clone(), volume: volumes::data(config, &v.name) }).collect()
}

/// Decides where everything comes from.
fn place(config: &Config, record: &Record) -> Result<Place> {
    let container = &record.config;
    let dir = record.dir(config);
    let joined = joined(config, container)?;
    let hostname = hostname(config, record)?;
    let etc_files = match &container.network {
        NetworkMode::Container(name) => {
            let other = super::find(config, name)?.dir(config);
            vec![
                (other.join("resolv.conf"), "/etc/resolv.conf"),
                (other.join("hostname"), "/etc/hostname"),
                (other.join("hosts"), "/etc/hosts"),
            ]
        }
        _ => networks::write_etc(config, container, &dir, hostname.as_deref(), record.network.as_ref())?,
    };
    if let Some(first) = record.first_id {
        for (source, _) in &etc_files {
            chown(source, Some(first), Some(first))
                .map_err(|e| Error::io(format!("cannot give away {}", source.display()), e))?;
        }
    }
    let mut ready = Vec::with_capacity(container.mounts.len());
    let mut volumes_left = record.volumes.iter();
    for mount in &container.mounts {
        let volume = match mount.kind {
            MountKind::Volume { .. } => volumes_left.next().map(|v| v.name.as_str()),
            _ => None,
        };
        ready.push(self::ready(config, mount, volume)?);
    }
    if record.image.host {
        ready.extend(hidden(config, record));
    }
    Ok(Place {
        id: record.id.as_str().to_owned(),
        hostname: if container.uts == UtsMode::Private { hostname } else { None },
        cgroup: undo::cgroup(config, record).into(),
        mounts: ready,
        etc_files,
        idmap: record.first_id.map(idpool::map),
        joined,
        init_program: container
            .init
            .then(|| config.init_program.clone().or_else(|| config.monitor_program.clone()))
            .flatten()
            .or_else(|| container.init.then(|| std::fs::read_link("/proc/self/exe").ok()).flatten()),
    })
}

/// Inside `host:`, brig's own directories are empty: a container would see its own upper layer there.
fn hidden(config: &Config, record: &Record) -> Vec<Ready> {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &std::path::Path| std::fs::metadata(path).map(|m| m.dev()).ok();
    let mut seen: Vec<Option<u64>> = vec![device("/".as_ref())];
    seen.extend(record.image.submounts.iter().map(|s| device(&s.lower)));
    let empty = |path: &PathBuf| {
        let destination = std::fs::canonicalize(path).ok().and_then(|p| clean_absolute(&p))?;
        seen.contains(&device(&destination)).then(|| Ready {
            destination,
            read_only: true,
            options: vec!["size=4k".into(), "mode=700".into()],
            ..Ready::default()
        })
    };
    [&config.root, &config.run].into_iter().filter_map(empty).collect()
}

fn hostname(config: &Config, record: &Record) -> Result<Option<String>> {
    let container = &record.config;
    if let NetworkMode::Container(name) = &container.network
        && container.hostname.is_none()
    {
        let other = super::find(config, name)?;
        return Ok(Some(other.config.hostname.clone().unwrap_or_else(|| other.id.short().to_owned())));
    }
    Ok(match (&container.hostname, &container.uts) {
        (Some(name), _) => Some(name.clone()),
        (None, UtsMode::Host) => None,
        // With the machine's network, the machine's name is what others know.
        (None, UtsMode::Private) if container.network == NetworkMode::Host => {
            rustix::system::uname().nodename().to_str().ok().map(str::to_owned)
        }
        (None, UtsMode::Private) => Some(record.id.short().to_owned()),
    })
}

/// Finds the first processes of the containers whose namespaces are joined.
fn joined(config: &Config, container: &ContainerConfig) -> Result<Joined> {
    let pid = |name: &str| -> Result<Option<i32>> {
        let other = super::find(config, name)?;
        let status = status::of(config, &other);
        if status.is_running() {
            Ok(Some(status.pid))
        } else {
            Err(Error::conflict(format!("cannot join container `{name}`"))
                .reason("it is not running")
                .hint(format!("start it first: `brig start {name}`")))
        }
    };
    let mut joined = Joined::default();
    if let NetworkMode::Container(name) = &container.network {
        joined.network = pid(name)?;
    }
    if let PidMode::Container(name) = &container.pid {
        joined.pid = pid(name)?;
    }
    if let IpcMode::Container(name) = &container.ipc {
        joined.ipc = pid(name)?;
    }
    if let UserMode::Container(name) = &container.userns {
        joined.user = pid(name)?;
    }
    Ok(joined)
}

/// Finds the source of a mount; a missing directory of `-v` is made.
fn ready(config: &Config, mount: &MountConfig, volume: Option<&str>) -> Result<Ready> {
    let mut ready = Ready {
        source: None,
        destination: mount.destination.clone(),
        read_only: mount.read_only,
        non_recursive: false,
        propagation: mount.propagation.clone(),
        options: mount.options.iter().filter(|o| o.as_str() != "nocopy").cloned().collect(),
    };
    match &mount.kind {
        MountKind::Tmpfs => {}
        MountKind::Bind { source, create, non_recursive } => {
            if *create && !source.exists() {
                std::fs::create_dir_all(source)
                    .map_err(|error| Error::io(format!("cannot create directory {}", source.display()), error))?;
            }
            if !source.exists() {
                return Err(Error::not_found(format!("cannot bind `{}`", source.display())).reason("it does not exist"));
            }
            ready.source = Some(source.clone());
            ready.non_recursive = *non_recursive;
        }
        MountKind::Volume { subpath, .. } => {
            let name = volume.ok_or_else(|| Error::internal("the record lists fewer volumes than mounts"))?;
            let found = volumes::inspect(config, name)?;
            let data = found.data(config);
            ready.source = Some(match subpath {
                Some(path) => {
                    ready.options.push(brig_runtime::NO_SYMLINKS.to_owned());
                    inside(&data, path)?
                }
                None => data,
            });
        }
        MountKind::Image { name } => {
            let store = brig_store::Store::open(&config.root)
                .map_err(|error| Error::internal("cannot open the image store").because(error))?;
            let image = store
                .image(name)
                .map_err(|error| Error::not_found(format!("cannot mount image `{name}`")).because(error))?;
            match image.layers.as_slice() {
                [only] => ready.source = layers::lowers(config, std::slice::from_ref(only))?.pop(),
                _ => {
                    return Err(Error::new(Kind::Unsupported, format!("cannot mount image `{name}`")).reason(format!(
                        "it has {} layers, and only an image of one can be mounted",
                        image.layers.len()
                    )));
                }
            }
            ready.read_only = true;
        }
    }
    Ok(ready)
}

/// Resolves a path inside a volume, where links may lead anywhere, without leaving it.
fn inside(data: &std::path::Path, path: &std::path::Path) -> Result<PathBuf> {
    let failed = |error: std::io::Error| Error::io(format!("cannot use `{}` of the volume", path.display()), error);
    let root = brig_sys::root::Root::open_directory(data).map_err(failed)?;
    let fd = root.locate(path).map_err(failed)?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd))).map_err(failed)?;
    Ok(real)
}
