//! An HTTP relay before a registry: it notes what is asked, and breaks, delays or answers on command.
//!
//! ```text
//!   client --> relay --> registry        each request on connections of its own
//!                `--> notes, cuts, answers of its own
//! ```
//!
//! A client may also use it as its proxy for plain HTTP: it then relays to the registry whatever host is asked for.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::registry::read_head;

/// One request that came in.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path with its query; the whole URL if the relay was used as a proxy.
    pub path: String,
    /// The headers, names in lower case.
    pub headers: HashMap<String, String>,
    /// The bytes of the body that were relayed.
    pub body: u64,
}

/// A break of the connection.
#[derive(Debug, Clone)]
pub struct Cut {
    /// The method of the requests.
    pub method: &'static str,
    /// A part of their path.
    pub path: &'static str,
    /// After how many bytes of the body: of the request's if it has one, else of the answer's.
    pub after: u64,
    /// How often.
    pub times: usize,
}

/// An answer of the relay's own.
#[derive(Debug, Clone)]
pub struct Own {
    /// The method of the requests.
    pub method: &'static str,
    /// A part of their path.
    pub path: &'static str,
    /// The status line from the status on, and the headers.
    pub head: &'static str,
    /// How many such requests pass before.
    pub skip: usize,
    /// How often.
    pub times: usize,
}

#[derive(Debug, Default)]
struct State {
    asked: Vec<Asked>,
    cuts: Vec<Cut>,
    own: Vec<Own>,
    /// How many blobs are on their way, up or down, and how many there were at most.
    blobs: (usize, usize),
    /// A pause, then so many bytes.
    pace: Option<(usize, Duration)>,
}

/// The relay. Its threads end with the process of the test.
#[derive(Debug, Clone)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Relay {
    /// Starts before a registry at `host:port`.
    pub fn before(upstream: &str) -> Self {
        let upstream: SocketAddr = upstream.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let relay = Self { address: listener.local_addr().expect("an address"), state: Arc::default() };
        let state = Arc::clone(&relay.state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(&stream, upstream, &state));
            }
        });
        relay
    }

    /// Returns `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Breaks connections.
    pub fn cut(&self, cut: Cut) {
        self.state.lock().expect("no test has panicked here").cuts.push(cut);
    }

    /// Answers in the registry's place.
    pub fn answer(&self, own: Own) {
        self.state.lock().expect("no test has panicked here").own.push(own);
    }

    /// Relays in pieces of so many bytes, with a pause before each.
    pub fn pace(&self, bytes: usize, pause: Duration) {
        self.state.lock().expect("no test has panicked here").pace = Some((bytes, pause));
    }

    /// Returns how many blobs were on their way at the same time, at most. One that was given up counts until the next pause.
    pub fn most_blobs(&self) -> usize {
        self.state.lock().expect("no test has panicked here").blobs.1
    }

    /// Returns the requests so far, and forgets them.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.lock().expect("no test has panicked here").asked)
    }
}

/// A blob that is being answered.
struct Counted<'a>(&'a Mutex<State>);

impl<'a> Counted<'a> {
    fn new(state: &'a Mutex<State>) -> Self {
        let mut guard = state.lock().expect("no test has panicked here");
        guard.blobs.0 += 1;
        guard.blobs.1 = guard.blobs.1.max(guard.blobs.0);
        Self(state)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Ok(mut state) = self.0.lock() {
            state.blobs.0 -= 1;
        }
    }
}

fn serve(client: &TcpStream, upstream: SocketAddr, state: &Mutex<State>) {
    let mut reader = BufReader::new(client);
    let Some((first, headers)) = read_head(&mut reader) else { return };
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or("/").to_owned());
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest[rest.find('/').unwrap_or(rest.len())..].to_owned(),
        None => target.clone(),
    };
    let length: u64 = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let (number, cut, own, pace) = {
        let mut state = state.lock().expect("no test has panicked here");
        let asked = Asked { method: method.clone(), path: target.clone(), headers: headers.clone(), body: 0 };
        state.asked.push(asked);
        let fits = |m: &str, p: &str| m == method && target.contains(p);
        let own = state.own.iter_mut().find(|own| own.times > 0 && fits(own.method, own.path)).and_then(|own| {
            if own.skip > 0 {
                own.skip -= 1;
                return None;
            }
            own.times -= 1;
            Some(own.clone())
        });
        let cut = state.cuts.iter_mut().find(|c| c.times > 0 && fits(c.method, c.path)).filter(|_| own.is_none());
        let cut = cut.map(|cut| {
            cut.times -= 1;
            cut.clone()
        });
        (state.asked.len() - 1, cut, own, state.pace)
    };
    let end = |stream: &TcpStream| drop(stream.shutdown(Shutdown::Both));
    let mut client_side = client;
    if let Some(own) = own {
        let _ = std::io::copy(&mut reader.take(length), &mut std::io::sink());
        let _ = write!(client_side, "HTTP/1.1 {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", own.head);
        return end(client);
    }
    let Ok(mut server) = TcpStream::connect(upstream) else { return end(client) };
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers.iter().filter(|(name, _)| !matches!(name.as_str(), "connection" | "proxy-connection"))
    {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    let _ = server.write_all(head.as_bytes());
    let (up, down) = match &cut {
        Some(cut) if length > 0 => (cut.after.min(length), None),
        Some(cut) => (0, Some(cut.after)),
        None => (length, None),
    };
    let upload = matches!(method.as_str(), "PUT" | "PATCH") && path.contains("/uploads/");
    let download = method == "GET" && path.contains("/blobs/") && !path.contains("/uploads/");
    let _counted = (upload || download).then(|| Counted::new(state));
    let copied = relay_slowly(&mut reader.take(up), &mut server, pace);
    if let Some(asked) = state.lock().expect("no test has panicked here").asked.get_mut(number) {
        asked.body = copied;
    }
    if cut.is_some() && length > 0 {
        end(&server);
        return end(client);
    }
    let mut answer = BufReader::new(&server);
    let mut raw = Vec::new();
    while !raw.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match answer.read(&mut byte) {
            Ok(1) => raw.push(byte[0]),
            _ => return end(client),
        }
    }
    let _ = client_side.write_all(&raw);
    relay_slowly(&mut answer.take(down.unwrap_or(u64::MAX)), &mut client_side, pace);
    end(client);
}

/// Copies to the end, in pieces with pauses if need be; returns how many bytes got through.
fn relay_slowly(from: &mut impl Read, to: &mut impl Write, pace: Option<(usize, Duration)>) -> u64 {
    let mut buffer = vec![0; pace.map_or(64 << 10, |(bytes, _)| bytes)];
    let mut copied = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if let Some((_, pause)) = pace {
            std::thread::sleep(pause);
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        copied += count as u64;
    }
    copied
}
