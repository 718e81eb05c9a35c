//! Signatures as cosign makes them with a key: wanted by the policy file, looked for beside the image.
//!
//! ```text
//!   tag  sha256-<hex>.sig          a manifest; each layer is a payload, its annotation the signature of it
//!   referrers of the digest        the same manifest, as an artifact of cosign's type
//!     payload  {"critical": {"type": "cosign container image signature",
//!                            "image": {"docker-manifest-digest": "sha256:.."}, ..}, ..}
//!     signature  ECDSA with P-256 and SHA-256 over the payload's bytes, base64 of DER
//!   or a sigstore bundle           likewise (bundle.rs)
//! ```
//!
//! What counts is the digest in a payload that one of the keys has signed; the name in it is not looked at, for a mirror or
//! a copy has another one.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brig_spec::digest::Digest;
use brig_spec::image::{Descriptor, Document};
use brig_spec::reference::Reference;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::artifact::tagged;
use crate::bundle;
use crate::client::Client;
use crate::error::Error;

/// The annotation that holds a signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The media type of a payload.
const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The artifact type of a manifest of signatures.
const ARTIFACT_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// What a payload says of itself.
const KIND: &str = "cosign container image signature";
/// The most bytes of a payload.
const PAYLOAD_MAX: u64 = 64 << 10;
/// The most bytes of a bundle, which brings certificates and entries of a log along.
const BUNDLE_MAX: u64 = 512 << 10;
/// The most signatures of one image that are looked at.
const SIGNATURES_MAX: usize = 64;
/// The most bytes of a file with a key.
const KEY_MAX: u64 = 64 << 10;
/// What precedes the point in the DER form of a public key of P-256 (RFC 5480).
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: SignedImage,
}

#[derive(Deserialize)]
struct SignedImage {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

impl Client {
    /// Checks that one of an image's digests (that of the index it was found by, that of its manifest) is signed as the policy
    /// file wants it in this repository. Where the file wants nothing, nothing is asked.
    pub fn check_signature(&self, reference: &Reference, digests: &[Digest]) -> Result<(), Error> {
        let rule = self.options().policy.signing(reference.host(), reference.repository());
        let refuse = |reason: &str| Error::Unsigned {
            what: format!("image {}", reference.familiar()),
            reason: reason.to_owned(),
        };
        if rule.reject {
            return Err(refuse("nothing of this repository may be used"));
        }
        if rule.signed_by.is_empty() {
            return Ok(());
        }
        let keys = rule.signed_by.iter().map(|path| read_key(path)).collect::<Result<Vec<_>, _>>()?;
        let mut seen = 0;
        let mut others = false;
        for digest in digests {
            for (place, layer) in self.signatures_of(reference, digest)? {
                seen += 1;
                if seen > SIGNATURES_MAX {
                    return Err(refuse("it has too many signatures"));
                }
                let content = self.small_blob(&place, &layer, content_max(&layer))?;
                match says(&keys, &layer, &content, digest) {
                    Some(true) => return Ok(()),
                    Some(false) => others = true,
                    None => {}
                }
            }
        }
        Err(refuse(match (seen, others) {
            (0, _) => "it has no signature",
            (_, true) => "its signature is for something else",
            _ => "none of its signatures is by a key of the policy file",
        }))
    }

    /// Lists the payloads that are signed beside an image, with the place where each is.
    fn signatures_of(&self, reference: &Reference, digest: &Digest) -> Result<Vec<(Reference, Descriptor)>, Error> {
        let tag = format!("{}-{}.sig", digest.algorithm().name(), digest.hex());
        let mut places = match tagged(reference, &tag) {
            Ok(place) => vec![place],
            // A tag has at most 128 characters; a longer digest has only referrers.
            Err(_) => Vec::new(),
        };
        for referrer in self.referrers(reference, digest)? {
            let kind = referrer.artifact_type.as_deref().unwrap_or_default();
            let signs = kind == ARTIFACT_TYPE
                || bundle::is_bundle(kind) && !bundle::is_attestation(&referrer.descriptor.annotations);
            if signs && places.len() < SIGNATURES_MAX {
                places.push(reference.pinned(referrer.descriptor.digest));
            }
        }
        let mut list = Vec::new();
        for place in places {
            let found = match self.manifest(&place) {
                Ok(found) => found,
                Err(Error::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            if let Ok(Document::Manifest(manifest)) = Document::parse(&found.bytes, Some(&found.media_type)) {
                // A bundle that is larger is no signature, but an attestation.
                let signs = |layer: &Descriptor| {
                    layer.media_type == PAYLOAD_TYPE || bundle::is_bundle(&layer.media_type) && layer.size <= BUNDLE_MAX
                };
                list.extend(manifest.layers.into_iter().filter(signs).map(|layer| (place.clone(), layer)));
            }
        }
        Ok(list)
    }
}

/// The most bytes of a payload, or of a bundle.
fn content_max(layer: &Descriptor) -> u64 {
    if layer.media_type == PAYLOAD_TYPE { PAYLOAD_MAX } else { BUNDLE_MAX }
}

/// Says whether what one of the keys has signed is this digest; none if none of them has signed anything.
fn says(keys: &[Vec<u8>], layer: &Descriptor, content: &[u8], digest: &Digest) -> Option<bool> {
    let by_one = |message: &[u8], signature: &[u8]| keys.iter().any(|key| is_signed(key, message, signature));
    if layer.media_type != PAYLOAD_TYPE {
        let signed = bundle::read(content)?;
        let good = signed.signatures.iter().take(SIGNATURES_MAX).any(|one| by_one(&signed.message, one));
        return good.then(|| signed.is_of(digest));
    }
    let signature = STANDARD.decode(layer.annotations.get(SIGNATURE)?).ok()?;
    by_one(content, &signature).then(|| {
        let payload = serde_json::from_slice::<Payload>(content);
        payload.is_ok_and(|signed| signed.critical.kind == KIND && signed.critical.image.digest == *digest)
    })
}

/// Reads a public key of P-256: its point.
fn read_key(path: &Path) -> Result<Vec<u8>, Error> {
    let fail = |reason: &str| Error::Policy { path: path.display().to_string(), reason: reason.to_owned() };
    if path.metadata().is_ok_and(|metadata| metadata.len() > KEY_MAX) {
        return Err(fail("it is too large for a key"));
    }
    let pem = std::fs::read(path).map_err(|error| fail(&error.to_string()))?;
    let key = SubjectPublicKeyInfoDer::from_pem_slice(&pem).map_err(|_| fail("it holds no public key"))?;
    match key.as_ref().strip_prefix(P256) {
        Some(point) if point.len() == 65 => Ok(point.to_vec()),
        _ => Err(fail("its public key is not one of ECDSA with P-256")),
    }
}

fn is_signed(key: &[u8], payload: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(payload, signature).is_ok()
}
