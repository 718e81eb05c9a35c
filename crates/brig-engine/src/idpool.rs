//! Host ids for user namespaces: blocks of 65,536 from one pool, each lent to one container.
//!
//! ```text
//!   <root>/ids/<n> -> <container id>     block n of the pool; a symbolic link whose target is only text
//! ```
//!
//! The container's own id tells where to look first, so a start makes one system call as a rule and scans nothing. A block
//! whose container is gone is free to take.

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::{disk, names, record};
use brig_monitor::plan::IdMap;
use brig_spec::id::ContainerId;
use brig_spec::runtime::LinuxIdMapping;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// How many ids a container gets.
pub const BLOCK: u32 = 65_536;

/// Returns where a block's link lies, by its first id.
pub fn path(config: &Config, first: u32) -> PathBuf {
    config.root.join("ids").join(((first - config.id_pool.0) / BLOCK).to_string())
}

/// Lends a block to a container and returns its first id.
pub fn lend(config: &Config, id: &ContainerId) -> Result<u32> {
    let (base, count) = config.id_pool;
    let blocks = count / BLOCK;
    if blocks == 0 {
        return Err(Error::invalid("the pool of ids for user namespaces holds less than one block of 65536"));
    }
    let dir = config.root.join("ids");
    let start = u32::from_str_radix(&id.as_str()[..8], 16).unwrap_or_default() % blocks;
    for step in 0..blocks {
        let block = (start + step) % blocks;
        let link = dir.join(block.to_string());
        for _ in 0..3 {
            match symlink(id.as_str(), &link) {
                Ok(()) => return Ok(base + block * BLOCK),
                Err(error) if error.kind() == ErrorKind::NotFound => disk::make_directory(&dir)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => match names::holder(&link) {
                    Some(holder) if holder == *id => return Ok(base + block * BLOCK),
                    Some(holder) if record::exists_or_is_made(config, &holder) => break,
                    _ => {
                        let aside = dir.join(format!(".stale-{}", id.as_str()));
                        if fs::rename(&link, &aside).is_ok() {
                            disk::remove_file(&aside)?;
                        }
                    }
                },
                Err(error) => return Err(Error::io("cannot lend ids for a user namespace", error)),
            }
        }
    }
    Err(Error::new(Kind::Unavailable, "no ids are left for a user namespace")
        .reason(format!("all {blocks} blocks of the pool are lent to containers"))
        .hint("remove containers that are not needed: `brig container prune`"))
}

/// Makes the map of a block: root inside is its first id.
pub fn map(first: u32) -> IdMap {
    let one = LinuxIdMapping { container_id: 0, host_id: first, size: BLOCK };
    IdMap { uids: vec![one], gids: vec![one] }
}

/// Frees the blocks of containers that are gone.
pub fn sweep(config: &Config) -> Result<()> {
    let Ok(entries) = fs::read_dir(config.root.join("ids")) else { return Ok(()) };
    for entry in entries.flatten() {
        if names::holder(&entry.path()).is_some_and(|id| !record::exists_or_is_made(config, &id)) {
            disk::remove_file(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::Scratch;

    fn exists(config: &Config, byte: u8) -> ContainerId {
        let id = ContainerId::from_random([byte; 32]);
        let dir = config.container_dir(id.as_str());
        disk::make_directory(&dir).unwrap();
        fs::write(dir.join("record"), "{}").unwrap();
        id
    }

    #[test]
    fn blocks_do_not_overlap_and_come_back() {
        let dir = Scratch::new();
        let config = Config { id_pool: (100_000, 3 * BLOCK + 5), ..Config::new(&dir.0, &dir.0) };
        let ids: Vec<_> = (1..=4).map(|n| exists(&config, n)).collect();
        let mut firsts: Vec<u32> = ids[..3].iter().map(|id| lend(&config, id).unwrap()).collect();
        assert_eq!(lend(&config, &ids[0]).unwrap(), firsts[0]);
        firsts.sort_unstable();
        assert_eq!(firsts, [100_000, 100_000 + BLOCK, 100_000 + 2 * BLOCK]);
        assert_eq!(lend(&config, &ids[3]).unwrap_err().kind, Kind::Unavailable);
        disk::remove_tree(&config.container_dir(ids[1].as_str())).unwrap();
        assert!(lend(&config, &ids[3]).is_ok());
    }

    #[test]
    fn a_sweep_frees_what_belongs_to_nobody() {
        let dir = Scratch::new();
        let config = Config::new(&dir.0, &dir.0);
        let id = exists(&config, 9);
        let first = lend(&config, &id).unwrap();
        sweep(&config).unwrap();
        assert!(names::holder(&path(&config, first)).is_some());
        disk::remove_tree(&config.container_dir(id.as_str())).unwrap();
        sweep(&config).unwrap();
        assert!(names::holder(&path(&config, first)).is_none());
    }
}
