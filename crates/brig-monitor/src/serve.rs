//! The poll loop of a monitor: output to the log and to clients, input and signals from clients, the end of the process.
//!
//! One thread, one poll(2). A client that does not read holds the output back, exactly as a full pipe would; input that
//! the container does not read holds its client back. Nothing here grows with what flows through.

use crate::clients::Client;
use crate::hold::Holder;
use crate::logfile::{LogFile, Stream};
use crate::protocol::{HELLO_STDIN, Kind, PAUSED_ALREADY, PAUSED_DONE, PAUSED_FAILED, PAYLOAD_MAX};
use crate::stdio::Ends;
use brig_net::relay::Relay;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::{WaitId, WaitIdOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// More clients than this wait in the socket's own queue.
const CLIENTS_MAX: usize = 1024;

/// How long nothing happens before a monitor makes itself small.
const SETTLING: Duration = Duration::from_millis(100);

/// What a monitor serves while the process lives.
pub struct Server {
    /// The listening socket.
    pub listener: Option<OwnedFd>,
    /// The clients.
    pub clients: Vec<Client>,
    /// The container's descriptors.
    pub ends: Ends,
    /// The log.
    pub log: Option<LogFile>,
    /// Whether a person asked for the end.
    pub stopped: bool,
    /// What of the network closes slowly, and is therefore closed last.
    pub lingering: Vec<brig_net::Lingering>,
    /// What clients may hold; none while nothing runs, and for an exec.
    pub holder: Option<Holder>,
    // Input that the container has not taken yet.
    pending_input: Vec<u8>,
    input_ends: bool,
    buffer: Vec<u8>,
}

/// The process that is served.
#[derive(Debug)]
pub struct Served {
    /// Refers to it.
    pub pidfd: OwnedFd,
    /// Whether it is the monitor's own child, whose exit status can be read.
    pub is_child: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Process,
    Listener,
    Client(usize),
    Stdin,
    Stdout,
    Stderr,
    Console,
    Relay(RawFd),
}

impl Server {
    /// Starts with these clients and no process yet.
    pub fn new(listener: Option<OwnedFd>, clients: Vec<Client>, log: Option<LogFile>) -> Self {
        Self {
            listener,
            clients,
            ends: Ends::default(),
            log,
            stopped: false,
            lingering: Vec::new(),
            holder: None,
            pending_input: Vec::new(),
            input_ends: false,
            buffer: Vec::new(),
        }
    }

    /// Serves until the process has ended and its output is drained. Returns its status as a shell tells it, none when it
    /// was not the monitor's own child.
    pub fn serve(&mut self, process: &Served, mut relay: Option<&mut Relay>) -> Option<i32> {
        self.input_ends = false;
        self.pending_input.clear();
        let mut settled = false;
        loop {
            let limit = relay.as_deref().and_then(|r| r.timeout(Instant::now()));
            let limit = if settled { limit } else { Some(limit.map_or(SETTLING, |l| l.min(SETTLING))) };
            let mut ended = false;
            let ready = self.wait(Some(process.pidfd.as_fd()), relay.as_deref(), limit);
            if ready.is_empty() && !settled {
                // What the start needed is given back once nothing happens: an idle monitor is to cost next to nothing, and
                // a container that ends at once is not to wait for it.
                settled = true;
                self.buffer = Vec::new();
                brig_sys::memory::release();
            }
            for (source, events) in ready {
                match source {
                    Source::Process => ended = true,
                    Source::Relay(fd) => {
                        if let Some(relay) = relay.as_deref_mut() {
                            relay.ready(fd, events);
                        }
                    }
                    other => self.handle(other, Some(process.pidfd.as_fd())),
                }
            }
            if let Some(relay) = relay.as_deref_mut() {
                relay.expire(Instant::now());
            }
            self.forget_closed();
            if ended {
                let status = reap(process);
                self.drain();
                self.ends = Ends::default();
                return status;
            }
        }
    }

    /// Serves clients for a time while no process runs: the pause before a restart. A person's stop ends it early.
    pub fn idle(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while !self.stopped {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            for (source, _) in self.wait(None, None, Some(left)) {
                self.handle(source, None);
            }
            self.forget_closed();
        }
    }

    /// Forgets clients that are gone, and lets go of what only they held.
    fn forget_closed(&mut self) {
        let held = self.clients.iter().any(|c| c.holds);
        self.clients.retain(|c| !c.closed);
        if held && !self.clients.iter().any(|c| c.holds) {
            let _ = self.holder.as_ref().map(Holder::end);
        }
    }

    /// The process that was held is no more.
    pub fn forget_holds(&mut self) {
        for client in &mut self.clients {
            client.holds = false;
        }
        if let Some(holder) = self.holder.take() {
            holder.forget();
        }
    }

    /// Holds the container for a client, or lets it go; tells the client.
    fn pause(&mut self, at: usize, hold: bool) {
        let others = self.clients.iter().enumerate().any(|(other, client)| other != at && client.holds);
        let done = match &self.holder {
            None => Err("nothing runs that could be paused".to_owned()),
            Some(holder) if hold && !self.clients[at].holds => match holder.begin() {
                Ok(begun) => Ok(begun || others),
                Err(error) => Err(crate::chain::one_line(&error)),
            },
            Some(_) if hold => Ok(true),
            Some(holder) if self.clients[at].holds && !others => {
                holder.end().map(|()| true).map_err(|error| crate::chain::one_line(&error))
            }
            Some(_) => Ok(true),
        };
        let client = &mut self.clients[at];
        client.holds = hold && done == Ok(true);
        let mut payload = vec![match done {
            Ok(true) => PAUSED_DONE,
            Ok(false) => PAUSED_ALREADY,
            Err(_) => PAUSED_FAILED,
        }];
        payload.extend(done.err().unwrap_or_default().bytes().take(PAYLOAD_MAX - 1));
        client.push(Kind::Paused, &payload);
    }

    /// Tells the clients what the one who started it should know.
    pub fn warn(&mut self, warnings: &[String]) {
        for warning in warnings {
            let end = warning.len().min(PAYLOAD_MAX);
            for client in &mut self.clients {
                client.push(Kind::Warning, &warning.as_bytes()[..end]);
            }
        }
    }

    /// Tells every client the same, and waits a bounded time until each has taken all that was meant for it.
    pub fn tell_all(&mut self, kind: Kind, payload: &[u8]) {
        // Whoever connected while the container ended is owed the same answer.
        self.accept();
        for client in &mut self.clients {
            client.push(kind, payload);
        }
        for client in &mut self.clients {
            client.flush(true);
        }
    }

    /// Waits for something to do; at most `limit`.
    fn wait(
        &self,
        process: Option<BorrowedFd<'_>>,
        relay: Option<&Relay>,
        limit: Option<Duration>,
    ) -> Vec<(Source, PollFlags)> {
        let mut sources = Vec::with_capacity(8 + self.clients.len());
        let mut fds = Vec::with_capacity(8 + self.clients.len());
        let mut watch = |source, fd, events| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, events));
        };
        if let Some(process) = process {
            watch(Source::Process, process, PollFlags::IN);
        }
        if let Some(listener) = self.listener.as_ref().filter(|_| self.clients.len() < CLIENTS_MAX) {
            watch(Source::Listener, listener.as_fd(), PollFlags::IN);
        }
        for (at, client) in self.clients.iter().enumerate() {
            // A client whose input is waited for may still have signals to send, but they queue behind the input.
            let held = !self.pending_input.is_empty() && client.wants(HELLO_STDIN);
            let mut events = if held { PollFlags::empty() } else { PollFlags::IN };
            if client.has_unsent() {
                events |= PollFlags::OUT;
            }
            watch(Source::Client(at), client.as_fd(), events);
        }
        if !self.pending_input.is_empty() {
            let input = self.ends.stdin.as_ref().or(self.ends.console.as_ref());
            if let Some(fd) = input {
                watch(Source::Stdin, fd.as_fd(), PollFlags::OUT);
            }
        }
        if !self.clients.iter().any(Client::has_unsent) {
            let outputs = [
                (Source::Stdout, &self.ends.stdout),
                (Source::Stderr, &self.ends.stderr),
                (Source::Console, &self.ends.console),
            ];
            for (source, end) in outputs {
                if let Some(fd) = end {
                    watch(source, fd.as_fd(), PollFlags::IN);
                }
            }
        }
        if let Some(relay) = relay {
            use std::os::fd::AsRawFd;
            for (fd, events) in relay.fds() {
                watch(Source::Relay(fd.as_raw_fd()), fd, events);
            }
        }
        let limit = limit.and_then(|l| rustix::time::Timespec::try_from(l).ok());
        if poll(&mut fds, limit.as_ref()).is_err() {
            return Vec::new();
        }
        let revents = fds.iter().map(PollFd::revents);
        sources.into_iter().zip(revents).filter(|(_, events)| !events.is_empty()).collect()
    }

    fn handle(&mut self, source: Source, process: Option<BorrowedFd<'_>>) {
        match source {
            Source::Listener => self.accept(),
            Source::Client(at) => self.hear(at, process),
            Source::Stdin => self.write_input(),
            Source::Stdout | Source::Stderr | Source::Console => {
                self.read_output(source);
            }
            Source::Process | Source::Relay(_) => {}
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while self.clients.len() < CLIENTS_MAX {
            let Ok(socket) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) else { return };
            self.clients.push(Client::new(socket));
        }
    }

    /// Takes one packet of a client.
    fn hear(&mut self, at: usize, process: Option<BorrowedFd<'_>>) {
        self.clients[at].flush(false);
        if self.clients[at].closed || (!self.pending_input.is_empty() && self.clients[at].wants(HELLO_STDIN)) {
            return;
        }
        self.buffer.resize(PAYLOAD_MAX + 1, 0);
        let Some((kind, payload)) = self.clients[at].receive(&mut self.buffer) else { return };
        match kind {
            Some(Kind::Hello) => {
                let flags = payload.first().copied().unwrap_or(0);
                self.clients[at].flags = flags;
            }
            Some(Kind::Stdin) if self.clients[at].wants(HELLO_STDIN) && self.ends.take_input() => {
                self.pending_input.extend_from_slice(payload);
                self.write_input();
            }
            Some(Kind::StdinEnd) if self.clients[at].wants(HELLO_STDIN) => {
                self.input_ends = true;
                self.write_input();
            }
            Some(Kind::Resize) => {
                if let (Some(console), &[r0, r1, c0, c1]) = (&self.ends.console, payload) {
                    let (ws_row, ws_col) = (u16::from_le_bytes([r0, r1]), u16::from_le_bytes([c0, c1]));
                    let size = rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
                    let _ = rustix::termios::tcsetwinsize(console, size);
                }
            }
            Some(Kind::Signal) => {
                if let (Some(process), Some(number)) = (process, payload.first()) {
                    let _ = brig_sys::signals::send_to(process, i32::from(*number));
                }
            }
            Some(Kind::Stopping) => self.stopped = true,
            Some(Kind::Pause) => {
                let hold = payload.first() == Some(&1);
                self.pause(at, hold);
            }
            _ => {}
        }
    }

    /// Writes what is pending to the container; closes its input when the client's has ended and all is written.
    fn write_input(&mut self) {
        let console = self.ends.console.as_ref();
        while let Some(fd) = self.ends.stdin.as_ref().or(console).filter(|_| !self.pending_input.is_empty()) {
            match rustix::io::write(fd, &self.pending_input) {
                Ok(count) => drop(self.pending_input.drain(..count)),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => {
                    // The container closed its input: what still comes goes nowhere, as into a broken pipe.
                    self.pending_input.clear();
                    self.ends.stdin = None;
                }
            }
        }
        self.pending_input.shrink_to(0);
        if self.input_ends {
            self.ends.stdin = None;
        }
    }

    /// Reads one piece of output and passes it on. Returns whether there may be more.
    fn read_output(&mut self, source: Source) -> bool {
        let (end, stream) = match source {
            Source::Stdout => (&mut self.ends.stdout, Stream::Stdout),
            Source::Stderr => (&mut self.ends.stderr, Stream::Stderr),
            _ => (&mut self.ends.console, Stream::Stdout),
        };
        let Some(fd) = end else { return false };
        self.buffer.resize(PAYLOAD_MAX + 1, 0);
        let count = match rustix::io::read(&*fd, &mut self.buffer[..PAYLOAD_MAX]) {
            Ok(0) => {
                *end = None;
                return false;
            }
            Ok(count) => count,
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => return false,
            Err(_) => {
                // EIO of a terminal: nobody has it open inside any more. A further process may open it again, so the
                // terminal is kept, but a hang-up would make poll return at once for ever.
                *end = None;
                return false;
            }
        };
        let bytes = &self.buffer[..count];
        if let Some(log) = &mut self.log {
            log.write(stream, bytes);
        }
        let kind = if stream == Stream::Stdout { Kind::Stdout } else { Kind::Stderr };
        for client in self.clients.iter_mut().filter(|c| c.wants(crate::protocol::HELLO_OUTPUT)) {
            client.push(kind, bytes);
            client.flush(false);
        }
        true
    }

    /// Reads what the ended process left in its pipes. Another process may still be writing there, for clients that do not
    /// read: no more is taken than a pipe holds.
    fn drain(&mut self) {
        for source in [Source::Stdout, Source::Stderr, Source::Console] {
            let end = match source {
                Source::Stdout => &self.ends.stdout,
                Source::Stderr => &self.ends.stderr,
                _ => &self.ends.console,
            };
            // A terminal tells no size; the kernel buffers some 64 KiB of it. A read may take as little as a page.
            let size = end.as_ref().and_then(|fd| rustix::pipe::fcntl_getpipe_size(fd).ok()).unwrap_or(1 << 18);
            let mut left = size.div_ceil(4096);
            while left > 0 && self.read_output(source) {
                left -= 1;
            }
        }
        if let Some(log) = &mut self.log {
            log.finish();
        }
    }
}

/// Takes the exit status of a process whose pidfd has become readable.
fn reap(process: &Served) -> Option<i32> {
    if !process.is_child {
        return None;
    }
    let status = rustix::process::waitid(WaitId::PidFd(process.pidfd.as_fd()), WaitIdOptions::EXITED).ok()??;
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
}
