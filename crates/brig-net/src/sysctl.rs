//! Network settings under /proc/sys/net, which always shows the namespace of the thread that opens it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::plan::Bridge;

const FORWARD4: &str = "ipv4/ip_forward";
const FORWARD6: &str = "ipv6/conf/all/forwarding";

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(key)
}

/// Reads a setting, without the final newline.
pub(crate) fn get(key: &str) -> Result<String> {
    let path = path(key);
    let text = fs::read_to_string(&path).map_err(|error| Error::file("read", &path, error))?;
    Ok(text.trim_end().to_owned())
}

/// Writes a setting.
pub(crate) fn set(key: &str, value: &str) -> Result<()> {
    let path = path(key);
    fs::write(&path, value).map_err(|error| Error::file("write", &path, error))
}

/// Writes a setting that a kernel without IPv6 does not have.
pub(crate) fn set_if_present(key: &str, value: &str) -> Result<()> {
    match set(key, value) {
        Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Turns forwarding on where it is off, and records the former value below `state` before it does.
///
/// With IPv6 forwarding on, the kernel ignores router advertisements unless `accept_ra` is 2: interfaces that live by
/// them are moved from 1 to 2, or the host would lose its own default route.
pub(crate) fn ensure_forwarding(bridge: &Bridge, state: &Path) -> Result<()> {
    if get(FORWARD4)? == "0" {
        record(state, "ip_forward")?;
        set(FORWARD4, "1")?;
    }
    if bridge.gateway6.is_some() && get(FORWARD6)? == "0" {
        record(state, "ip6_forward")?;
        let interfaces = path("ipv6/conf");
        let entries = fs::read_dir(&interfaces).map_err(|error| Error::file("list", &interfaces, error))?;
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let key = format!("ipv6/conf/{name}/accept_ra");
            if name != bridge.name && get(&key).is_ok_and(|value| value == "1") {
                set_if_present(&key, "2")?;
            }
        }
        set(FORWARD6, "1")?;
    }
    Ok(())
}

fn record(state: &Path, name: &str) -> Result<()> {
    let file = state.join(name);
    fs::create_dir_all(state).map_err(|error| Error::file("create", state, error))?;
    fs::write(&file, "0\n").map_err(|error| Error::file("write", &file, error))
}

/// Puts back what [`ensure_forwarding`] recorded; does nothing where nothing is recorded.
pub(crate) fn restore_forwarding(state: &Path) -> Result<()> {
    for (name, key) in [("ip_forward", FORWARD4), ("ip6_forward", FORWARD6)] {
        let file = state.join(name);
        match fs::read_to_string(&file) {
            Ok(value) => {
                set(key, value.trim_end())?;
                fs::remove_file(&file).map_err(|error| Error::file("remove", &file, error))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("read", &file, error)),
        }
    }
    Ok(())
}
