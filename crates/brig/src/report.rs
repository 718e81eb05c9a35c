//! Errors as people see them, and as exit codes.
//!
//! ```text
//!   error: cannot start container `web`
//!     because: port 8080 on 0.0.0.0 is already in use by container `old-web`
//!   hint: stop it with `brig stop old-web`, or publish another port with `-p`
//! ```
//!
//! | exit code | meaning |
//! |---|---|
//! | 125 | brig could not do it (of `run`, `create`, `start`, `exec`); other commands give 1 |
//! | 126, 127 | the command cannot be executed, or is not there |
//! | else | the container's own |

use brig_engine::{Error, Kind};
use std::io::Write;

/// What a command ends with: an exit status, or an error.
pub type Outcome = Result<u8, Error>;

/// The exit status of a failed `run`, `create`, `start` or `exec`.
pub const ENGINE_FAILED: u8 = 125;

/// Writes an error to standard error; one that cannot be written is lost.
pub fn print(error: &Error) {
    let _ = std::io::stderr().lock().write_all(text(error).as_bytes());
}

/// Writes a warning to standard error.
pub fn warn(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "warning: {text}");
}

/// Writes warnings of the one who started a container; they may quote what a user or an image named.
pub fn warnings(list: &[String]) {
    for text in list {
        warn(&clean(text));
    }
}

/// The three lines.
pub fn text(error: &Error) -> String {
    use std::fmt::Write as _;
    let mut text = format!("error: {}\n", clean(&error.message));
    let causes = error.causes();
    for (depth, cause) in causes.iter().enumerate() {
        let indent = "  ".repeat(depth + 1);
        let _ = writeln!(text, "{indent}because: {}", clean(cause));
    }
    if let Some(hint) = &error.hint {
        let _ = writeln!(text, "hint: {}", clean(hint));
    }
    text
}

/// Keeps an error on its lines, and a container's bytes from driving the terminal.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\n' {
                ' '
            } else if c.is_control() {
                '?'
            } else {
                c
            }
        })
        .collect()
}

/// The same for a text of several lines.
pub fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// The exit status of an error.
pub fn exit_code(error: &Error, starts_containers: bool) -> u8 {
    match (error.exit_code, starts_containers) {
        (Some(code), _) => code,
        (None, true) => ENGINE_FAILED,
        (None, false) if error.kind == Kind::Cancelled => 130,
        (None, false) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_three_lines() {
        let error = Error::conflict("cannot start container `web`")
            .reason("port 8080 is in use\nreally")
            .hint("stop it with `brig stop old-web`");
        assert_eq!(
            text(&error),
            "error: cannot start container `web`\n  because: port 8080 is in use really\nhint: stop it with `brig stop old-web`\n"
        );
    }

    #[test]
    fn exit_codes_are_dockers() {
        let error = Error::not_found("x");
        assert_eq!(exit_code(&error, true), 125);
        assert_eq!(exit_code(&error, false), 1);
        let mut error = Error::not_found("x");
        error.exit_code = Some(127);
        assert_eq!(exit_code(&error, true), 127);
    }

    #[test]
    fn bytes_of_a_container_do_not_drive_the_terminal() {
        assert_eq!(text(&Error::internal("a\u{1b}[2Jb")), "error: a?[2Jb\n");
    }
}
