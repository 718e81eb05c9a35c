//! Registries for tests: Debian's `docker-registry` on a free port of loopback, and one that lies on command.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::image::{Image, digest};

/// The longest wait for the registry to listen.
const START_MAX: Duration = Duration::from_secs(20);

/// The one user of [`Registry::start_with_user`] in htpasswd's form.
const USERS: &str = "brig:$2b$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

/// A real registry; it ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Registry {
    /// Starts the registry on a free port with an empty storage.
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), "")
    }

    /// Starts the registry with one user, `brig`, whose password is `s3cret`. Nothing can be pushed to it by [`Self::push`].
    pub fn start_with_user() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let users = directory.path().join("users");
        fs::write(&users, USERS).expect("a file of users");
        let auth = format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}\n", users.display());
        Self::start_in(directory, &auth)
    }

    /// Returns the body that a GET of a path gives.
    pub fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let (status, _, body) = self.request("GET", path, "", &[]);
        (status, body)
    }

    /// Starts the registry with TLS, and returns the certificate, which is good for `localhost` and signed by itself.
    ///
    /// Nothing can be pushed to it by [`Self::push`]; [`Self::copy_storage`] gives it content.
    pub fn start_tls() -> (Self, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let (certificate, key) = make_certificate(directory.path(), "cert");
        let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
        (Self::start_in(directory, &tls), certificate)
    }

    /// The same, for clients with a certificate only; also returns that and its key.
    pub fn start_mutual_tls() -> (Self, PathBuf, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let (certificate, key) = make_certificate(directory.path(), "cert");
        let (client, client_key) = make_certificate(directory.path(), "client");
        let tls = format!(
            "  tls:\n    certificate: {}\n    key: {}\n    clientcas:\n      - {}\n",
            certificate.display(),
            key.display(),
            client.display()
        );
        (Self::start_in(directory, &tls), certificate, client, client_key)
    }

    /// Copies everything that another registry has into this one.
    pub fn copy_storage(&self, other: &Self) {
        let status = Command::new("cp")
            .arg("-a")
            .arg(other.directory.path().join("storage/."))
            .arg(self.directory.path().join("storage"))
            .status()
            .expect("cp runs");
        assert!(status.success(), "a storage copied");
    }

    fn start_in(directory: tempfile::TempDir, more: &str) -> Self {
        fs::create_dir(directory.path().join("storage")).expect("a directory");
        for _ in 0..5 {
            let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
            let config = directory.path().join("config.yml");
            let storage = directory.path().join("storage");
            let text = format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{more}",
                storage.display()
            );
            fs::write(&config, text).expect("a configuration");
            // If the test is killed, so is the registry.
            let mut command = Command::new("setpriv");
            command
                .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.process_group(0);
            let mut child = command.spawn().expect("Debian's package docker-registry is installed");
            let start = Instant::now();
            while start.elapsed() < START_MAX {
                if TcpStream::connect(address).is_ok() {
                    return Self { child, address, directory };
                }
                if matches!(child.try_wait(), Ok(Some(_))) {
                    break; // somebody else took the port
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start");
    }

    /// Returns `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Pushes an image under `repository:tag`.
    pub fn push(&self, image: &Image, repository: &str, tag: &str) {
        for (digest, bytes) in &image.blobs {
            self.push_blob(repository, digest, bytes);
        }
        self.push_manifest(repository, tag, image.media_type(), &image.manifest);
    }

    /// Pushes one blob.
    pub fn push_blob(&self, repository: &str, digest: &str, bytes: &[u8]) {
        let (status, headers, _) = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
        assert_eq!(status, 202, "an upload begun");
        let location = headers.get("location").expect("an upload has a place");
        let path =
            location.split_once("://").map_or(location.as_str(), |(_, rest)| &rest[rest.find('/').unwrap_or(0)..]);
        let glue = if path.contains('?') { '&' } else { '?' };
        let (status, ..) =
            self.request("PUT", &format!("{path}{glue}digest={digest}"), "application/octet-stream", bytes);
        assert_eq!(status, 201, "a blob pushed");
    }

    /// Pushes a manifest or an index.
    pub fn push_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) {
        let (status, _, body) = self.request("PUT", &format!("/v2/{repository}/manifests/{tag}"), media_type, bytes);
        assert_eq!(status, 201, "a manifest pushed: {}", String::from_utf8_lossy(&body));
    }

    fn request(&self, method: &str, path: &str, media: &str, body: &[u8]) -> (u16, HashMap<String, String>, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).expect("the registry listens");
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
        for kind in ["oci.image.manifest.v1", "oci.image.index.v1", "docker.distribution.manifest.v2"] {
            let _ = write!(head, "Accept: application/vnd.{kind}+json\r\n");
        }
        if !media.is_empty() {
            let _ = write!(head, "Content-Type: {media}\r\n");
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).expect("a request sent");
        stream.write_all(body).expect("a body sent");
        let mut reader = BufReader::new(stream);
        let (first, headers) = read_head(&mut reader).expect("an answer");
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer);
        (status, headers, answer)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a certificate for `localhost` that is signed by itself, and its key.
fn make_certificate(directory: &std::path::Path, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}-key.pem")));
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("Debian's package openssl is installed");
    assert!(status.success(), "a certificate made");
    (certificate, key)
}

pub(crate) fn read_head(reader: &mut impl BufRead) -> Option<(String, HashMap<String, String>)> {
    let mut first = String::new();
    if reader.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 || line == "\r\n" {
            return Some((first.trim_end().to_owned(), headers));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
}

/// What the lying server does with the answer to a path.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The status; 0 means 200.
    pub status: u16,
    /// More headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Break the connection after so many bytes of the body, as often as `breaks` says.
    pub break_after: Option<usize>,
    /// How many answers to this path are broken off.
    pub breaks: usize,
    /// Do as if ranges were unknown.
    pub no_ranges: bool,
    /// Answer only requests with this `Authorization` header; 401 with the headers of `challenge` to others.
    pub authorization: Option<String>,
    /// The `WWW-Authenticate` header of a 401.
    pub challenge: String,
}

impl Answer {
    /// Answers with a body.
    pub fn body(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// One request that came in.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The path with its query.
    pub path: String,
    /// The headers, names in lower case.
    pub headers: HashMap<String, String>,
}

#[derive(Debug, Default)]
struct State {
    answers: HashMap<String, Answer>,
    seen: Vec<Seen>,
}

/// An HTTP server on loopback whose every answer is made by the test. Its threads end with the process of the test.
#[derive(Debug, Clone)]
pub struct Liar {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Default for Liar {
    fn default() -> Self {
        Self::start()
    }
}

impl Liar {
    /// Starts with no answers: everything is 404.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let liar = Self { address: listener.local_addr().expect("an address"), state: Arc::default() };
        let state = Arc::clone(&liar.state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        liar
    }

    /// Returns `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Sets the answer to a path without query.
    pub fn answer(&self, path: &str, answer: Answer) {
        self.state.lock().expect("no test has panicked here").answers.insert(path.to_owned(), answer);
    }

    /// Answers as a registry that has an image as `repository:tag`.
    pub fn serve(&self, image: &Image, repository: &str, tag: &str) {
        let manifest = Answer::body(image.manifest.clone()).header("Content-Type", image.media_type());
        for name in [tag.to_owned(), digest(&image.manifest)] {
            self.answer(&format!("/v2/{repository}/manifests/{name}"), manifest.clone());
        }
        for (digest, bytes) in &image.blobs {
            self.answer(&format!("/v2/{repository}/blobs/{digest}"), Answer::body(bytes.clone()));
        }
    }

    /// Changes the answer to a path.
    pub fn change(&self, path: &str, change: impl FnOnce(&mut Answer)) {
        let mut state = self.state.lock().expect("no test has panicked here");
        change(state.answers.get_mut(path).expect("there is an answer to change"));
    }

    /// Returns the requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().expect("no test has panicked here").seen.clone()
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    while let Some((first, headers)) = read_head(&mut reader) {
        let target = first.split(' ').nth(1).unwrap_or("/").to_owned();
        let path = target.split('?').next().unwrap_or("/").to_owned();
        if let Some(length) = headers.get("content-length").and_then(|length| length.parse::<u64>().ok()) {
            let _ = std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink());
        }
        let answer = {
            let mut state = state.lock().expect("no test has panicked here");
            state.seen.push(Seen { path: target, headers: headers.clone() });
            let found = state.answers.get_mut(&path).map(|answer| {
                let given = answer.clone();
                answer.breaks = answer.breaks.saturating_sub(1);
                given
            });
            found.unwrap_or(Answer { status: 404, ..Answer::default() })
        };
        if !reply(stream, &answer, &headers) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// Sends an answer; false if the connection is to be broken.
fn reply(mut stream: &TcpStream, answer: &Answer, headers: &HashMap<String, String>) -> bool {
    if let Some(wanted) = &answer.authorization
        && headers.get("authorization") != Some(wanted)
    {
        let head = format!("HTTP/1.1 401 no\r\nWWW-Authenticate: {}\r\nContent-Length: 0\r\n\r\n", answer.challenge);
        return stream.write_all(head.as_bytes()).is_ok();
    }
    let mut status = if answer.status == 0 { 200 } else { answer.status };
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.trim_end_matches('-').parse().ok());
    let start: usize = range.filter(|start| !answer.no_ranges && *start <= answer.body.len()).unwrap_or(0);
    let body = &answer.body[start..];
    let mut head = String::new();
    if start > 0 {
        status = 206;
        let total = answer.body.len();
        let _ = write!(head, "Content-Range: bytes {start}-{}/{total}\r\n", total.saturating_sub(1));
    }
    for (name, value) in &answer.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let head = format!("HTTP/1.1 {status} ok\r\nContent-Length: {}\r\n{head}\r\n", body.len());
    if stream.write_all(head.as_bytes()).is_err() {
        return false;
    }
    if let Some(length) = answer.break_after.filter(|_| answer.breaks > 0) {
        let _ = stream.write_all(&body[..length.min(body.len())]);
        return false;
    }
    stream.write_all(body).is_ok()
}
