//! Pushing to a real registry, straight and through a relay that breaks things.

#![allow(clippy::unwrap_used)] // tests

use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brig_registry::{Client, Content, Error, Options, Pushed};
use brig_spec::image::Descriptor;
use brig_spec::reference::Reference;
use testkit::image::digest;
use testkit::registry::{Answer, Liar, Registry};
use testkit::relay::{Cut, Own, Relay};

/// Blobs in memory, and how far each was sent.
struct Bytes(Vec<u8>, Mutex<Vec<u64>>);

impl Content for Bytes {
    fn open(&self, _blob: &Descriptor, offset: u64) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(Cursor::new(&self.0[usize::try_from(offset).unwrap()..])))
    }

    fn sent(&self, _blob: &Descriptor, bytes: u64) {
        self.1.lock().unwrap().push(bytes);
    }
}

fn noise(length: u32) -> Bytes {
    let bytes = (0..length / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    Bytes(bytes, Mutex::default())
}

fn describe(content: &Bytes) -> Descriptor {
    Descriptor {
        media_type: "application/octet-stream".into(),
        digest: digest(&content.0).parse().unwrap(),
        size: content.0.len() as u64,
        platform: None,
        annotations: std::collections::BTreeMap::default(),
    }
}

fn options() -> Options {
    Options { read_timeout: Duration::from_secs(5), retries: 2, ..Options::default() }
}

fn reference(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

fn none() -> Vec<String> {
    Vec::new()
}

fn fetch(client: &Client, reference: &Reference, blob: &Descriptor) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.blob(reference, blob, 0).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_blob_is_sent_whole_in_parts_or_not_at_all() {
    let registry = Registry::start();
    let relay = Relay::before(&registry.host());
    let client = |part| Client::new(Options { upload_part: part, ..options() }).unwrap();
    for (name, part, length) in
        [("whole", 1 << 30, 700_000), ("parts", 200_000, 700_001), ("even", 100_000, 300_000), ("none", 10, 0)]
    {
        let content = noise(length);
        let blob = describe(&content);
        let reference = reference(&relay.host(), name);
        let client = client(part);
        assert_eq!(client.push_blob(&reference, &blob, &none, &content).unwrap(), Pushed::Sent, "{name}");
        assert!(fetch(&client, &reference, &blob) == content.0, "{name}");
        let patches = relay.asked().iter().filter(|asked| asked.method == "PATCH").count() as u64;
        assert_eq!(patches, if blob.size > part { blob.size.div_ceil(part) } else { 0 }, "{name}");
        let sent = content.1.lock().unwrap().clone();
        assert!(sent.is_sorted() && sent.last().copied().unwrap_or(0) == blob.size, "{sent:?}");
        assert_eq!(client.push_blob(&reference, &blob, &none, &content).unwrap(), Pushed::Present);
        assert!(relay.asked().iter().all(|asked| asked.method == "HEAD"));
    }
}

#[test]
fn another_repository_of_the_registry_lends_its_blob() {
    let registry = Registry::start();
    let relay = Relay::before(&registry.host());
    let client = Client::new(options()).unwrap();
    let content = noise(500_000);
    let blob = describe(&content);
    client.push_blob(&reference(&relay.host(), "first/a"), &blob, &none, &content).unwrap();
    relay.asked();
    let from = || vec!["none/such".to_owned(), "first/a".to_owned()];
    let second = reference(&relay.host(), "second");
    assert_eq!(client.push_blob(&second, &blob, &from, &content).unwrap(), Pushed::Mounted("first/a".into()));
    let asked = relay.asked();
    assert!(asked.iter().all(|asked| asked.body == 0), "{asked:?}");
    assert!(fetch(&client, &second, &blob) == content.0);
    // Where nobody has it, it is sent.
    let other = noise(400_000);
    let blob = describe(&other);
    assert_eq!(client.push_blob(&second, &blob, &from, &other).unwrap(), Pushed::Sent);
}

/// An upload as the specification has it, at a registry that keeps what has arrived when a connection breaks.
#[derive(Default)]
struct Spool {
    bytes: Vec<u8>,
    log: Vec<String>,
    /// After how many bytes in all the connection breaks, once each.
    breaks: Vec<usize>,
}

/// Serves one upload, of any repository; returns the address.
fn spool(spool: &Arc<Mutex<Spool>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let spool = Arc::clone(spool);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut first, mut length, mut range) = (String::new(), 0, String::new());
            let _ = reader.read_line(&mut first);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                let line = line.to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if let Some(value) = line.strip_prefix("content-range:") {
                    value.trim().clone_into(&mut range);
                }
            }
            let method = first.split(' ').next().unwrap_or_default().to_owned();
            let mut state = spool.lock().unwrap();
            state.log.push(format!("{method} {range}"));
            let start: Option<usize> = range.split('-').next().and_then(|start| start.parse().ok());
            let fits = start.is_none_or(|start| start == state.bytes.len());
            let mut broken = false;
            for _ in 0..length {
                let mut byte = [0];
                if reader.read_exact(&mut byte).is_err() {
                    break;
                }
                if fits {
                    state.bytes.push(byte[0]);
                }
                if state.breaks.first() == Some(&state.bytes.len()) {
                    state.breaks.remove(0);
                    broken = true;
                    break;
                }
            }
            if broken {
                continue;
            }
            let last = state.bytes.len().saturating_sub(1);
            let status = match method.as_str() {
                "HEAD" => "404 no".to_owned(),
                "POST" => "202 ok".to_owned(),
                "PATCH" if fits => format!("202 ok\r\nRange: 0-{last}"),
                "GET" => format!("204 ok\r\nRange: 0-{last}"),
                "PUT" if fits => "201 ok".to_owned(),
                _ => "416 no".to_owned(),
            };
            let head = format!("HTTP/1.1 {status}\r\nLocation: /up\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = reader.get_mut().write_all(head.as_bytes());
        }
    });
    host
}

#[test]
fn a_broken_upload_goes_on_where_it_stopped() {
    let content = noise(300_000);
    let blob = describe(&content);
    for (part, breaks) in [(1 << 30, vec![70_000, 250_000]), (100_000, vec![50_000, 150_000, 150_001, 299_999])] {
        let state = Arc::new(Mutex::new(Spool { breaks, ..Spool::default() }));
        let reference = reference(&spool(&state), "a");
        let client = Client::new(Options { upload_part: part, ..options() }).unwrap();
        assert_eq!(client.push_blob(&reference, &blob, &none, &content).unwrap(), Pushed::Sent);
        let state = state.lock().unwrap();
        assert!(state.bytes == content.0, "{:?}", state.log);
        assert_eq!(state.log.iter().filter(|line| line.starts_with("POST")).count(), 1, "{:?}", state.log);
        assert!(state.breaks.is_empty() && state.log.iter().any(|line| line == "GET "), "{:?}", state.log);
    }
}

#[test]
fn a_registry_that_forgets_broken_parts_gets_them_again() {
    let registry = Registry::start();
    let content = noise(3_000_000);
    let blob = describe(&content);
    let client = Client::new(Options { upload_part: 1_000_000, ..options() }).unwrap();
    // Between two parts, the last one is known.
    let relay = Relay::before(&registry.host());
    relay.answer(Own { method: "PATCH", path: "/uploads/", head: "503 Busy", skip: 1, times: 1 });
    let between = reference(&relay.host(), "between");
    assert_eq!(client.push_blob(&between, &blob, &none, &content).unwrap(), Pushed::Sent);
    assert!(fetch(&client, &between, &blob) == content.0);
    let sent: u64 = relay.asked().iter().map(|asked| asked.body).sum();
    assert_eq!(sent, 3_000_000);
    // Debian's registry does not tell what has arrived of a part that broke off.
    for method in ["PUT", "PATCH"] {
        let client =
            Client::new(Options { upload_part: if method == "PUT" { 1 << 30 } else { 1_000_000 }, ..options() });
        let client = client.unwrap();
        relay.cut(Cut { method, path: "/uploads/", after: 700_000, times: 1 });
        let reference = reference(&relay.host(), method.to_lowercase().as_str());
        assert_eq!(client.push_blob(&reference, &blob, &none, &content).unwrap(), Pushed::Sent);
        assert!(fetch(&client, &reference, &blob) == content.0, "{method}");
        let sent: u64 = relay.asked().iter().map(|asked| asked.body).sum();
        assert_eq!(sent, 3_700_000);
    }
    // One that always breaks is given up.
    let relay = Relay::before(&registry.host());
    relay.cut(Cut { method: "PUT", path: "/uploads/", after: 0, times: 1000 });
    let error = Client::new(options())
        .unwrap()
        .push_blob(&reference(&relay.host(), "never"), &blob, &none, &content)
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(relay.asked().len() < 20);
}

#[test]
fn a_registry_that_takes_no_parts_gets_the_whole() {
    let registry = Registry::start();
    for head in
        ["405 Method Not Allowed", "404 Not Found", "413 Content Too Large", "416 Range Not Satisfiable", "401 No"]
    {
        let relay = Relay::before(&registry.host());
        let times = if head.starts_with("416") || head.starts_with("401") { 1 } else { 100 };
        relay.answer(Own { method: "PATCH", path: "/uploads/", head, skip: 0, times });
        let content = noise(500_000);
        let blob = describe(&content);
        let name = format!("no-{}", &head[..3]);
        let client = Client::new(Options { upload_part: 100_000, ..options() }).unwrap();
        let reference = reference(&relay.host(), &name);
        assert_eq!(client.push_blob(&reference, &blob, &none, &content).unwrap(), Pushed::Sent, "{head}");
        assert!(fetch(&client, &reference, &blob) == content.0, "{head}");
    }
}

#[test]
fn what_is_sent_must_be_what_was_announced() {
    let registry = Registry::start();
    let client = Client::new(options()).unwrap();
    let reference = reference(&registry.host(), "short");
    let content = noise(500_000);
    let mut blob = describe(&content);
    blob.size += 1;
    let error = client.push_blob(&reference, &blob, &none, &content).unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error}");
    let mut blob = describe(&content);
    blob.digest = digest(b"else").parse().unwrap();
    let error = client.push_blob(&reference, &blob, &none, &content).unwrap_err();
    assert!(matches!(error, Error::Status { status: 400, .. }), "{error}");
    assert!(error.to_string().contains("digest"), "the registry's own words: {error}");
}

#[test]
fn a_blob_that_is_kept_elsewhere_is_there() {
    let liar = Liar::start();
    let content = noise(1000);
    let blob = describe(&content);
    let answer = Answer { status: 307, ..Answer::default() }.header("Location", "http://127.0.0.1:1/signed-for-get");
    liar.answer(&format!("/v2/a/blobs/{}", blob.digest), answer);
    let client = Client::new(options()).unwrap();
    let pushed = client.push_blob(&reference(&liar.host(), "a"), &blob, &none, &content).unwrap();
    assert_eq!((pushed, liar.seen().len()), (Pushed::Present, 1));
}

#[test]
fn a_token_for_a_mount_is_for_both_repositories() {
    let liar = Liar::start();
    let challenge = format!("Bearer realm=\"http://{}/token\",scope=\"repository:second:pull\"", liar.host());
    liar.answer(
        "/v2/second/blobs/uploads/",
        Answer { authorization: Some("Bearer t".into()), challenge, status: 201, ..Answer::default() },
    );
    liar.answer("/token", Answer::body(r#"{"token":"t"}"#));
    let content = noise(1000);
    let from = || vec!["first/a".to_owned()];
    let client = Client::new(options()).unwrap();
    let pushed = client.push_blob(&reference(&liar.host(), "second"), &describe(&content), &from, &content).unwrap();
    assert_eq!(pushed, Pushed::Mounted("first/a".into()));
    let asked = liar.seen().into_iter().find(|seen| seen.path.starts_with("/token")).unwrap();
    assert_eq!(asked.path, "/token?scope=repository%3Asecond%3Apull%2Cpush&scope=repository%3Afirst%2Fa%3Apull");
}

#[test]
fn an_upload_is_not_led_astray() {
    let (liar, elsewhere) = (Liar::start(), Liar::start());
    let content = noise(1000);
    let blob = describe(&content);
    let client = Client::new(options()).unwrap();
    let begin = |name: &str, location: &str| {
        liar.answer(
            &format!("/v2/{name}/blobs/uploads/"),
            Answer { status: 202, ..Answer::default() }.header("Location", location),
        );
        client.push_blob(&reference(&liar.host(), name), &blob, &none, &content)
    };
    assert!(matches!(begin("file", "file:///etc/passwd"), Err(Error::Protocol { .. })));
    assert!(matches!(begin("nowhere", "http://"), Err(Error::Protocol { .. })));
    // To another host goes the content, but not the password.
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.json");
    std::fs::write(&config, format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpwYXNz"}}}}}}"#, liar.host())).unwrap();
    let client = Client::new(Options { credentials: Some(config), ..options() }).unwrap();
    let location = format!("http://{}/up", elsewhere.host());
    liar.answer(
        "/v2/b/blobs/uploads/",
        Answer {
            authorization: Some("Basic dXNlcjpwYXNz".into()),
            status: 202,
            challenge: "Basic realm=x".into(),
            ..Answer::default()
        }
        .header("Location", &location),
    );
    elsewhere.answer("/up", Answer { status: 201, ..Answer::default() });
    client.push_blob(&reference(&liar.host(), "b"), &blob, &none, &content).unwrap();
    let seen = elsewhere.seen();
    assert!(seen.len() == 1 && !seen[0].headers.contains_key("authorization"), "{seen:?}");
    assert!(liar.seen().iter().any(|seen| seen.headers.contains_key("authorization")));
}

#[test]
fn a_registry_that_keeps_silent_is_left() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let relay = Liar::start();
    // It takes the upload's beginning, and leads to one that takes connections and nothing more.
    relay.answer(
        "/v2/a/blobs/uploads/",
        Answer { status: 202, ..Answer::default() }.header("Location", &format!("http://{host}/up")),
    );
    let content = noise(40_000_000);
    let blob = describe(&content);
    let patience = Duration::from_millis(200);
    let client = Client::new(Options { read_timeout: patience, retries: 0, ..Options::default() }).unwrap();
    let error = client.push_blob(&reference(&relay.host(), "a"), &blob, &none, &content).unwrap_err();
    assert!(matches!(error, Error::Silent { .. }), "{error}");
    let sent = content.1.lock().unwrap().last().copied().unwrap_or(0);
    assert!(sent < 20_000_000, "memory would hold {sent} bytes");
}
