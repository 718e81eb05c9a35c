//! The client: how it is set up, and what can be asked of it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brig_spec::digest::Digest;
use brig_spec::image::{Descriptor, MANIFEST_MAX, media_type};
use brig_spec::reference::Reference;
use reqwest::header::CONTENT_TYPE;
use sha2::Digest as _;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::blob::Blob;
use crate::credentials::Keyring;
use crate::error::Error;
use crate::hosts::Action;
use crate::http::{Http, Request};
use crate::notice::Notices;
use crate::policy::Policy;
use crate::ranges::Ranges;
use crate::transport::Proxies;

/// How many blobs are under way with one registry at the same time, if the policy file does not say.
const CONNECTIONS: usize = 8;

/// Everything that a manifest request accepts.
fn accepted() -> String {
    [media_type::OCI_MANIFEST, media_type::OCI_INDEX, media_type::DOCKER_MANIFEST, media_type::DOCKER_LIST].join(", ")
}

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// A file of credentials in the form of Docker's `config.json`; a login is stored there.
    pub credentials: Option<PathBuf>,
    /// Further files of that form, which are only read.
    pub more_credentials: Vec<PathBuf>,
    /// How long a program that keeps credentials may take.
    pub helper_patience: Duration,
    /// Hosts (with port, as references name them) that are spoken to over plain HTTP; loopback addresses always are.
    pub insecure: Vec<String>,
    /// Hosts that answer in the place of others, such as `docker.io` to `localhost:5000`; the others are not asked.
    pub mirrors: BTreeMap<String, String>,
    /// What the policy file says.
    pub policy: Policy,
    /// The trusted certificates, PEM.
    pub certificates: PathBuf,
    /// Directories with a subdirectory of certificates for each host, as Docker has them.
    pub docker_certificates: Vec<PathBuf>,
    /// Directories with a `<host>/hosts.toml` for each host, as containerd has them.
    pub containerd_hosts: Vec<PathBuf>,
    /// The proxies of the user's environment.
    pub proxies: Proxies,
    /// Whom to tell about waits and mirrors.
    pub notices: Notices,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long the other side may keep silent.
    pub read_timeout: Duration,
    /// How often a request that failed for a passing reason is tried again, and a broken blob is resumed without progress.
    pub retries: u32,
    /// When a blob comes in several ranges at once.
    pub ranges: Ranges,
    /// The most bytes of one part of an upload; larger blobs are sent in several.
    pub upload_part: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials: None,
            more_credentials: Vec::new(),
            helper_patience: Duration::from_secs(60),
            insecure: Vec::new(),
            mirrors: BTreeMap::new(),
            policy: Policy::default(),
            certificates: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
            docker_certificates: Vec::new(),
            containerd_hosts: Vec::new(),
            proxies: Proxies::default(),
            notices: Notices::default(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            retries: 4,
            ranges: Ranges::default(),
            upload_part: 64 << 20,
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
    /// By host, how many more blobs may be under way.
    connections: Mutex<HashMap<String, Arc<Semaphore>>>,
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
        let keyring = Keyring::new(&options);
        Self::with_keyring(options, keyring)
    }

    pub(crate) fn with_keyring(options: Options, keyring: Keyring) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("brig-registry")
            .enable_all()
            .build()
            .map_err(|error| Error::Setup(error.to_string()))?;
        let http = Http::new(options, keyring);
        Ok(Self { inner: Arc::new(Inner { http, connections: Mutex::default(), runtime: Some(runtime) }) })
    }

    /// Returns how the client was set up.
    pub fn options(&self) -> &Options {
        &self.inner.http.options
    }

    /// Returns how many blobs may be under way with a repository's registry at the same time.
    pub fn connections(&self, reference: &Reference) -> usize {
        let policy = &self.options().policy;
        let rule = policy.rule(reference.host(), reference.repository());
        rule.connections.or(policy.connections).unwrap_or(CONNECTIONS)
    }

    /// Returns what counts the blobs that are under way with a repository's registry.
    pub(crate) fn places(&self, reference: &Reference) -> Arc<Semaphore> {
        let new = || Arc::new(Semaphore::new(self.connections(reference)));
        match self.inner.connections.lock() {
            Ok(mut map) => Arc::clone(map.entry(reference.host().to_owned()).or_insert_with(new)),
            Err(_) => new(),
        }
    }

    /// Fetches the manifest or index that a reference means, and verifies it against the digest if there is one.
    pub fn manifest(&self, reference: &Reference) -> Result<Manifest, Error> {
        let http = &self.inner.http;
        let accept = accepted();
        let host = reference.host();
        let path = format!("manifests/{}", reference.identifier());
        let request = Request {
            accept: &accept,
            action: if reference.digest().is_some() { Action::Pull } else { Action::Resolve },
            ..Request::get(host, reference.repository(), path, format!("image {}", reference.familiar()))
        };
        let (bytes, media_type) = self.block_on(async {
            let reply = http.send(&request).await?;
            let media_type = reply.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().to_owned();
            let bytes = http.body(&reply.host, &request.what, reply.response, MANIFEST_MAX).await?;
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
    /// It waits while too many are under way with the registry.
    ///
    /// The reader verifies neither size nor digest: whoever keeps the bytes does.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<Blob, Error> {
        Blob::open(self.clone(), reference.clone(), descriptor.clone(), offset)
    }

    /// Returns the runtime's handle.
    pub(crate) fn handle(&self) -> Result<&tokio::runtime::Handle, Error> {
        let runtime = self.inner.runtime.as_ref();
        runtime.map(Runtime::handle).ok_or_else(|| Error::Setup("it is being shut down".to_owned()))
    }

    /// Runs a future of this client on the calling thread.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.handle()?.block_on(future)
    }
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
