//! Signatures that refer to an image: as cosign makes them for OCI 1.1, and as sigstore bundles; where a registry keeps the list of
//! referrers, and where it does not know that and an index under a tag does.
//!
//! Place: the machine itself, as root, with Debian's docker-registry (which keeps no such list) and openssl.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use support::{Engine, Output, collect};
use testkit::image::{Compression, Image, Layer, descriptor, digest};
use testkit::registry::{Answer, Liar, Registry};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const COSIGN: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// Runs openssl, and returns what it wrote.
fn openssl(arguments: &[&str], directory: &Path) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Makes the key pair `<name>.pem`, `<name>.pub`.
fn key(directory: &Path, name: &str) {
    let (pem, public) = (format!("{name}.pem"), format!("{name}.pub"));
    openssl(&["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", &pem], directory);
    openssl(&["ec", "-in", &pem, "-pubout", "-out", &public], directory);
}

/// Signs bytes; returns the signature as base64.
fn signed(directory: &Path, key: &str, message: &[u8]) -> String {
    std::fs::write(directory.join("message"), message).unwrap();
    openssl(&["dgst", "-sha256", "-sign", &format!("{key}.pem"), "-out", "signature", "message"], directory);
    openssl(&["base64", "-A", "-in", "signature"], directory)
}

/// Something that refers to an image.
struct Referrer {
    kind: &'static str,
    manifest: String,
    blobs: Vec<Vec<u8>>,
    annotations: String,
}

impl Referrer {
    fn new(kind: &'static str, subject: &Image, content: Vec<u8>, layer: &str, annotations: String) -> Self {
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","artifactType":"{kind}","config":{},"layers":[{layer}],"subject":{}}}"#,
            descriptor("application/vnd.oci.empty.v1+json", b"{}"),
            descriptor(subject.media_type(), &subject.manifest)
        );
        Self { kind, manifest, blobs: vec![content, b"{}".to_vec()], annotations }
    }

    /// A payload of cosign's own form, which names the digest `of`.
    fn payload(directory: &Path, key: &str, subject: &Image, of: &str) -> Self {
        let payload = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"x"}},"image":{{"docker-manifest-digest":"{of}"}},"type":"cosign container image signature"}},"optional":null}}"#
        );
        let signature = signed(directory, key, payload.as_bytes());
        let layer = descriptor("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes());
        let layer = format!(
            r#"{},"annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}"#,
            layer.trim_end_matches('}')
        );
        Self::new(COSIGN, subject, payload.into_bytes(), &layer, String::new())
    }

    /// A bundle with a statement about the digest `of`.
    fn bundle(directory: &Path, key: &str, subject: &Image, of: &str, predicate: &str) -> Self {
        let kind = "application/vnd.in-toto+json";
        let statement = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{}"}}}}],"predicateType":"{predicate}","predicate":{{}}}}"#,
            of.trim_start_matches("sha256:")
        );
        let message = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
        let signature = signed(directory, key, message.as_bytes());
        std::fs::write(directory.join("statement"), &statement).unwrap();
        let payload = openssl(&["base64", "-A", "-in", "statement"], directory);
        let bundle = format!(
            r#"{{"mediaType":"{BUNDLE}","verificationMaterial":{{"publicKey":{{"hint":"x"}},"tlogEntries":[]}},"dsseEnvelope":{{"payload":"{payload}","payloadType":"{kind}","signatures":[{{"sig":"{signature}"}}]}}}}"#
        );
        let layer = descriptor(BUNDLE, bundle.as_bytes());
        let annotations = format!(r#","annotations":{{"dev.sigstore.bundle.predicateType":"{predicate}"}}"#);
        Self::new(BUNDLE, subject, bundle.into_bytes(), &layer, annotations)
    }

    fn entry(&self) -> String {
        let manifest = descriptor(MANIFEST, self.manifest.as_bytes());
        format!(r#"{},"artifactType":"{}"{}}}"#, manifest.trim_end_matches('}'), self.kind, self.annotations)
    }
}

fn index(referrers: &[Referrer]) -> String {
    let entries: Vec<String> = referrers.iter().map(Referrer::entry).collect();
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","))
}

/// Where images and signatures are.
enum Place {
    /// It knows nothing of referrers: whoever pushes one keeps up an index under a tag.
    Tags(Registry),
    /// It answers what refers to a digest.
    Lists(Liar),
}

impl Place {
    fn host(&self) -> String {
        match self {
            Self::Tags(registry) => registry.host(),
            Self::Lists(liar) => liar.host(),
        }
    }

    fn push(&self, image: &Image) {
        match self {
            Self::Tags(registry) => registry.push(image, "team/app", "v1"),
            Self::Lists(liar) => liar.serve(image, "team/app", "v1"),
        }
    }

    fn refer(&self, image: &Image, referrers: &[Referrer]) {
        let of = digest(&image.manifest);
        for referrer in referrers {
            let name = digest(referrer.manifest.as_bytes());
            match self {
                Self::Tags(registry) => {
                    referrer.blobs.iter().for_each(|blob| registry.push_blob("team/app", &digest(blob), blob));
                    registry.push_manifest("team/app", &name, MANIFEST, referrer.manifest.as_bytes());
                }
                Self::Lists(liar) => {
                    for blob in &referrer.blobs {
                        liar.answer(&format!("/v2/team/app/blobs/{}", digest(blob)), Answer::body(blob.clone()));
                    }
                    let answer = Answer::body(referrer.manifest.clone()).header("Content-Type", MANIFEST);
                    liar.answer(&format!("/v2/team/app/manifests/{name}"), answer);
                }
            }
        }
        let index = index(referrers);
        match self {
            Self::Tags(registry) => {
                registry.push_manifest("team/app", &of.replace(':', "-"), INDEX, index.as_bytes());
            }
            Self::Lists(liar) => {
                let answer = Answer::body(index).header("Content-Type", INDEX);
                liar.answer(&format!("/v2/team/app/referrers/{of}"), answer);
            }
        }
    }
}

#[test]
fn a_signature_that_refers_to_the_image_lets_it_in() {
    let starts: [fn() -> Place; 2] = [|| Place::Tags(Registry::start()), || Place::Lists(Liar::start())];
    for start in starts {
        let engine = Engine::bare();
        let place = start();
        let app = Image::new(&[Layer::new().file("f", "signed").finish()], Compression::Gzip, "{}");
        place.push(&app);
        let (of, else_of) = (digest(&app.manifest), digest(b"something else"));
        let keys = engine.directory.path();
        key(keys, "ours");
        key(keys, "theirs");
        let policy = format!("[policy.\"*\"]\nsigned-by = [\"{}\"]\n", engine.text("ours.pub"));
        std::fs::write(engine.path("registries.toml"), policy).unwrap();
        let name = format!("{}/team/app:v1", place.host());
        let pull = || -> Output {
            let mut command = engine.command(&["pull", "-q", &name]);
            command.env("BRIG_REGISTRIES", engine.path("registries.toml"));
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            collect(command.spawn().unwrap(), &["pull"])
        };
        let payload = |key: &str, of: &str| Referrer::payload(keys, key, &app, of);
        let bundle = |key: &str, of: &str| Referrer::bundle(keys, key, &app, of, SIGN);
        let attestation = |key: &str| Referrer::bundle(keys, key, &app, &of, "https://slsa.dev/provenance/v1");
        // One whose list says nothing of what it is: its statement does.
        let hidden = || Referrer { annotations: String::new(), ..attestation("ours") };
        for (referrers, reason) in [
            (vec![], "it has no signature"),
            (vec![payload("theirs", &of)], "none of its signatures is by a key of the policy file"),
            (vec![bundle("theirs", &of)], "none of its signatures is by a key of the policy file"),
            (vec![payload("ours", &else_of)], "its signature is for something else"),
            (vec![bundle("ours", &else_of)], "its signature is for something else"),
            (vec![attestation("ours")], "it has no signature"),
            (vec![hidden()], "its signature is for something else"),
        ] {
            place.refer(&app, &referrers);
            let refused = pull();
            let text = format!("is not signed as the policy file wants it: {reason}");
            assert!(refused.status == 1 && refused.stderr.contains(&text), "{refused:?}");
            assert_eq!(engine.brig(&["images", "-q"]).ok(), "", "nothing came in");
        }
        for referrers in [
            vec![payload("ours", &of)],
            vec![bundle("ours", &of)],
            vec![attestation("ours"), hidden(), bundle("theirs", &of), payload("theirs", &of), bundle("ours", &of)],
        ] {
            place.refer(&app, &referrers);
            assert_eq!(pull().ok(), app.id());
            engine.brig(&["rmi", &name]).ok();
        }
        // Bytes that are not those of the digest are not looked at.
        if let Place::Lists(liar) = &place {
            let whole = bundle("ours", &of);
            place.refer(&app, std::slice::from_ref(&whole));
            let mut bytes = whole.blobs[0].clone();
            bytes.push(b' ');
            liar.answer(&format!("/v2/team/app/blobs/{}", digest(&whole.blobs[0])), Answer::body(bytes));
            assert_eq!(pull().status, 1);
        }
    }
}
