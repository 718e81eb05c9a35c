//! What can be done with containers: one verb a file.
//!
//! ```text
//!            create                 start                    stop, kill, or its own end
//!   (nothing) -----> created ------------------> running -------------------------------> exited
//!                       ^                        |     ^                                    |
//!                       |                  pause v     | unpause                            | start
//!                       |                       paused                                      v
//!                       '---- remove -- (gone) <------------------------------------------ running
//! ```
//!
//! Which of these holds is never read from a record: [`status`] asks the kernel. Verbs that change one container hold a
//! flock(2) on its directory meanwhile, so that a start and a removal do not cross.

mod attach;
mod borrow;
mod commit;
mod copy;
mod copy_stream;
mod create;
pub(crate) mod diff;
mod due;
mod exec;
mod export;
mod kill;
mod list;
mod logs;
mod pause;
mod prune;
mod remove;
mod rename;
mod start;
mod stats;
pub mod status;
mod stop;
mod top;
pub mod undo;
mod update;
mod wait;

pub use attach::attach;
pub use commit::{CommitOptions, commit};
pub use copy::{CopyOptions, copy_in, copy_out};
pub use copy_stream::{stream_in, stream_out};
pub use create::{Created, Source, create};
pub use diff::{Change, diff};
pub use due::{Revived, is_due, start_due};
pub use exec::{ExecConfig, Execution, exec};
pub use export::export;
pub use kill::{kill, signal_number};
pub use list::{Entry, Listing, in_use, list};
pub use logs::{LogLine, LogOptions, logs};
pub use pause::{pause, unpause};
pub use prune::prune;
pub use remove::remove;
pub use rename::rename;
pub use start::{Started, start, start_created};
pub use stats::{Sample, sample};
pub use status::{Phase, Status};
pub use stop::stop;
pub use top::{ProcessRow, top};
pub use update::update;
pub use wait::wait;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::record::Record;
use brig_monitor::client::Connection;
use brig_monitor::spawn::{Job, spawn};
use brig_monitor::state::State;
use brig_spec::id::ContainerId;
use rustix::fs::FlockOperation;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a verb waits for another one on the same container.
const LOCK_WAIT: Duration = Duration::from_secs(20);

/// Reads the container that a text names: by name, id, or the beginning of an id.
pub fn find(config: &Config, text: &str) -> Result<Record> {
    let id = crate::names::find(config, text)?;
    Record::read(config, &id)
}

/// The program that runs as monitor.
pub(crate) fn monitor_program(config: &Config) -> PathBuf {
    config.monitor_program.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Holds a container for a change; waits for whoever holds it, with a bound.
pub(crate) fn hold(config: &Config, id: &ContainerId, what: &str) -> Result<File> {
    let path = config.container_dir(id.as_str());
    let failed = |error: std::io::Error| Error::io(format!("cannot {what} container {}", id.short()), error);
    let dir = File::open(&path).map_err(failed)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(dir),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::new(crate::Kind::Unavailable, format!("cannot {what} container {}", id.short()))
                    .reason("another brig command has been changing it for 20 seconds"));
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
}

/// Connects to a container's monitor; one that was lost is replaced while the container runs.
pub(crate) fn connect(config: &Config, record: &Record, flags: u8) -> Result<Connection> {
    let run_dir = record.run_dir(config);
    let failed =
        |error: std::io::Error| Error::io(format!("cannot reach the monitor of container `{}`", record.name), error);
    match Connection::connect(&run_dir, flags) {
        Ok(connection) => Ok(connection),
        Err(error) if State::read(&run_dir).is_some_and(|s| s.is_running()) => {
            if !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) {
                return Err(failed(error));
            }
            spawn(&monitor_program(config), Job::Adopt, &record.dir(config), flags).map_err(failed)
        }
        Err(_) => Err(not_running(record)),
    }
}

/// The error of a verb that needs a running container.
pub(crate) fn not_running(record: &Record) -> Error {
    Error::conflict(format!("container `{}` is not running", record.name))
        .hint(format!("start it with `brig start {}`", record.name))
}

/// Turns what a monitor told about a failed start into an error.
pub(crate) fn start_error(what: String, status: u8, text: &str) -> Error {
    let kind = match status {
        126 => crate::Kind::PermissionDenied,
        127 => crate::Kind::NotFound,
        _ => crate::Kind::Internal,
    };
    let mut error = Error::new(kind, what);
    // The nearest cause is the outermost: chain the lines from the last one.
    let mut inner: Option<Error> = None;
    for line in text.lines().rev().filter(|l| !l.trim().is_empty()) {
        let mut one = Error::new(kind, line.trim());
        one.because = inner.take().map(Into::into);
        inner = Some(one);
    }
    error.because = inner.map(Into::into);
    error.exit_code = Some(status);
    match status {
        127 => error.hint("is the command spelled as it is inside the image? an image may have no shell at all"),
        126 => error.hint("the file must be executable, and made for this machine's processor"),
        _ => error,
    }
}

/// Takes a container apart as its monitor would have done at the end of a `--rm` container.
pub(crate) fn take_apart(config: &Config, record: &Record) -> Result<()> {
    remove::take_apart(config, record, true)
}

pub(crate) use remove::sweep_names;

/// Reads the plan of the last start.
pub(crate) fn read_plan(dir: &Path) -> Result<brig_monitor::plan::Plan> {
    let path = dir.join("plan");
    let failed = || format!("cannot read {}", path.display());
    let bytes = std::fs::read(&path).map_err(|error| Error::io(failed(), error))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::internal(failed()).because(error))
}
