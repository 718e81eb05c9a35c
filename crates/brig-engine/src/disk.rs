//! What is done to files and directories, with errors that name them.

use crate::error::{Error, Result};
use brig_monitor::records;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Writes a file whole, by the one way that there is: [`records::write`].
pub fn write(path: &Path, bytes: &[u8], durable: bool) -> Result<()> {
    records::write(path, bytes, durable).map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
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
    fn a_mode_does_not_depend_on_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let dir = Scratch::new();
        let path = dir.0.join("tmp");
        make_one(&path, 0o1777).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o1777);
        assert!(make_one(&path, 0o755).is_err());
    }
}
