//! The log of a container: lines with time and stream, rotated before they fill the disk.
//!
//! The format is the one of Kubernetes' CRI, so that every collector reads it:
//!
//! ```text
//! 2026-11-22T01:02:03.123456789Z stdout F a whole line
//! 2026-11-22T01:02:03.123456789Z stderr P the first part of a line that is too long or not ended yet
//! ```
//!
//! A full disk costs log lines, never the container: what could not be written is counted, and told once writing works again.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A line longer than this is written in parts, in bytes.
pub const LINE_MAX: usize = 16 * 1024;

/// Which stream a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A log file that is being written.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max_size: u64,
    max_files: u32,
    // The beginning of a line of each stream that has not ended yet.
    open_lines: [Vec<u8>; 2],
    lost: u64,
}

impl LogFile {
    /// Opens the log for appending. `max_size` 0 means no rotation.
    pub fn open(path: &Path, max_size: u64, max_files: u32) -> io::Result<Self> {
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            size,
            max_size,
            max_files,
            open_lines: [Vec::new(), Vec::new()],
            lost: 0,
        })
    }

    /// Takes a piece of output as it was read.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let time = rfc3339(crate::state::now_ns());
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let open = std::mem::take(&mut self.open_lines[stream as usize]);
        let mut rest = bytes;
        let mut line = open;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            line.extend_from_slice(&rest[..end]);
            put(&mut out, &time, stream, &line, true);
            line.clear();
            rest = &rest[end + 1..];
        }
        line.extend_from_slice(rest);
        let mut at = 0;
        while line.len() - at > LINE_MAX {
            put_part(&mut out, &time, stream, &line[at..at + LINE_MAX]);
            at += LINE_MAX;
        }
        line.drain(..at);
        line.shrink_to(LINE_MAX.min(line.len()));
        self.open_lines[stream as usize] = line;
        self.append(&out);
    }

    /// Writes what has no line end yet.
    pub fn finish(&mut self) {
        let time = rfc3339(crate::state::now_ns());
        let mut out = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(&mut self.open_lines[stream as usize]);
            if !line.is_empty() {
                put_part(&mut out, &time, stream, &line);
            }
        }
        self.append(&out);
    }

    /// Writes a line of the monitor's own, such as a gap after a monitor was lost.
    pub fn note(&mut self, text: &str) {
        let mut out = Vec::new();
        put(&mut out, &rfc3339(crate::state::now_ns()), Stream::Stderr, text.as_bytes(), true);
        self.append(&out);
    }

    /// Appends whole lines; a file that they would fill over its size is rotated between two of them.
    fn append(&mut self, mut out: &[u8]) {
        while self.max_size > 0 && self.size + out.len() as u64 > self.max_size && !out.is_empty() {
            let room = usize::try_from(self.max_size.saturating_sub(self.size)).unwrap_or(usize::MAX).min(out.len());
            let mut fits = out[..room].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            if fits == 0 && self.size == 0 {
                // A line longer than a file has a file of its own.
                fits = out.iter().position(|b| *b == b'\n').map_or(out.len(), |at| at + 1);
            }
            self.append_within(&out[..fits]);
            out = &out[fits..];
            if !out.is_empty() {
                self.rotate();
            }
        }
        self.append_within(out);
    }

    fn append_within(&mut self, out: &[u8]) {
        if out.is_empty() {
            return;
        }
        let Some(file) = &mut self.file else {
            self.lost += out.len() as u64;
            self.file = append(&self.path).ok();
            return;
        };
        if self.lost > 0 {
            let text = format!("brig: {} bytes of log were lost (could not be written)", self.lost);
            let mut note = Vec::new();
            put(&mut note, &rfc3339(crate::state::now_ns()), Stream::Stderr, text.as_bytes(), true);
            if file.write_all(&note).is_ok() {
                self.lost = 0;
                self.size += note.len() as u64;
            }
        }
        if file.write_all(out).is_ok() {
            self.size += out.len() as u64;
        } else {
            self.lost += out.len() as u64;
            // A part may have been written: the file is cut back to whole lines.
            let _ = file.set_len(self.size);
        }
    }

    /// log -> log.1 -> log.2 ...; with `max_files` 1 the file is emptied.
    fn rotate(&mut self) {
        let numbered = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        if self.max_files <= 1 {
            if let Some(file) = &self.file {
                let _ = file.set_len(0);
            }
        } else {
            for n in (1..self.max_files - 1).rev() {
                let _ = std::fs::rename(numbered(n), numbered(n + 1));
            }
            let _ = std::fs::rename(&self.path, numbered(1));
            self.file = append(&self.path).ok();
        }
        self.size = 0;
    }
}

fn append(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?))
}

fn put(out: &mut Vec<u8>, time: &str, stream: Stream, line: &[u8], full: bool) {
    let mut rest = line;
    while rest.len() > LINE_MAX {
        put_part(out, time, stream, &rest[..LINE_MAX]);
        rest = &rest[LINE_MAX..];
    }
    head(out, time, stream, if full { b'F' } else { b'P' });
    out.extend_from_slice(rest);
    out.push(b'\n');
}

fn put_part(out: &mut Vec<u8>, time: &str, stream: Stream, part: &[u8]) {
    head(out, time, stream, b'P');
    out.extend_from_slice(part);
    out.push(b'\n');
}

fn head(out: &mut Vec<u8>, time: &str, stream: Stream, tag: u8) {
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(if stream == Stream::Stdout { b" stdout " } else { b" stderr " });
    out.extend_from_slice(&[tag, b' ']);
}

/// Writes a time (nanoseconds since 1970) as RFC 3339 in UTC with nine decimals.
pub fn rfc3339(ns: u64) -> String {
    let (seconds, nanos) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date of the Gregorian calendar, counted from 1 March of the year 0, so that a leap day ends its year.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("brig-log-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn bodies(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_827_696_000_000_001), "2000-02-29T12:34:56.000000001Z");
        assert_eq!(rfc3339(1_795_309_323_123_456_789), "2026-11-22T01:02:03.123456789Z");
    }

    #[test]
    fn lines_come_out_whole_however_they_came_in() {
        let directory = scratch("lines");
        let path = directory.join("log");
        let mut log = LogFile::open(&path, 0, 1).unwrap();
        for piece in ["one\ntw", "o\n\nth", "ree"] {
            log.write(Stream::Stdout, piece.as_bytes());
        }
        log.write(Stream::Stderr, b"bad\n");
        log.finish();
        assert_eq!(bodies(&path), ["stdout F one", "stdout F two", "stdout F ", "stderr F bad", "stdout P three"]);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_long_line_comes_in_parts_that_join_to_it() {
        let directory = scratch("long");
        let path = directory.join("log");
        let mut log = LogFile::open(&path, 0, 1).unwrap();
        let line: String = (0..LINE_MAX * 3 + 7).map(|n| char::from(b"abcdefghijklmnopqrstuvwxyz"[n % 26])).collect();
        for piece in line.as_bytes().chunks(5000) {
            log.write(Stream::Stdout, piece);
        }
        log.write(Stream::Stdout, b"\n");
        let text: String = bodies(&path).iter().map(|l| l.splitn(3, ' ').nth(2).unwrap().to_owned()).collect();
        assert_eq!(text, line);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn rotation_keeps_so_many_files_of_such_a_size() {
        let directory = scratch("rotate");
        let path = directory.join("log");
        let mut log = LogFile::open(&path, 1000, 3).unwrap();
        for n in 0..200 {
            log.write(Stream::Stdout, format!("line number {n}\n").as_bytes());
        }
        let mut names: Vec<_> =
            std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        for name in names {
            assert!(std::fs::metadata(directory.join(name)).unwrap().len() <= 1000);
        }
        assert_eq!(bodies(&path).last().unwrap(), "stdout F line number 199");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_full_disk_loses_lines_and_says_so() {
        // /dev/full takes nothing, as a full disk.
        let directory = scratch("full");
        let path = directory.join("log");
        let mut log = LogFile::open(&path, 0, 1).unwrap();
        log.write(Stream::Stdout, b"before\n");
        let good = log.file.replace(File::options().write(true).open("/dev/full").unwrap());
        log.write(Stream::Stdout, b"lost\n");
        log.file = good;
        log.write(Stream::Stdout, b"after\n");
        let lines = bodies(&path);
        assert_eq!((lines[0].as_str(), lines[2].as_str()), ("stdout F before", "stdout F after"));
        assert!(lines[1].contains("bytes of log were lost"), "{lines:?}");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
