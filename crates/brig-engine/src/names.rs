//! Names of containers: reserved in one step, without a lock, and found again after any crash.
//!
//! ```text
//!   <root>/containers/.names/<name> -> <id>     a symbolic link whose target is only text
//!   <root>/containers/<id>/                     the container; while it is being made, its maker holds a flock(2) on it
//! ```
//!
//! A link is made with its content or not at all, by one system call, so two makers never get one name. A link whose
//! container is gone, or was left half-made by a crash, is free to take. A container is named by its name, its whole id, or
//! any beginning of the id that fits no other.

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::record;
use brig_spec::id::{ContainerId, Name};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

mod words;

/// Reserves a name for a container whose directory its caller has made and locked.
pub fn reserve(config: &Config, name: &Name, id: &ContainerId) -> Result<()> {
    let path = config.names_dir().join(name.as_str());
    let failed = |error| Error::io(format!("cannot reserve the name `{name}`"), error);
    for _ in 0..8 {
        match symlink(id.as_str(), &path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => crate::disk::make_directory(&config.names_dir())?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match holder(&path) {
                Some(holder) if holder == *id => return Ok(()),
                Some(holder) if record::exists_or_is_made(config, &holder) => {
                    return Err(Error::conflict(format!(
                        "the name `{name}` is in use by container {}",
                        holder.short()
                    ))
                    .hint(format!("remove it with `brig rm {name}`, or choose another with `--name`")));
                }
                _ => take_away(&path, id)?,
            },
            Err(error) => return Err(failed(error)),
        }
    }
    Err(Error::new(Kind::Unavailable, format!("cannot reserve the name `{name}`"))
        .reason("others take and free it all the time"))
}

/// Takes a stale link out of the way: by a rename, so that of two who try, one fails, and nobody removes a new link unseen.
fn take_away(path: &Path, id: &ContainerId) -> Result<()> {
    let aside = path.with_file_name(format!(".stale-{}", id.as_str()));
    match fs::rename(path, &aside) {
        Ok(()) => crate::disk::remove_file(&aside),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(format!("cannot free {}", path.display()), error)),
    }
}

/// Reserves a made-up name.
pub fn reserve_any(config: &Config, id: &ContainerId) -> Result<Name> {
    let bytes = id.as_str().as_bytes();
    for attempt in 0..32 {
        let name =
            Name::parse(&words::pick(bytes, attempt)).map_err(|e| Error::internal("a made-up name").because(e))?;
        match reserve(config, &name, id) {
            Err(error) if error.kind == Kind::Conflict => {}
            other => return other.map(|()| name),
        }
    }
    let name = Name::parse(&format!("c{}", id.short())).map_err(|e| Error::internal("a made-up name").because(e))?;
    reserve(config, &name, id).map(|()| name)
}

/// Frees a name if it is this container's.
pub fn release(config: &Config, name: &str, id: &ContainerId) -> Result<()> {
    let path = config.names_dir().join(name);
    if holder(&path).as_ref() == Some(id) { crate::disk::remove_file(&path) } else { Ok(()) }
}

/// Returns whose a link is.
pub fn holder(path: &Path) -> Option<ContainerId> {
    let target = fs::read_link(path).ok()?;
    ContainerId::parse(target.to_str()?).ok()
}

/// Finds a container by name, id, or the beginning of an id.
pub fn find(config: &Config, text: &str) -> Result<ContainerId> {
    let missing = || {
        Error::not_found(format!("no such container: {text}")).hint("`brig ps -a` lists the containers that there are")
    };
    if let Ok(name) = Name::parse(text)
        && let Some(id) = holder(&config.names_dir().join(name.as_str()))
        && record::exists(config, &id)
    {
        return Ok(id);
    }
    if let Ok(id) = ContainerId::parse(text) {
        return if record::exists(config, &id) { Ok(id) } else { Err(missing()) };
    }
    if let Some(id) = without_link(config, text)? {
        return Ok(id);
    }
    if text.is_empty() || text.len() >= 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(missing());
    }
    let mut found: Option<ContainerId> = None;
    for id in record::ids(config)? {
        if id.as_str().starts_with(text) && record::exists(config, &id) {
            if found.is_some() {
                return Err(Error::invalid(format!("`{text}` is the beginning of more than one container's id"))
                    .hint("write more of its digits, or its name"));
            }
            found = Some(id);
        }
    }
    found.ok_or_else(missing)
}

/// Finds a container by the name in its record. Whoever removed it was killed when the link had gone and nothing else.
fn without_link(config: &Config, text: &str) -> Result<Option<ContainerId>> {
    let is_it = |id: &ContainerId| record::Record::read(config, id).is_ok_and(|record| record.name == text);
    Ok(record::ids(config)?.into_iter().find(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::Scratch;

    fn id(byte: u8) -> ContainerId {
        ContainerId::from_random([byte; 32])
    }

    fn make(config: &Config, id: &ContainerId) {
        let dir = config.container_dir(id.as_str());
        crate::disk::make_directory(&dir).unwrap();
        fs::write(dir.join("record"), "{}").unwrap();
    }

    #[test]
    fn a_name_belongs_to_one_and_a_dead_ones_is_free() {
        let dir = Scratch::new();
        let config = Config::new(&dir.0, &dir.0);
        let web = Name::parse("web").unwrap();
        make(&config, &id(1));
        reserve(&config, &web, &id(1)).unwrap();
        reserve(&config, &web, &id(1)).unwrap();
        assert_eq!(reserve(&config, &web, &id(2)).unwrap_err().kind, Kind::Conflict);
        assert_eq!(find(&config, "web").unwrap(), id(1));
        assert_eq!(find(&config, "0101").unwrap(), id(1));
        crate::disk::remove_tree(&config.container_dir(id(1).as_str())).unwrap();
        assert_eq!(find(&config, "web").unwrap_err().kind, Kind::NotFound);
        reserve(&config, &web, &id(2)).unwrap();
        release(&config, "web", &id(1)).unwrap();
        assert_eq!(holder(&config.names_dir().join("web")), Some(id(2)));
    }

    #[test]
    fn an_ambiguous_beginning_is_refused() {
        let dir = Scratch::new();
        let config = Config::new(&dir.0, &dir.0);
        let (one, two) = (ContainerId::parse(&format!("ab{:062}", 1)), ContainerId::parse(&format!("ab{:062}", 2)));
        make(&config, &one.unwrap());
        make(&config, &two.unwrap());
        assert_eq!(find(&config, "ab").unwrap_err().kind, Kind::InvalidArgument);
        assert_eq!(find(&config, "../x").unwrap_err().kind, Kind::NotFound);
        assert_eq!(find(&config, "").unwrap_err().kind, Kind::NotFound);
    }

    #[test]
    fn made_up_names_are_valid_and_differ() {
        let dir = Scratch::new();
        let config = Config::new(&dir.0, &dir.0);
        let mut seen = std::collections::BTreeSet::new();
        for byte in 0..50 {
            make(&config, &id(byte));
            assert!(seen.insert(reserve_any(&config, &id(byte)).unwrap()));
        }
    }
}
