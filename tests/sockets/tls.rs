//! TLS on the players' listener (row W1).

use std::path::PathBuf;
use std::sync::Arc;

use skirmish_io::client::{Error, Outcome};
use skirmish_tests::http::{exchange, status, upgrade};
use skirmish_tests::player::{Player, builder};
use skirmish_tests::server::Running;
use skirmish_tests::token;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Starts a server with a certificate of its own. Returns the server, a client configuration that trusts it,
/// and its URL.
async fn start() -> (Running, Arc<ClientConfig>, String) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key can be made");
    let directory = Directory::new();
    let file = |name: &str, content: String| {
        let path = directory.0.join(name);
        std::fs::write(&path, content).expect("the directory can be written to");
        Some(path)
    };
    let certificate_file = file("certificate.pem", certified.cert.pem());
    let key_file = file("key.pem", certified.signing_key.serialize_pem());
    let server = Running::start(|config| {
        config.tls.certificate_file = certificate_file;
        config.tls.key_file = key_file;
    })
    .await;
    let url = format!("wss://localhost:{}/", server.address.port());
    (server, trusting(Some(certified.cert.der().clone())), url)
}

fn trusting(certificate: Option<CertificateDer<'static>>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(certificate) = certificate {
        roots.add(certificate).expect("it is a certificate");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Directory that is removed when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("skirmish-tls-{}-{}", std::process::id(), unique()));
        std::fs::create_dir(&path).expect("a new directory can be made");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn unique() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Relaxed)
}

#[tokio::test]
async fn players_who_trust_the_certificate_play() {
    let (server, tls, url) = start().await;
    let mut alice = Player::join(builder(&url, "alice").tls(tls), "arena").await;
    let message = alice.say("arena", "in private").await;
    assert_eq!(alice.outcome(message).await, Outcome::Acknowledged);
    alice.hears(&["in private"]).await;
    server.audit();
}

#[tokio::test]
async fn players_who_do_not_trust_it_send_nothing() {
    let (server, _, url) = start().await;
    let (client, events) = builder(&url, "alice").tls(trusting(None)).start().expect("good settings");
    // The client tries again and again, and never reaches an upgrade.
    let tried = async || server.handle.stats().accepted >= 3;
    skirmish_tests::eventually("three attempts", tried).await;
    let stats = server.handle.stats();
    assert_eq!((stats.sessions, stats.frames_in), (0, 0));
    drop((client, events));
}

#[tokio::test]
async fn a_connection_without_tls_is_refused() {
    let (server, tls, url) = start().await;
    // TLS answers a plain-text request with bytes that are not HTTP.
    let mut stream = tokio::net::TcpStream::connect(server.address).await.expect("the server listens");
    let request = upgrade(&format!("X-Game-Token: {}\r\n", token("alice")));
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("it is open");
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
    // The connection ends, or is reset.
    let _ = skirmish_tests::within("the end of the connection", read).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    server.connections(0).await;
    assert_eq!(server.handle.stats().sessions, 0);
    Player::join(builder(&url, "alice").tls(tls), "arena").await;
}

#[tokio::test]
async fn a_token_is_checked_below_tls_too() {
    let (server, tls, url) = start().await;
    let bad = skirmish_io::client::Client::builder(&url, "no token").tls(tls).connect();
    let error = skirmish_tests::within("the refusal", bad).await.expect_err("it is no token");
    assert!(matches!(error, Error::Dial(skirmish_io::client::DialError::Unauthorized)), "{error}");
    assert_eq!(status(&exchange(server.admin, "GET /healthz HTTP/1.1\r\n\r\n").await), 200);
}
