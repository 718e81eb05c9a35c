//! Images as registries and archives describe them: descriptors, manifests, indexes, and the image's configuration.
//!
//! ```text
//!   index / manifest list --> manifest --> config   (what to run, and the uncompressed digest of each layer)
//!                                     `--> layers   (tar, tar+gzip, tar+zstd)
//! ```
//!
//! The types are lenient where images in the wild are (Docker writes `null` for empty lists) and strict where leniency
//! was an attack: one document read as two kinds (CVE-2021-41190), sizes and digests that are no sizes and digests.
//! The raw bytes are always kept beside the parsed value, because digests are over bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::platform::Platform;

/// The most bytes that a manifest or an index may have: 4 MiB, as registries have it.
pub const MANIFEST_MAX: u64 = 4 << 20;
/// The most bytes that an image's configuration may have: 8 MiB.
pub const CONFIG_MAX: u64 = 8 << 20;
/// The most layers that an image may have: overlay's own bound is 500.
pub const LAYERS_MAX: usize = 500;

/// The media types of image-spec and of Docker's schema 2.
pub mod media_type {
    /// An OCI manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An uncompressed OCI layer.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// An OCI layer in gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// An OCI layer in zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// An uncompressed layer as Docker has them in archives.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker's layer in gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// A Docker schema 2 manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// A Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// A Docker image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
}

/// The reason why a manifest, an index or a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The text is not the JSON that it should be.
    #[error("{what} is not valid JSON of its kind")]
    Json {
        /// The kind of document.
        what: &'static str,
        /// What the JSON parser said.
        source: serde_json::Error,
    },
    /// The document is longer than the limit.
    #[error("{what} has more than {limit} bytes")]
    TooLarge {
        /// The kind of document.
        what: &'static str,
        /// The most bytes allowed.
        limit: u64,
    },
    /// The document could be read as a manifest and as an index.
    #[error("the document is both a manifest and an index")]
    Ambiguous,
    /// The media type inside, or the one announced, contradicts the content.
    #[error("the document's media type `{found}` does not fit its content")]
    MediaType {
        /// The media type that contradicts.
        found: String,
    },
    /// The document is Docker's schema 1, or of no known schema.
    #[error("manifest schema version {0} is not supported")]
    Schema(u64),
    /// The image has more layers than an overlay can take.
    #[error("the image has {0} layers, more than 500")]
    TooManyLayers(usize),
}

/// A pointer to content: what it is, its digest, its size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the content.
    #[serde(default)]
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content in bytes.
    pub size: u64,
    /// The platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free annotations; an OCI layout keeps an image's tag here.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image manifest: a configuration and its layers, bottom first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u64,
    /// The media type; Docker always writes it, OCI often does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image's configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// An index (OCI) or manifest list (Docker): one manifest for each platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u64,
    /// The media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// Returns the entry that suits `platform` best; attestations (`unknown/unknown`) never do.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let mut best: Option<(u32, &Descriptor)> = None;
        for entry in &self.manifests {
            let score = match &entry.platform {
                Some(offer) => platform.suits(offer),
                None => Some(0),
            };
            // Of equals the first one counts, as the specification has it.
            if let Some(score) = score
                && best.is_none_or(|(top, _)| score > top)
            {
                best = Some((score, entry));
            }
        }
        best.map(|(_, entry)| entry)
    }
}

/// What stands behind a tag or a digest in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// A choice of images.
    Index(Index),
}

impl Document {
    /// Parses a manifest or an index, and refuses what could be both.
    ///
    /// `announced` is the media type told from outside (a Content-Type, a descriptor); a generic one says nothing.
    pub fn parse(bytes: &[u8], announced: Option<&str>) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            #[serde(default)]
            schema_version: u64,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        if bytes.len() as u64 > MANIFEST_MAX {
            return Err(DocumentError::TooLarge { what: "manifest", limit: MANIFEST_MAX });
        }
        let probe: Probe =
            serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what: "manifest", source })?;
        let image = probe.layers.is_some() || probe.config.is_some();
        let list = probe.manifests.is_some();
        if image && list || probe.fs_layers.is_some() && (image || list) {
            return Err(DocumentError::Ambiguous);
        }
        if probe.schema_version != 2 {
            return Err(DocumentError::Schema(probe.schema_version));
        }
        let announced = announced.map(|text| text.split(';').next().unwrap_or_default().trim());
        for told in [probe.media_type.as_deref(), announced].into_iter().flatten() {
            let says_list = matches!(told, media_type::OCI_INDEX | media_type::DOCKER_LIST);
            let says_image = matches!(told, media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST);
            if says_list && !list || says_image && list {
                return Err(DocumentError::MediaType { found: told.to_owned() });
            }
        }
        if list {
            let index =
                serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what: "image index", source })?;
            return Ok(Self::Index(index));
        }
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what: "manifest", source })?;
        if manifest.layers.len() > LAYERS_MAX {
            return Err(DocumentError::TooManyLayers(manifest.layers.len()));
        }
        Ok(Self::Manifest(manifest))
    }
}

/// An image's configuration: its platform, its defaults for a process, and its layers' uncompressed digests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The time of creation, RFC 3339, as the image's maker wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The maker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor, such as `amd64`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// The processor's variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The operating system.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// The defaults for a process.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ProcessConfig,
    /// The layers.
    pub rootfs: RootFs,
    /// How each layer came to be; only for people.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

impl ImageConfig {
    /// Parses a configuration of at most 8 MiB.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let what = "image configuration";
        if bytes.len() as u64 > CONFIG_MAX {
            return Err(DocumentError::TooLarge { what, limit: CONFIG_MAX });
        }
        serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what, source })
    }

    /// Returns the platform; an image that names none is taken for linux on this machine's processor.
    pub fn platform(&self) -> Platform {
        let host = Platform::host();
        let or = |text: &str, other: String| if text.is_empty() { other } else { text.to_owned() };
        Platform {
            os: or(&self.os, host.os),
            architecture: or(&self.architecture, host.architecture),
            variant: self.variant.clone().filter(|v| !v.is_empty()),
        }
    }
}

/// The layers of an image as uncompressed digests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The digests of the uncompressed layers, bottom first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The time of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The maker of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// The defaults of a process, in Docker's spelling.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ProcessConfig {
    /// `user[:group]`, by name or number.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The ports that the image means to serve, such as `80/tcp`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// `NAME=value` lines.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(deserialize_with = "text_or_list", skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The default arguments, or the program where there is no entrypoint.
    #[serde(deserialize_with = "text_or_list", skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths that are volumes.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// The working directory.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that stops the process politely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// The shell of shell-form commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Docker's health check, as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<serde_json::Value>,
    /// Docker's build triggers, as they stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a list of words, a single word (as old builders wrote), or null.
fn text_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        List(Vec<String>),
        Text(String),
    }
    Ok(Option::<Either>::deserialize(deserializer)?.map(|either| match either {
        Either::List(list) => list,
        Either::Text(text) => vec![text],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor() -> String {
        format!(r#"{{"mediaType":"x","digest":"{D}","size":3}}"#)
    }

    #[test]
    fn a_document_is_one_kind_only() {
        let one = descriptor();
        let both = format!(r#"{{"schemaVersion":2,"config":{one},"layers":[],"manifests":[{one}]}}"#);
        assert!(matches!(Document::parse(both.as_bytes(), None), Err(DocumentError::Ambiguous)));
        let image = format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{one}]}}"#);
        assert!(matches!(Document::parse(image.as_bytes(), None), Ok(Document::Manifest(_))));
        for (told, fits) in [
            (media_type::OCI_MANIFEST, true),
            (media_type::DOCKER_MANIFEST, true),
            ("application/json; charset=utf-8", true),
            (media_type::OCI_INDEX, false),
            (media_type::DOCKER_LIST, false),
        ] {
            assert_eq!(Document::parse(image.as_bytes(), Some(told)).is_ok(), fits, "{told}");
        }
        let lying =
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","config":{one},"layers":[{one}]}}"#, media_type::OCI_INDEX);
        assert!(matches!(Document::parse(lying.as_bytes(), None), Err(DocumentError::MediaType { .. })));
        let old = br#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(matches!(Document::parse(old, None), Err(DocumentError::Schema(1))));
        let bad_digest = r#"{"schemaVersion":2,"config":{"digest":"sha256:../../x","size":1},"layers":[]}"#;
        assert!(matches!(Document::parse(bad_digest.as_bytes(), None), Err(DocumentError::Json { .. })));
        let huge = vec![b' '; usize::try_from(MANIFEST_MAX).unwrap() + 1];
        assert!(matches!(Document::parse(&huge, None), Err(DocumentError::TooLarge { .. })));
    }

    #[test]
    fn an_index_gives_the_fitting_entry() {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[
                {{"digest":"{D}","size":1,"platform":{{"os":"unknown","architecture":"unknown"}}}},
                {{"digest":"{D}","size":2,"platform":{{"os":"linux","architecture":"arm64","variant":"v8"}}}},
                {{"digest":"{D}","size":3,"platform":{{"os":"linux","architecture":"amd64"}},"annotations":null}}]}}"#
        );
        let Ok(Document::Index(index)) = Document::parse(text.as_bytes(), None) else { panic!("no index") };
        assert_eq!(index.select(&"linux/amd64".parse().unwrap()).unwrap().size, 3);
        assert_eq!(index.select(&"linux/arm64".parse().unwrap()).unwrap().size, 2);
        assert!(index.select(&"linux/s390x".parse().unwrap()).is_none());
    }

    #[test]
    fn a_configuration_full_of_nulls_is_fine() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":null,"Cmd":["sh"],"Entrypoint":null,
                "Volumes":null,"Labels":null,"ExposedPorts":{{"80/tcp":{{}}}},"WorkingDir":"","Memory":0}},
                "rootfs":{{"type":"layers","diff_ids":["{D}"]}},"history":null}}"#
        );
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd.unwrap(), ["sh"]);
        assert_eq!(config.config.entrypoint, None);
        assert_eq!(config.rootfs.diff_ids.len(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::parse(&bytes, None);
            let _ = ImageConfig::parse(&bytes);
        }
    }
}
