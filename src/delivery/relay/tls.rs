//! TLS towards next hops: checked where the configuration demands it, unchecked where it only beats the clear.
//!
//! Standards: RFC 3207 (STARTTLS), RFC 7435 (opportunistic security), RFC 8314. One provider: ring.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Both ways to begin TLS.
#[derive(Clone)]
pub struct Tls {
    pub verified: Arc<ClientConfig>,
    unverified: Arc<ClientConfig>,
}

impl Tls {
    /// `roots`: the authorities trusted; `None`: the public ones.
    ///
    /// # Errors
    /// The provider knows none of the protocol's versions.
    pub fn new(roots: Option<Arc<RootCertStore>>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = roots.unwrap_or_else(|| Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }));
        let verified = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let unverified = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        Ok(Self { verified: Arc::new(verified), unverified: Arc::new(unverified) })
    }

    /// Shakes hands as the client. `ip` stands in for a name that can't be one of a certificate.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub async fn start<S>(
        &self,
        stream: S,
        host: &str,
        ip: IpAddr,
        check: bool,
    ) -> Result<(TlsStream<S>, String), String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            Err(_) if check => return Err(format!("{host} is no name that a certificate could bear")),
            Err(_) => ServerName::from(ip),
        };
        let config = if check { &self.verified } else { &self.unverified };
        let stream =
            TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(|error| error.to_string())?;
        let told = describe(stream.get_ref().1, check);
        Ok((stream, told))
    }
}

/// As in `TLSv1.3 TLS13_AES_256_GCM_SHA384, unverified`.
fn describe(session: &rustls::ClientConnection, checked: bool) -> String {
    let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
    let version = version.replace('_', ".");
    let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("?");
    let note = if checked { "" } else { ", unverified" };
    format!("{version} {cipher}{note}")
}

/// Takes any certificate: opportunistic TLS (RFC 7435) only keeps out those who merely listen.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
