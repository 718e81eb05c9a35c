//! The client: how it is set up, and what can be asked of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use brig_spec::digest::Digest;
use brig_spec::image::{Descriptor, MANIFEST_MAX, media_type};
use brig_spec::reference::Reference;
use reqwest::header::CONTENT_TYPE;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::Digest as _;
use tokio::runtime::Runtime;

use crate::blob::Blob;
use crate::error::Error;
use crate::http::{Http, Request};

/// Everything that a manifest request accepts.
fn accepted() -> String {
    [media_type::OCI_MANIFEST, media_type::OCI_INDEX, media_type::DOCKER_MANIFEST, media_type::DOCKER_LIST].join(", ")
}

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// A file of credentials in the form of Docker's `config.json`.
    pub credentials: Option<PathBuf>,
    /// Hosts (with port, as references name them) that are spoken to over plain HTTP; loopback addresses always are.
    pub insecure: Vec<String>,
    /// Hosts that answer in the place of others, such as `docker.io` to `localhost:5000`.
    pub mirrors: BTreeMap<String, String>,
    /// The trusted certificates, PEM.
    pub certificates: PathBuf,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long the other side may keep silent.
    pub read_timeout: Duration,
    /// How often a request that failed for a passing reason is tried again, and a broken blob is resumed without progress.
    pub retries: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials: None,
            insecure: Vec::new(),
            mirrors: BTreeMap::new(),
            certificates: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            retries: 4,
        }
    }
}

impl Options {
    /// Returns the address that answers for a host, and the scheme to speak to it.
    pub(crate) fn locate(&self, host: &str) -> (String, &'static str) {
        let host = self.mirrors.get(host).map_or(host, String::as_str);
        let address = if host == "docker.io" { "registry-1.docker.io" } else { host };
        (address.to_owned(), if self.is_plain(address) { "http" } else { "https" })
    }

    /// Tells whether a host, with or without port, may be spoken to over plain HTTP.
    pub(crate) fn is_plain(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => host.split(':').next().unwrap_or(host),
        };
        let loopback = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        loopback || self.insecure.iter().any(|insecure| insecure == host || insecure == name)
    }
}

/// A manifest or an index as a registry sent it.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The announced media type.
    pub media_type: String,
    /// The digest of the bytes; it is the one that was asked for, if one was.
    pub digest: Digest,
}

/// A client for any number of registries; clones share connections and tokens.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

/// The runtime is dropped last, from whatever thread.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) http: Http,
    pub(crate) runtime: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Client {
    /// Makes a client; nothing is sent yet.
    pub fn new(options: Options) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("brig-registry")
            .enable_all()
            .build()
            .map_err(|error| Error::Setup(error.to_string()))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(&options)?)
            .user_agent(concat!("brig/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(options.connect_timeout)
            .pool_idle_timeout(Duration::from_secs(20))
            .build()
            .map_err(|error| Error::Setup(error.without_url().to_string()))?;
        let http = Http::new(client, options);
        Ok(Self { inner: Arc::new(Inner { http, runtime: Some(runtime) }) })
    }

    /// Fetches the manifest or index that a reference means, and verifies it against the digest if there is one.
    pub fn manifest(&self, reference: &Reference) -> Result<Manifest, Error> {
        let http = &self.inner.http;
        let accept = accepted();
        let host = reference.host();
        let request = Request {
            host,
            repository: reference.repository(),
            path: format!("manifests/{}", reference.identifier()),
            accept: &accept,
            offset: 0,
            what: format!("image {}", reference.familiar()),
        };
        let (bytes, media_type) = self.block_on(async {
            let response = http.send(&request).await?;
            let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().to_owned();
            let bytes = http.body(host, &request.what, response, MANIFEST_MAX).await?;
            Ok((bytes, media_type))
        })?;
        let digest = match reference.digest().map(Digest::algorithm) {
            Some(brig_spec::digest::Algorithm::Sha512) => Digest::sha512(&sha2::Sha512::digest(&bytes).into()),
            _ => Digest::sha256(&sha2::Sha256::digest(&bytes).into()),
        };
        match reference.digest() {
            Some(expected) if *expected != digest => {
                Err(Error::Digest { host: host.to_owned(), expected: expected.clone(), found: digest })
            }
            _ => Ok(Manifest { bytes, media_type, digest }),
        }
    }

    /// Opens a blob of the reference's repository at `offset` bytes; the reader goes on by itself where a connection breaks.
    ///
    /// The reader verifies neither size nor digest: whoever keeps the bytes does.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<Blob, Error> {
        Blob::open(self.clone(), reference.clone(), descriptor.clone(), offset)
    }

    /// Runs a future of this client on the calling thread.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match &self.inner.runtime {
            Some(runtime) => runtime.handle().block_on(future),
            None => Err(Error::Setup("it is being shut down".to_owned())),
        }
    }
}

/// Sets up TLS with ring and the machine's certificates. A machine without any can still speak plain HTTP to loopback.
fn tls(options: &Options) -> Result<rustls::ClientConfig, Error> {
    let mut roots = rustls::RootCertStore::empty();
    match std::fs::read(&options.certificates) {
        Ok(pem) => {
            let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
            roots.add_parsable_certificates(certificates);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(Error::Certificates { path: options.certificates.display().to_string(), source });
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Setup(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_and_for_what_was_named() {
        let mut options =
            Options { insecure: vec!["reg.example:5000".into(), "old.example".into()], ..Options::default() };
        options.mirrors.insert("docker.io".into(), "127.0.0.1:5001".into());
        for (host, address, scheme) in [
            ("docker.io", "127.0.0.1:5001", "http"),
            ("localhost:5000", "localhost:5000", "http"),
            ("127.1.2.3", "127.1.2.3", "http"),
            ("[::1]:80", "[::1]:80", "http"),
            ("reg.example:5000", "reg.example:5000", "http"),
            ("reg.example", "reg.example", "https"),
            ("old.example:1", "old.example:1", "http"),
            ("localhost.example", "localhost.example", "https"),
            ("10.0.0.1:5000", "10.0.0.1:5000", "https"),
        ] {
            assert_eq!(options.locate(host), (address.to_owned(), scheme), "{host}");
        }
        assert_eq!(Options::default().locate("docker.io"), ("registry-1.docker.io".to_owned(), "https"));
    }
}
