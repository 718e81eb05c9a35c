//! A registry that means ill, or is broken beyond what honest ones are: nothing hangs, nothing grows, no secret leaves.

#![allow(clippy::unwrap_used)] // tests

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use brig_registry::{Client, Error, Options, Proxies};
use brig_spec::image::Descriptor;
use brig_spec::reference::Reference;
use testkit::image::digest;
use testkit::registry::{Answer, Liar};

fn options() -> Options {
    Options { read_timeout: Duration::from_millis(500), retries: 1, ..Options::default() }
}

fn app(host: &str) -> Reference {
    format!("{host}/app:v1").parse().unwrap()
}

fn blob(size: u64) -> Descriptor {
    serde_json::from_str(&format!(r#"{{"digest":"{}","size":{size}}}"#, digest(b"x"))).unwrap()
}

/// Answers every request by a function, on one thread each.
fn serve(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut first = String::new();
                let _ = reader.read_line(&mut first);
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) <= 2 {
                        break;
                    }
                }
                answer(&first, reader.get_mut());
            });
        }
    });
    host
}

#[test]
fn bodies_without_an_end_are_cut() {
    // Without a length, and in chunks that go on and on.
    for head in ["", "Transfer-Encoding: chunked\r\n"] {
        let chunked = !head.is_empty();
        let host = serve(move |_, stream| {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n");
            let piece = if chunked { format!("2000\r\n{}\r\n", " ".repeat(0x2000)) } else { " ".repeat(0x2000) };
            while stream.write_all(piece.as_bytes()).is_ok() {}
        });
        let client = Client::new(options()).unwrap();
        let manifest = client.manifest(&app(&host)).unwrap_err();
        assert!(matches!(manifest, Error::TooLarge { limit: 4_194_304, .. }), "{manifest}");
        let small = client.small_blob(&app(&host), &blob(1000), 5000).unwrap_err();
        assert!(matches!(small, Error::Protocol { .. }), "{small}");
        let directory = tempfile::tempdir().unwrap();
        let file = client.blob_to_file(&app(&host), &blob(100_000), &directory.path().join("f")).unwrap_err();
        assert!(matches!(file, Error::Protocol { .. }), "{file}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left of it");
    }
}

#[test]
fn wrong_sizes_and_digests_are_refused() {
    let liar = Liar::start();
    let path = format!("/v2/app/blobs/{}", digest(b"x"));
    liar.answer(&path, Answer::body("y"));
    let client = Client::new(options()).unwrap();
    let ask = |size| client.small_blob(&app(&liar.host()), &blob(size), 1000).unwrap_err();
    assert!(matches!(ask(1), Error::Digest { .. }));
    assert!(matches!(ask(0), Error::Protocol { .. }));
    assert!(matches!(ask(5), Error::Protocol { .. }), "{}", ask(5));
    assert!(matches!(ask(1001), Error::TooLarge { .. }));
    // It says that it sends a range, and sends one from behind.
    let answer = Answer { status: 206, ..Answer::body("y") }.header("Content-Range", "bytes 7-7/8");
    liar.answer(&path, Answer { no_ranges: true, ..answer });
    let error = client.blob(&app(&liar.host()), &blob(8), 4).unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[test]
fn chunks_that_are_no_chunks_are_errors() {
    for body in ["zz\r\n", "5\r\nab", "ffffffffffffffffff\r\n", "5\r\nabcdefgh\r\n"] {
        let host = serve(move |_, stream| {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        });
        let error = Client::new(options()).unwrap().manifest(&app(&host)).unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{body:?}: {error}");
    }
    for head in ["", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "HTTP/9.9 1 x\r\n\r\n"] {
        let host = serve(move |_, stream| drop(stream.write_all(head.as_bytes())));
        let error = Client::new(options()).unwrap().manifest(&app(&host)).unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{head:?}: {error}");
    }
    // Headers without an end.
    let host = serve(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"X-More: of this\r\n").is_ok() {}
    });
    Client::new(options()).unwrap().manifest(&app(&host)).unwrap_err();
}

/// Writes a file of credentials for a host.
fn credentials(directory: &std::path::Path, host: &str) -> PathBuf {
    let path = directory.join("config.json");
    std::fs::write(&path, format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjpwYXNz"}}}}}}"#)).unwrap();
    path
}

#[test]
fn a_challenge_gets_the_password_to_nobody_else() {
    // Whatever goes to another host by plain HTTP comes by here.
    let thief = Liar::start();
    let proxies = || Proxies { http: Some(format!("http://{}", thief.host())), ..Proxies::default() };
    let directory = tempfile::tempdir().unwrap();
    let long = "a".repeat(100_000);
    for realm in [
        "http://thief.example/token".to_owned(),
        "ftp://127.0.0.1/token".to_owned(),
        "file:///etc/passwd".to_owned(),
        "javascript:alert(1)".to_owned(),
        "//127.0.0.1/token".to_owned(),
        String::new(),
        long.clone(),
    ] {
        let liar = Liar::start();
        let challenge = format!("Bearer realm=\"{realm}\",service=\"x\"");
        liar.answer(
            "/v2/app/manifests/v1",
            Answer { authorization: Some("never".into()), challenge, ..Answer::default() },
        );
        let credentials = Some(credentials(directory.path(), &liar.host()));
        let options = Options { credentials, proxies: proxies(), retries: 0, ..options() };
        let error = Client::new(options).unwrap().manifest(&app(&liar.host())).unwrap_err();
        assert!(!format!("{error:?}").contains("pass"), "{error:?}");
        assert!(liar.seen().iter().all(|seen| !seen.headers.contains_key("authorization")), "{realm:.50}");
    }
    assert!(thief.seen().is_empty(), "{:?}", thief.seen());
    // Where it may be spoken to plainly, the same way does lead there.
    let liar = Liar::start();
    let challenge = "Bearer realm=\"http://known.example/token\"".to_owned();
    liar.answer("/v2/app/manifests/v1", Answer { authorization: Some("never".into()), challenge, ..Answer::default() });
    let insecure = vec!["known.example".to_owned()];
    let trusting = Options { proxies: proxies(), insecure, retries: 0, ..options() };
    Client::new(trusting).unwrap().manifest(&app(&liar.host())).unwrap_err();
    assert_eq!(thief.seen().len(), 1);
    // Challenges that are none, and one that never is satisfied.
    for challenge in ["", "Bearer", "Bearer realm=", "Bearer realm=\"", "Basic,Basic,Basic", "Negotiate abc", &long] {
        let liar = Liar::start();
        liar.answer(
            "/v2/app/manifests/v1",
            Answer { authorization: Some("never".into()), challenge: challenge.into(), ..Answer::default() },
        );
        let options =
            Options { credentials: Some(credentials(directory.path(), &liar.host())), retries: 0, ..options() };
        let error = Client::new(options).unwrap().manifest(&app(&liar.host())).unwrap_err();
        assert!(matches!(error, Error::Denied { .. } | Error::Protocol { .. } | Error::Unreachable { .. }), "{error}");
        assert!(liar.seen().len() <= 2, "{challenge:.50}");
    }
}

#[test]
fn a_token_servers_nonsense_is_refused() {
    let liar = Liar::start();
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"x\"", liar.host());
    let guarded = Answer { authorization: Some("Bearer good".into()), challenge, ..Answer::default() };
    liar.answer("/v2/app/manifests/v1", guarded);
    let ask = || Client::new(options()).unwrap().manifest(&app(&liar.host())).unwrap_err();
    let huge = format!(r#"{{"token":"{}"}}"#, "a".repeat(2 << 20));
    for body in
        ["", "{}", "[]", r#"{"token":5}"#, r#"{"token":"a\r\nX-Evil: 1"}"#, r#"{"token":"good","expires_in":-1}"#]
    {
        liar.answer("/token", Answer::body(body));
        let error = ask();
        assert!(matches!(error, Error::Protocol { .. }), "{body}: {error}");
    }
    liar.answer("/token", Answer::body(huge));
    assert!(matches!(ask(), Error::TooLarge { .. }));
    liar.answer("/token", Answer { status: 500, ..Answer::default() });
    assert!(matches!(ask(), Error::Status { status: 500, .. }));
    // Redirects of a token server are not followed: they would carry the password along.
    liar.answer("/token", Answer { status: 302, ..Answer::default() }.header("Location", "http://127.0.0.1:1/"));
    assert!(matches!(ask(), Error::Status { status: 302, .. }));
}

#[test]
fn a_server_that_drips_or_stalls_is_left() {
    let drip: Vec<fn(&mut TcpStream)> = vec![
        // Nothing at all.
        |_| std::thread::sleep(Duration::from_secs(5)),
        // A head, and then nothing.
        |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
            std::thread::sleep(Duration::from_secs(5));
        },
        // A head that does not get done.
        |stream| {
            for byte in b"HTTP/1.1 200 OK\r\nX: ".iter().chain(&[b'a'; 1000]) {
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        },
        // A body, byte by byte.
        |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
            while stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        },
    ];
    for act in drip {
        let host = serve(move |_, stream| act(stream));
        let client = Client::new(Options { retries: 0, ..options() }).unwrap();
        let error = client.manifest(&app(&host)).unwrap_err();
        assert!(matches!(error, Error::Silent { .. }), "{error}");
        let read = client.blob(&app(&host), &blob(100_000), 0).map(|mut blob| {
            let mut bytes = Vec::new();
            blob.read_to_end(&mut bytes)
        });
        assert!(!matches!(read, Ok(Ok(_))), "a blob that does not come");
    }
}

#[test]
fn lists_that_lie_are_refused() {
    let liar = Liar::start();
    let client = Client::new(options()).unwrap();
    let subject = digest(b"subject").parse().unwrap();
    let path = format!("/v2/app/referrers/{}", digest(b"subject"));
    let entry = format!(r#"{{"digest":"{}","size":1,"artifactType":"a/b"}}"#, digest(b"x"));
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"m","manifests":[{entry}]}}"#);
    let list = || client.referrers(&app(&liar.host()), &subject);
    liar.answer(&path, Answer::body(index.clone()));
    assert_eq!(list().unwrap()[0].artifact_type.as_deref(), Some("a/b"));
    // Where it is not known, the tag is asked; where that is not there, there is nothing.
    liar.answer(&path, Answer { status: 404, ..Answer::default() });
    assert!(list().unwrap().is_empty());
    let tag = format!("/v2/app/manifests/{}", digest(b"subject").replace(':', "-"));
    liar.answer(&tag, Answer::body(index.clone()));
    assert_eq!(list().unwrap().len(), 1);
    // A circle of pages ends, and pages elsewhere are not asked for.
    liar.answer(&path, Answer::body(index.clone()).header("Link", &format!("<{path}>; rel=\"next\"")));
    assert_eq!(list().unwrap().len(), 50);
    liar.answer(&path, Answer::body(index).header("Link", "<http://127.0.0.1:1/>; rel=\"next\""));
    assert_eq!(list().unwrap().len(), 1);
    for bad in ["", "{}", r#"{"schemaVersion":2,"mediaType":"m","manifests":[{"digest":"sha256:../..","size":1}]}"#] {
        liar.answer(&path, Answer::body(bad));
        assert!(matches!(list(), Err(Error::Protocol { .. })), "{bad}");
    }
}
