//! Signatures as cosign 3 makes them: a sigstore bundle, which refers to the image.
//!
//! ```text
//!   manifest { artifactType: application/vnd.dev.sigstore.bundle.., layers: [bundle], subject: the image }
//!     bundle     {"dsseEnvelope": {"payloadType": "application/vnd.in-toto+json", "payload": base64, "signatures": [{"sig"}]}, ..}
//!     payload    {"_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": ".."}}],
//!                 "predicateType": "https://sigstore.dev/cosign/sign/v1", ..}
//!     signed is  DSSEv1 <length> <payload type> <length> <payload>
//! ```
//!
//! Attestations (what was built from what, lists of parts) come in the same envelope, signed by the same key perhaps, and are
//! no signature of the image: the type of the predicate tells them apart.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brig_spec::digest::Digest;
use serde::Deserialize;

/// What the media types of all versions begin with.
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle";
/// The annotation of a referrer that tells what its statement says.
const PREDICATE_ANNOTATION: &str = "dev.sigstore.bundle.predicateType";
/// What a signature says: nothing but that the subject is meant.
const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
const STATEMENT_TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

/// What is signed, and by which signatures.
pub(crate) struct Signed {
    /// The bytes that a signature is over.
    pub(crate) message: Vec<u8>,
    /// The signatures, in DER.
    pub(crate) signatures: Vec<Vec<u8>>,
    payload: Vec<u8>,
}

/// Says whether a media type, or the type of an artifact, is that of a bundle.
pub(crate) fn is_bundle(media_type: &str) -> bool {
    media_type.strip_prefix(MEDIA_TYPE).is_some_and(|rest| rest.starts_with(['.', '+']))
}

/// Says whether the annotations of a referrer tell of something else than a signature.
pub(crate) fn is_attestation(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(PREDICATE_ANNOTATION).is_some_and(|predicate| predicate != SIGN)
}

/// Reads a bundle; none if it holds no envelope of a statement.
pub(crate) fn read(bundle: &[u8]) -> Option<Signed> {
    let envelope = serde_json::from_slice::<Bundle>(bundle).ok()?.dsse_envelope?;
    let payload = STANDARD.decode(&envelope.payload).ok()?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return None;
    }
    let mut message = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    message.extend_from_slice(&payload);
    let signatures = envelope.signatures.iter().filter_map(|signature| STANDARD.decode(&signature.sig).ok()).collect();
    Some(Signed { message, signatures, payload })
}

impl Signed {
    /// Says whether it is a signature of this digest, if one of the signatures is good.
    pub(crate) fn is_of(&self, digest: &Digest) -> bool {
        serde_json::from_slice::<Statement>(&self.payload).is_ok_and(|statement| {
            let names = |subject: &Subject| {
                subject.digest.get(digest.algorithm().name()).is_some_and(|hex| hex == digest.hex())
            };
            STATEMENT_TYPES.contains(&statement.kind.as_str())
                && statement.predicate_type == SIGN
                && statement.subject.iter().any(names)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(payload_type: &str, statement: &str) -> Vec<u8> {
        format!(
            r#"{{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{{}},"dsseEnvelope":
                {{"payload":"{}","payloadType":"{payload_type}","signatures":[{{"sig":"AQI=","keyid":""}},{{"sig":"?"}}]}}}}"#,
            STANDARD.encode(statement)
        )
        .into_bytes()
    }

    #[test]
    fn a_statement_counts_for_its_subject_and_its_kind_alone() {
        let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let statement = |kind: &str, predicate: &str, hex: &str| {
            format!(
                r#"{{"_type":"{kind}","subject":[{{"digest":{{"sha256":"00"}}}},{{"name":"x","digest":{{"sha256":"{hex}"}}}}],"predicateType":"{predicate}","predicate":{{}}}}"#
            )
        };
        let good = statement(STATEMENT_TYPES[0], SIGN, digest.hex());
        let signed = read(&bundle(PAYLOAD_TYPE, &good)).unwrap();
        assert!(signed.is_of(&digest));
        assert_eq!(signed.signatures, [vec![1, 2]]);
        let head = format!("DSSEv1 28 application/vnd.in-toto+json {} {{", good.len());
        assert!(signed.message.starts_with(head.as_bytes()));
        for bad in [
            statement("https://example.com/Statement", SIGN, digest.hex()),
            statement(STATEMENT_TYPES[0], "https://slsa.dev/provenance/v1", digest.hex()),
            statement(STATEMENT_TYPES[0], SIGN, &"cd".repeat(32)),
            "{}".to_owned(),
            String::new(),
        ] {
            assert!(!read(&bundle(PAYLOAD_TYPE, &bad)).unwrap().is_of(&digest), "{bad}");
        }
        assert!(read(&bundle("text/plain", &good)).is_none());
        for none in ["", "{}", r#"{"messageSignature":{"signature":"AQI="}}"#, r#"{"dsseEnvelope":{}}"#] {
            assert!(read(none.as_bytes()).is_none(), "{none}");
        }
        assert!(is_bundle("application/vnd.dev.sigstore.bundle.v0.3+json"));
        assert!(is_bundle("application/vnd.dev.sigstore.bundle+json;version=0.2"));
        assert!(!is_bundle("application/vnd.dev.sigstore.bundles"));
    }
}
