//! Addresses without a daemon: one symbolic link an address, made in a single step by whoever comes first.
//!
//! ```text
//!   <dir>/leases/10.88.0.5 -> <container id>     leased; the link's target is only text
//!   <dir>/leases/next                            where to look first: an address as text, a mere hint
//! ```
//!
//! A symbolic link is created with its content and only if the name is free, by one system call: there is no moment at
//! which a lease exists without its holder's name, and no lock. The hint moves forward with each lease, so a start
//! looks at one name as a rule, and an address that was just freed is not given away again at once.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::plan::{Bridge, contains, mask};

/// The length of the hint file: an address, padded with blanks.
const HINT_LEN: usize = 16;

fn directory(dir: &Path) -> PathBuf {
    dir.join("leases")
}

/// Leases an address of the bridge's subnet to a container: the one wanted, or a free one.
///
/// Creates `<dir>/leases` when absent. An address that this container holds already is no conflict.
pub fn lease(dir: &Path, bridge: &Bridge, id: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
    let leases = directory(dir);
    let first_try = take(&leases, bridge, id, wanted);
    match first_try {
        Err(Error::File { ref source, .. }) if source.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(&leases).map_err(|error| Error::file("create", &leases, error))?;
            take(&leases, bridge, id, wanted)
        }
        other => other,
    }
}

/// Frees an address if this container holds it; one that is free, or another's, stays as it is.
pub fn release(dir: &Path, address: Ipv4Addr, id: &str) -> Result<()> {
    let path = directory(dir).join(address.to_string());
    match holder(&path)? {
        Some(holder) if holder == id => remove(&path),
        _ => Ok(()),
    }
}

/// Lists the leases: address and container id, in no particular order.
pub fn list(dir: &Path) -> Result<Vec<(Ipv4Addr, String)>> {
    let leases = directory(dir);
    let entries = match fs::read_dir(&leases) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("list", &leases, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::file("list", &leases, error))?;
        let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(holder) = holder(&entry.path())? {
            found.push((address, holder));
        }
    }
    Ok(found)
}

/// Frees the leases whose container is gone, as `alive` tells, and returns them.
pub fn sweep(dir: &Path, mut alive: impl FnMut(&str) -> bool) -> Result<Vec<(Ipv4Addr, String)>> {
    let mut freed = list(dir)?;
    freed.retain(|(_, holder)| !alive(holder));
    for (address, holder) in &freed {
        release(dir, *address, holder)?;
    }
    Ok(freed)
}

fn take(leases: &Path, bridge: &Bridge, id: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
    let (gateway, prefix) = (bridge.gateway, bridge.prefix);
    let network = gateway.to_bits() & mask(prefix);
    let size = (!mask(prefix)).saturating_sub(1);
    // Host numbers run from 1 (network) to the last but one (broadcast).
    let host = |number: u32| Ipv4Addr::from_bits(network | number);
    if let Some(address) = wanted {
        let number = address.to_bits() & !mask(prefix);
        if !contains(gateway, prefix, address) || address == gateway || !(1..=size).contains(&number) {
            return Err(Error::AddressOutside { address, gateway, prefix });
        }
        let holder = claim(leases, address, id)?;
        return match holder {
            None => Ok(address),
            Some(holder) if holder == id => Ok(address),
            Some(holder) => Err(Error::AddressInUse { address, holder }),
        };
    }
    let hint = Hint::open(leases)?;
    let start = hint.address.filter(|address| contains(gateway, prefix, *address));
    let start = start.map_or(1, |address| (address.to_bits() & !mask(prefix)).max(1));
    for step in 0..size {
        let address = host((start - 1 + step) % size + 1);
        if address != gateway && claim(leases, address, id)?.is_none() {
            hint.move_to(host((start + step) % size + 1));
            return Ok(address);
        }
    }
    Err(Error::SubnetFull { gateway, prefix })
}

/// Takes the address; the holder's id when it is taken already.
fn claim(leases: &Path, address: Ipv4Addr, id: &str) -> Result<Option<String>> {
    let path = leases.join(address.to_string());
    match symlink(id, &path) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Some(holder(&path)?.unwrap_or_default())),
        Err(error) => Err(Error::file("lease", path, error)),
    }
}

fn holder(path: &Path) -> Result<Option<String>> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path, error)),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file("remove", path, error)),
        _ => Ok(()),
    }
}

/// The open hint file; what it says may be stale or garbage without harm.
struct Hint {
    file: File,
    address: Option<Ipv4Addr>,
}

impl Hint {
    fn open(leases: &Path) -> Result<Self> {
        let path = leases.join("next");
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Error::file("open", &path, error))?;
        let mut text = [0; HINT_LEN];
        let len = file.read(&mut text).map_err(|error| Error::file("read", &path, error))?;
        let address = std::str::from_utf8(&text[..len]).ok().and_then(|text| text.trim_end().parse().ok());
        Ok(Self { file, address })
    }

    fn move_to(&self, address: Ipv4Addr) {
        // A hint that cannot be written costs the next start a longer search, nothing else.
        let _ = self.file.write_all_at(format!("{address:<15}\n").as_bytes(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(prefix: u8) -> Bridge {
        let gateway = Ipv4Addr::new(10, 88, 0, 1);
        Bridge { name: "brig0".into(), gateway, prefix, gateway6: None, mtu: 1500, masquerade: true }
    }

    #[test]
    fn addresses_go_round_and_are_not_reused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let bridge = bridge(29);
        let taken: Vec<u8> =
            (0..5).map(|n| lease(dir.path(), &bridge, &format!("c{n}"), None).unwrap().octets()[3]).collect();
        assert_eq!(taken, [2, 3, 4, 5, 6]);
        let full = lease(dir.path(), &bridge, "c9", None).unwrap_err();
        assert_eq!(full.to_string(), "no free address is left in 10.88.0.1/29");
        let freed = Ipv4Addr::new(10, 88, 0, 4);
        release(dir.path(), freed, "another").unwrap();
        assert!(lease(dir.path(), &bridge, "c9", None).is_err(), "another's release must not free it");
        release(dir.path(), freed, "c2").unwrap();
        release(dir.path(), freed, "c2").unwrap();
        assert_eq!(lease(dir.path(), &bridge, "c9", None).unwrap(), freed);
        release(dir.path(), Ipv4Addr::new(10, 88, 0, 2), "c0").unwrap();
        release(dir.path(), freed, "c9").unwrap();
        assert_eq!(lease(dir.path(), &bridge, "c10", None).unwrap().octets()[3], 2, "4 was freed last");
    }

    #[test]
    fn a_wanted_address_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let bridge = bridge(24);
        let wanted = Ipv4Addr::new(10, 88, 0, 77);
        assert_eq!(lease(dir.path(), &bridge, "a", Some(wanted)).unwrap(), wanted);
        assert_eq!(lease(dir.path(), &bridge, "a", Some(wanted)).unwrap(), wanted, "its own lease is no conflict");
        let error = lease(dir.path(), &bridge, "b", Some(wanted)).unwrap_err();
        assert_eq!(error.to_string(), "address 10.88.0.77 is already in use by container `a`");
        for last in [0, 1, 255] {
            let outside = lease(dir.path(), &bridge, "b", Some(Ipv4Addr::new(10, 88, 0, last))).unwrap_err();
            assert!(matches!(outside, Error::AddressOutside { .. }), "{last}");
        }
        assert!(lease(dir.path(), &bridge, "b", Some(Ipv4Addr::new(10, 89, 0, 7))).is_err());
    }

    #[test]
    fn sweeping_frees_the_dead_and_a_spoilt_hint_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let bridge = bridge(16);
        for id in ["dead", "live", "gone"] {
            lease(dir.path(), &bridge, id, None).unwrap();
        }
        fs::write(dir.path().join("leases/next"), [0xff; 40]).unwrap();
        let mut freed: Vec<String> =
            sweep(dir.path(), |id| id == "live").unwrap().into_iter().map(|(_, id)| id).collect();
        freed.sort();
        assert_eq!(freed, ["dead", "gone"]);
        assert_eq!(list(dir.path()).unwrap(), [(Ipv4Addr::new(10, 88, 0, 3), "live".to_owned())]);
        assert_eq!(lease(dir.path(), &bridge, "new", None).unwrap(), Ipv4Addr::new(10, 88, 0, 2));
    }
}
