//! Mutual TLS between nodes (row D1): a certificate of the authority for the name of nodes is required.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use skirmish_tests::player::{Player, builder};
use skirmish_tests::process::Process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::nodes::{Nodes, is_about, ready, shows};

/// A certificate authority for nodes.
struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let unique = format!("skirmish-cluster-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&directory).expect("a directory can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("an authority can be made");
        Self { certificate, issuer: Issuer::new(params, key), directory }
    }

    /// Returns the settings of a node with a certificate for a name, which trusts `trusted`.
    fn settings(&self, name: &str, trusted: &Self) -> Vec<String> {
        let key = KeyPair::generate().expect("a key can be made");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a good name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be made");
        let files = [
            ("ca", trusted.certificate.pem()),
            ("certificate", certificate.pem()),
            ("key", key.serialize_pem()),
        ];
        files
            .map(|(what, content)| {
                let path = self.directory.join(format!("{name}-{what}.pem"));
                std::fs::write(&path, content).expect("the directory can be written to");
                format!("cluster.tls.{what}_file={:?}", path.display().to_string())
            })
            .into()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn borrowed(settings: &[String]) -> Vec<&str> {
    settings.iter().map(String::as_str).collect()
}

/// Waits until a node has refused a link for a reason that contains these words.
async fn refuses(node: &mut Process, words: &str) {
    let what = format!("a link to be refused for `{words}`");
    let is = |line: &serde_json::Value| {
        let says = |field: &str| line[field].as_str().is_some_and(|message| message.contains(words));
        says("message")
    };
    node.logged(&what, is).await;
}

#[tokio::test]
async fn nodes_of_one_authority_are_linked_and_nobody_else() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let settings = ours.settings("skirmish-node", &ours);
    let mut nodes = Nodes::start_with(2, &borrowed(&settings)).await;
    let mut alice = Player::join(builder(&nodes.url(0), "alice"), "arena").await;
    let mut bob = Player::join(builder(&nodes.url(1), "bob"), "arena").await;
    alice.say("arena", "in private").await;
    bob.hears(&["in private"]).await;
    bob.say("arena", "and back").await;
    alice.hears(&["and back"]).await;

    // Each intruder reaches etcd and registers as a node. The intruders are younger than our nodes, so our
    // nodes dial them; the last one dials our nodes below.
    let of_another_authority = theirs.settings("skirmish-node", &theirs);
    // The intruder trusts our authority, but our nodes do not trust the intruder's.
    let with_their_certificate = theirs.settings("skirmish-node", &ours);
    let for_another_name = ours.settings("somebody-else", &ours);
    for settings in [of_another_authority, with_their_certificate, for_another_name, Vec::new()] {
        let intruder = nodes.add(&borrowed(&settings)).await;
        ready(intruder).await;
        let (id, address) = (intruder.node.clone(), intruder.link.expect("it takes links"));
        for node in &mut nodes.nodes[..2] {
            let not_reached = |line: &serde_json::Value| is_about(line, "node up", &id);
            node.logged("our node to know of the intruder", not_reached).await;
            let address = address.to_string();
            let failed = |line: &serde_json::Value| {
                let message = line["message"].as_str().unwrap_or_default();
                line["address"] == address.as_str() && message.starts_with("node not reached")
            };
            node.logged("our node to fail to reach the intruder", failed).await;
        }
        let intruder = nodes.nodes.pop().expect("it was added");
        for node in nodes.nodes.iter().chain([&intruder]) {
            let linked = |line: &&serde_json::Value| {
                line["message"] == "link up" && (line["node"] == id.as_str() || node.node == id)
            };
            assert_eq!(node.log().iter().find(linked), None, "{settings:?}");
        }
        intruder.kill().await;
    }
}

#[tokio::test]
async fn intruders_who_dial_are_refused() {
    let (ours, theirs) = (Authority::new("ours-dialed"), Authority::new("theirs-dialing"));
    let mut nodes = Nodes::start(0).await;
    // The intruder is older than our node, so the intruder dials.
    let no_certificate_of_ours = theirs.settings("skirmish-node", &ours);
    let for_another_name = ours.settings("somebody-else", &ours);
    nodes.add(&borrowed(&no_certificate_of_ours)).await;
    nodes.add(&borrowed(&for_another_name)).await;
    nodes.add(&[]).await;
    let settings = ours.settings("skirmish-node", &ours);
    let node = nodes.add(&borrowed(&settings)).await;
    ready(node).await;
    refuses(node, "UnknownIssuer").await;
    refuses(node, "not valid for").await;
    // The node without TLS sends a frame, which is not TLS.
    refuses(node, "InvalidContentType").await;

    // A client with TLS and without a certificate.
    let mut roots = RootCertStore::empty();
    roots.add(ours.certificate.der().clone()).expect("it is a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(node.link.expect("it takes links")).await.expect("it listens");
    let name = "skirmish-node".try_into().expect("a name");
    // In TLS 1.3 the client learns of the refusal only after the handshake.
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("it is ours");
    let refused = skirmish_tests::within("the refusal", stream.read_u8()).await;
    assert!(refused.is_err(), "{refused:?}");
    refuses(node, "certificate").await;

    // A client without TLS gets no useful answer either.
    let mut stream = TcpStream::connect(node.link.expect("it takes links")).await.expect("it listens");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("a new connection takes a little");
    let mut answer = Vec::new();
    let _ = skirmish_tests::within("the end", stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert!(node.log().iter().all(|line| line["message"] != "link up"));
    shows(node, "skirmish_serving", 1).await;
}
