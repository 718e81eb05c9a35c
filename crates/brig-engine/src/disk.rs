//! Records on disk: written beside their place and moved there in one step, so that a reader sees the old or the new one.

use crate::error::{Error, Result};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Writes a file whole: to `<path>.new`, flushed when `durable`, then renamed.
pub fn write(path: &Path, bytes: &[u8], durable: bool) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let failed = |error: std::io::Error| Error::io(format!("cannot write {}", path.display()), error);
    let open = || fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let mut file = open().map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| if durable { file.sync_all() } else { Ok(()) });
    if let Err(error) = written.and_then(|()| fs::rename(&new, path)) {
        let _ = fs::remove_file(&new);
        return Err(failed(error));
    }
    if durable && let Some(parent) = path.parent() {
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)?;
    }
    Ok(())
}

/// Makes a directory and its parents with mode 0700; one that exists stays as it is.
pub fn make_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Error::io(format!("cannot create directory {}", path.display()), error))
}

/// Makes one directory with a mode of its own, regardless of the umask; it must not exist.
pub fn make_one(path: &Path, mode: u32) -> Result<()> {
    let failed = |error: std::io::Error| Error::io(format!("cannot create directory {}", path.display()), error);
    DirBuilder::new().mode(mode).create(path).map_err(failed)?;
    // With the usual umask of 022, only modes that open more than 0755 need a second call.
    if mode & 0o022 != 0 || mode & 0o7000 != 0 {
        rustix::fs::chmodat(rustix::fs::CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// Writes a small file that lives no longer than its directory, readable for all.
pub fn write_plain(path: &Path, text: &str) -> Result<()> {
    let failed = |error: std::io::Error| Error::io(format!("cannot write {}", path.display()), error);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).map_err(|e| failed(e.into()))?;
    let mut file = File::from(fd);
    file.write_all(text.as_bytes()).map_err(failed)
}

/// Removes a file; one that is gone already is no error.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Removes a directory tree without following links; one that is gone already is no error.
pub fn remove_tree(path: &Path) -> Result<()> {
    match brig_sys::tree::remove_at(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Makes 32 random bytes: getrandom(2).
pub fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::io("cannot get random bytes", error))?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A directory that is removed at the end of a test.
    pub(crate) struct Scratch(pub PathBuf);

    impl Scratch {
        pub(crate) fn new() -> Self {
            let name = brig_spec::id::hex(&random().unwrap()[..8]);
            let path = std::env::temp_dir().join(format!("brig-engine-{name}"));
            make_directory(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = Scratch::new();
        let path = dir.0.join("record");
        write(&path, b"one", true).unwrap();
        write(&path, b"two", false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
        assert!(write(&dir.0.join("no/record"), b"x", false).is_err());
    }

    #[test]
    fn a_mode_does_not_depend_on_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let dir = Scratch::new();
        let path = dir.0.join("tmp");
        make_one(&path, 0o1777).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o1777);
        assert!(make_one(&path, 0o755).is_err());
    }
}
