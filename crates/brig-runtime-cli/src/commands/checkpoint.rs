//! `checkpoint`: writes the processes of a container to files from which `restore` makes them again.

use super::{Command, container_id};
use crate::arguments::{Ends, Opt, Parsed, flag, value};
use crate::container::{Container, Status};
use crate::criu::directories::Directories;
use crate::criu::protobuf::Message;
use crate::criu::request::{self, Feature, Kind, options as o};
use crate::criu::{self, Program, Session, Stdio, bytes, descriptors, externals, flags, quote};
use crate::failure::{Failure, Step};
use crate::global::Global;
use crate::teardown;
use brig_spec::runtime::Spec;
use brig_sys::root::Root;
use rustix::fs::OFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const OPTIONS: [Opt; 17] = flags::with([
    value("parent-path", '\0', "the images of an earlier --pre-dump, relative to --image-path"),
    flag("leave-running", '\0', "leave the container running"),
    flag("tcp-skip-in-flight", '\0', "leave out TCP connections that are only just being made"),
    flag("link-remap", '\0', "allow to link files back that were removed"),
    value("status-fd", '\0', "a descriptor that gets a NUL byte once lazy pages can be fetched"),
    value("page-server", '\0', "where the memory goes: ADDRESS:PORT"),
    flag("pre-dump", '\0', "write the memory alone, and leave the container running"),
]);

pub(crate) const COMMAND: Command = Command {
    name: "checkpoint",
    operands: "CONTAINER",
    about: "write a running container to files, to be restored",
    options: &OPTIONS,
    ends: Ends::Never,
    enters: false,
    run,
};

/// The name of criu's log.
const LOG: &str = "dump.log";

fn run(global: &Global, parsed: &Parsed) -> Result<u8, Failure> {
    criu::warn_rootless(global, "checkpoint");
    let container = Container::load(&global.root, container_id(parsed)?)?;
    match container.status() {
        Status::Running | Status::Paused => {}
        status => return Err(Failure::new(format!("container cannot be checkpointed in {} state", status.word()))),
    }
    let spec = container.spec()?;
    if brig_runtime::shares_mounts(&spec) {
        return Err(Failure::new("cannot checkpoint the container: it has no mount namespace of its own"));
    }
    flags::check(parsed)?;
    let mut status_fd = status_fd(parsed)?;
    let page_server = parsed.filled("page-server").map(page_server).transpose()?;
    let program = Program::find(global)?;
    let pre_dump = parsed.has("pre-dump");
    if pre_dump {
        program.require(&global.log, Feature::MemTrack)?;
    }
    if parsed.has("lazy-pages") {
        program.require(&global.log, Feature::LazyPages)?;
    }
    let directories = Directories::open(parsed, true)?;
    let mut options = options(parsed, &container, &spec, &directories)?;
    if let Some((address, port)) = page_server {
        request::add_page_server(&mut options, address, port);
    }
    if !pre_dump {
        // Relative sources are those of the bundle; it may be gone.
        let _ = rustix::process::chdir(&container.record.bundle);
        let path = format!("/proc/{}/root", container.record.init.pid);
        let root = Root::open_directory(Path::new(&path)).step(|| format!("open {path}"))?;
        let table = format!("/proc/{}/mountinfo", container.record.init.pid);
        externals::name_mounts(&mut options, &spec, &container.cgroup()?, &root, &table)?;
        descriptors::write(directories.images.as_fd(), &container.record.descriptors)?;
    }
    let kind = if pre_dump { Kind::PreDump } else { Kind::Dump };
    dump(global, &program, kind, &options, &mut status_fd)
        .map_err(|failure| quote::explain(&global.log, &directories.log(LOG), failure).during("checkpoint failed"))?;
    if !pre_dump && !parsed.has("leave-running") {
        teardown::end(&container)?;
        teardown::tear_down(global, &container, Some(&spec))?;
    }
    Ok(0)
}

fn dump(
    global: &Global,
    program: &Program,
    kind: Kind,
    options: &Message,
    status_fd: &mut Option<OwnedFd>,
) -> Result<(), Failure> {
    let mut session = Session::start(program, Stdio::Null, &[])?;
    session.ask(&global.log, kind, &request::request(kind, Some(options)), |notification, _| {
        if notification.script.as_deref() == Some("status-ready")
            && let Some(fd) = status_fd.take()
            && let Err(error) = rustix::io::write(&fd, &[0])
        {
            global.log.warning(&format!("cannot say that the lazy pages can be fetched: {error}"));
        }
        Ok(())
    })?;
    match session.end() {
        // After a pre-dump criu waits for the dump itself, which is another command here.
        Err(_) if kind == Kind::PreDump => Ok(()),
        ended => ended,
    }
}

fn options(parsed: &Parsed, container: &Container, spec: &Spec, directories: &Directories) -> Result<Message, Failure> {
    let mut options = flags::begin(parsed, spec, directories, LOG)?;
    options
        .text(o::ROOT, bytes(&container.record.rootfs))
        .number(o::PID, container.record.init.pid)
        .flag(o::LEAVE_RUNNING, parsed.has("leave-running"))
        .flag(o::TCP_SKIP_IN_FLIGHT, parsed.has("tcp-skip-in-flight"))
        .flag(o::LINK_REMAP, parsed.has("link-remap"));
    if let Some(parent) = &directories.parent {
        options.text(o::PARENT_IMG, bytes(parent)).flag(o::TRACK_MEM, true);
    }
    let pure = container.cgroup()?.layout().is_pure_v2();
    // It freezes the processes all at once; without it criu stops them one by one.
    if let Some(path) = container.record.cgroup.paths().get(if pure { "" } else { "freezer" }) {
        options.text(o::FREEZE_CGROUP, bytes(path));
    }
    externals::name_namespaces(&mut options, spec, container.record.init.pid)?;
    Ok(options)
}

/// Takes over the descriptor that waits for the lazy pages.
fn status_fd(parsed: &Parsed) -> Result<Option<OwnedFd>, Failure> {
    let Some(number) = parsed.number::<i32>("status-fd")?.filter(|number| *number >= 0) else { return Ok(None) };
    let wrong = |why: &str| Failure::new(format!("invalid --status-fd argument {number}: {why}"));
    // The standard ones stay this program's own.
    let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3).ok();
    let fd = match number {
        0 => copy(rustix::stdio::stdin()),
        1 => copy(rustix::stdio::stdout()),
        2 => copy(rustix::stdio::stderr()),
        _ => brig_sys::fds::inherited(number),
    };
    let fd = fd.ok_or_else(|| wrong("it is not open"))?;
    let mode = rustix::fs::fcntl_getfl(&fd).step(|| format!("look at descriptor {number}"))?;
    if !mode.intersects(OFlags::WRONLY | OFlags::RDWR) {
        return Err(wrong("not writable"));
    }
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).step(|| format!("keep descriptor {number}"))?;
    Ok(Some(fd))
}

/// Reads `ADDRESS:PORT`; an IPv6 address stands in brackets.
fn page_server(text: &str) -> Result<(&str, u16), Failure> {
    let wrong = || Failure::new("use --page-server ADDRESS:PORT to specify the page server");
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    let address = match bare {
        Some(inner) => inner,
        None if address.contains(':') => return Err(wrong()),
        None => address,
    };
    if address.is_empty() || port.is_empty() {
        return Err(wrong());
    }
    match port.parse() {
        Ok(port) if port > 0 => Ok((address, port)),
        _ => Err(Failure::new(format!("invalid port number {port:?} of the page server"))),
    }
}

#[cfg(test)]
mod tests {
    use super::page_server;

    #[test]
    fn page_servers_have_an_address_and_a_port() {
        assert_eq!(page_server("10.0.0.1:27").unwrap(), ("10.0.0.1", 27));
        assert_eq!(page_server("[::1]:65535").unwrap(), ("::1", 65535));
        for bad in ["", ":", "host", "host:", ":1", "::1:2", "a:0", "a:65536", "a:-1", "[]:1"] {
            assert!(page_server(bad).is_err(), "{bad}");
        }
    }
}
