//! `export`: all files of a container as one tar, without what is mounted on them.

use super::copy::open;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::record::Record;
use brig_store::stream;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

/// Writes the container's root file system; of volumes and other mounts, only the places.
pub fn export(config: &Config, record: &Record, output: impl Write) -> Result<()> {
    let inside = open(config, record, Path::new("/"), false)?;
    stream::pack_root(inside.root.as_fd(), inside.ids(), output)
        .map_err(|error| Error::internal(format!("cannot export container `{}`", record.name)).because(error))
}
