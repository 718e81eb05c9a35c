//! The part of a check that looks at unpacked layers.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use brig_spec::digest::Digest;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::compare::compare;
use super::{Object, Problem, Report, Survey, problem};
use crate::error::{Error, Result};
use crate::image::ImageRecord;
use crate::layers::{self, Record};
use crate::lease::Lease;
use crate::observe::Observer;
use crate::{Store, disk};

/// What is found by counting.
#[derive(Debug, Default)]
struct Count {
    directories: u64,
    names: u64,
    bytes: u64,
}

impl Store {
    /// Looks at every layer; with a lease, unpacks it again there and compares.
    pub(super) fn check_layers(
        &self,
        survey: &Survey,
        bad: &BTreeSet<Digest>,
        deep: Option<&Lease>,
        report: &mut Report,
        observer: &dyn Observer,
    ) -> Result<()> {
        let mut all: BTreeSet<String> = self.layer_directories()?.into_iter().collect();
        all.extend(survey.needs.layers.iter().cloned());
        let mut whole = HashSet::new();
        for name in &all {
            if observer.cancelled() {
                return Err(Error::Cancelled);
            }
            let who = survey.who(|image| image.layers.iter().any(|layer| layer.name == *name));
            let path = self.layer_path(name);
            let object = || Object::Layer(name.clone());
            if !path.is_dir() {
                let gone = problem(object(), "it is missing".to_owned(), who);
                report.problems.push(Problem { missing: true, ..gone });
                continue;
            }
            report.layers += 1;
            match check_one(name, &path, survey) {
                Ok(()) => drop(whole.insert(name.clone())),
                Err(fault) => {
                    let newer = fault.contains("a newer brig");
                    report.problems.push(Problem { newer, ..problem(object(), fault, who) });
                }
            }
        }
        let Some(lease) = deep else { return Ok(()) };
        let mut done = HashSet::new();
        for image in survey.images.values() {
            for (index, layer) in image.layers.iter().enumerate() {
                let below = image.layers[..index].iter().all(|below| whole.contains(&below.name));
                if bad.contains(&layer.blob.digest)
                    || !below
                    || !whole.contains(&layer.name)
                    || !done.insert(layer.name.clone())
                {
                    continue;
                }
                if observer.cancelled() {
                    return Err(Error::Cancelled);
                }
                if let Some(fault) = self.check_deep(image, index, lease)? {
                    let who = survey.who(|other| other.layers.iter().any(|one| one.name == layer.name));
                    report.problems.push(problem(Object::Layer(layer.name.clone()), fault, who));
                }
            }
        }
        Ok(())
    }

    /// Unpacks one layer of an image again, and compares; says what is different.
    fn check_deep(&self, image: &ImageRecord, index: usize, lease: &Lease) -> Result<Option<String>> {
        let staging = lease.path().join("again");
        let result = self.unpack_again(image, index, &staging).and_then(|()| {
            let here = layers::open(&self.layer_path(&image.layers[index].name))?;
            let again = disk::open_directory(&staging.join("tree"))?;
            compare(here.as_fd(), again.as_fd()).map_err(Error::io("compare", &image.layers[index].name))
        });
        disk::remove_directory(&staging)?;
        match result {
            // Its blob is not what unpacks to it, whatever digest the blob has.
            Err(Error::Digest { found, .. }) => Ok(Some(format!("its blob unpacks to {found}"))),
            Err(error @ Error::Layer { .. }) => Ok(Some(format!("its blob cannot be unpacked: {error}"))),
            // Of an image that is sealed, what is another one on the disk.
            Err(Error::Io { action: "compare", source, .. })
                if source.raw_os_error() == Some(Errno::IO.raw_os_error()) =>
            {
                Ok(Some(format!("it cannot be read: {source}")))
            }
            result => result,
        }
    }
}

/// Looks at one layer without its blob.
fn check_one(name: &str, path: &Path, survey: &Survey) -> std::result::Result<(), String> {
    let record = match layers::read_record(path) {
        Ok(Some(record)) => record,
        Ok(None) => return Err("it has no record".to_owned()),
        Err(Error::Record { reason, .. }) => return Err(format!("its record is unreadable: {reason}")),
        Err(error) => return Err(error.to_string()),
    };
    let users = survey.images.values().flat_map(|image| &image.layers).filter(|layer| layer.name == name);
    let mut told = users.map(|layer| &layer.diff_id);
    if !name.starts_with("chain-") && layers::alone_name(&record.diff_id) != name
        || told.any(|diff_id| *diff_id != record.diff_id)
    {
        return Err("its record is of another layer".to_owned());
    }
    let text = |error: std::io::Error| format!("it cannot be read: {error}");
    let tree = layers::open(path).map_err(|error| with_causes(&error))?;
    let Some(found) = count(&record, &tree).map_err(text)? else { return Ok(()) };
    let Some(census) = record.census else { return Ok(()) };
    let differs = |what: &str, expected: u64, found: u64| {
        if expected == found { Ok(()) } else { Err(format!("it has {found} {what}, and was unpacked with {expected}")) }
    };
    differs("directories", census.directories, found.directories)?;
    differs("names", census.names, found.names)?;
    differs("bytes", census.bytes, found.bytes)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Counts what a tree has; nothing to do where nothing was counted before.
fn count(record: &Record, tree: &OwnedFd) -> std::io::Result<Option<Count>> {
    if record.census.is_none() {
        return Ok(None);
    }
    let mut count = Count::default();
    let mut links = HashSet::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut paths: Vec<Vec<u8>> = Vec::new();
    let mut next = Some((rustix::fs::openat(tree, c".", flags, Mode::empty())?, Vec::new()));
    while let Some((fd, path)) = next.take() {
        count.directories += 1;
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                let mut deeper: Vec<u8> = path.clone();
                if !deeper.is_empty() {
                    deeper.push(b'/');
                }
                deeper.extend_from_slice(name.to_bytes());
                paths.push(deeper);
                continue;
            }
            count.names += 1;
            if entry.file_type() == FileType::RegularFile {
                let stat = rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                if stat.st_nlink == 1 || links.insert(stat.st_ino) {
                    count.bytes += size;
                }
            }
        }
        if let Some(path) = paths.pop() {
            next = Some((rustix::fs::openat(tree, path.as_slice(), flags, Mode::empty())?, path));
        }
    }
    Ok(Some(count))
}
