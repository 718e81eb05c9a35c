//! Making a container: the parent's half of the handshake in `protocol.rs`.
//!
//! ```text
//! begin()   clone3; id maps; cgroup        -> Starting   (the caller attaches the network meanwhile)
//! finish()  waits until the child is ready -> Created    (the state `created` of the specification)
//! start()   limits, the word to go         -> the program runs, or the reason why not
//! ```
//!
//! A value that is dropped before `start` kills its child. The cgroup is the caller's to remove.

use crate::attributes::Attributes;
use crate::birth;
use crate::cgroup::{Cgroup, Stage};
use crate::error::{Context, Error};
use crate::handover;
use crate::hooks::{self, Description, Moment};
use crate::init::{self, Init};
use crate::launch::{Waiting, launch};
use crate::listener::Listener;
use crate::mounts::{self, Mount, Opening, Source};
use crate::program::Program;
use crate::protocol::{Channel, Word};
use crate::settings::Settings;
use crate::shared;
use brig_spec::runtime::{Hooks, Spec};
use brig_sys::clone::{Child, flags};
use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What a container is made from.
#[derive(Debug)]
pub struct Request<'a> {
    /// The container's identifier.
    pub id: &'a str,
    /// The configuration. Its `root.path` is not looked at.
    pub spec: &'a Spec,
    /// The cgroup, which `begin` makes.
    pub cgroup: &'a Cgroup,
    /// Standard input, output and error; none when the process has a terminal.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Destinations whose volume first receives the image's files when it is empty.
    pub copy_up: &'a [PathBuf],
    /// The absolute path of the bundle, which the state names.
    pub bundle: &'a Path,
    /// Where the root file system lies on the machine, so that binds of its own parts see what earlier mounts put there.
    pub rootfs: Option<&'a Path>,
    /// Where the container waits for whoever starts it; none when this process does, by [`Created::start`].
    pub door: Option<OwnedFd>,
    /// How many descriptors after the standard ones the program gets.
    pub preserved_fds: i32,
    /// Whether the old root is left by pivot_root(2), as ever; else by chroot(2), for a root that is a ramfs.
    pub pivot: bool,
    /// Whether the container gets a session keyring of its own.
    pub keyring: bool,
}

impl<'a> Request<'a> {
    /// A container with nothing special about it.
    pub fn new(id: &'a str, spec: &'a Spec, cgroup: &'a Cgroup, bundle: &'a Path) -> Self {
        let (stdio, door) = (None, None);
        Self {
            id,
            spec,
            cgroup,
            stdio,
            copy_up: &[],
            bundle,
            rootfs: None,
            door,
            preserved_fds: 0,
            pivot: true,
            keyring: true,
        }
    }
}

/// A root file system: a detached mount, and further ones that belong below it.
#[derive(Debug)]
pub struct RootMounts {
    /// The root itself.
    pub root: OwnedFd,
    /// Mounts for directories that exist in it, in order.
    pub below: Vec<(PathBuf, OwnedFd)>,
}

/// A container that is being made.
#[derive(Debug)]
pub struct Starting {
    process: Process,
    program: Program,
    mounts: Vec<Mount>,
    hooks: Hooks,
    description: Description,
    listener: Option<Listener>,
}

/// A container that waits for its start.
#[derive(Debug)]
pub struct Created {
    process: Process,
    program: Program,
    listener: Option<Listener>,
    /// What is granted otherwise than asked for, in words.
    pub warnings: Vec<String>,
    /// The controlling side of its terminal.
    pub console: Option<OwnedFd>,
}

/// A container whose program runs.
#[derive(Debug)]
pub struct Running {
    /// Its first process.
    pub child: Child,
    /// What was granted otherwise than asked for, in words; of a container also what [`Created::warnings`] had.
    pub warnings: Vec<String>,
}

#[derive(Debug)]
struct Process {
    child: Option<Child>,
    channel: Channel,
}

impl Process {
    fn child(&self) -> Result<&Child, Error> {
        self.child.as_ref().ok_or_else(|| Error::invalid("use the container's process", "it was given away"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            let _ = brig_sys::signals::send_to(child.pidfd.as_fd(), rustix::process::Signal::KILL.as_raw());
            let _ = rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

/// Starts making a container. `mount_root` returns its root file system as a detached mount; it is given the container's
/// user namespace when it has one, so that layers can be shown under the container's ids.
pub fn begin(
    request: Request<'_>,
    mount_root: impl FnOnce(Option<BorrowedFd<'_>>) -> Result<RootMounts, Error>,
) -> Result<Starting, Error> {
    let spec = request.spec;
    let process =
        spec.process.as_ref().ok_or_else(|| Error::invalid("read the configuration", "it names no process"))?;
    let mut program = Program::parse(process, spec, Attributes::of_first(process, spec)?)?;
    program.preserved_fds = request.preserved_fds;
    let description = Description::new(request.id, request.bundle, spec);
    let listener = Listener::parse(spec, &description);
    let hooks = spec.hooks.clone().unwrap_or_default();
    let mut settings = Settings::read(spec)?;
    program.warnings.append(&mut settings.warnings);
    let specified = spec.mounts.as_slice();
    let mut mounts = specified.iter().map(Mount::parse).collect::<Result<Vec<_>, _>>()?;
    for mount in &mut mounts {
        mount.options.label.clone_from(&settings.mount_label);
        mount.options.copy_up |= request.copy_up.contains(&mount.destination);
    }
    mounts::find_inside(&mut mounts, specified, request.rootfs)?;
    let bare = shared::is_bare(&settings, request.rootfs, spec);
    if settings.namespaces.mounts.shared().is_some() {
        shared::check(&mounts)?;
    }
    let userns = settings.namespaces.has(flags::NEWUSER);
    let resources = spec.linux.as_ref().and_then(|l| l.resources.as_ref());
    let mut init = Init {
        settings,
        program,
        mounts,
        specified,
        mount_root: Some(Box::new(mount_root)),
        devices: spec.linux.as_ref().map(|l| l.devices.clone()).unwrap_or_default(),
        cgroup: request.cgroup,
        root: None,
        stdio: request.stdio,
        keyring: request.keyring.then(|| init::keyring_name(request.id)),
        rootfs: request.rootfs,
        hooks: hooks.clone(),
        description: description.clone(),
        door: request.door,
        pivot: request.pivot,
        bare,
        born_in_cgroup: false,
    };
    if !userns {
        // Namespaces that are joined are open by now, and stay so.
        let joined = init.settings.namespaces.joined_userns().map(|fd| fd.try_clone_to_owned()).transpose();
        let joined = joined.step(|| "keep the user namespace".into())?;
        let userns = joined.as_ref().map(AsFd::as_fd);
        let within = init.settings.namespaces.mounts.joined().map(|fd| fd.try_clone_to_owned()).transpose();
        let within = within.step(|| "keep the mount namespace".into())?;
        handover::open(&mut init, &mut Opening::new(userns).within(within), userns)?;
    }
    let mut birthplace = None;
    if request.cgroup.takes_births() && !request.cgroup.create(resources)?.nothing {
        birthplace = request.cgroup.birthplace()?;
    }
    init.born_in_cgroup = birthplace.is_some();
    let (child, channel, shares) = match birth::bear(&mut init, birthplace.as_ref().map(AsFd::as_fd)) {
        Ok(born) => born,
        Err(error) => {
            // A cgroup that was made for a birth is of no use without one.
            if birthplace.is_some() {
                let _ = request.cgroup.remove();
            }
            return Err(error);
        }
    };
    let process = Process { child: Some(child), channel };
    let (mut enclosed, mut told) = (birthplace.is_some(), false);
    let mut settle = |enclosed: &mut bool, told: &mut bool| -> Result<(), Error> {
        if userns {
            handover::give(&mut init, process.child()?.pid, &process.channel)?;
        }
        if !*enclosed {
            let soon = init.needs_directories_only();
            request.cgroup.enclose(process.child()?.pid, resources, |stage| match stage {
                Stage::Exists => {
                    if soon {
                        process.channel.tell(Word::Cgroup)?;
                        *told = true;
                    }
                    Ok(())
                }
                Stage::Yours => {
                    *enclosed = true;
                    Ok(())
                }
            })?;
            if !soon {
                process.channel.tell(Word::Cgroup)?;
            }
        }
        // What this process had to do at the same time is done: the other may come here too.
        if shares {
            birth::rejoin(process.child()?.pid);
        }
        init.program.attributes.apply_processors(process.child()?.pid, &mut init.program.warnings)
    };
    if let Err(error) = settle(&mut enclosed, &mut told) {
        // A child that had failed before cannot be put anywhere, and knows better why there will be no container; but not one that
        // lost the directories it was told of, because of this very error.
        let lost = told && !enclosed;
        let error = if lost { error } else { process.channel.failure().unwrap_or(error) };
        drop(process);
        if enclosed {
            let _ = request.cgroup.remove();
        }
        return Err(error);
    }
    // The child has its own copy of everything; of this one only what `start` needs is kept.
    let Init { program, mounts, .. } = init;
    Ok(Starting { process, program, mounts, hooks, description, listener })
}

impl Starting {
    /// The pid of the container's first process.
    pub fn pid(&self) -> i32 {
        self.process.child.as_ref().map_or(-1, |c| c.pid)
    }

    /// Opens the network namespace of the container. Errors: what the child says, when it has failed already.
    pub fn network_namespace(&self) -> Result<OwnedFd, Error> {
        let path = format!("/proc/{}/ns/net", self.pid());
        let opened = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        opened.step(|| "open the network namespace".into()).or_else(|error| {
            // A process that has ended has no namespaces any more. Whatever else comes, no container comes of this.
            self.process.channel.expect(Word::Ready).map(drop).and(Err(error))
        })
    }

    /// Waits until the container is ready to be started.
    pub fn finish(self) -> Result<Created, Error> {
        let channel = &self.process.channel;
        let userns_path = format!("/proc/{}/ns/user", self.pid());
        for mount in self.mounts.iter().filter(|mount| mount.options.idmap.is_some()) {
            if let Source::Inside { map, .. } = &mount.source {
                show(channel, &self.mounts, map.as_ref(), &userns_path)?;
            }
        }
        let (prestart, create_runtime) = (Moment::Prestart.of(&self.hooks), Moment::CreateRuntime.of(&self.hooks));
        if !prestart.is_empty() || !create_runtime.is_empty() {
            channel.expect(Word::Mounted)?;
            let state = self.description.state("creating", self.pid());
            let bundle = self.description.bundle();
            hooks::run(Moment::Prestart, prestart, &state, bundle)?;
            hooks::run(Moment::CreateRuntime, create_runtime, &state, bundle)?;
            channel.tell(Word::Hooked)?;
        }
        let mut console = None;
        if self.program.terminal {
            console = channel.expect(Word::Console)?.fds.into_iter().next();
        }
        channel.expect(Word::Ready)?;
        self.program.attributes.apply_to(self.pid())?;
        let warnings = self.program.warnings.clone();
        Ok(Created { process: self.process, program: self.program, listener: self.listener, warnings, console })
    }
}

/// Shows a bind that the container's process made under other ids: by maps of its own, or by the container's.
fn show(channel: &Channel, mounts: &[Mount], map: Option<&OwnedFd>, userns_path: &str) -> Result<(), Error> {
    let packet = channel.expect(Word::Shown)?;
    let at = <[u8; 4]>::try_from(packet.bytes.as_slice()).map_or(u32::MAX, u32::from_le_bytes);
    let lost = || Error::invalid("show a mount under other ids", "it was not handed over");
    let mount = usize::try_from(at).ok().and_then(|at| mounts.get(at)).ok_or_else(lost)?;
    let bind = packet.fds.into_iter().next().ok_or_else(lost)?;
    let step = || format!("show the mount on {} under other ids", mount.destination.display());
    let of_container;
    let userns = if let Some(map) = map {
        map.as_fd()
    } else {
        of_container = rustix::fs::open(userns_path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(step)?;
        of_container.as_fd()
    };
    mounts::show_under_other_ids(bind.as_fd(), userns, mount.options.idmap.unwrap_or(false)).step(step)?;
    channel.tell(Word::Shown)
}

impl Created {
    /// The pid of the container's first process.
    pub fn pid(&self) -> i32 {
        self.process.child.as_ref().map_or(-1, |c| c.pid)
    }

    /// Starts the program. Errors: the command cannot be executed; the child is gone then.
    pub fn start(mut self) -> Result<Running, Error> {
        let child = self.process.child()?;
        let waiting = Waiting {
            pid: child.pid,
            pidfd: child.pidfd.as_fd(),
            limits: &self.program.limits,
            listener: self.listener.as_ref(),
        };
        let mut warnings = self.warnings;
        warnings.extend(launch(&self.process.channel, &waiting)?);
        let child =
            self.process.child.take().ok_or_else(|| Error::invalid("start the container", "it was given away"))?;
        Ok(Running { child, warnings })
    }

    /// Lets go of a container that waits at its door, without a word: it stays, and is this process's child.
    pub fn leave(mut self) -> Result<Child, Error> {
        self.process.child.take().ok_or_else(|| Error::invalid("leave the container", "it was given away"))
    }
}
