//! Large blobs: one stream where that is fast, several ranges where it trickles, and never something else than the bytes.

#![allow(clippy::unwrap_used)] // tests

use std::io::Read;
use std::time::Duration;

use brig_registry::{Client, Error, Options, Policy, Ranges};
use brig_spec::image::{Descriptor, Document};
use brig_spec::reference::Reference;
use testkit::image::{Compression, Image, Layer};
use testkit::registry::{Liar, Registry};
use testkit::relay::{Own, Relay};

/// Splits soon, so that a test need not be large.
fn options() -> Options {
    let ranges =
        Ranges { least: 500_000, slow: 24 << 20, watch: Duration::from_millis(100), parallel: 4, piece: 300_000 };
    Options { read_timeout: Duration::from_secs(5), retries: 2, ranges, ..Options::default() }
}

fn image() -> (Image, Descriptor) {
    let noise: Vec<u8> = (0..1_500_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let image = Image::new(&[Layer::new().file("noise", noise).finish()], Compression::Plain, "{}");
    let Ok(Document::Manifest(manifest)) = Document::parse(&image.manifest, None) else { panic!("no manifest") };
    let blob = manifest.layers[0].clone();
    (image, blob)
}

fn read(client: &Client, host: &str, blob: &Descriptor, offset: u64) -> Result<Vec<u8>, Error> {
    let reference: Reference = format!("{host}/app:v1").parse().unwrap();
    let mut bytes = Vec::new();
    client.blob(&reference, blob, offset)?.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

fn ranges(relay: &Relay) -> Vec<String> {
    relay.asked().into_iter().filter_map(|asked| asked.headers.get("range").cloned()).collect()
}

#[test]
fn a_trickle_is_split_and_a_fast_stream_is_not() {
    let registry = Registry::start();
    let (image, blob) = image();
    registry.push(&image, "app", "v1");
    let relay = Relay::before(&registry.host());
    let client = Client::new(options()).unwrap();
    assert!(read(&client, &relay.host(), &blob, 0).unwrap() == image.layers[0]);
    assert_eq!(ranges(&relay), [""; 0], "one stream");
    relay.pace(64 << 10, Duration::from_millis(20));
    for offset in [0, 1_234_567] {
        assert!(
            read(&client, &relay.host(), &blob, offset).unwrap() == image.layers[0][usize::try_from(offset).unwrap()..]
        );
        let ranges = ranges(&relay);
        assert!(ranges.len() > 8 && ranges.iter().any(|range| !range.ends_with('-')), "{ranges:?}");
    }
    assert!((3..=7).contains(&relay.most_blobs()), "{}", relay.most_blobs());
    // No more connections than the policy file allows.
    let relay = Relay::before(&registry.host());
    relay.pace(64 << 10, Duration::from_millis(20));
    let policy = Policy::parse("connections = 2").unwrap();
    let many = Ranges { parallel: 12, ..options().ranges };
    let client = Client::new(Options { policy, ranges: many, ..options() }).unwrap();
    assert!(read(&client, &relay.host(), &blob, 0).unwrap() == image.layers[0]);
    assert!((2..=4).contains(&relay.most_blobs()), "{}", relay.most_blobs());
}

#[test]
fn a_range_that_fails_leads_back_to_one_stream() {
    let registry = Registry::start();
    let (image, blob) = image();
    registry.push(&image, "app", "v1");
    for head in ["416 No", "404 Not Found", "200 OK", "206 Partial Content\r\nContent-Range: bytes 0-299999/6000000"] {
        let relay = Relay::before(&registry.host());
        relay.pace(64 << 10, Duration::from_millis(10));
        relay.answer(Own { method: "GET", path: "/blobs/", head, skip: 2, times: 1 });
        let client = Client::new(options()).unwrap();
        assert!(read(&client, &relay.host(), &blob, 0).unwrap() == image.layers[0], "{head}");
        let ranges = ranges(&relay);
        assert!(ranges.iter().any(|range| range.ends_with('-')), "{head}: {ranges:?}");
    }
}

#[test]
fn a_registry_without_ranges_is_read_in_one() {
    let (image, blob) = image();
    let liar = Liar::start();
    liar.serve(&image, "app", "v1");
    liar.change(&format!("/v2/app/blobs/{}", blob.digest), |answer| answer.no_ranges = true);
    let relay = Relay::before(&liar.host());
    relay.pace(64 << 10, Duration::from_millis(5));
    let client = Client::new(options()).unwrap();
    assert!(read(&client, &relay.host(), &blob, 0).unwrap() == image.layers[0]);
    assert_eq!(ranges(&relay), [""; 0]);
}

#[test]
fn a_trickle_that_only_seems_alive_is_given_up() {
    let registry = Registry::start();
    let (image, blob) = image();
    registry.push(&image, "app", "v1");
    let relay = Relay::before(&registry.host());
    // Some bytes now and then: never silent, never done.
    relay.pace(40, Duration::from_millis(20));
    let patience = Duration::from_millis(300);
    let client = Client::new(Options { read_timeout: patience, retries: 0, ..options() }).unwrap();
    let reference: Reference = format!("{}/app:v1", relay.host()).parse().unwrap();
    let mut bytes = Vec::new();
    let error = client.blob(&reference, &blob, 0).unwrap().read_to_end(&mut bytes).unwrap_err();
    let error = error.downcast::<Error>().unwrap();
    assert!(matches!(error, Error::Silent { .. }), "{error}");
    // A manifest that comes byte by byte has an end too.
    relay.pace(1, Duration::from_millis(50));
    let error = client.manifest(&reference).unwrap_err();
    assert!(matches!(error, Error::Silent { .. }), "{error}");
}
