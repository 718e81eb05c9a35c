//! `commit`: a container's changes become an image.
//!
//! ```text
//!   1  hold the container; a running one is paused, unless the caller says otherwise
//!   2  its configuration becomes the image's defaults, then the changes that were asked for
//!   3  what the engine itself put there for the sake of mounts is told apart (as `diff` does)
//!   4  the writable layer becomes a layer of the image           (brig_store::Store::commit)
//!   5  the container goes on
//! ```

use super::pause::Paused;
use super::status::Phase;
use super::{diff, hold, status};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::images::{apply_change, failure};
use crate::record::Record;
use brig_monitor::state::now_ns;
use brig_spec::image::ProcessConfig;
use brig_spec::reference::Reference;
use brig_store::stream::Ids;
use brig_store::{Commit, Committed, Image, Observer, Store};
use rustix::fs::{Mode, OFlags};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How to commit.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// The image's name; none: it has only its id.
    pub name: Option<String>,
    /// The maker.
    pub author: Option<String>,
    /// A comment for the history.
    pub message: Option<String>,
    /// Changes of the defaults, as a Dockerfile writes them.
    pub changes: Vec<String>,
    /// Whether a running container is paused meanwhile.
    pub pause: bool,
}

/// Makes an image of a container.
pub fn commit(
    config: &Config,
    store: &Store,
    record: &Record,
    options: &CommitOptions,
    observer: &dyn Observer,
) -> Result<Committed> {
    let what = || format!("cannot commit container `{}`", record.name);
    let names: Vec<Reference> = match options.name.as_deref().map(str::parse::<Reference>).transpose() {
        Ok(name) => name.into_iter().collect(),
        Err(error) => return Err(Error::invalid(what()).because(error)),
    };
    if names.iter().any(|name| name.digest().is_some()) {
        return Err(Error::invalid(what()).reason("a digest is not given but follows from the content"));
    }
    if record.image.host {
        return Err(Error::new(Kind::Unsupported, what())
            .reason("it runs on the machine's own files, which are no image that a layer could lie on")
            .hint("`brig export` writes all of its files as a tar, and `brig import` makes an image of that"));
    }
    let base = store.image(&record.image.id).map_err(|error| {
        failure::store(what(), error).hint("its image has been removed; pull it again and then commit")
    })?;
    let mut defaults = defaults(record, &base);
    for change in &options.changes {
        apply_change(change, &mut defaults)?;
    }
    let failed = |error: std::io::Error| Error::io(what(), error);
    // 1. Nobody starts or removes it meanwhile, and what it runs stands still.
    let _held = hold(config, &record.id, "commit")?;
    let running = status::of(config, record).phase == Phase::Running;
    let paused = if running && options.pause { Paused::new(config, record)? } else { None };
    let upper = record.dir(config).join("upper");
    let upper = rustix::fs::open(&upper, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let upper = upper.map_err(|error| failed(error.into()))?;
    // 2. What is there for the sake of mounts only.
    let places = diff::places(&record.dir(config));
    let changed: BTreeSet<PathBuf> = diff::diff(config, record)?.into_iter().map(|(_, path)| path).collect();
    let skip = |path: &[u8]| {
        let path = Path::new("/").join(OsStr::from_bytes(path));
        places.iter().any(|place| place.starts_with(&path)) && !changed.contains(&path)
    };
    // 3. The layer and the image.
    let argv = record.config.argv();
    let commit = Commit {
        base: &base,
        upper: upper.as_fd(),
        ids: record.first_id.map_or(Ids::Same, Ids::Range),
        skip: &skip,
        config: defaults,
        author: options.author.clone(),
        comment: options.message.clone(),
        created: crate::time::rfc3339(now_ns()),
        created_by: argv.join(" "),
        names: &names,
    };
    let committed = store.commit(&commit, observer).map_err(|error| failure::store(what(), error))?;
    drop(paused);
    Ok(committed)
}

/// What the container was run with becomes the image's defaults, as Docker has it.
fn defaults(record: &Record, base: &Image) -> ProcessConfig {
    let of_image = &base.config.config;
    let container = &record.config;
    let list = |list: &[String]| if list.is_empty() { None } else { Some(list.to_vec()) };
    let nothing = || Value::Object(Map::new());
    let anonymous = record.volumes.iter().filter(|volume| volume.anonymous);
    let volumes = anonymous.map(|volume| (volume.destination.to_string_lossy().into_owned(), nothing()));
    ProcessConfig {
        user: container.user.clone(),
        exposed_ports: container.exposed.iter().map(|port| (port.clone(), nothing())).collect(),
        env: container.env.clone(),
        entrypoint: container.entrypoint.as_deref().and_then(list),
        cmd: list(&container.command),
        volumes: of_image.volumes.clone().into_iter().chain(volumes).collect(),
        working_dir: container.workdir.clone(),
        labels: container.labels.clone(),
        stop_signal: container.stop_signal.clone(),
        shell: of_image.shell.clone(),
        healthcheck: of_image.healthcheck.clone(),
        on_build: of_image.on_build.clone(),
    }
}
