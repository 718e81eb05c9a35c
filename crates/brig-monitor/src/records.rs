//! Writing the small files of a container so that a reader sees the old one or the new one, never half of one.

use rustix::fs::{CWD, Mode, OFlags};
use std::io;
use std::path::Path;

/// Writes `bytes` to `path` by way of a temporary file beside it. `durable` flushes the file and its directory.
pub fn write(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(CWD, &temporary, flags, Mode::from_raw_mode(0o600))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(&fd, rest) {
            Ok(count) => rest = &rest[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                let _ = std::fs::remove_file(&temporary);
                return Err(error.into());
            }
        }
    }
    if durable {
        rustix::fs::fsync(&fd)?;
    }
    rustix::fs::renameat(CWD, &temporary, CWD, path)?;
    if durable && let Some(parent) = path.parent() {
        rustix::fs::fsync(rustix::fs::open(
            parent,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?)?;
    }
    Ok(())
}

/// Writes a record as JSON.
pub fn write_json(path: &Path, record: &impl serde::Serialize, durable: bool) -> io::Result<()> {
    write(path, &serde_json::to_vec(record)?, durable)
}
