//! `brig cp` with a tar stream at one end, as `docker cp` has it with `-`.

use super::copy::{locate, open};
use super::find;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use brig_store::Limits;
use brig_store::stream;
use rustix::fs::{Mode, OFlags};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Writes `source` inside the container as a tar. `follow`: a symbolic link that is the source itself is followed.
pub fn stream_out(config: &Config, name: &str, source: &Path, follow: bool, output: impl Write) -> Result<()> {
    let record = find(config, name)?;
    let what = || format!("cannot copy {} of container `{}`", source.display(), record.name);
    let inside = open(config, &record, source, false)?;
    let from = locate(&inside.root, &inside.path, follow, source).map_err(|error| Error::io(what(), error))?;
    // As the source is called, and not what a link leads to; `path/.` and `/` have no name.
    let called = if from.content { None } else { source.file_name().filter(|_| from.name.as_c_str() != c".") };
    let called = called.map_or(&b"."[..], OsStrExt::as_bytes);
    stream::pack(from.directory.as_fd(), &from.name, called, inside.ids(), output)
        .map_err(|error| Error::internal(what()).because(error))
}

/// Puts what a tar holds, plain or compressed by gzip or zstd, into a directory inside the container.
pub fn stream_in(config: &Config, input: impl Read, name: &str, target: &Path) -> Result<()> {
    let record = find(config, name)?;
    let what = || format!("cannot copy the archive to {} of container `{}`", target.display(), record.name);
    let inside = open(config, &record, target, true)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    inside.root.open(&inside.path, flags, Mode::empty()).map_err(|error| {
        let hint = "an archive is put into a directory that is there";
        if error.raw_os_error() == Some(rustix::io::Errno::NOTDIR.raw_os_error()) {
            Error::invalid(what()).because(error).hint(hint)
        } else {
            Error::io(what(), error).hint(hint)
        }
    })?;
    stream::unpack(input, &inside.root, &inside.path, inside.ids(), &Limits::default()).map_err(|error| {
        let kind = match &error {
            brig_store::Fault::Io { .. } | brig_store::Fault::Stream(_) => Kind::Internal,
            _ => Kind::InvalidArgument,
        };
        Error::new(kind, what()).because(error)
    })
}
