//! A terminal with `brig` on it, and a hand on its keys.

use super::{Engine, PATIENCE, patiently};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A terminal, and the program on it.
pub struct Terminal {
    master: File,
    /// Held open, so that the terminal outlives the program, and its settings can be looked at.
    slave: File,
    child: Child,
    seen: Arc<Mutex<String>>,
    read: usize,
}

impl Terminal {
    /// Runs `brig` with a terminal of its own as standard streams and as its controlling terminal.
    pub fn run(engine: &Engine, arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let noctty = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
        let slave = File::options().read(true).write(true).custom_flags(noctty).open(&name).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        // setsid(1) makes the terminal the controlling one, then becomes brig.
        let words = [&["-c", env!("CARGO_BIN_EXE_brig")], arguments].concat();
        let mut command = engine.prepare(Path::new("/usr/bin/setsid"), &words);
        command.env("TERM", "xterm");
        command.stdin(slave.try_clone().unwrap());
        command.stdout(slave.try_clone().unwrap()).stderr(slave.try_clone().unwrap());
        let child = command.spawn().unwrap();
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut reader, writer) = (master.try_clone().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut piece) {
                writer.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..count]));
            }
        });
        Self { master, slave, child, seen, read: 0 }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn settings(&self) -> Termios {
        tcgetattr(&self.slave).unwrap()
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).unwrap();
    }

    /// Waits until a text appears after what was seen last; returns what stood before it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let mut before = None;
        patiently(|| {
            let seen = self.seen.lock().unwrap();
            if let Some(at) = seen[self.read..].find(text) {
                before = Some(seen[self.read..self.read + at].to_owned());
                self.read += at + text.len();
            }
            before.is_some()
        });
        before.unwrap_or_else(|| panic!("no `{text}` in {:?}", &self.seen.lock().unwrap()[self.read..]))
    }

    /// Waits for the program's end; its exit status, and 128 and the signal when it was killed.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let signal = std::os::unix::process::ExitStatusExt::signal(&status);
                return status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default());
            }
            assert!(start.elapsed() < PATIENCE, "it does not end: {:?}", self.seen.lock().unwrap());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Everything that was written so far.
    pub fn all(&self) -> String {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
