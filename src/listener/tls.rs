//! Certificates from PEM files, the choice among them by SNI, and the handshake.
//!
//! A [`TlsState`] is immutable: a reload loads a new one and swaps it in whole, so that a failure keeps the old one;
//! sessions that have shaken hands go on as they are. TLS 1.2 and 1.3, by rustls over ring. Keys are never printed.
//! Standards: RFC 3207, RFC 8314, RFC 6066 §3 (SNI).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::verify_server_name;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::socket::Socket;
use crate::config::{Config, TlsFiles};
use crate::mail;

/// The certificates in force, ready to shake hands with.
#[derive(Debug, Clone, Default)]
pub struct TlsState {
    server: Option<Arc<ServerConfig>>,
}

impl TlsState {
    /// Reads the files that `[tls]` names; without `[tls]` there is no certificate and STARTTLS isn't offered.
    ///
    /// # Errors
    /// Which file, and what is wrong with it.
    pub fn load(config: &Config) -> Result<Self, String> {
        let Some(files) = &config.tls else { return Ok(Self::default()) };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = Certificates::load(files, &provider)?;
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificates));
        Ok(Self { server: Some(Arc::new(server)) })
    }

    /// There is a certificate to offer.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.server.is_some()
    }

    pub(super) fn server(&self) -> Option<Arc<ServerConfig>> {
        self.server.clone()
    }
}

/// The pairs of `[tls]`, the default one first.
#[derive(Debug)]
struct Certificates {
    default: Arc<CertifiedKey>,
    others: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    fn load(files: &TlsFiles, provider: &rustls::crypto::CryptoProvider) -> Result<Self, String> {
        Ok(Self {
            default: load_pair(&files.certificate, &files.key, provider)?,
            others: (files.sni.iter())
                .map(|(certificate, key)| load_pair(certificate, key, provider))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The first pair that is good for `name`; the default one where none is, since most senders don't look.
    fn choose(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let fitting = name.and_then(|name| {
            let mut pairs = std::iter::once(&self.default).chain(&self.others);
            pairs.find(|pair| is_good_for(pair, &name))
        });
        Arc::clone(fitting.unwrap_or(&self.default))
    }
}

fn is_good_for(pair: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = pair.end_entity_cert().and_then(ParsedCertificate::try_from);
    certificate.is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name()))
    }
}

fn load_pair(
    certificate: &Path,
    key: &Path,
    provider: &rustls::crypto::CryptoProvider,
) -> Result<Arc<CertifiedKey>, String> {
    let unreadable = |path: &Path, error: rustls_pki_types::pem::Error| format!("{}: {error}", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(certificate, error))?;
    if chain.is_empty() {
        return Err(format!("{}: no certificate in it", certificate.display()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
    CertifiedKey::from_der(chain, private, provider)
        .map(Arc::new)
        .map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))
}

/// Shakes hands within `limit`.
///
/// # Errors
/// In words for the log.
pub(super) async fn shake_hands<S: Socket>(
    tcp: S,
    server: Arc<ServerConfig>,
    limit: Duration,
) -> Result<TlsStream<S>, String> {
    match tokio::time::timeout(limit, TlsAcceptor::from(server).accept(tcp)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(in_words(&error)),
        Err(_) => Err(format!("the handshake was not done after {} s", limit.as_secs_f32())),
    }
}

/// What a failed handshake most likely means.
fn in_words(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidMessage(_)) => "the peer did not speak TLS".to_owned(),
        Some(rustls::Error::AlertReceived(alert)) => format!("the peer refused: {alert:?}"),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "the peer left during the handshake".to_owned(),
        None => error.to_string(),
    }
}

/// What was agreed on, for the facts of the client.
pub(super) fn facts<S>(stream: &TlsStream<S>) -> mail::Tls {
    let (_, connection) = stream.get_ref();
    mail::Tls {
        version: match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3".to_owned(),
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2".to_owned(),
            other => other.map_or_else(String::new, |version| format!("{version:?}")),
        },
        cipher: connection.negotiated_cipher_suite().map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
        sni: connection.server_name().map(str::to_owned),
    }
}
