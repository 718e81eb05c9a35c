//! Sessions with a terminal: a pseudo-terminal plays the user's.

use crate::sandbox::Sandbox;
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A user at a terminal.
struct User {
    terminal: File,
    child: Child,
    seen: String,
}

impl User {
    /// Starts a command line on a terminal of 33 rows and 99 columns.
    fn types(brig: &Sandbox, arguments: &[&str]) -> Self {
        let terminal = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&terminal).unwrap();
        rustix::pty::unlockpt(&terminal).unwrap();
        let size = Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        let name = rustix::pty::ptsname(&terminal, Vec::new()).unwrap();
        let open = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let mut command = brig.command(arguments);
        command.stdin(Stdio::from(open())).stdout(Stdio::from(open())).stderr(Stdio::from(open()));
        let child = command.spawn().unwrap();
        Self { terminal: File::from(terminal), child, seen: String::new() }
    }

    fn writes(&mut self, keys: &[u8]) {
        self.terminal.write_all(keys).unwrap();
    }

    /// Reads until a text has been shown.
    fn sees(&mut self, wanted: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.seen.contains(wanted) {
            assert!(Instant::now() < deadline, "`{wanted}` is not in {:?}", self.seen);
            let mut fds =
                [rustix::event::PollFd::from_borrowed_fd(self.terminal.as_fd(), rustix::event::PollFlags::IN)];
            let slice = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            if rustix::event::poll(&mut fds, Some(&slice)).unwrap() == 1 {
                let mut bytes = [0; 4096];
                let count = self.terminal.read(&mut bytes).unwrap_or(0);
                self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        }
        // What came behind it is still to be looked at.
        let end = self.seen.find(wanted).unwrap() + wanted.len();
        self.seen.drain(..end);
    }

    fn status(mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("the session does not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_shell_is_left_and_entered_again() {
    let brig = Sandbox::new();
    let mut user = User::types(&brig, &["run", "-it", "--name", "study", "--network", "none", "bb", "sh"]);
    user.sees("# ");
    user.writes(b"stty size; echo pid $$\n");
    user.sees("33 99");
    user.sees("pid 1");
    user.writes(b"\x10\x11");
    assert_eq!(user.status(), Some(0), "Ctrl-P Ctrl-Q leaves it running");
    assert_eq!(brig.run(&["ps", "--format", "{{.Names}}"]), "study\n");

    let mut user = User::types(&brig, &["attach", "study"]);
    user.writes(b"echo again $((40 + 2))\n");
    user.sees("again 42");
    let size = Winsize { ws_row: 11, ws_col: 44, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&user.terminal, size).unwrap();
    brig_sys::signals::send(i32::try_from(user.child.id()).unwrap(), 28).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    user.writes(b"stty size\n");
    user.sees("11 44");
    // Ctrl-C reaches the program in front, not the session.
    user.writes(b"sleep 100\n");
    std::thread::sleep(Duration::from_millis(200));
    user.writes(b"\x03");
    user.writes(b"exit 3\n");
    assert_eq!(user.status(), Some(3));
    brig.run(&["rm", "study"]);
    brig.nothing_left();
}

#[test]
fn a_terminal_without_one_is_refused() {
    let brig = Sandbox::new();
    let error = brig.fails(&["run", "--rm", "-it", "--network", "none", "bb", "sh"]);
    assert!(error.starts_with("error: standard input is not a terminal"), "{error}");
    brig.nothing_left();
}
