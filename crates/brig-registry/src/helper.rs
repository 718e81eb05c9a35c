//! Programs that keep credentials: `docker-credential-<name> get|store|erase`.
//!
//! ```text
//!   get     stdin: the server            stdout: {"ServerURL": .., "Username": .., "Secret": ..}
//!   store   stdin: the same JSON
//!   erase   stdin: the server
//!           exit 1: an error on stdout; "credentials not found in native keychain" is no error of `get`
//! ```
//!
//! What such a program says is bounded, and so is the time it has; it may ask its user for a passphrase meanwhile.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::credentials::{Credentials, Secret};
use crate::error::Error;

/// The most bytes that are read of a program.
const OUTPUT_MAX: u64 = 1 << 20;
/// The most characters of its complaint that are shown.
const SHOWN_MAX: usize = 200;
/// The user name that stands for an identity token.
const TOKEN_USER: &str = "<token>";

/// What is exchanged with the program.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ServerURL", default)]
    server: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// One such program.
#[derive(Debug)]
pub(crate) struct Helper {
    program: String,
    /// How long it may take.
    patience: Duration,
}

impl Helper {
    /// Names the program; a name with a slash would be another program.
    pub(crate) fn new(name: &str, patience: Duration) -> Result<Self, Error> {
        let program = format!("docker-credential-{name}");
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            let reason = "its name is none of a program".to_owned();
            return Err(Error::Helper { program, action: "get", reason });
        }
        Ok(Self { program, patience })
    }

    /// Asks for the credentials of a server; `None` if it has none.
    pub(crate) fn get(&self, server: &str) -> Result<Option<Credentials>, Error> {
        let answer = match self.run("get", server.as_bytes())? {
            Ok(answer) => answer,
            Err(said) if said.contains("credentials not found") => return Ok(None),
            Err(said) => return Err(self.fail("get", said)),
        };
        let entry: Entry =
            serde_json::from_slice(&answer).map_err(|_| self.fail("get", "its answer is not JSON".to_owned()))?;
        if entry.secret.is_empty() {
            return Ok(None);
        }
        let secret = Secret(entry.secret);
        Ok(Some(if entry.username == TOKEN_USER {
            Credentials::Identity(secret)
        } else {
            Credentials::Basic(entry.username, secret)
        }))
    }

    /// Gives it credentials to keep.
    pub(crate) fn store(&self, server: &str, credentials: &Credentials) -> Result<(), Error> {
        let (username, secret) = match credentials {
            Credentials::Basic(user, password) => (user.clone(), password.0.clone()),
            Credentials::Identity(token) => (TOKEN_USER.to_owned(), token.0.clone()),
        };
        let entry = Entry { server: server.to_owned(), username, secret };
        let text = serde_json::to_vec(&entry).map_err(|error| self.fail("store", error.to_string()))?;
        self.run("store", &text)?.map(|_| ()).map_err(|said| self.fail("store", said))
    }

    /// Lets it forget a server; one that it does not know is fine.
    pub(crate) fn erase(&self, server: &str) -> Result<(), Error> {
        match self.run("erase", server.as_bytes())? {
            Err(said) if !said.contains("not found") => Err(self.fail("erase", said)),
            _ => Ok(()),
        }
    }

    fn fail(&self, action: &'static str, reason: String) -> Error {
        Error::Helper { program: self.program.clone(), action, reason }
    }

    /// Runs it: what it said on success, or its complaint.
    fn run(&self, action: &'static str, input: &[u8]) -> Result<Result<Vec<u8>, String>, Error> {
        let mut child = Command::new(&self.program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.fail(action, error.to_string()))?;
        let (stdin, input) = (child.stdin.take(), input.to_vec());
        // It may end without having read all.
        std::thread::spawn(move || stdin.is_some_and(|mut stdin| stdin.write_all(&input).is_ok()));
        let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let deadline = Instant::now() + self.patience;
        let status = wait(&mut child, deadline).map_err(|error| self.fail(action, error.to_string()))?;
        let Some(status) = status else {
            return Err(self.fail(action, format!("it took more than {} seconds", self.patience.as_secs())));
        };
        // Something that it has left behind may hold its output.
        let rest = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        let said = stdout.recv_timeout(rest).map_err(|_| self.fail(action, "its output does not end".to_owned()))?;
        if said.len() as u64 > OUTPUT_MAX {
            return Err(self.fail(action, "it says too much".to_owned()));
        }
        if status.success() {
            return Ok(Ok(said));
        }
        let complaint = if said.iter().all(u8::is_ascii_whitespace) {
            stderr.recv_timeout(Duration::from_millis(100)).unwrap_or_default()
        } else {
            said
        };
        // Something that looks like an answer may hold the secret.
        let secret = serde_json::from_slice::<serde_json::Value>(&complaint).is_ok_and(|value| value.is_object());
        let text = if secret { "it failed after its answer".into() } else { String::from_utf8_lossy(&complaint) };
        let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_MAX).collect();
        Ok(Err(if text.is_empty() { status.to_string() } else { text }))
    }
}

/// Reads a stream to its end, or to a byte more than the bound, on a thread of its own.
fn drain(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            let _ = stream.take(OUTPUT_MAX + 1).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// Waits until a child ends, and kills it at the deadline.
fn wait(child: &mut Child, deadline: Instant) -> std::io::Result<Option<std::process::ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
