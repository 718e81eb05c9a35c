//! `diff` of images: the topmost layer against those below, or all files of an image against all of another.
//!
//! ```text
//!   image   layers, top first ──┐  names of one directory, each with the layer that it comes from
//!                               ├─> A: here only  D: there only  C: differs in kind, mode, owner, attributes, link or content
//!   other   layers, top first ──┘  the same layer in both: not looked at
//! ```
//!
//! The layers are read as overlay would show them, without mounting one: a mark hides what is below it, an opaque directory
//! what lies in the same directory further down. Times of modification are no difference: a build makes new ones each time.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use brig_store::Image;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{Images, failure};
use crate::containers::Change;
use crate::containers::diff::{DEPTH_MAX, is_directory, is_opaque, is_whiteout, look};
use crate::error::{Error, Result};
use crate::layers;

/// The longest list of attribute names, `XATTR_LIST_MAX`, and the longest value, `XATTR_SIZE_MAX`: xattr(7).
const ATTRIBUTES_MAX: usize = 64 << 10;

type Changes = BTreeMap<PathBuf, Change>;

impl Images<'_> {
    /// Lists what an image has changed, sorted by path: of another one, or, without one, by its topmost layer of those below.
    pub fn diff(&self, name_or_id: &str, other: Option<&str>) -> Result<Vec<(Change, PathBuf)>> {
        let what = || format!("cannot compare image `{name_or_id}`");
        let find = |name: &str| {
            let image = self.store.image(name).map_err(|error| failure::store(what(), error))?;
            let hold = self.store.hold(&image).map_err(|error| failure::store(what(), error))?;
            Ok::<_, Error>((image, hold))
        };
        let (image, _hold) = find(name_or_id)?;
        let Some(other) = other else { return crate::containers::diff::diff_image(&image.layers) };
        let (other, _other_hold) = find(other)?;
        let failed = |error: io::Error| Error::io(what(), error);
        let (here, there) = (Stack::open(&image).map_err(failed)?, Stack::open(&other).map_err(failed)?);
        let mut changes = Changes::new();
        if here.paths != there.paths {
            let all = |stack: &Stack| (0..stack.paths.len()).collect::<Vec<_>>();
            let (new, old) = (all(&here), all(&there));
            let sides = (Side { stack: &here, layers: &new }, Side { stack: &there, layers: &old });
            directory(sides.0, sides.1, Path::new(""), &mut changes, 0).map_err(failed)?;
        }
        Ok(changes.into_iter().map(|(path, change)| (change, path)).collect())
    }
}

/// The layers of an image, the topmost first.
struct Stack {
    paths: Vec<PathBuf>,
    roots: Vec<OwnedFd>,
}

/// One directory of an image: the layers that add to it, the topmost first.
#[derive(Clone, Copy)]
struct Side<'a> {
    stack: &'a Stack,
    layers: &'a [usize],
}

/// What an image has under one name.
struct Found {
    stat: Stat,
    /// The layers that have it: one, or for a directory all that add to it, the topmost first.
    layers: Vec<usize>,
}

impl Stack {
    fn open(image: &Image) -> io::Result<Self> {
        let paths: Vec<PathBuf> = image.layers.iter().rev().cloned().collect();
        let roots = paths.iter().map(|path| layers::open(path)).collect::<io::Result<_>>()?;
        Ok(Self { paths, roots })
    }

    /// Lists a directory that these layers have.
    fn list(&self, layers: &[usize], path: &Path) -> io::Result<BTreeMap<CString, Found>> {
        // None: a mark, or a name that is settled.
        let mut names: BTreeMap<CString, (Option<Found>, bool)> = BTreeMap::new();
        for &layer in layers {
            let Some(fd) = self.directory(layer, path)? else { continue };
            for entry in Dir::read_from(&fd)? {
                let entry = entry?;
                let name = entry.file_name();
                if [c".", c".."].contains(&name) {
                    continue;
                }
                let stat = rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
                match names.get_mut(name) {
                    None if is_whiteout(&stat) => drop(names.insert(name.to_owned(), (None, true))),
                    None => {
                        let closed = !is_directory(&stat);
                        names.insert(name.to_owned(), (Some(Found { stat, layers: vec![layer] }), closed));
                    }
                    Some((Some(found), closed @ false)) => {
                        if is_directory(&stat) {
                            found.layers.push(layer);
                        } else {
                            *closed = true;
                        }
                    }
                    Some(_) => {}
                }
            }
            if !path.as_os_str().is_empty() && is_opaque(fd.as_fd()) {
                break;
            }
        }
        Ok(names.into_iter().filter_map(|(name, (found, _))| Some((name, found?))).collect())
    }

    fn directory(&self, layer: usize, path: &Path) -> io::Result<Option<OwnedFd>> {
        if path.as_os_str().is_empty() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return Ok(Some(rustix::fs::openat(&self.roots[layer], ".", flags, Mode::empty())?));
        }
        Ok(look(self.roots[layer].as_fd(), path)?.and_then(|(_, fd)| fd))
    }

    fn file(&self, found: &Found, path: &Path) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(rustix::fs::openat2(&self.roots[found.layers[0]], path, flags, Mode::empty(), resolve)?)
    }

    fn link(&self, found: &Found, path: &Path) -> io::Result<CString> {
        let root = &self.roots[found.layers[0]];
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?;
        Ok(rustix::fs::readlinkat(&link, "", Vec::new())?)
    }

    /// Tells all that a directory has as added.
    fn added(&self, found: &Found, path: &Path, changes: &mut Changes, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        if is_directory(&found.stat) {
            for (name, found) in self.list(&found.layers, path)? {
                let path = path.join(OsStr::from_bytes(name.to_bytes()));
                self.added(&found, &path, changes, depth + 1)?;
                changes.insert(Path::new("/").join(path), Change::Added);
            }
        }
        Ok(())
    }
}

/// Compares one directory of both; returns whether anything was told.
fn directory(here: Side, there: Side, path: &Path, changes: &mut Changes, depth: usize) -> io::Result<bool> {
    if depth > DEPTH_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    let same = here.layers.len() == there.layers.len()
        && here.layers.iter().zip(there.layers).all(|(a, b)| here.stack.paths[*a] == there.stack.paths[*b]);
    if same && !path.as_os_str().is_empty() {
        return Ok(false);
    }
    let (here, there, layers) = (here.stack, there.stack, (here.layers, there.layers));
    let before = changes.len();
    let (mut old, new) = (there.list(layers.1, path)?, here.list(layers.0, path)?);
    for (name, found) in new {
        let path = path.join(OsStr::from_bytes(name.to_bytes()));
        let shown = Path::new("/").join(&path);
        let Some(was) = old.remove(&name) else {
            here.added(&found, &path, changes, depth + 1)?;
            changes.insert(shown, Change::Added);
            continue;
        };
        let both = is_directory(&found.stat) && is_directory(&was.stat);
        let mut differs = is_different(here, &found, there, &was, &path)?;
        if both {
            let new = Side { stack: here, layers: &found.layers };
            let old = Side { stack: there, layers: &was.layers };
            differs |= directory(new, old, &path, changes, depth + 1)?;
        } else if differs {
            here.added(&found, &path, changes, depth + 1)?;
        }
        if differs {
            changes.insert(shown, Change::Changed);
        }
    }
    for name in old.into_keys() {
        changes.insert(Path::new("/").join(path).join(OsStr::from_bytes(name.to_bytes())), Change::Deleted);
    }
    Ok(changes.len() > before)
}

/// Whether two things of one path differ; of directories, what is in them does not count.
fn is_different(here: &Stack, a: &Found, there: &Stack, b: &Found, path: &Path) -> io::Result<bool> {
    if here.paths[a.layers[0]] == there.paths[b.layers[0]] {
        return Ok(false);
    }
    let (x, y) = (&a.stat, &b.stat);
    if (x.st_mode, x.st_uid, x.st_gid) != (y.st_mode, y.st_uid, y.st_gid) {
        return Ok(true);
    }
    match FileType::from_raw_mode(x.st_mode) {
        FileType::CharacterDevice | FileType::BlockDevice => Ok(x.st_rdev != y.st_rdev),
        FileType::Symlink => Ok(here.link(a, path)? != there.link(b, path)?),
        FileType::RegularFile if x.st_size != y.st_size => Ok(true),
        kind @ (FileType::RegularFile | FileType::Directory) => {
            let (a, b) = (here.file(a, path)?, there.file(b, path)?);
            Ok(attributes(&a)? != attributes(&b)? || kind == FileType::RegularFile && !is_same_content(a, b)?)
        }
        _ => Ok(false),
    }
}

/// Reads the extended attributes, but for those that are overlay's own.
fn attributes(fd: &OwnedFd) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = Vec::with_capacity(ATTRIBUTES_MAX);
    match rustix::fs::flistxattr(fd, rustix::buffer::spare_capacity(&mut list)) {
        Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        listed => listed?,
    };
    let own = |name: &[u8]| name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    let mut all = BTreeMap::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !own(name)) {
        let mut value = Vec::with_capacity(ATTRIBUTES_MAX);
        rustix::fs::fgetxattr(fd, OsStr::from_bytes(name), rustix::buffer::spare_capacity(&mut value))?;
        all.insert(name.to_vec(), value);
    }
    Ok(all)
}

fn is_same_content(a: OwnedFd, b: OwnedFd) -> io::Result<bool> {
    let reader = |fd: OwnedFd| BufReader::with_capacity(64 << 10, std::fs::File::from(fd));
    let (mut a, mut b) = (reader(a), reader(b));
    loop {
        let (x, y) = (a.fill_buf()?, b.fill_buf()?);
        let length = x.len().min(y.len());
        if length == 0 {
            return Ok(x.len() == y.len());
        }
        if x[..length] != y[..length] {
            return Ok(false);
        }
        a.consume(length);
        b.consume(length);
    }
}
