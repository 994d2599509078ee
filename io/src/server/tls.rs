//! TLS on the players' listener.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Tls;

/// What makes TLS of a connection; `None` if it is not configured.
///
/// # Errors
/// If a file cannot be read, is not what it should be, or the two do not belong
/// together: on one line, with the file's name.
pub(super) fn acceptor(tls: &Tls) -> Result<Option<TlsAcceptor>, String> {
    let (Some(certificate_file), Some(key_file)) = (&tls.certificate_file, &tls.key_file) else {
        return Ok(None);
    };
    let in_file = |file: &Path, problem: &str| format!("{}: {problem}", file.display());
    let chain = CertificateDer::pem_file_iter(certificate_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| in_file(certificate_file, &e.to_string()))?;
    if chain.is_empty() {
        return Err(in_file(certificate_file, "there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| in_file(key_file, &e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| in_file(certificate_file, &e.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}
