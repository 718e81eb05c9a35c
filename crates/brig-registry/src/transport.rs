//! The HTTP clients below: one for each set of certificates that hosts want, all with the same proxies and bounds.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::client::Options;
use crate::error::Error;
use crate::hosts::Trust;

/// The proxies that the user's environment names; they print as nothing, for they may hold a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For plain HTTP: `http://[user:password@]host:port`.
    pub http: Option<String>,
    /// For HTTPS, by CONNECT.
    pub https: Option<String>,
    /// Hosts that are reached directly: names, domains, addresses and subnets with commas between, or `*`. Loopback always is.
    pub except: String,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxies")
    }
}

/// The clients, made as they are needed.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    made: Mutex<HashMap<Trust, reqwest::Client>>,
}

impl Clients {
    /// Returns the client for hosts that want this trust.
    pub(crate) fn get(&self, options: &Options, trust: &Trust) -> Result<reqwest::Client, Error> {
        let poisoned = || Error::Setup("another thread of it has failed".to_owned());
        let mut made = self.made.lock().map_err(|_| poisoned())?;
        if let Some(client) = made.get(trust) {
            return Ok(client.clone());
        }
        let client = make(options, trust)?;
        made.insert(trust.clone(), client.clone());
        Ok(client)
    }
}

fn make(options: &Options, trust: &Trust) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(options, trust)?)
        .user_agent(concat!("brig/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(Duration::from_secs(20));
    let direct = format!("localhost,127.0.0.0/8,::1,{}", options.proxies.except);
    let bad = |_: reqwest::Error| Error::Setup("a proxy of the environment is no URL".to_owned());
    for (url, secure) in [(&options.proxies.http, false), (&options.proxies.https, true)] {
        let Some(url) = url else { continue };
        let url = if url.contains("://") { url.clone() } else { format!("http://{url}") };
        let proxy = if secure { reqwest::Proxy::https(&url) } else { reqwest::Proxy::http(&url) };
        builder = builder.proxy(proxy.map_err(bad)?.no_proxy(reqwest::NoProxy::from_string(&direct)));
    }
    builder.build().map_err(|error| Error::Setup(error.without_url().to_string()))
}

/// Sets up TLS with ring and the trusted certificates. A machine without any can still speak plain HTTP to loopback.
fn tls(options: &Options, trust: &Trust) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match std::fs::read(&options.certificates) {
        Ok(pem) => {
            let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
            roots.add_parsable_certificates(certificates);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(certificates_error(&options.certificates, source)),
    }
    for path in &trust.authorities {
        let pem = std::fs::read(path).map_err(|source| certificates_error(path, source))?;
        let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        if roots.add_parsable_certificates(found).0 == 0 {
            return Err(bad_file(path, "it holds no certificate"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Setup(error.to_string()))?;
    let builder = if trust.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else {
        builder.with_root_certificates(roots)
    };
    let Some((certificate, key)) = &trust.client else { return Ok(builder.with_no_client_auth()) };
    let pem = std::fs::read(certificate).map_err(|source| certificates_error(certificate, source))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    let pem = std::fs::read(key).map_err(|source| certificates_error(key, source))?;
    let secret = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| bad_file(key, "it holds no private key"))?;
    builder.with_client_auth_cert(chain, secret).map_err(|error| bad_file(certificate, &error.to_string()))
}

fn certificates_error(path: &Path, source: std::io::Error) -> Error {
    Error::Certificates { path: path.display().to_string(), source }
}

fn bad_file(path: &Path, reason: &str) -> Error {
    Error::Policy { path: path.display().to_string(), reason: reason.to_owned() }
}

/// Believes any certificate, for hosts of which the user's files say so; the signatures of the handshake still have to fit.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
