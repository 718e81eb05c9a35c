//! Reading a container's log: the end of it, since a time, and what comes.
//!
//! ```text
//!   <root>/containers/<id>/log.2   log.1   log      oldest to newest; `log` becomes `log.1` when it is full
//!   2026-11-22T01:02:03.123456789Z stdout F text    F: whole or last part of a line; P: a part, more follows
//! ```
//!
//! Following waits on inotify(7) for the directory. A rotation is seen by the inode of `log`: the old file is read to its end
//! before the new one is begun.

use super::status;
use super::wait::readable;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::record::Record;
use crate::time::parse_rfc3339;
use rustix::fs::inotify;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How much is read at a time, in bytes.
const CHUNK: u64 = 64 * 1024;
/// How long following waits at most before it looks whether the container still runs.
const LOOK: Duration = Duration::from_secs(1);

/// What of a log is wanted.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Whether to go on while the container runs.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail: Option<usize>,
    /// Only lines from this time on, in nanoseconds since 1970.
    pub since_ns: Option<u64>,
    /// Only lines before this time, in nanoseconds since 1970.
    pub until_ns: Option<u64>,
}

/// One line, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// When it was written, RFC 3339.
    pub time: &'a str,
    /// Whether it came from standard error.
    pub stderr: bool,
    /// Whether its line goes on.
    pub partial: bool,
    /// The text without a line end.
    pub text: &'a [u8],
}

impl<'a> LogLine<'a> {
    /// Reads a line of a log file; none when it is none.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stderr = match parts.next()? {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        let partial = match parts.next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        Some(Self { time, stderr, partial, text: parts.next().unwrap_or_default() })
    }
}

/// Gives every wanted line to `emit`, until that breaks off.
pub fn logs(
    config: &Config,
    record: &Record,
    options: &LogOptions,
    emit: &mut dyn FnMut(LogLine<'_>) -> ControlFlow<()>,
) -> Result<()> {
    if record.config.log.none {
        return Err(Error::new(Kind::Unsupported, format!("container `{}` has no log", record.name))
            .reason("it was made with `--log-driver none`"));
    }
    let dir = record.dir(config);
    let failed =
        |error: std::io::Error| Error::io(format!("cannot read the log of container `{}`", record.name), error);
    // The watch comes first: what is written after the last read is not missed.
    let watch = if options.follow { Some(watch(&dir).map_err(failed)?) } else { None };
    let mut reader = Reader { options, emit, carry: Vec::new() };
    let mut current = None;
    for (file, offset) in start_points(&dir, options.tail).map_err(failed)? {
        let mut file = file;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        if reader.drain(&mut file).map_err(failed)?.is_break() {
            return Ok(());
        }
        current = Some(file);
    }
    let Some(watch) = watch else { return Ok(()) };
    loop {
        let running = status::of(config, record).is_active();
        if follow(&dir, &mut current, &mut reader).map_err(failed)?.is_break() || !running {
            return Ok(());
        }
        if readable(&watch, Some(Instant::now() + LOOK)) {
            let mut events = [0; 4096];
            let _ = rustix::io::read(&watch, &mut events);
        }
    }
}

fn watch(dir: &Path) -> std::io::Result<OwnedFd> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&fd, dir, events | inotify::WatchFlags::DELETE | inotify::WatchFlags::DELETE_SELF)?;
    Ok(fd)
}

/// Reads what has come; goes over to the new file after a rotation.
fn follow(dir: &Path, current: &mut Option<File>, reader: &mut Reader<'_>) -> std::io::Result<ControlFlow<()>> {
    loop {
        if let Some(file) = current {
            let (at, length) = (file.stream_position()?, file.metadata()?.len());
            if length < at {
                // Emptied in place: a single file is kept.
                file.seek(SeekFrom::Start(0))?;
            }
            if reader.drain(file)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let Ok(newest) = File::open(dir.join("log")) else { return Ok(ControlFlow::Continue(())) };
        let same = match current {
            Some(file) => file.metadata()?.ino() == newest.metadata()?.ino(),
            None => false,
        };
        if same {
            return Ok(ControlFlow::Continue(()));
        }
        if let Some(file) = current
            && reader.drain(file)?.is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        *current = Some(newest);
    }
}

/// The files to read and where to begin in each, oldest first.
fn start_points(dir: &Path, tail: Option<usize>) -> std::io::Result<Vec<(File, u64)>> {
    let mut points = Vec::new();
    let mut wanted = tail;
    for n in 0.. {
        let path: PathBuf = if n == 0 { dir.join("log") } else { dir.join(format!("log.{n}")) };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && n == 0 => continue,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        let Some(count) = wanted else {
            points.push((file, 0));
            continue;
        };
        let (offset, found) = offset_of_last(&mut file, count)?;
        points.push((file, offset));
        wanted = Some(count - found);
        if wanted == Some(0) {
            break;
        }
    }
    points.reverse();
    Ok(points)
}

/// Where the last `count` lines of a file begin, and how many of them there are. Parts belong to the line that they end in.
fn offset_of_last(file: &mut File, count: usize) -> std::io::Result<(u64, usize)> {
    let length = file.metadata()?.len();
    if count == 0 {
        return Ok((length, 0));
    }
    let mut buffer: Vec<u8> = Vec::new();
    let mut begin = length;
    loop {
        let step = CHUNK.min(begin);
        begin -= step;
        let mut chunk = vec![0; usize::try_from(step).unwrap_or_default()];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut chunk)?;
        chunk.extend_from_slice(&buffer);
        buffer = chunk;
        // Unless the file's beginning is reached, the first line of the buffer may be cut.
        let first =
            if begin == 0 { 0 } else { buffer.iter().position(|b| *b == b'\n').map_or(buffer.len(), |n| n + 1) };
        let mut starts = Vec::new();
        let mut at = first;
        let mut fresh = true;
        while at < buffer.len() {
            let end = buffer[at..].iter().position(|b| *b == b'\n').map_or(buffer.len(), |n| at + n);
            let partial = LogLine::parse(&buffer[at..end]).is_some_and(|l| l.partial);
            if fresh {
                starts.push(at);
            }
            fresh = !partial;
            at = end + 1;
        }
        if starts.len() >= count.saturating_add(usize::from(begin != 0)) {
            let start = starts[starts.len() - count];
            return Ok((begin + start as u64, count));
        }
        if begin == 0 {
            return Ok((0, starts.len()));
        }
    }
}

struct Reader<'a> {
    options: &'a LogOptions,
    emit: &'a mut dyn FnMut(LogLine<'_>) -> ControlFlow<()>,
    /// A line that the monitor has not written to its end yet.
    carry: Vec<u8>,
}

impl Reader<'_> {
    fn drain(&mut self, file: &mut File) -> std::io::Result<ControlFlow<()>> {
        let mut chunk = vec![0; usize::try_from(CHUNK).unwrap_or_default()];
        loop {
            let count = file.read(&mut chunk)?;
            if count == 0 {
                return Ok(ControlFlow::Continue(()));
            }
            let mut rest = &chunk[..count];
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                self.carry.extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
                let line = std::mem::take(&mut self.carry);
                if self.line(&line).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            self.carry.extend_from_slice(rest);
        }
    }

    fn line(&mut self, line: &[u8]) -> ControlFlow<()> {
        let Some(line) = LogLine::parse(line) else { return ControlFlow::Continue(()) };
        if self.options.since_ns.is_some() || self.options.until_ns.is_some() {
            let time = parse_rfc3339(line.time).unwrap_or_default();
            if self.options.since_ns.is_some_and(|since| time < since) {
                return ControlFlow::Continue(());
            }
            if self.options.until_ns.is_some_and(|until| time >= until) {
                return ControlFlow::Break(());
            }
        }
        (self.emit)(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::Scratch;

    fn write(dir: &Scratch, name: &str, lines: &[&str]) {
        let lines = lines.iter().map(|l| format!("2026-11-22T01:02:03.000000000Z {l}"));
        let text = lines.collect::<Vec<_>>().join("\n") + "\n";
        std::fs::write(dir.0.join(name), text).unwrap();
    }

    fn read(dir: &Scratch, tail: Option<usize>) -> Vec<String> {
        let options = LogOptions { follow: false, tail, since_ns: None, until_ns: None };
        let mut all = Vec::new();
        let mut emit = |line: LogLine<'_>| {
            all.push(String::from_utf8_lossy(line.text).into_owned() + if line.partial { "+" } else { "" });
            ControlFlow::Continue(())
        };
        let mut reader = Reader { options: &options, emit: &mut emit, carry: Vec::new() };
        for (mut file, offset) in start_points(&dir.0, tail).unwrap() {
            file.seek(SeekFrom::Start(offset)).unwrap();
            assert!(reader.drain(&mut file).unwrap().is_continue());
        }
        all
    }

    #[test]
    fn the_end_is_found_across_files_and_parts() {
        let dir = Scratch::new();
        write(&dir, "log.1", &["stdout F one", "stdout F two"]);
        write(&dir, "log", &["stdout P thr", "stdout F ee", "stderr F four"]);
        assert_eq!(read(&dir, None), ["one", "two", "thr+", "ee", "four"]);
        assert_eq!(read(&dir, Some(0)), Vec::<String>::new());
        assert_eq!(read(&dir, Some(1)), ["four"]);
        assert_eq!(read(&dir, Some(2)), ["thr+", "ee", "four"]);
        assert_eq!(read(&dir, Some(3)), ["two", "thr+", "ee", "four"]);
        assert_eq!(read(&dir, Some(99)), ["one", "two", "thr+", "ee", "four"]);
    }

    #[test]
    fn the_end_of_a_long_file_is_found_without_its_beginning() {
        let dir = Scratch::new();
        let lines: Vec<String> = (0..20_000).map(|n| format!("stdout F line {n}")).collect();
        write(&dir, "log", &lines.iter().map(String::as_str).collect::<Vec<_>>());
        for count in [1, 100, 1500, 5000, 19_999] {
            let tail = read(&dir, Some(count));
            assert_eq!((tail.len(), tail[0].as_str()), (count, format!("line {}", 20_000 - count).as_str()));
        }
    }

    #[test]
    fn following_goes_over_a_rotation() {
        let dir = Scratch::new();
        write(&dir, "log", &["stdout F one"]);
        let options = LogOptions { follow: true, tail: None, since_ns: None, until_ns: None };
        let mut all = Vec::new();
        let mut emit = |line: LogLine<'_>| {
            all.push(String::from_utf8_lossy(line.text).into_owned());
            ControlFlow::Continue(())
        };
        let mut reader = Reader { options: &options, emit: &mut emit, carry: Vec::new() };
        let mut current = None;
        assert!(follow(&dir.0, &mut current, &mut reader).unwrap().is_continue());
        write(&dir, "log", &["stdout F one", "stdout F two"]);
        std::fs::rename(dir.0.join("log"), dir.0.join("log.1")).unwrap();
        write(&dir, "log", &["stdout F three"]);
        assert!(follow(&dir.0, &mut current, &mut reader).unwrap().is_continue());
        assert_eq!(all, ["one", "two", "three"]);
    }

    #[test]
    fn only_log_lines_are_lines() {
        assert!(LogLine::parse(b"t stdout F ").is_some_and(|l| l.text.is_empty()));
        assert!(LogLine::parse(b"t stdout F a b  c").is_some_and(|l| l.text == b"a b  c"));
        for bad in [&b""[..], b"t", b"t stdout", b"t stdout X y", b"t std F y"] {
            assert!(LogLine::parse(bad).is_none());
        }
    }
}
