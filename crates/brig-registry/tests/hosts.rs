//! Which addresses are asked and how: mirrors, certificates, proxies, limits on the rate.

#![allow(clippy::unwrap_used)] // tests

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brig_registry::{Client, Error, Notice, Notices, Options, Policy, Proxies};
use brig_spec::reference::Reference;
use testkit::image::{Compression, Image, Layer, digest};
use testkit::registry::{Answer, Liar, Registry};
use testkit::relay::{Own, Relay};

fn options() -> Options {
    Options { read_timeout: Duration::from_secs(5), retries: 2, ..Options::default() }
}

fn with_policy(text: &str) -> Options {
    Options { policy: Policy::parse(text).unwrap(), ..options() }
}

/// Keeps what is told.
fn listen(options: &mut Options) -> Arc<Mutex<Vec<Notice>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&heard);
    options.notices = Notices::to(move |notice| writer.lock().unwrap().push(notice.clone()));
    heard
}

fn image() -> Image {
    Image::new(&[Layer::new().file("f", "content").finish()], Compression::Gzip, "{}")
}

fn named(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Fetches manifest and layer.
fn pull(client: &Client, reference: &Reference, image: &Image) -> Result<(), Error> {
    let found = client.manifest(reference)?;
    assert_eq!(found.bytes, image.manifest);
    let text = testkit::image::descriptor("x", &image.layers[0]);
    let mut bytes = Vec::new();
    client.blob(reference, &serde_json::from_str(&text).unwrap(), 0)?.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, image.layers[0]);
    Ok(())
}

#[test]
fn mirrors_are_asked_in_order_and_the_registry_last() {
    let (empty, full) = (Liar::start(), Liar::start());
    let image = image();
    full.serve(&image, "hub/team/app", "v1");
    let text = format!(
        "[registry.\"registry.invalid\"]\nmirrors = [\"127.0.0.1:1\", \"{}\", \"{}/hub\"]\nfallback = false",
        empty.host(),
        full.host()
    );
    let mut options = with_policy(&text);
    let heard = listen(&mut options);
    let client = Client::new(options).unwrap();
    pull(&client, &named("registry.invalid/team/app:v1"), &image).unwrap();
    assert_eq!(empty.seen().len(), 2, "asked for the manifest and the layer");
    let heard = heard.lock().unwrap();
    assert!(matches!(&heard[..], [Notice::Mirror { host, .. }] if host == "127.0.0.1:1"), "told once: {heard:?}");
    let missing = client.manifest(&named("registry.invalid/none:v1")).unwrap_err();
    assert!(matches!(&missing, Error::NotFound { host, .. } if *host == full.host()), "{missing}");

    // With the registry itself behind them.
    let own = Liar::start();
    own.serve(&image, "app", "v1");
    let mirrors = format!("[registry.\"{}\"]\nmirrors = [\"{}\"]", own.host(), empty.host());
    let client = Client::new(with_policy(&mirrors)).unwrap();
    pull(&client, &named(&format!("{}/app:v1", own.host())), &image).unwrap();
    let _ = client.push_manifest(&named(&format!("{}/app:v2", own.host())), "x", b"{}");
    assert!(empty.seen().iter().all(|seen| seen.path != "/v2/app/manifests/v2"), "nothing is pushed to a mirror");
    assert!(own.seen().iter().any(|seen| seen.path == "/v2/app/manifests/v2"));
    // A mirror that has another content under the tag is believed, one with another content under the digest is not.
    let pinned = named(&format!("{}/app@{}", own.host(), digest(&image.manifest)));
    empty.answer(&format!("/v2/app/manifests/{}", digest(&image.manifest)), Answer::body("{}"));
    assert!(matches!(client.manifest(&pinned), Err(Error::Digest { .. })));
}

#[test]
fn a_blocked_registry_is_not_asked() {
    let liar = Liar::start();
    liar.serve(&image(), "good/app", "v1");
    liar.serve(&image(), "bad/app", "v1");
    let client = Client::new(with_policy(&format!("[registry.\"{}/bad\"]\nblocked = true", liar.host()))).unwrap();
    client.manifest(&named(&format!("{}/good/app:v1", liar.host()))).unwrap();
    let asked = liar.seen().len();
    let blocked = client.manifest(&named(&format!("{}/bad/app:v1", liar.host()))).unwrap_err();
    assert!(matches!(blocked, Error::Blocked(_)), "{blocked}");
    assert_eq!(liar.seen().len(), asked);
}

#[test]
fn a_hosts_file_gives_paths_headers_and_capabilities() {
    let (by_digest, any) = (Liar::start(), Liar::start());
    let image = image();
    by_digest.serve(&image, "app", "v1");
    let answer = Answer::body(image.manifest.clone()).header("Content-Type", image.media_type());
    any.answer("/registry/hub/app/manifests/v1", answer);
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("registry.invalid");
    std::fs::create_dir(&place).unwrap();
    let text = format!(
        "server = \"http://127.0.0.1:1\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n\
         [host.\"http://{}/registry/hub\"]\noverride_path = true\n[host.\"http://{}/registry/hub\".header]\nX-Team = \"blue\"\n",
        by_digest.host(),
        any.host(),
        any.host()
    );
    std::fs::write(place.join("hosts.toml"), text).unwrap();
    let client = Client::new(Options { containerd_hosts: vec![directory.path().into()], ..options() }).unwrap();
    pull(&client, &named("registry.invalid/app:v1"), &image).unwrap();
    assert!(by_digest.seen().iter().all(|seen| seen.path.contains("/blobs/")), "{:?}", by_digest.seen());
    assert_eq!(any.seen()[0].headers["x-team"], "blue");
}

/// Asks a registry with TLS on `localhost`.
fn ask_tls(registry: &Registry, options: Options) -> Result<Vec<u8>, Error> {
    let port = registry.host().split(':').next_back().unwrap().to_owned();
    let client = Client::new(options).unwrap();
    client.manifest(&named(&format!("localhost:{port}/a:v1"))).map(|found| found.bytes)
}

#[test]
fn certificates_come_from_all_three_places() {
    let (registry, authority, certificate, key) = Registry::start_mutual_tls();
    let source = Registry::start();
    let image = image();
    source.push(&image, "a", "v1");
    registry.copy_storage(&source);
    let host = registry.host().replace("127.0.0.1", "localhost");
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join(&host);
    std::fs::create_dir(&place).unwrap();
    let copy = |from: &Path, to: &str| {
        std::fs::copy(from, place.join(to)).unwrap();
    };
    let here = || vec![directory.path().to_owned()];
    // Docker's directory, piece by piece.
    let docker = || Options { docker_certificates: here(), ..options() };
    let error = ask_tls(&registry, docker()).unwrap_err();
    assert!(format!("{error:?}").contains("InvalidCertificate"), "{error:?}");
    copy(&authority, "ca.crt");
    assert!(matches!(ask_tls(&registry, docker()), Err(Error::Unreachable { .. })), "it wants a certificate");
    copy(&certificate, "client.cert");
    assert!(ask_tls(&registry, docker()).unwrap_err().to_string().contains("client.key is missing"));
    copy(&key, "client.key");
    assert_eq!(ask_tls(&registry, docker()).unwrap(), image.manifest);
    // containerd's file.
    let text = format!("server = \"https://{host}\"\nca = \"ca.crt\"\nclient = [[\"client.cert\", \"client.key\"]]\n");
    std::fs::write(place.join("hosts.toml"), text).unwrap();
    let containerd = Options { containerd_hosts: here(), ..options() };
    assert_eq!(ask_tls(&registry, containerd).unwrap(), image.manifest);
    // The policy file, with and without a check.
    let at = |name: &str| place.join(name).display().to_string();
    let client = format!("client-cert = \"{}\"\nclient-key = \"{}\"", at("client.cert"), at("client.key"));
    let checked = format!("[registry.\"{host}\"]\nca = \"{}\"\n{client}", at("ca.crt"));
    assert_eq!(ask_tls(&registry, with_policy(&checked)).unwrap(), image.manifest);
    let unchecked = format!("[registry.\"{host}\"]\nskip-verify = true\n{client}");
    assert_eq!(ask_tls(&registry, with_policy(&unchecked)).unwrap(), image.manifest);
    let other = format!("[registry.\"other.example\"]\nskip-verify = true\n{client}");
    assert!(ask_tls(&registry, with_policy(&other)).is_err(), "of that host alone");
    std::fs::write(place.join("empty.pem"), "nothing").unwrap();
    let empty = format!("[registry.\"{host}\"]\nca = \"{}\"", at("empty.pem"));
    assert!(ask_tls(&registry, with_policy(&empty)).unwrap_err().to_string().contains("holds no certificate"));
}

#[test]
fn proxies_are_used_but_for_loopback_and_exceptions() {
    let registry = Registry::start();
    let image = image();
    registry.push(&image, "app", "v1");
    let proxy = Relay::before(&registry.host());
    let proxies = Proxies {
        http: Some(format!("http://user:pr0xy@{}", proxy.host())),
        https: Some(proxy.host()),
        except: ".corp.test,10.0.0.0/8".to_owned(),
    };
    assert!(!format!("{proxies:?}").contains("pr0xy"));
    let insecure = vec!["registry.test:5000".to_owned(), "a.corp.test".to_owned()];
    let client = Client::new(Options { proxies, insecure, retries: 0, ..options() }).unwrap();
    pull(&client, &named("registry.test:5000/app:v1"), &image).unwrap();
    let asked = proxy.asked();
    assert!(asked.iter().all(|asked| asked.path.starts_with("http://registry.test:5000/v2/app/")), "{asked:?}");
    assert_eq!(asked[0].headers["proxy-authorization"], "Basic dXNlcjpwcjB4eQ==");
    // Directly: loopback, and what was excepted (which is nowhere).
    client.manifest(&named(&format!("{}/app:v1", registry.host()))).unwrap();
    client.manifest(&named("a.corp.test/app:v1")).unwrap_err();
    assert!(proxy.asked().is_empty());
    // HTTPS by CONNECT, which this one does not know.
    let error = client.manifest(&named("secure.test/app:v1")).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && !format!("{error:?}").contains("pr0xy"), "{error:?}");
    assert_eq!((proxy.asked()[0].method.as_str(), proxy.asked().len()), ("CONNECT", 0));
}

#[test]
fn a_limited_rate_is_waited_for_and_told() {
    let registry = Registry::start();
    let image = image();
    registry.push(&image, "app", "v1");
    let relay = Relay::before(&registry.host());
    let slow = |head| Own { method: "GET", path: "/manifests/", head, skip: 0, times: 1 };
    relay.answer(slow("429 Too Many Requests\r\nRetry-After: 1"));
    let mut options = options();
    let heard = listen(&mut options);
    let client = Client::new(options).unwrap();
    let name = named(&format!("{}/app:v1", relay.host()));
    pull(&client, &name, &image).unwrap();
    let wait = Duration::from_secs(1);
    assert_eq!(*heard.lock().unwrap(), [Notice::RateLimited { host: relay.host(), wait }]);
    // An hour is the user's to decide about.
    relay.answer(slow("429 Too Many Requests\r\nRetry-After: 3600"));
    let error = client.manifest(&name).unwrap_err();
    assert!(error.to_string().ends_with("asks to wait 3600 seconds"), "{error}");
    assert_eq!(heard.lock().unwrap().len(), 1);
    for head in ["503 Busy", "408 Late", "502 Bad"] {
        relay.answer(slow(head));
        client.manifest(&name).unwrap();
    }
}

#[test]
fn headers_of_the_users_file_go_to_registries_alone() {
    let (liar, store) = (Liar::start(), Liar::start());
    let image = image();
    liar.serve(&image, "app", "v1");
    store.answer("/data", Answer::body(image.layers[0].clone()));
    let path = format!("/v2/app/blobs/{}", digest(&image.layers[0]));
    liar.answer(
        &path,
        Answer { status: 307, ..Answer::default() }.header("Location", &format!("http://{}/data", store.host())),
    );
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.json");
    let headers = r#"{"X-Meta":"mine","Authorization":"Bearer stolen","Host":"evil","X-Bad":"a\r\nb"}"#;
    std::fs::write(&config, format!(r#"{{"HttpHeaders":{headers}}}"#)).unwrap();
    let client = Client::new(Options { credentials: Some(config), ..options() }).unwrap();
    pull(&client, &named(&format!("{}/app:v1", liar.host())), &image).unwrap();
    for seen in liar.seen() {
        assert_eq!(seen.headers["x-meta"], "mine");
        assert!(!seen.headers.contains_key("authorization") && !seen.headers.contains_key("x-bad"), "{seen:?}");
        assert_eq!(seen.headers["host"], liar.host());
    }
    assert!(!store.seen()[0].headers.contains_key("x-meta"));
}

#[test]
fn many_threads_ask_for_one_token() {
    let liar = Liar::start();
    let image = image();
    liar.serve(&image, "app", "v1");
    let challenge = format!(r#"Bearer realm="http://{}/token",service="s",scope="repository:app:pull""#, liar.host());
    liar.change("/v2/app/manifests/v1", |answer| {
        (answer.authorization, answer.challenge) = (Some("Bearer t".into()), challenge);
    });
    liar.answer("/token", Answer::body(r#"{"token":"t","expires_in":300}"#));
    let client = Client::new(options()).unwrap();
    let name = named(&format!("{}/app:v1", liar.host()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| client.manifest(&name).unwrap());
        }
    });
    let tokens = liar.seen().iter().filter(|seen| seen.path.starts_with("/token")).count();
    assert_eq!(tokens, 1);
}

#[test]
fn search_asks_the_search_or_the_list() {
    let registry = Registry::start();
    for name in ["team/app", "team/tool", "other"] {
        registry.push(&image(), name, "v1");
    }
    let client = Client::new(options()).unwrap();
    let names = |host: &str, words: &str, limit| -> Vec<String> {
        client.search(host, words, limit).unwrap().into_iter().map(|found| found.name).collect()
    };
    assert_eq!(names(&registry.host(), "team", 10), ["team/app", "team/tool"]);
    assert_eq!(names(&registry.host(), "", 1).len(), 1);
    let liar = Liar::start();
    let body =
        r#"{"results":[{"name":"nginx","description":"d","star_count":7,"is_official":true},{"name":"x/nginx"}]}"#;
    liar.answer("/v1/search", Answer::body(body));
    let found = client.search(&liar.host(), "nginx & co", 10).unwrap();
    assert_eq!((found[0].stars, found[0].official, found.len()), (7, true, 2));
    assert_eq!(liar.seen()[0].path, "/v1/search?q=nginx+%26+co&n=10");
    // Page by page, but not to another host, and not for ever.
    liar.answer("/v1/search", Answer { status: 404, ..Answer::default() });
    let page =
        |next: &str| Answer::body(r#"{"repositories":["a/b"]}"#).header("Link", &format!("<{next}>; rel=\"next\""));
    liar.answer("/v2/_catalog", page("http://127.0.0.1:1/v2/_catalog"));
    assert_eq!(names(&liar.host(), "a", 10), ["a/b"]);
    liar.answer("/v2/_catalog", page("/v2/_catalog?last=x"));
    assert_eq!(names(&liar.host(), "a", 1000).len(), 100);
    liar.answer("/v2/_catalog", Answer { status: 404, ..Answer::default() });
    let error = client.search(&liar.host(), "a", 10).unwrap_err();
    assert!(error.to_string().contains("it has no search, and does not list its repositories"), "{error}");
}
