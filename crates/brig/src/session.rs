//! A session: this program's standard streams on one side, a monitor's socket on the other.
//!
//! ```text
//!   stdin  --read--> (detach keys?) --Stdin--->  +---------+
//!   SIGWINCH ---------------------- Resize --->  | monitor |
//!   SIGINT, SIGTERM ... (no tty) -- Signal --->  |         |
//!   stdout <--------------- Stdout, Stderr ----  +---------+
//!   exit status <----------------- Exited -----
//! ```
//!
//! One thread and one poll(2). Standard input is read only while the socket has room, so neither side can wait for the other
//! in a circle. A reader of standard output that went away costs the output and nothing else.

mod keys;

pub use keys::Keys;

use crate::terminal::{self, Raw};
use brig_engine::{Error, Result};
use brig_monitor::client::{Connection, Event, Exited};
use brig_monitor::protocol::Kind;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

/// How much of standard input goes into one packet, in bytes.
const PIECE: usize = 16 * 1024;

const SIGWINCH: i32 = 28;
/// Signals that go on to the container: HUP, INT, QUIT, USR1, USR2, TERM, CONT.
const PROXIED: [i32; 7] = [1, 2, 3, 10, 12, 15, 18];

/// How a session is to be held.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether standard input goes to the container.
    pub stdin: bool,
    /// Whether the container has a terminal.
    pub tty: bool,
    /// Whether signals to this program go to the container.
    pub sig_proxy: bool,
    /// What ends the session and leaves the container running.
    pub detach_keys: Keys,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The program has ended.
    Exited(Exited),
    /// The user left.
    Detached,
    /// The monitor is gone without a word.
    Lost,
}

/// Signals that are collected from now on; before a start, so that none is lost.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks the signals of a session and opens a descriptor on which they arrive.
    pub fn collect(options: &Options) -> Result<Self> {
        let mut wanted = Vec::new();
        if options.tty {
            wanted.push(SIGWINCH);
        }
        if options.sig_proxy || options.tty {
            wanted.extend(PROXIED);
        }
        let failed = |error: std::io::Error| Error::io("cannot receive signals", error);
        brig_sys::signals::block_only(&wanted).map_err(failed)?;
        let fd = brig_sys::signals::descriptor(&wanted).map_err(failed)?;
        Ok(Self { fd })
    }
}

/// Holds a session until the program ends, the user leaves, or the monitor is lost.
pub fn hold(
    mut connection: Connection,
    signals: &Signals,
    options: &Options,
    early: &[(bool, Vec<u8>)],
) -> Result<End> {
    let raw = if options.tty && options.stdin { Raw::enter() } else { None };
    let mut session = Session {
        keys: options.detach_keys.clone(),
        watch_keys: raw.is_some(),
        stdin_open: options.stdin,
        outputs: [true, true],
        options,
    };
    for (stderr, bytes) in early {
        session.output(*stderr, bytes);
    }
    if options.tty
        && let Some((rows, columns)) = terminal::size()
    {
        let _ = connection.resize(rows, columns);
    }
    let end = session.run(&mut connection, signals);
    drop(raw);
    end
}

struct Session<'a> {
    keys: Keys,
    watch_keys: bool,
    stdin_open: bool,
    outputs: [bool; 2],
    options: &'a Options,
}

impl Session<'_> {
    fn run(&mut self, connection: &mut Connection, signals: &Signals) -> Result<End> {
        let mut room = false;
        loop {
            // First whether there is room in the socket; only then is standard input read.
            let ask_room = self.stdin_open && !room;
            let (readable, writable, typed, signalled) = {
                let wanted = if ask_room { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
                let stdin = std::io::stdin();
                let mut fds = vec![
                    PollFd::from_borrowed_fd(connection.as_fd(), wanted),
                    PollFd::from_borrowed_fd(signals.fd.as_fd(), PollFlags::IN),
                ];
                if self.stdin_open && room {
                    fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
                }
                match poll(&mut fds, None) {
                    Ok(_) => {}
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return Err(Error::io("cannot wait for the container", error)),
                }
                let is = |n: usize, flags: PollFlags| fds.get(n).is_some_and(|fd| fd.revents().intersects(flags));
                let gone = PollFlags::HUP | PollFlags::ERR;
                (
                    is(0, PollFlags::IN | gone),
                    is(0, PollFlags::OUT),
                    is(2, PollFlags::IN | gone | PollFlags::NVAL),
                    is(1, PollFlags::IN),
                )
            };
            if writable {
                room = true;
            }
            if signalled {
                self.signals(connection, signals);
            }
            if typed {
                room = false;
                if self.input(connection) {
                    return Ok(End::Detached);
                }
            }
            if readable && let Some(end) = self.receive(connection)? {
                return Ok(end);
            }
        }
    }

    /// Takes one event of the monitor.
    fn receive(&mut self, connection: &mut Connection) -> Result<Option<End>> {
        let event = match connection.receive() {
            Ok(event) => event,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => return Err(Error::io("cannot hear the container's monitor", error)),
        };
        match event {
            Some(Event::Stdout(bytes)) => self.output(false, bytes),
            Some(Event::Stderr(bytes)) => self.output(true, bytes),
            Some(Event::Exited(exited)) => return Ok(Some(End::Exited(exited))),
            Some(Event::Started(_) | Event::Failed(..)) => {}
            None => return Ok(Some(End::Lost)),
        }
        Ok(None)
    }

    fn output(&mut self, stderr: bool, bytes: &[u8]) {
        let open = &mut self.outputs[usize::from(stderr)];
        if !*open {
            return;
        }
        let written = if stderr {
            std::io::stderr().lock().write_all(bytes)
        } else {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        };
        if written.is_err() {
            *open = false;
        }
    }

    /// Reads standard input once; true when the detach keys were typed.
    fn input(&mut self, connection: &mut Connection) -> bool {
        let mut piece = [0; PIECE];
        let count = match rustix::io::read(std::io::stdin(), &mut piece) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return false,
            Err(_) => 0,
        };
        if count == 0 {
            self.stdin_open = false;
            let _ = connection.send(Kind::StdinEnd, &[]);
            return false;
        }
        let (bytes, detach) =
            if self.watch_keys { self.keys.filter(&piece[..count]) } else { (piece[..count].to_vec(), false) };
        if !bytes.is_empty() && connection.send(Kind::Stdin, &bytes).is_err() {
            self.stdin_open = false;
        }
        detach
    }

    fn signals(&self, connection: &mut Connection, signals: &Signals) {
        while let Some(signal) = brig_sys::signals::next(signals.fd.as_fd()) {
            if signal == SIGWINCH {
                if let Some((rows, columns)) = terminal::size() {
                    let _ = connection.resize(rows, columns);
                }
            } else if self.options.sig_proxy || self.options.tty {
                let _ = u8::try_from(signal).map(|number| connection.send(Kind::Signal, &[number]));
            }
        }
    }
}
