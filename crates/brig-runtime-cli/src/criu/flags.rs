//! What `checkpoint` and `restore` have in common on the command line, and how it is passed on to criu.

use super::directories::Directories;
use super::protobuf::Message;
use super::request::options as o;
use super::{bytes, configuration_file};
use crate::arguments::{Opt, Parsed, flag, value};
use crate::failure::Failure;
use brig_spec::runtime::Spec;
use std::os::fd::{AsFd, AsRawFd};

/// A new network namespace, as clone(2) numbers it.
const NEWNET: i64 = 0x4000_0000;
/// How much criu logs: everything.
const LOG_LEVEL: i32 = 4;

/// The options that both have.
pub(crate) const SHARED: [Opt; 10] = [
    value("image-path", '\0', "the directory of the images (default: ./checkpoint)"),
    value("work-path", '\0', "the directory of criu's log and other work (default: that of the images)"),
    flag("tcp-established", '\0', "allow open TCP connections"),
    flag("ext-unix-sk", '\0', "allow Unix sockets that lead outside"),
    flag("shell-job", '\0', "allow a session or terminal from outside"),
    flag("lazy-pages", '\0', "move the memory when it is used, by userfaultfd(2)"),
    flag("file-locks", '\0', "allow file locks"),
    value("manage-cgroups-mode", '\0', "what to do with cgroups: soft, full, strict or ignore (default: soft)"),
    value("empty-ns", '\0', "a namespace that is made without its content: network; may be repeated"),
    flag("auto-dedup", '\0', "keep no page of memory in the images twice"),
];

/// Puts the options that belong to one command behind the shared ones.
pub(crate) const fn with<const N: usize, const ALL: usize>(own: [Opt; N]) -> [Opt; ALL] {
    assert!(ALL == SHARED.len() + N);
    let mut all = [SHARED[0]; ALL];
    let mut at = 0;
    while at < ALL {
        all[at] = if at < SHARED.len() { SHARED[at] } else { own[at - SHARED.len()] };
        at += 1;
    }
    all
}

/// Checks the values of the shared options: before anything is made.
pub(crate) fn check(parsed: &Parsed) -> Result<(), Failure> {
    cgroups_mode(parsed)?;
    match parsed.values("empty-ns").find(|name| *name != "network") {
        Some(other) => {
            Err(Failure::new(format!("namespace {other:?} is not supported by --empty-ns: network alone is")))
        }
        None => Ok(()),
    }
}

/// Says whether criu leaves cgroups, and their namespace, as they are.
pub(crate) fn ignores_cgroups(parsed: &Parsed) -> bool {
    parsed.filled("manage-cgroups-mode") == Some("ignore")
}

/// criu's numbers of the modes.
fn cgroups_mode(parsed: &Parsed) -> Result<i32, Failure> {
    match parsed.filled("manage-cgroups-mode") {
        None => Ok(6),
        Some("ignore") => Ok(0),
        Some("soft") => Ok(3),
        Some("full") => Ok(4),
        Some("strict") => Ok(5),
        Some(other) => {
            let words = "soft, full, strict or ignore";
            Err(Failure::new(format!("invalid manage-cgroups-mode value {other:?}: {words}")))
        }
    }
}

/// Begins the options of a request.
pub(crate) fn begin(parsed: &Parsed, spec: &Spec, directories: &Directories, log: &str) -> Result<Message, Failure> {
    let mut options = Message::default();
    options.number(o::IMAGES_DIR_FD, directories.images.as_raw_fd());
    if let Some((fd, _)) = &directories.work {
        options.number(o::WORK_DIR_FD, fd.as_fd().as_raw_fd());
    }
    options
        .number(o::LOG_LEVEL, LOG_LEVEL)
        .text(o::LOG_FILE, log.as_bytes())
        .flag(o::NOTIFY_SCRIPTS, true)
        .flag(o::ORPHAN_PTS_MASTER, true)
        .number(o::MANAGE_CGROUPS_MODE, cgroups_mode(parsed)?)
        // Whoever networked the container does so again: a hook, or the caller.
        .number(o::EMPTY_NS, NEWNET);
    for (name, field) in [
        ("tcp-established", o::TCP_ESTABLISHED),
        ("ext-unix-sk", o::EXT_UNIX_SK),
        ("shell-job", o::SHELL_JOB),
        ("file-locks", o::FILE_LOCKS),
        ("auto-dedup", o::AUTO_DEDUP),
        ("lazy-pages", o::LAZY_PAGES),
    ] {
        options.flag(field, parsed.has(name));
    }
    if let Some(path) = configuration_file(spec) {
        options.text(o::CONFIG_FILE, bytes(&path));
    }
    Ok(options)
}
