//! Authentication at etcd: users with passwords, certificates.

use std::sync::Arc;

use etcd_client::{Permission, PermissionType};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use skirmish_core::registry::{Error, Failure, News, Put, Range, Request, Span, Watch};
use skirmish_io::config::{RegistryEtcd, Secret};
use skirmish_tests::etcd::Etcd;
use skirmish_tests::eventually;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::asker::{Asker, options};

fn put(key: &str) -> Request {
    Request::Put(Put::new(key.to_owned(), "", None))
}

#[tokio::test]
async fn a_user_may_do_what_its_role_allows_and_no_group_suffers_from_another_member() {
    let etcd = Etcd::start_with(skirmish_tests::etcd::Version::newest(), &["--auth-token-ttl", "2"]).await;
    let mut root = etcd.client().await;
    for (user, role) in [("root", "root"), ("node", "node")] {
        root.user_add(user, "secret", None).await.unwrap();
        root.role_add(role).await.unwrap();
        root.user_grant_role(user, role).await.unwrap();
    }
    let own = Permission::read_write("own/").with_prefix();
    assert_eq!(own.get_type(), PermissionType::Readwrite as i32);
    root.role_grant_permission("node", own).await.unwrap();
    root.auth_enable().await.unwrap();

    let user = |password: &str| RegistryEtcd {
        user: Some("node".to_owned()),
        password: Some(Secret::new(password.to_owned())),
        ..options(vec![etcd.url()])
    };
    let mut asker = Asker::new(&user("secret"));
    asker.watch(1, Watch::of(Span::prefix("own/"), 0));
    assert_eq!(asker.news().await.news, News::Created);
    let refused = Err(Failure::Refused(Error::PermissionDenied));
    let calls: Vec<_> = (0..60)
        .map(|i| (i, asker.ask(put(&if i % 20 == 7 { format!("other/{i}") } else { format!("own/{i}") }))))
        .collect();
    for (i, call) in calls {
        let outcome = asker.outcome(call).await;
        assert_eq!(
            outcome.as_ref().err(),
            (i % 20 == 7).then_some(&Failure::Refused(Error::PermissionDenied))
        );
    }
    assert_eq!(asker.done(Request::Range(Range::of(Span::one("other/1")))).await, refused);
    let mut changes = 0;
    while changes < 57 {
        changes += asker.changes().await.len();
    }
    asker.watch(2, Watch::of(Span::prefix("other/"), 0));
    let watched = asker.news().await;
    assert_eq!((watched.id.0, watched.news), (2, News::Canceled));

    // The token has expired. The client gets another one unnoticed.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    asker.done(put("own/later")).await.unwrap();
    asker.watch(3, Watch::of(Span::prefix("own/"), 0));
    let mut running = false;
    while !running {
        let watched = asker.news().await;
        assert_ne!(watched.news, News::Canceled);
        running = watched.id.0 == 3 && watched.news == News::Created;
    }

    let mut stranger =
        Asker::new(&RegistryEtcd { request_timeout: std::time::Duration::from_millis(300), ..user("wrong") });
    assert_eq!(stranger.done(put("own/x")).await, Err(Failure::Unavailable));
    let mut error = None;
    eventually("the reason", async || {
        error = stranger.registry.status().error;
        error.is_some()
    })
    .await;
    assert!(error.as_ref().is_some_and(|error| error.contains("authentication failed")), "{error:?}");
}

/// A certificate authority, and a directory for the signed certificates.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: std::path::PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("it is sound");
        let directory = std::env::temp_dir().join(format!("skirmish-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        Self { issuer, directory }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    fn write(&self, name: &str, text: &str) -> Option<std::path::PathBuf> {
        let path = self.directory.join(name);
        std::fs::write(&path, text).expect("a file");
        Some(path)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Starts a TLS port for clients with a certificate. The port forwards to etcd.
async fn tls_port(authority: &Authority, etcd: &Etcd) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.as_ref().der().clone()).expect("it is sound");
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("it is sound");
    let (certificate, key) = authority.sign("localhost");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("it is sound");
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("it is sound");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("it is sound");
    let (port, server) = (listener.local_addr().expect("it is sound").port(), etcd.address());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let (Ok(mut client), Ok(mut server)) =
                    (acceptor.accept(client).await, TcpStream::connect(server).await)
                else {
                    return;
                };
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    format!("https://localhost:{port}")
}

#[tokio::test]
async fn with_tls_both_sides_must_be_signed_for() {
    let etcd = Etcd::start().await;
    let authority = Authority::new("etcd-tls");
    let stranger = Authority::new("etcd-tls-stranger");
    let endpoint = tls_port(&authority, &etcd).await;
    let (certificate, key) = authority.sign("node");
    let sound = RegistryEtcd {
        ca_file: authority.write("ca", &authority.issuer.as_ref().pem()),
        certificate_file: authority.write("certificate", &certificate.pem()),
        key_file: authority.write("key", &key.serialize_pem()),
        ..options(vec![endpoint])
    };
    let mut asker = Asker::new(&sound);
    asker.done(put("a")).await.unwrap();

    let short = std::time::Duration::from_millis(500);
    let unsigned =
        RegistryEtcd { certificate_file: None, key_file: None, request_timeout: short, ..sound.clone() };
    assert_eq!(Asker::new(&unsigned).done(put("b")).await, Err(Failure::Unavailable));
    let ca_file = stranger.write("ca", &stranger.issuer.as_ref().pem());
    let elsewhere = RegistryEtcd { ca_file, request_timeout: short, ..sound };
    assert_eq!(Asker::new(&elsewhere).done(put("c")).await, Err(Failure::Unavailable));
    assert_eq!(asker.list("").await.1.len(), 1);
}
