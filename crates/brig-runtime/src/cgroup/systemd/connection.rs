//! A conversation with systemd over D-Bus: one socket, one question at a time, each wait with a bound.
//!
//! ```text
//! private    /run/systemd/private, $XDG_RUNTIME_DIR/systemd/private     systemd itself, no bus between; first choice
//! bus        /run/dbus/system_bus_socket, the session's bus             Hello, and a match for the signal, come first
//!
//! us                                     systemd
//!  | \0 AUTH EXTERNAL, DATA, BEGIN -------->|   the kernel says who we are
//!  |<-------------------- DATA, OK guid ----|
//!  | StartTransientUnit ------------------->|
//!  |<--------------------- path of a job ---|
//!  |<-- JobRemoved(job, "done" | why not) --|
//! ```

use super::wire::{Kind, Message, Value};
use super::{Bus, Fault};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long systemd may take for an answer, or for a job.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many signals are kept while an answer is waited for.
const MOST_SIGNALS: usize = 256;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";

/// An open conversation.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    /// Whether there is a bus between, which has to be told to whom a message goes.
    bus: bool,
    signals: Vec<Message>,
}

impl Connection {
    /// Opens a conversation with the systemd of `bus`.
    pub(super) fn open(bus: &Bus) -> Result<Self, Fault> {
        let mut first = None;
        for (address, is_bus) in bus.addresses()? {
            match Self::open_at(&address, is_bus) {
                Ok(connection) => return Ok(connection),
                Err(fault) => first = first.or(Some(fault)),
            }
        }
        Err(first.unwrap_or_else(|| Fault::Io(io::Error::new(io::ErrorKind::NotFound, "no address of it is known"))))
    }

    fn open_at(address: &SocketAddrUnix, bus: bool) -> Result<Self, Fault> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        rustix::net::connect(&socket, address)?;
        let mut stream = UnixStream::from(socket);
        authenticate(&mut stream)?;
        let mut connection = Self { stream, serial: 0, bus, signals: Vec::new() };
        if bus {
            connection.call_bus("Hello", Vec::new())?;
            let rule = format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'");
            connection.call_bus("AddMatch", vec![Value::Text(rule)])?;
        }
        Ok(connection)
    }

    fn call_bus(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>, Fault> {
        self.call(Message {
            destination: BUS.into(),
            path: "/org/freedesktop/DBus".into(),
            interface: BUS.into(),
            member: member.into(),
            body,
            ..Message::new(Kind::Call)
        })
    }

    /// Calls a method of systemd's manager.
    pub(super) fn manager(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>, Fault> {
        self.systemd(MANAGER, member, body)
    }

    /// Reads a property of systemd's manager that is a text.
    pub(super) fn property(&mut self, name: &str) -> Result<String, Fault> {
        let body = vec![Value::text(MANAGER), Value::text(name)];
        let answer = self.systemd("org.freedesktop.DBus.Properties", "Get", body)?;
        let text = answer.first().and_then(Value::as_text);
        text.map(str::to_owned).ok_or_else(|| Fault::Io(unexpected(name)))
    }

    fn systemd(&mut self, interface: &str, member: &str, body: Vec<Value>) -> Result<Vec<Value>, Fault> {
        self.call(Message {
            destination: if self.bus { SYSTEMD.into() } else { String::new() },
            path: OBJECT.into(),
            interface: interface.into(),
            member: member.into(),
            body,
            ..Message::new(Kind::Call)
        })
    }

    /// Calls a method that starts a job, and waits for the job. Returns its result: `done`, or why not.
    pub(super) fn job(&mut self, member: &str, body: Vec<Value>) -> Result<String, Fault> {
        self.signals.clear();
        let answer = self.manager(member, body)?;
        let job = answer.first().and_then(Value::as_text).ok_or_else(|| Fault::Io(unexpected(member)))?.to_owned();
        let result = |message: &Message| match &message.body[..] {
            [_, path, _, result, ..] if message.member == "JobRemoved" && path.as_text() == Some(&job) => {
                result.as_text().map(str::to_owned)
            }
            _ => None,
        };
        if let Some(result) = self.signals.iter().find_map(result) {
            return Ok(result);
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let message = self.receive(end)?;
            if let Some(result) = Some(&message).filter(|m| m.kind == Kind::Signal).and_then(result) {
                return Ok(result);
            }
        }
    }

    fn call(&mut self, mut message: Message) -> Result<Vec<Value>, Fault> {
        self.serial += 1;
        message.serial = self.serial;
        let end = Instant::now() + PATIENCE;
        self.stream.write_all(&message.to_bytes()).map_err(patience)?;
        loop {
            let answer = self.receive(end)?;
            match answer.kind {
                Kind::Return if answer.reply_to == message.serial => return Ok(answer.body),
                Kind::Error if answer.reply_to == message.serial => {
                    let text = answer.body.first().and_then(Value::as_text).unwrap_or("no reason was given").to_owned();
                    return Err(Fault::Refused { name: answer.error, text });
                }
                Kind::Signal if self.signals.len() < MOST_SIGNALS => self.signals.push(answer),
                _ => {}
            }
        }
    }

    fn receive(&mut self, end: Instant) -> Result<Message, Fault> {
        if Instant::now() >= end {
            return Err(Fault::Io(patience(io::ErrorKind::TimedOut.into())));
        }
        let mut begin = [0; 16];
        self.stream.read_exact(&mut begin).map_err(patience)?;
        let mut bytes = begin.to_vec();
        bytes.resize(Message::length(&begin)?.max(16), 0);
        self.stream.read_exact(&mut bytes[16..]).map_err(patience)?;
        Ok(Message::parse(&bytes)?)
    }
}

/// The kernel tells the other side our ids; an empty answer to its question says that they are the ones to go by.
fn authenticate(stream: &mut UnixStream) -> io::Result<()> {
    stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n").map_err(patience)?;
    let mut line = Vec::new();
    let mut byte = [0];
    for _ in 0..1024 {
        stream.read_exact(&mut byte).map_err(patience)?;
        line.push(byte[0]);
        if !line.ends_with(b"\r\n") {
            continue;
        }
        match line.trim_ascii_end() {
            ok if ok.starts_with(b"OK ") => return Ok(()),
            data if data.starts_with(b"DATA") => line.clear(),
            other => {
                let text = String::from_utf8_lossy(other).into_owned();
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("it answered `{text}`")));
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak D-Bus"))
}

/// A time-out of the socket, in words.
fn patience(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, format!("systemd did not answer within {} s", PATIENCE.as_secs()))
        }
        _ => error,
    }
}

fn unexpected(member: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("systemd's answer to {member} has an unknown form"))
}
