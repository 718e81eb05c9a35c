//! Small images for tests: layers of arbitrary tar entries, put together as OCI layouts, docker archives or plain tars.
//!
//! Nothing here checks anything: a test may make the most hostile layer, which no honest tool would write.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

/// The compression of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None.
    Plain,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// A tar that is being written, entry by entry.
#[derive(Debug)]
pub struct Layer {
    bytes: Vec<u8>,
}

/// The fields of one entry that most entries leave alone.
#[derive(Debug, Clone)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// Seconds since the epoch.
    pub mtime: u64,
    /// pax records that precede the entry.
    pub pax: Vec<(String, Vec<u8>)>,
    /// Major and minor number.
    pub device: (u32, u32),
}

impl Default for Meta {
    fn default() -> Self {
        Self { mode: 0o644, uid: 0, gid: 0, mtime: 1_000_000_000, pax: Vec::new(), device: (0, 0) }
    }
}

impl Meta {
    /// Returns metadata with these permission bits.
    pub fn mode(mode: u32) -> Self {
        Self { mode, ..Self::default() }
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// Starts an empty layer.
    pub fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Adds an entry of any type, with name and link target of any bytes and length.
    #[must_use]
    pub fn entry(mut self, kind: u8, path: &str, link: &str, data: &[u8], meta: &Meta) -> Self {
        if !meta.pax.is_empty() {
            let mut records = Vec::new();
            for (key, value) in &meta.pax {
                records.extend_from_slice(&pax_record(key, value));
            }
            self.raw(b'x', "pax", "", &records, &Meta::default());
        }
        if path.len() > 100 {
            self.raw(b'L', "././@LongLink", "", &[path.as_bytes(), b"\0"].concat(), &Meta::default());
        }
        if link.len() > 100 {
            self.raw(b'K', "././@LongLink", "", &[link.as_bytes(), b"\0"].concat(), &Meta::default());
        }
        self.raw(kind, path, link, data, meta);
        self
    }

    fn raw(&mut self, kind: u8, path: &str, link: &str, data: &[u8], meta: &Meta) {
        let mut header = tar::Header::new_gnu();
        {
            let old = header.as_old_mut();
            let name = &path.as_bytes()[..path.len().min(100)];
            old.name[..name.len()].copy_from_slice(name);
            let target = &link.as_bytes()[..link.len().min(100)];
            old.linkname[..target.len()].copy_from_slice(target);
            old.linkflag = [kind];
        }
        header.set_mode(meta.mode);
        header.set_uid(meta.uid);
        header.set_gid(meta.gid);
        header.set_mtime(meta.mtime);
        header.set_size(data.len() as u64);
        header.set_device_major(meta.device.0).expect("a GNU header has device numbers");
        header.set_device_minor(meta.device.1).expect("a GNU header has device numbers");
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    /// Adds a regular file.
    #[must_use]
    pub fn file(self, path: &str, data: impl AsRef<[u8]>) -> Self {
        self.entry(b'0', path, "", data.as_ref(), &Meta::default())
    }

    /// Adds a regular file with mode 0755.
    #[must_use]
    pub fn program(self, path: &str, data: impl AsRef<[u8]>) -> Self {
        self.entry(b'0', path, "", data.as_ref(), &Meta::mode(0o755))
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(b'5', path, "", b"", &Meta::mode(mode))
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, b"", &Meta::mode(0o777))
    }

    /// Adds a hard link.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, b"", &Meta::default())
    }

    /// Appends bytes as they are, for damaged archives.
    #[must_use]
    pub fn raw_bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Ends the layer.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

/// Compresses bytes.
pub fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::Plain => bytes.to_vec(),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).expect("memory takes everything");
            encoder.finish().expect("memory takes everything")
        }
        Compression::Zstd => zstd::encode_all(bytes, 1).expect("memory takes everything"),
    }
}

/// Returns `sha256:<hex>` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// An image whose parts are in memory.
#[derive(Debug, Clone)]
pub struct Image {
    /// Every blob by digest, layers included.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The configuration.
    pub config: Vec<u8>,
    /// The layers as blobs, bottom first.
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    /// Makes an image of uncompressed layers; `process` is the configuration's `config` object as JSON.
    pub fn new(layers: &[Vec<u8>], compression: Compression, process: &str) -> Self {
        let parts: Vec<(Vec<u8>, Compression)> = layers.iter().map(|layer| (layer.clone(), compression)).collect();
        Self::mixed(&parts, process, false)
    }

    /// Makes an image whose layers have compressions of their own, in OCI's or in Docker's media types.
    pub fn mixed(layers: &[(Vec<u8>, Compression)], process: &str, docker: bool) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|(layer, _)| format!("\"{}\"", digest(layer))).collect();
        let config = format!(
            r#"{{"architecture":"{}","os":"linux","created":"2024-01-02T03:04:05Z","config":{process},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            architecture(),
            diff_ids.join(",")
        )
        .into_bytes();
        let mut blobs = BTreeMap::new();
        let mut described = Vec::new();
        let mut compressed = Vec::new();
        for (layer, compression) in layers {
            let blob = compress(layer, *compression);
            let media = match (compression, docker) {
                (Compression::Plain, false) => "application/vnd.oci.image.layer.v1.tar",
                (Compression::Gzip, false) => "application/vnd.oci.image.layer.v1.tar+gzip",
                (Compression::Zstd, _) => "application/vnd.oci.image.layer.v1.tar+zstd",
                (Compression::Plain, true) => "application/vnd.docker.image.rootfs.diff.tar",
                (Compression::Gzip, true) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            };
            described.push(descriptor(media, &blob));
            blobs.insert(digest(&blob), blob.clone());
            compressed.push(blob);
        }
        let (manifest_media, config_media) = if docker {
            ("application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.container.image.v1+json")
        } else {
            ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json")
        };
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{manifest_media}","config":{},"layers":[{}]}}"#,
            descriptor(config_media, &config),
            described.join(",")
        )
        .into_bytes();
        blobs.insert(digest(&config), config.clone());
        blobs.insert(digest(&manifest), manifest.clone());
        Self { blobs, manifest, config, layers: compressed }
    }

    /// Returns the media type of the manifest.
    pub fn media_type(&self) -> &'static str {
        if self.manifest.windows(6).any(|window| window == b"docker") {
            "application/vnd.docker.distribution.manifest.v2+json"
        } else {
            "application/vnd.oci.image.manifest.v1+json"
        }
    }

    /// Returns the image's id.
    pub fn id(&self) -> String {
        digest(&self.config)
    }

    /// Writes the image as an OCI layout, with a tag.
    pub fn write_layout(&self, directory: &Path, tag: &str) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a directory for blobs");
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(&digest[7..]), bytes).expect("a blob written");
        }
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a layout file");
        let entry = descriptor(self.media_type(), &self.manifest);
        let entry = entry.trim_end_matches('}');
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{entry},"annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}}}]}}"#
        );
        fs::write(directory.join("index.json"), index).expect("an index written");
    }

    /// Makes an archive as old versions of `docker save` wrote it; layers are put in as they are.
    pub fn docker_archive(&self, name: &str) -> Vec<u8> {
        let mut tar = Layer::new();
        let config = format!("{}.json", &self.id()[7..]);
        tar = tar.file(&config, &self.config);
        let mut layers = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let path = format!("layer{index}/layer.tar");
            tar = tar.file(&path, layer);
            layers.push(format!("\"{path}\""));
        }
        let manifest = format!(r#"[{{"Config":"{config}","RepoTags":["{name}"],"Layers":[{}]}}]"#, layers.join(","));
        tar.file("manifest.json", manifest).finish()
    }
}

/// Returns this machine's processor as images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Describes a blob as JSON.
pub fn descriptor(media: &str, blob: &[u8]) -> String {
    format!(r#"{{"mediaType":"{media}","digest":"{}","size":{}}}"#, digest(blob), blob.len())
}

/// Makes a layer with Debian's static busybox and a hard link for each of the applets.
pub fn busybox_layer(applets: &[&str]) -> Vec<u8> {
    let program = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok());
    let program = program.expect("Debian's package busybox-static is installed");
    let mut layer = Layer::new()
        .directory("./", 0o755)
        .directory("bin/", 0o755)
        .directory("etc/", 0o755)
        .directory("tmp/", 0o1777)
        .directory("root/", 0o700)
        .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        .file("etc/group", "root:x:0:\nnogroup:x:65534:\n")
        .program("bin/busybox", program);
    for applet in applets {
        layer = layer.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    layer.finish()
}

/// Makes a layer with one static program at `/bin/<name>`.
pub fn program_layer(name: &str, program: &Path) -> Vec<u8> {
    let bytes = fs::read(program).expect("the program is readable");
    Layer::new().directory("bin/", 0o755).program(&format!("bin/{name}"), bytes).finish()
}

/// Writes an image of layers as an OCI layout below `directory`, and returns its path.
pub fn layout(directory: &Path, layers: &[Vec<u8>], process: &str) -> PathBuf {
    let path = directory.join("layout");
    Image::new(layers, Compression::Gzip, process).write_layout(&path, "latest");
    path
}
