//! The user's terminal: raw while a container has it, and always as before afterwards. termios(3), console_codes(4).

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::os::fd::AsFd;

/// A terminal in raw mode, until this value goes.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Makes standard input raw; none when it is no terminal.
    pub fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        if !isatty(&stdin) {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Says whether standard input is a terminal.
pub fn stdin_is_terminal() -> bool {
    isatty(std::io::stdin())
}

/// Says whether standard output is a terminal.
pub fn stdout_is_terminal() -> bool {
    isatty(std::io::stdout())
}

/// Says whether standard error is a terminal.
pub fn stderr_is_terminal() -> bool {
    isatty(std::io::stderr())
}

/// Returns the size of the terminal, (rows, columns), of whichever standard stream is one.
pub fn size() -> Option<(u16, u16)> {
    let of = |fd: rustix::fd::BorrowedFd<'_>| tcgetwinsize(fd).ok().filter(|s| s.ws_row > 0 && s.ws_col > 0);
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    of(stdout.as_fd()).or_else(|| of(stdin.as_fd())).map(|s| (s.ws_row, s.ws_col))
}
