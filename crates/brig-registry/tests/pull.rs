//! The client against a real registry, and against one that does everything wrong.

#![allow(clippy::unwrap_used)] // tests

use std::io::Read;
use std::time::Duration;

use brig_registry::{Client, Error, Options};
use brig_spec::image::{Descriptor, Document};
use brig_spec::reference::Reference;
use testkit::image::{Compression, Image, Layer, descriptor, digest};
use testkit::registry::{Answer, Liar, Registry};

fn client() -> Client {
    Client::new(options()).unwrap()
}

fn options() -> Options {
    Options { read_timeout: Duration::from_secs(5), retries: 2, ..Options::default() }
}

fn image() -> Image {
    let bytes: Vec<u8> = (0..700_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    Image::new(&[Layer::new().file("f", bytes).finish()], Compression::Gzip, "{}")
}

fn reference(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

fn blob_of(image: &Image) -> Descriptor {
    let Ok(Document::Manifest(manifest)) = Document::parse(&image.manifest, None) else { panic!("no manifest") };
    manifest.layers[0].clone()
}

fn read(mut blob: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    blob.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn a_real_registry_gives_manifests_lists_and_blobs() {
    let registry = Registry::start();
    let oci = image();
    let docker = Image::mixed(&[(Layer::new().file("g", "x").finish(), Compression::Gzip)], "{}", true);
    registry.push(&oci, "a/oci", "v1");
    registry.push(&docker, "a/oci", "docker");
    let list = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[{}]}}"#,
        descriptor(docker.media_type(), &docker.manifest).trim_end_matches('}').to_owned()
            + r#","platform":{"os":"linux","architecture":"amd64"}}"#
    );
    registry.push_manifest(
        "a/oci",
        "list",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        list.as_bytes(),
    );
    let client = client();
    for (tag, bytes) in [("v1", &oci.manifest), ("docker", &docker.manifest), ("list", &list.clone().into_bytes())] {
        let found = client.manifest(&reference(&registry.host(), &format!("a/oci:{tag}"))).unwrap();
        assert_eq!(&found.bytes, bytes, "{tag}");
        assert_eq!(found.digest.to_string(), digest(bytes));
        Document::parse(&found.bytes, Some(&found.media_type)).unwrap();
    }
    let reference = reference(&registry.host(), &format!("a/oci@{}", digest(&oci.manifest)));
    assert_eq!(client.manifest(&reference).unwrap().bytes, oci.manifest);
    let blob = client.blob(&reference, &blob_of(&oci), 0).unwrap();
    assert_eq!(read(blob).unwrap(), oci.layers[0]);
    let blob = client.blob(&reference, &blob_of(&oci), 12345).unwrap();
    assert_eq!(blob.offset(), 12345);
    assert_eq!(read(blob).unwrap(), oci.layers[0][12345..]);
}

#[test]
fn what_is_not_there() {
    let registry = Registry::start();
    let client = client();
    let missing = client.manifest(&reference(&registry.host(), "none:v1")).unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    let host = registry.host();
    drop(registry);
    let dead = client.manifest(&reference(&host, "none:v1")).unwrap_err();
    assert!(matches!(dead, Error::Unreachable { .. }), "{dead}");
    assert!(dead.to_string().contains(&host));
    let nowhere = client.manifest(&"registry.invalid/none:v1".parse().unwrap()).unwrap_err();
    assert!(matches!(nowhere, Error::Unreachable { .. } | Error::Silent { .. }), "{nowhere}");
}

#[test]
fn names_of_loopback_are_resolved_without_the_c_library() {
    let liar = Liar::start();
    let image = image();
    liar.serve(&image, "a", "v1");
    let port = liar.host().split(':').next_back().unwrap().to_owned();
    assert_eq!(client().manifest(&reference(&format!("localhost:{port}"), "a:v1")).unwrap().bytes, image.manifest);
}

#[test]
fn tls_is_verified() {
    let (registry, certificate) = Registry::start_tls();
    let source = Registry::start();
    let image = image();
    source.push(&image, "a", "v1");
    registry.copy_storage(&source);
    let port = registry.host().split(':').next_back().unwrap().to_owned();
    let reference = reference(&format!("localhost:{port}"), "a:v1");
    let trusting = Client::new(Options { certificates: certificate.clone(), ..options() }).unwrap();
    assert_eq!(trusting.manifest(&reference).unwrap().bytes, image.manifest);
    assert_eq!(read(trusting.blob(&reference, &blob_of(&image), 7).unwrap()).unwrap(), image.layers[0][7..]);
    let error = client().manifest(&reference).unwrap_err();
    assert!(format!("{error:?}").contains("InvalidCertificate"), "{error:?}");
    // The certificate is for localhost, not for the address.
    let by_address = format!("127.0.0.1:{port}/a:v1").parse().unwrap();
    let error = trusting.manifest(&by_address).unwrap_err();
    assert!(format!("{error:?}").contains("InvalidCertificate"), "{error:?}");
}

#[test]
fn a_broken_connection_is_resumed() {
    for no_ranges in [false, true] {
        let liar = Liar::start();
        let image = image();
        liar.serve(&image, "a", "v1");
        let path = format!("/v2/a/blobs/{}", digest(&image.layers[0]));
        liar.change(&path, |answer| {
            (answer.break_after, answer.breaks, answer.no_ranges) = (Some(300_000), 2, no_ranges);
        });
        let blob = client().blob(&reference(&liar.host(), "a:v1"), &blob_of(&image), 0).unwrap();
        assert!(read(blob).unwrap() == image.layers[0], "the same bytes");
        let ranges: Vec<_> = liar.seen().iter().filter_map(|seen| seen.headers.get("range").cloned()).collect();
        assert_eq!(ranges.len(), 2, "{ranges:?}");
    }
    // One that always breaks at once is given up.
    let liar = Liar::start();
    let image = image();
    liar.serve(&image, "a", "v1");
    let path = format!("/v2/a/blobs/{}", digest(&image.layers[0]));
    liar.change(&path, |answer| (answer.break_after, answer.breaks) = (Some(0), 1000));
    let blob = client().blob(&reference(&liar.host(), "a:v1"), &blob_of(&image), 0).unwrap();
    read(blob).unwrap_err();
    assert!(liar.seen().len() < 10);
}

#[test]
fn manifests_that_lie_or_do_not_end() {
    let liar = Liar::start();
    let image = image();
    let pinned = reference(&liar.host(), &format!("a@{}", digest(b"else")));
    liar.answer(&format!("/v2/a/manifests/{}", digest(b"else")), Answer::body(image.manifest.clone()));
    assert!(matches!(client().manifest(&pinned), Err(Error::Digest { .. })));
    liar.answer("/v2/a/manifests/huge", Answer::body(vec![b' '; 5 << 20]));
    let huge = client().manifest(&reference(&liar.host(), "a:huge")).unwrap_err();
    assert!(matches!(huge, Error::TooLarge { limit: 4_194_304, .. }), "{huge}");
    liar.answer("/v2/a/manifests/teapot", Answer { status: 418, ..Answer::default() });
    assert!(matches!(client().manifest(&reference(&liar.host(), "a:teapot")), Err(Error::Status { status: 418, .. })));
}

#[test]
fn passing_failures_are_tried_again_within_bounds() {
    let liar = Liar::start();
    liar.answer("/v2/a/manifests/busy", Answer { status: 503, ..Answer::default() }.header("Retry-After", "0"));
    assert!(matches!(client().manifest(&reference(&liar.host(), "a:busy")), Err(Error::Status { status: 503, .. })));
    assert_eq!(liar.seen().len(), 3);
    liar.answer("/v2/a/manifests/rate", Answer { status: 429, ..Answer::default() }.header("Retry-After", "0"));
    assert!(matches!(client().manifest(&reference(&liar.host(), "a:rate")), Err(Error::RateLimited { .. })));
    assert_eq!(liar.seen().len(), 6);
}

/// Writes a file of credentials for a host.
fn credentials(directory: &std::path::Path, host: &str) -> std::path::PathBuf {
    let path = directory.join("config.json");
    std::fs::write(&path, format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjpwYXNz"}}}}}}"#)).unwrap();
    path
}

#[test]
fn bearer_tokens_are_fetched_once_and_with_the_password() {
    let liar = Liar::start();
    let image = image();
    liar.serve(&image, "a/b", "v1");
    let challenge = format!(r#"Bearer realm="http://{}/token",service="reg",scope="repository:a/b:pull""#, liar.host());
    for path in ["/v2/a/b/manifests/v1".to_owned(), format!("/v2/a/b/blobs/{}", digest(&image.layers[0]))] {
        liar.change(&path, |answer| {
            answer.authorization = Some("Bearer t0ken".into());
            answer.challenge.clone_from(&challenge);
        });
    }
    liar.answer("/token", Answer::body(r#"{"token":"t0ken","expires_in":300}"#));
    let directory = tempfile::tempdir().unwrap();
    let client =
        Client::new(Options { credentials: Some(credentials(directory.path(), &liar.host())), ..options() }).unwrap();
    let reference = reference(&liar.host(), "a/b:v1");
    client.manifest(&reference).unwrap();
    assert_eq!(read(client.blob(&reference, &blob_of(&image), 0).unwrap()).unwrap().len(), image.layers[0].len());
    let tokens: Vec<_> = liar.seen().into_iter().filter(|seen| seen.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].headers["authorization"], "Basic dXNlcjpwYXNz");
    assert!(tokens[0].path.contains("service=reg") && tokens[0].path.contains("scope=repository%3Aa%2Fb%3Apull"));
    // A token that is refused is an error, not a loop.
    liar.answer("/token", Answer::body(r#"{"token":"wrong"}"#));
    let other = Client::new(options()).unwrap().manifest(&reference).unwrap_err();
    assert!(matches!(other, Error::Denied { .. }), "{other}");
}

#[test]
fn basic_credentials_go_only_when_asked_for() {
    let liar = Liar::start();
    liar.serve(&image(), "a", "v1");
    liar.change("/v2/a/manifests/v1", |answer| {
        answer.authorization = Some("Basic dXNlcjpwYXNz".into());
        answer.challenge = "Basic realm=\"r\"".into();
    });
    let directory = tempfile::tempdir().unwrap();
    let client =
        Client::new(Options { credentials: Some(credentials(directory.path(), &liar.host())), ..options() }).unwrap();
    client.manifest(&reference(&liar.host(), "a:v1")).unwrap();
    let seen = liar.seen();
    assert!(!seen[0].headers.contains_key("authorization"));
    assert!(seen[1].headers.contains_key("authorization"));
    let denied = Client::new(options()).unwrap().manifest(&reference(&liar.host(), "a:v1")).unwrap_err();
    assert!(matches!(denied, Error::Denied { .. }));
}

#[test]
fn a_redirect_elsewhere_gets_no_secret() {
    let (liar, store) = (Liar::start(), Liar::start());
    let image = image();
    liar.serve(&image, "a", "v1");
    store.answer("/data", Answer::body(image.layers[0].clone()));
    let path = format!("/v2/a/blobs/{}", digest(&image.layers[0]));
    liar.answer(
        &path,
        Answer {
            status: 307,
            authorization: Some("Basic dXNlcjpwYXNz".into()),
            challenge: "Basic realm=\"r\"".into(),
            ..Answer::default()
        }
        .header("Location", &format!("http://{}/data?signature=s3cret", store.host())),
    );
    let directory = tempfile::tempdir().unwrap();
    let client =
        Client::new(Options { credentials: Some(credentials(directory.path(), &liar.host())), ..options() }).unwrap();
    let blob = client.blob(&reference(&liar.host(), "a:v1"), &blob_of(&image), 1000).unwrap();
    assert_eq!(read(blob).unwrap(), image.layers[0][1000..]);
    let seen = store.seen();
    assert!(seen.iter().all(|seen| !seen.headers.contains_key("authorization")), "{seen:?}");
    assert_eq!(seen[0].headers["range"], "bytes=1000-");
    // Errors do not tell the signature.
    store.answer("/data", Answer { status: 403, ..Answer::default() });
    let error = client.blob(&reference(&liar.host(), "a:v1"), &blob_of(&image), 0).unwrap_err();
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    // A circle ends.
    liar.answer(
        "/v2/a/manifests/round",
        Answer { status: 302, ..Answer::default() }.header("Location", "/v2/a/manifests/round"),
    );
    let round = client.manifest(&reference(&liar.host(), "a:round")).unwrap_err();
    assert!(matches!(round, Error::Protocol { .. }), "{round}");
}

#[test]
fn a_mirror_answers_for_another_host() {
    let liar = Liar::start();
    let image = image();
    liar.serve(&image, "library/debian", "latest");
    let mirrors = [("docker.io".to_owned(), liar.host())].into();
    let client = Client::new(Options { mirrors, ..options() }).unwrap();
    assert_eq!(client.manifest(&"debian".parse().unwrap()).unwrap().bytes, image.manifest);
}

#[test]
fn silence_has_an_end() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let client =
        Client::new(Options { read_timeout: Duration::from_millis(100), retries: 1, ..Options::default() }).unwrap();
    let error = client.manifest(&reference(&host, "a:v1")).unwrap_err();
    assert!(matches!(error, Error::Silent { .. }), "{error}");
}
