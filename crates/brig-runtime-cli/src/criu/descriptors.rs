//! The standard descriptors of a container, as they are found again when it is restored.
//!
//! ```text
//! <images>/descriptors.json     ["pipe:[1001]","/dev/null","pipe:[1002]"]      what they were when the container was made
//! ```
//!
//! A pipe among them ends outside the container: upon restore the caller's own standard descriptor of the same number takes
//! its place. The file belongs to an archive that anybody may have written: all that it can choose is which of these three is
//! inherited, and for what pipe of its own.

use crate::failure::{Failure, Step};
use brig_sys::root::Root;
use rustix::fs::{Mode, OFlags};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// The name that other runtimes use too.
const FILE: &str = "descriptors.json";
/// The largest such file, bytes: three names and some air.
const MOST: u64 = 16 << 10;

/// What standard input, output and error of this process are, in the kernel's names.
pub(crate) fn own() -> Vec<String> {
    let name = |number: i32| rustix::fs::readlink(format!("/proc/self/fd/{number}"), Vec::new());
    (0..3).map(|number| name(number).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()).collect()
}

/// What the descriptors of a container are whose standard ones lead nowhere.
pub(crate) fn null() -> Vec<String> {
    vec!["/dev/null".into(); 3]
}

/// Writes the file into a directory of images.
pub(crate) fn write(images: BorrowedFd<'_>, descriptors: &[String]) -> Result<(), Failure> {
    let step = || format!("write {FILE}");
    // A name that is there already may be a link to somewhere else.
    match rustix::fs::unlinkat(images, FILE, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error).step(step),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(images, FILE, flags, Mode::from_raw_mode(0o600)).step(step)?;
    std::fs::File::from(fd).write_all(serde_json::json!(descriptors).to_string().as_bytes()).step(step)
}

/// Reads which of the standard descriptors are inherited, and for which pipe: never more than these three. Errors: the file
/// is none that a checkpoint writes.
pub(crate) fn inherited(images: BorrowedFd<'_>) -> Result<Vec<(i32, String)>, Failure> {
    let step = || format!("read {FILE} of the checkpoint");
    let root = Root::new(images.as_fd().try_clone_to_owned().step(step)?);
    let text = match root.read_file(Path::new(FILE), MOST) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.step(step)?,
    };
    let names: Vec<String> = serde_json::from_slice(&text).map_err(|error| Failure::step(step(), &error))?;
    if names.len() > 3 {
        return Err(Failure::new(format!(
            "cannot {}: it names {} descriptors, and only the 3 standard ones are inherited",
            step(),
            names.len()
        )));
    }
    Ok((0..).zip(names).filter(|(_, name)| is_pipe(name)).collect())
}

/// Says whether a name is one that the kernel gives to pipes.
fn is_pipe(name: &str) -> bool {
    let number = name.strip_prefix("pipe:[").and_then(|rest| rest.strip_suffix(']'));
    number.is_some_and(|digits| (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    fn directory() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
        (directory, fd)
    }

    #[test]
    fn pipes_are_inherited_and_nothing_else() {
        let (_directory, fd) = directory();
        assert!(inherited(fd.as_fd()).unwrap().is_empty(), "without the file nothing is");
        write(fd.as_fd(), &["pipe:[7]".into(), "/dev/null".into(), "pipe:[8]".into()]).unwrap();
        assert_eq!(inherited(fd.as_fd()).unwrap(), [(0, "pipe:[7]".into()), (2, "pipe:[8]".into())]);
    }

    #[test]
    fn a_doctored_file_chooses_nothing() {
        let (directory, fd) = directory();
        let path = directory.path().join(FILE);
        for odd in [
            r#"["/etc/shadow","/etc/pipe:[1]","pipe:[1]x"]"#,
            r#"["pipe:[]","pipe:[-1]","pipe:[1][2]"]"#,
            r#"["socket:[1]","anon_inode:[1]","pipe:[extRootNetNS]"]"#,
            "[]",
        ] {
            std::fs::write(&path, odd).unwrap();
            assert_eq!(inherited(fd.as_fd()).unwrap(), [], "{odd}");
        }
        let many = format!("[{}]", vec![r#""pipe:[1]""#; 400].join(","));
        let huge = format!("[\"{}\"]", "x".repeat(1 << 20));
        for refused in [many.as_str(), huge.as_str(), "{}", "[1]", "pipe:[1]", ""] {
            std::fs::write(&path, refused).unwrap();
            assert!(inherited(fd.as_fd()).is_err(), "{}", &refused[..refused.len().min(40)]);
        }
        // A link out of the directory leads nowhere, and nobody waits for a FIFO's writer.
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(inherited(fd.as_fd()).unwrap().is_empty());
        write(fd.as_fd(), &null()).unwrap();
        assert!(path.symlink_metadata().unwrap().is_file());
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(inherited(fd.as_fd()).is_err());
    }
}
