//! TLS: on the players' listener, and in both directions between nodes.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::config::{ClusterTls, Tls};

/// Creates the acceptor for TLS; `None` if TLS is not configured.
///
/// # Errors
/// If a file cannot be read, has the wrong content, or if the two files do not belong together: on
/// one line, with the file's name.
pub(super) fn acceptor(tls: &Tls) -> Result<Option<TlsAcceptor>, String> {
    let (Some(certificate_file), Some(key_file)) = (&tls.certificate_file, &tls.key_file) else {
        return Ok(None);
    };
    let (chain, key) = (certificates(certificate_file)?, private_key(key_file)?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| in_file(certificate_file, &e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// Mutual TLS between nodes: each side has a certificate of the one authority, valid for the one
/// name.
pub(super) struct MutualTls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl MutualTls {
    /// Loads the files for mutual TLS; `None` if it is not configured.
    ///
    /// # Errors
    /// As [`acceptor`].
    pub(super) fn new(tls: &ClusterTls) -> Result<Option<Self>, String> {
        let Some([ca_file, certificate_file, key_file]) = tls.files() else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for root in certificates(ca_file)? {
            roots.add(root).map_err(|e| in_file(ca_file, &e))?;
        }
        let roots = Arc::new(roots);
        let (chain, key) = (certificates(certificate_file)?, private_key(key_file)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|e| in_file(ca_file, &e))?;
        // Both ends are nodes of the same cluster: no older version is needed.
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                builder.with_client_cert_verifier(verifier).with_single_cert(chain.clone(), key.clone_key())
            })
            .map_err(|e| in_file(certificate_file, &e))?;
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, key))
            .map_err(|e| in_file(certificate_file, &e))?;
        let name = ServerName::try_from(tls.name.clone())
            .map_err(|_| format!("cluster.tls.name: `{}` is not the name of a host", tls.name))?;
        Ok(Some(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            name,
        }))
    }

    /// Does the handshake of the side that was dialed.
    ///
    /// # Errors
    /// If the other side is not a node of this cluster, or the connection fails.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let stream = self.acceptor.accept(stream).await?;
        // Rustls checks the name of servers only.
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let leaf = leaf.ok_or_else(|| io::Error::other("the node that dialed has no certificate"))?;
        ParsedCertificate::try_from(leaf)
            .and_then(|leaf| verify_server_name(&leaf, &self.name))
            .map_err(io::Error::other)?;
        Ok(stream.into())
    }

    /// Does the handshake of the side that dials.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        Ok(self.connector.connect(self.name.clone(), stream).await?.into())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| in_file(file, &e))?;
    if chain.is_empty() { Err(in_file(file, &"there is no certificate in it")) } else { Ok(chain) }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|e| in_file(file, &e))
}

fn in_file(file: &Path, problem: &dyn std::fmt::Display) -> String {
    format!("{}: {problem}", file.display())
}
