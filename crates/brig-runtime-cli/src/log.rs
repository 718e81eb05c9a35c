//! Where errors and warnings go: standard error, and the file that the caller named with `--log`, in the form it asked for.
//!
//! ```text
//! text   time="2026-01-31T12:00:00Z" level=error msg="container \"a\" does not exist"
//! json   {"level":"error","msg":"container \"a\" does not exist","time":"2026-01-31T12:00:00Z"}
//! ```

use crate::failure::{Failure, Step};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

/// The log of one command.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

impl Log {
    /// Opens the log. Errors: an unknown form, a file that cannot be written.
    pub fn open(path: Option<&str>, format: Option<&str>, debug: bool) -> Result<Self, Failure> {
        let json = match format {
            None | Some("" | "text") => false,
            Some("json") => true,
            Some(other) => return Err(Failure::new(format!("invalid log-format: {other}"))),
        };
        let file = match path {
            None | Some("" | "/dev/stderr") => None,
            Some(path) => {
                use rustix::fs::{Mode, OFlags};
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOCTTY;
                let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).step(|| format!("open {path}"))?;
                Some(File::from(fd))
            }
        };
        Ok(Self { file, json, debug })
    }

    /// Reports what ended the command: in the log, and for people on standard error too.
    pub fn error(&self, text: &str) {
        self.write("error", text);
        if self.file.is_some() {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Reports that a program could not be executed: to people as a shell would, in the log with the reason.
    pub fn bare_error(&self, bare: &str, text: &str) {
        let _ = writeln!(std::io::stderr(), "{bare}");
        if self.file.is_some() {
            self.write("error", text);
        }
    }

    /// Reports what was done differently than asked.
    pub fn warning(&self, text: &str) {
        self.write("warning", text);
    }

    /// Says whether steps are reported.
    pub fn debugs(&self) -> bool {
        self.debug
    }

    /// Reports a step, when `--debug` asked for it.
    pub fn debug(&self, text: &str) {
        if self.debug {
            self.write("debug", text);
        }
    }

    fn write(&self, level: &str, text: &str) {
        let time = rfc3339(brig_monitor::state::now_ns() / 1_000_000_000);
        let line = if self.json {
            serde_json::json!({"level": level, "msg": text, "time": time}).to_string()
        } else {
            format!("time=\"{time}\" level={level} msg={}", quoted(text))
        };
        let stderr = rustix::stdio::stderr();
        let fd = self.file.as_ref().map_or(stderr, File::as_fd);
        // One call, so that lines of several commands in one file stay whole. A log that is full or gone stops nothing.
        let _ = rustix::io::write(fd, format!("{line}\n").as_bytes());
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Seconds since 1970 as RFC 3339 has them, in UTC.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Nanoseconds since 1970 as RFC 3339 has them, in UTC.
pub(crate) fn rfc3339_nanos(ns: u64) -> String {
    let text = rfc3339(ns / 1_000_000_000);
    format!("{}.{:09}Z", text.trim_end_matches('Z'), ns % 1_000_000_000)
}

/// Turns days since 1970 into a date of the Gregorian calendar. Years are counted from March, so that a leap day ends one.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_date() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
        assert_eq!(rfc3339_nanos(1_000_000_007), "1970-01-01T00:00:01.000000007Z");
    }

    #[test]
    fn a_message_stays_one_line() {
        assert_eq!(quoted("a \"b\"\nc\\"), r#""a \"b\"\nc\\""#);
    }
}
