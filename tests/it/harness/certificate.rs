//! A certificate and key for a test's server, and the client that trusts it alone.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

#[derive(Debug, Clone)]
pub struct Certificate {
    pub chain: String,
    pub key: String,
    pub der: CertificateDer<'static>,
}

impl Certificate {
    pub fn for_name(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Self { chain: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
    }

    /// Writes `cert.pem` and `key.pem`, each in one step; the key first, so that the change of the pair ends with the certificate.
    pub fn write(&self, dir: &Path) {
        for (name, text) in [("key.pem", &self.key), ("cert.pem", &self.chain)] {
            super::setup::write_file(&dir.join(name), text.as_bytes());
        }
    }

    pub fn client_config(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)
            .unwrap();
        Arc::new(config)
    }
}
