//! Names of images: one symbolic link each, made aside and renamed into place.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use brig_spec::digest::Digest;
use brig_spec::reference::Reference;

use super::changes::{Change, CommitLock};
use crate::error::{Error, Result};
use crate::{Store, disk, hash};

/// The longest file name.
const NAME_MAX: usize = 255;

/// Returns the file name of an image's name: `/` becomes `+`, which no reference has; a too long one is hashed.
fn file_name(name: &str) -> String {
    let plain = name.replace('/', "+");
    if plain.len() <= NAME_MAX { plain } else { format!("~{}", hash::sha256(name.as_bytes()).hex()) }
}

/// Reads the target of a name's link.
fn parse_target(target: &[u8]) -> Option<(Reference, Digest)> {
    let (hex, name) = std::str::from_utf8(target).ok()?.split_once(' ')?;
    Some((name.parse().ok()?, Digest::from_sha256_hex(hex).ok()?))
}

impl Store {
    fn names_path(&self) -> PathBuf {
        self.root.join("images/names")
    }

    /// Lists all names with the images that they mean, sorted by name.
    pub(crate) fn names(&self) -> Result<Vec<(Reference, Digest)>> {
        let path = self.names_path();
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(Error::io("read", path.display()))? {
            let entry = entry.map_err(Error::io("read", path.display()))?;
            if entry.file_name().as_bytes().starts_with(b".") {
                continue;
            }
            if let Ok(target) = std::fs::read_link(entry.path())
                && let Some(pair) = parse_target(target.as_os_str().as_bytes())
            {
                names.push(pair);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Returns the image that has a name.
    pub(crate) fn name_owner(&self, name: &Reference) -> Result<Option<Digest>> {
        let path = self.names_path().join(file_name(&name.to_string()));
        match std::fs::read_link(&path) {
            Ok(target) => Ok(parse_target(target.as_os_str().as_bytes()).map(|(_, id)| id)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path.display())(error)),
        }
    }

    /// Points a name at an image, and makes that durable.
    pub(crate) fn set_name(&self, commit: &CommitLock<'_>, name: &Reference, id: &Digest) -> Result<()> {
        self.point_name(commit, name, id)?;
        disk::sync_directory(&self.names_path())
    }

    /// Points a name at an image. A name by digest alone is no name.
    pub(crate) fn point_name(&self, commit: &CommitLock<'_>, name: &Reference, id: &Digest) -> Result<()> {
        if name.digest().is_some() {
            return Ok(());
        }
        let directory = self.names_path();
        let path = directory.join(file_name(&name.to_string()));
        let temporary = directory.join(format!(".{}", disk::random_name()));
        let target = format!("{} {name}", id.hex());
        commit.change(|| {
            std::os::unix::fs::symlink(OsStr::new(&target), &temporary)
                .and_then(|()| std::fs::rename(&temporary, &path))
                .map_err(Error::io("write", path.display()))?;
            Ok(((), Change::Named(name.clone(), id.clone())))
        })
    }

    /// Takes a name away.
    pub(crate) fn unset_name(&self, commit: &CommitLock<'_>, name: &Reference) -> Result<()> {
        commit.change(|| Ok((self.remove_name(&name.to_string())?, Change::Unnamed(name.clone()))))
    }

    /// Lists files among the names that do not say what they mean.
    pub(crate) fn bad_names(&self) -> Result<Vec<String>> {
        let path = self.names_path();
        let mut bad = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(Error::io("read", path.display()))? {
            let entry = entry.map_err(Error::io("read", path.display()))?;
            let target = std::fs::read_link(entry.path()).ok();
            let told = target.and_then(|target| parse_target(target.as_os_str().as_bytes()));
            let good = told.is_some_and(|(name, _)| entry.file_name() == *file_name(&name.to_string()));
            if !entry.file_name().as_bytes().starts_with(b".") && !good {
                bad.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(bad)
    }

    /// Takes away what is filed as a name, whether it is one or not.
    pub(crate) fn unset_name_file(&self, commit: &CommitLock<'_>, name: &str) -> Result<()> {
        commit.unknown(|| self.remove_name(name))
    }

    fn remove_name(&self, name: &str) -> Result<()> {
        disk::remove_file(&self.names_path().join(file_name(name)))?;
        disk::sync_directory(&self.names_path())
    }
}
