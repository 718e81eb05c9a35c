//! The container's first process, from the clone to the exec: the child's half of the handshake in `protocol.rs`.

use crate::cgroup::Cgroup;
use crate::create::RootMounts;
use crate::error::{Context, Error};
use crate::handover::{self, MountRoot};
use crate::hooks::{self, Description, Moment};
use crate::launch;
use crate::mounts::{Mount, Options, Source};
use crate::program::{Program, Settled, open_terminal, own_stdio, place_stdio};
use crate::protocol::{Channel, Word};
use crate::rootfs;
use crate::selinux::KeyLabel;
use crate::settings::Settings;
use crate::shared;
use brig_spec::runtime::{Hooks, LinuxDevice};
use brig_sys::clone::{flags, unshare};
use brig_sys::root::Root;
use rustix::thread::{Gid, Uid};
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Everything that the child needs, allocated and opened by the parent.
pub(crate) struct Init<'a> {
    pub settings: Settings,
    pub program: Program,
    pub mounts: Vec<Mount>,
    /// The mounts as the configuration has them.
    pub specified: &'a [brig_spec::runtime::Mount],
    /// What makes the root, until it is called.
    pub mount_root: Option<MountRoot<'a>>,
    pub devices: Vec<LinuxDevice>,
    pub cgroup: &'a Cgroup,
    /// The detached root mount; with a user namespace it comes with the word `Maps`.
    pub root: Option<RootMounts>,
    /// Standard input, output and error; none with a terminal.
    pub stdio: Option<[OwnedFd; 3]>,
    /// The name of the session keyring, where it gets one.
    pub keyring: Option<CString>,
    /// Where the root lies on the machine.
    pub rootfs: Option<&'a Path>,
    pub hooks: Hooks,
    pub description: Description,
    /// The listening socket at which it waits for its start.
    pub door: Option<OwnedFd>,
    pub pivot: bool,
    /// Whether its root is that of the mount namespace in which it runs; see `shared.rs`.
    pub bare: bool,
    /// Whether the child was born in its cgroup, so that nothing is to be waited for.
    pub born_in_cgroup: bool,
}

impl Init<'_> {
    /// Says whether the child can go on with mounts once its cgroup exists, and need not be in it: unless it makes a namespace of
    /// it, or runs hooks there.
    pub fn needs_directories_only(&self) -> bool {
        !self.settings.namespaces.has(flags::NEWCGROUP) && Moment::CreateContainer.of(&self.hooks).is_empty()
    }

    /// Says whether the view of the cgroups can come after all other mounts and devices, which are made while the cgroups are: where
    /// that cannot be told apart. So no hook looks before, and what comes after it in the list lies in the container's own /dev, or is
    /// one of the files that engines put into /etc. Any other path might lead below it or over it by a link.
    fn cgroups_can_wait(&self) -> bool {
        const FILES: [&str; 3] = ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"];
        let Some(at) = self.mounts.iter().position(|mount| matches!(mount.source, Source::Cgroup)) else {
            return false;
        };
        let (before, after) = (&self.mounts[..at], &self.mounts[at + 1..]);
        let new_dev = before.iter().any(|mount| mount.destination == Path::new("/dev") && mount.source.is_new("tmpfs"));
        let in_dev = |path: &Path| new_dev && path.parent() == Some(Path::new("/dev")) && path.file_name().is_some();
        let is_apart = |mount: &Mount| match mount.source {
            Source::New { .. } => in_dev(&mount.destination) && !mount.options.copy_up,
            Source::Bind { .. } => FILES.iter().any(|file| mount.destination == Path::new(file)),
            Source::Inside { .. } | Source::Cgroup => false,
        };
        let hooked = [Moment::Prestart, Moment::CreateRuntime, Moment::CreateContainer];
        after.iter().all(is_apart)
            && self.devices.iter().all(|device| in_dev(&device.path))
            && hooked.iter().all(|moment| moment.of(&self.hooks).is_empty())
    }
}

/// Signals that end a container before its program runs: HUP, INT, QUIT and TERM.
const ENDING: [i32; 4] = [1, 2, 3, 15];

/// Runs the child. Returns an exit status only upon failure, which has been reported.
pub(crate) fn run(init: &mut Init<'_>, channel: &Channel) -> i32 {
    let ready = set_up(init, channel).and_then(|settled| {
        channel.say(Word::Ready).step(|| "report that the container is ready".into())?;
        Ok(settled)
    });
    let settled = match ready {
        Ok(settled) => settled,
        Err(error) => return fail(channel, &error),
    };
    // While the starter does its part of the start.
    let shed = init.program.shed();
    if let Some(door) = init.door.take() {
        // Its maker hears that this process has nothing more to say, and may go. While it waits it keeps nothing of its
        // maker's open: what it holds, others may look at and hold on to.
        let kept = [Some(door.as_fd()), settled.label_fd()];
        if let Err(error) = keep_only(3 + init.program.preserved_fds, kept) {
            return fail(channel, &error);
        }
        brig_sys::signals::exit_on(&ENDING);
        // Its maker may be gone: what failed is for whoever starts it.
        return match (launch::answer_door(door.as_fd()), shed) {
            (Ok(starter), Ok(())) => execute(init, &settled, &starter),
            (Ok(starter), Err(error)) => fail(&starter, &error),
            (Err(_), _) => 1,
        };
    }
    if let Err(error) = shed {
        return fail(channel, &error);
    }
    match channel.expect(Word::Start) {
        Ok(_) => execute(init, &settled, channel),
        // The starter is gone or gave up: nobody is left to report to.
        Err(_) => 1,
    }
}

/// Closes every descriptor from `first` on but those kept. What owned them is never dropped: this process ends by exec or exit.
fn keep_only(first: i32, kept: [Option<BorrowedFd<'_>>; 2]) -> Result<(), Error> {
    let mut kept: Vec<BorrowedFd<'_>> = kept.into_iter().flatten().collect();
    kept.sort_by_key(AsRawFd::as_raw_fd);
    brig_sys::fds::close_all_but(first, &kept).step(|| "close the descriptors".into())
}

fn execute(init: &Init<'_>, settled: &Settled, channel: &Channel) -> i32 {
    let mut inside = Moment::StartContainer.of(&init.hooks).to_vec();
    for hook in inside.iter_mut().filter(|hook| hook.env.is_none()) {
        hook.env = Some(settled.environment.clone());
    }
    let error = init.program.execute(settled, channel, || match inside.as_slice() {
        [] => Ok(()),
        inside => hooks::run(Moment::StartContainer, inside, &own_state(init, "created"), Path::new("/")),
    });
    fail(channel, &error)
}

fn fail(channel: &Channel, error: &Error) -> i32 {
    let _ = channel.send(Word::Failed, &error.to_bytes(), &[]);
    1
}

fn own_state(init: &Init<'_>, status: &str) -> serde_json::Value {
    init.description.state(status, rustix::process::getpid().as_raw_nonzero().get())
}

/// Lets the maker run its hooks, and runs those that belong here.
fn run_hooks(init: &Init<'_>, channel: &Channel, root: BorrowedFd<'_>) -> Result<(), Error> {
    let has = |moment: Moment| !moment.of(&init.hooks).is_empty();
    if has(Moment::Prestart) || has(Moment::CreateRuntime) {
        channel.say(Word::Mounted).step(|| "report that the mounts stand".into())?;
        channel.expect(Word::Hooked)?;
    }
    if has(Moment::CreateContainer) {
        let hooks = Moment::CreateContainer.of(&init.hooks);
        let root = format!("/proc/self/fd/{}", root.as_raw_fd());
        hooks::run(Moment::CreateContainer, hooks, &own_state(init, "creating"), Path::new(&root))?;
    }
    Ok(())
}

fn set_up(init: &mut Init<'_>, channel: &Channel) -> Result<Settled, Error> {
    let userns = init.settings.namespaces.has(flags::NEWUSER);
    if userns {
        handover::take(init, channel)?;
    }
    if !init.settings.namespaces.needs_bearer() {
        init.settings.namespaces.join()?;
    }
    rustix::process::setsid().step(|| "make a session".into())?;
    if let Some(name) = &init.keyring {
        join_keyring(name, init.program.selinux())?;
    }
    let root =
        init.root.take().ok_or_else(|| Error::invalid("attach the root file system", "it was not handed over"))?;
    let RootMounts { root, below } = root;
    // Without pivot_root it has to be the root of the mount namespace: whoever is chrooted may make no user namespace.
    let joins_mounts = init.settings.namespaces.mounts.joined().is_some();
    let place = init.rootfs.filter(|_| init.pivot && !joins_mounts);
    rootfs::enter(root.as_fd(), place, init.settings.propagation)?;
    let root = Root::new(root);
    rootfs::attach_below(&root, below)?;

    let own_cgroup = init.settings.namespaces.has(flags::NEWCGROUP);
    let settled_in_cgroup = Cell::new(init.born_in_cgroup);
    let cgroup_ready = || -> Result<(), Error> {
        if !settled_in_cgroup.replace(true) {
            channel.expect(Word::Cgroup)?;
            // After the move: the namespace shows the cgroup in which it is made as its root.
            if own_cgroup {
                unshare(flags::NEWCGROUP).step(|| "make the cgroup namespace".into())?;
            }
        }
        Ok(())
    };
    let (can_wait, cgroup) = (init.cgroups_can_wait(), init.cgroup);
    let mut last = None;
    let show_cgroups = |destination: &Path, options: &Options| {
        if can_wait {
            last = Some((destination.to_owned(), options.clone()));
            return Ok(());
        }
        cgroup_ready()?;
        rootfs::mount_cgroups(&root, destination, cgroup, own_cgroup, options)
    };
    let show = |at: usize, bind: BorrowedFd<'_>| -> Result<(), Error> {
        // The maker answers when it has made the cgroup, and has said so.
        cgroup_ready()?;
        let at = u32::try_from(at).unwrap_or(u32::MAX).to_le_bytes();
        channel.send(Word::Shown, &at, &[bind]).step(|| "have a mount shown under other ids".into())?;
        channel.expect(Word::Shown).map(drop)
    };
    let terminal = init.program.terminal;
    let found = rootfs::mount_all(&root, &mut init.mounts, terminal, show_cgroups, show)?;
    if !can_wait {
        cgroup_ready()?;
    }
    let bind = init.settings.namespaces.is_own(flags::NEWUSER);
    if !init.bare {
        rootfs::make_devices(&root, &init.devices, bind, found.new_dev)?;
    }
    run_hooks(init, channel, root.as_fd())?;
    set_up_stdio(init, channel, &root, found.pts.as_ref())?;
    rootfs::set_sysctls(found.proc.as_ref(), init.settings.sysctls.iter())?;
    cgroup_ready()?;
    if let Some((destination, options)) = last {
        rootfs::mount_cgroups(&root, &destination, cgroup, own_cgroup, &options)?;
    }
    for mount in &found.readonly {
        rootfs::make_readonly(mount.as_fd())?;
    }
    rootfs::protect_readonly(&root, &init.settings.readonly)?;
    rootfs::mask(&root, &init.settings.masked, init.settings.mount_label.as_deref())?;
    let root = match init.settings.namespaces.mounts.shared() {
        None => rootfs::change_root(root.as_fd(), init.pivot).map(|()| root)?,
        Some(namespace) => shared::enter(namespace, root.as_fd(), init.bare)?,
    };
    rootfs::propagate(root.as_fd(), init.settings.root_propagation)?;
    set_names(&init.settings)?;
    if init.settings.namespaces.has(flags::NEWNET) {
        brig_sys::interface::loopback_up().step(|| "set up the loopback interface".into())?;
    }
    let settled = init.program.settle(&root)?;
    if init.settings.root_readonly {
        rootfs::make_readonly(root.as_fd())?;
    }
    crate::null::reopen(&root);
    own_stdio(&settled.identity);
    Ok(settled)
}

/// Becomes id 0 of the user namespace.
pub(crate) fn become_root() -> Result<(), Error> {
    let step = || "become root of the user namespace".to_owned();
    match rustix::thread::set_thread_groups(&[]) {
        // A namespace that a user made for its own id alone lets no groups be dropped.
        Ok(()) | Err(rustix::io::Errno::PERM) => {}
        Err(errno) => return Err(errno).step(step),
    }
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    rustix::thread::set_thread_res_gid(gid, gid, gid).step(step)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step(step)
}

/// The name of a container's session keyrings.
pub(crate) fn keyring_name(id: &str) -> CString {
    CString::new(format!("_ses.{id}")).unwrap_or_default()
}

/// Leaves the caller's session keyring for a new one.
pub(crate) fn join_keyring(name: &CStr, label: Option<&str>) -> Result<(), Error> {
    let _label = label.map(KeyLabel::set).transpose()?;
    brig_sys::keyring::join_session(name).or_else(ignore_missing_keyrings).step(|| "make the session keyring".into())
}

fn ignore_missing_keyrings(error: std::io::Error) -> std::io::Result<()> {
    // Kernels without keyrings, and quotas of a crowded machine, are no reason not to start.
    if matches!(error.raw_os_error(), Some(38 | 122)) { Ok(()) } else { Err(error) }
}

fn set_up_stdio(init: &mut Init<'_>, channel: &Channel, root: &Root, pts: Option<&OwnedFd>) -> Result<(), Error> {
    if init.program.terminal {
        let pts = pts.ok_or_else(|| Error::invalid("open the container's terminal", "no devpts is mounted"))?;
        let (master, slave) = open_terminal(pts.as_fd(), init.program.console_size)?;
        rootfs::mount_console(root, slave.as_fd())?;
        channel.send(Word::Console, &[], &[master.as_fd()]).step(|| "hand over the terminal".into())
    } else if let Some([stdin, stdout, stderr]) = init.stdio.take() {
        place_stdio([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
    } else {
        Ok(())
    }
}

fn set_names(settings: &Settings) -> Result<(), Error> {
    if let Some(name) = &settings.hostname {
        rustix::system::sethostname(name.as_bytes()).step(|| format!("set the host name `{name}`"))?;
    }
    if let Some(name) = &settings.domainname {
        rustix::system::setdomainname(name.as_bytes()).step(|| format!("set the domain name `{name}`"))?;
    }
    Ok(())
}
