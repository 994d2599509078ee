//! Links between nodes: silent ones, and connections of strangers.

use bytes::Bytes;
use serde_json::Value;
use skirmish_core::wire::{encode, encode_bytes};
use skirmish_io::client::Outcome;
use skirmish_proto::v1::{Kind, LinkHello, Metadata, Ping};
use skirmish_tests::history::complaints;
use skirmish_tests::http::{get, metric};
use skirmish_tests::player::{Player, builder, heard};
use skirmish_tests::process::{Process, key, run};
use skirmish_tests::{eventually, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::nodes::{Nodes, is_about, number, ready, shows};
use crate::valve::Valve;

#[tokio::test]
async fn members_on_both_sides_of_a_link_that_is_dead_for_a_while_miss_nothing() {
    let valve = Valve::start().await;
    let mut nodes = Nodes::start(1).await;
    // The older node dials the younger one.
    let advertise = format!("cluster.link.advertise=\"{}\"", valve.address());
    let younger = nodes.add(&[&advertise]).await;
    valve.lead_to(younger.link.expect("it takes links"));
    nodes.linked().await;
    for leads in [0, 1] {
        let room = format!("room-{leads}");
        let follows = 1 - leads;
        let mut near = Player::join(builder(&nodes.url(leads), &format!("near-{leads}")), &room).await;
        let mut far = Player::join(builder(&nodes.url(follows), &format!("far-{leads}")), &room).await;
        near.say(&room, "before").await;
        far.hears(&["before"]).await;

        let downs = downs(&nodes);
        valve.shut();
        let while_shut = near.say(&room, "near while shut").await;
        assert_eq!(near.outcome(while_shut).await, Outcome::Acknowledged, "the primary goes on");
        let relayed = far.say(&room, "far while shut").await;
        for (node, downs) in downs.into_iter().enumerate() {
            let what = format!("node {node} to notice");
            eventually(&what, async || self::downs(&nodes)[node] > downs).await;
        }
        near.say(&room, "near while down").await;
        far.say(&room, "far while down").await;
        valve.open();

        let all = ["before", "near while shut", "near while down", "far while shut", "far while down"];
        near.hears(&all).await;
        far.hears(&all).await;
        assert_eq!(far.outcome(relayed).await, Outcome::Acknowledged);
        let histories = [near.leave().await, far.leave().await];
        let [near, far] = histories.each_ref().map(|seen| heard(seen).collect::<Vec<_>>());
        assert_eq!((near.len(), &near), (5, &far));
        for seen in &histories {
            assert_eq!(complaints(seen), Vec::<String>::new(), "{seen:#?}");
        }
    }
}

/// Returns the number of reports of each node that its link is down.
fn downs(nodes: &Nodes) -> Vec<usize> {
    let [one, other] = &nodes.nodes[..] else { panic!("there are two") };
    let count = |node: &Process, of: &Process| node.count(|line| is_about(line, "link down", &of.node));
    vec![count(one, other), count(other, one)]
}

/// Sends bytes to a node's port for links, and reads until the node closes the connection.
async fn call(node: &Process, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(node.link.expect("it takes links")).await.expect("it listens");
    stream.write_all(bytes).await.expect("a new connection takes a little");
    let mut answer = Vec::new();
    // The connection ends, or is reset.
    let _ = within("the end of a stranger's link", stream.read_to_end(&mut answer)).await;
    answer
}

fn hello(node: u64, to: u64) -> Bytes {
    encode(Kind::LinkHello, &Metadata::default(), &LinkHello { node, to })
}

#[tokio::test]
async fn strangers_who_call_at_the_link_address_are_dropped_and_harm_nobody() {
    let mut nodes = Nodes::start(2).await;
    let mut alice = Player::join(builder(&nodes.url(0), "alice"), "arena").await;
    let mut bob = Player::join(builder(&nodes.url(1), "bob"), "arena").await;
    let [first, second] = &mut nodes.nodes[..] else { panic!("there are two") };
    let (this, other) = (number(first), number(second));
    let links = downs_of(first);

    let mut huge = hello(7, this).to_vec();
    huge[12..16].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
    let mut broken = hello(7, this).to_vec();
    *broken.last_mut().expect("it has a checksum") ^= 1;
    let upgrade =
        skirmish_tests::http::upgrade(&format!("X-Game-Token: {}\r\n", skirmish_tests::token("eve")));
    let wire = [
        ("a player's upgrade", upgrade.into_bytes(), "what came is not frames"),
        ("noise", vec![0xaa; 4096], "what came is not frames"),
        ("a frame that is too large", huge, "what came is not frames"),
        ("a frame that is damaged", broken, "link dropped"),
        (
            "something else first",
            encode(Kind::Ping, &Metadata::default(), &Ping::default()).to_vec(),
            "the first frame of a link must be LinkHello",
        ),
        (
            "what is for players",
            encode_bytes(Kind::Application, &Metadata::default(), b"x").to_vec(),
            "link dropped",
        ),
        ("a node that the registry does not name", hello(7, this).to_vec(), "does not name the node"),
        ("a node that means another", hello(other, 7).to_vec(), "leads to another node than was meant"),
        ("the node itself", hello(this, this).to_vec(), "leads to another node than was meant"),
        ("nobody, and silence", Vec::new(), "link dropped"),
    ];
    for (what, bytes, why) in wire {
        let said = |node: &Process| {
            let says = |line: &Value| line["message"].as_str().is_some_and(|message| message.contains(why));
            node.count(|line| line["target"] == "audit" && says(line))
        };
        let before = said(first);
        assert_eq!(call(first, &bytes).await, b"", "{what}: it was answered");
        eventually(what, async || said(first) > before).await;
    }
    shows(first, "skirmish_links", 1).await;
    assert_eq!(downs_of(first), links, "the real link has suffered");
    alice.say("arena", "still here").await;
    bob.hears(&["still here"]).await;
    bob.say("arena", "me too").await;
    alice.hears(&["me too"]).await;
}

fn downs_of(node: &Process) -> usize {
    node.count(|line| line["message"] == "link down")
}

#[tokio::test]
async fn a_configuration_that_lets_strangers_in_is_refused() {
    let key = key();
    let refused = async |settings: &[&str], problem: &str| {
        let mut arguments = vec!["serve", "--set", &key];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let output = run(&arguments).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(problem) && error.trim_end().lines().count() == 1, "{error}");
    };
    let everywhere = "cluster.link.address=0.0.0.0:9700";
    refused(&["registry.kind=etcd", everywhere], "cluster.insecure = true").await;
    refused(&["registry.kind=etcd", everywhere, "cluster.insecure=true"], "cluster.link.advertise").await;
    refused(&["cluster.link.address=127.0.0.1:9700"], "registry.kind").await;
}

#[tokio::test]
async fn a_node_that_others_do_not_reach_is_not_ready_until_they_do() {
    let valve = Valve::start().await;
    let mut nodes = Nodes::start(2).await;
    // The older nodes dial the address that the younger one advertises.
    let advertise = format!("cluster.link.advertise=\"{}\"", valve.address());
    let youngest = nodes.add(&[&advertise, "cluster.name=\"lonely\""]).await;
    let (lonely, link) = (youngest.node.clone(), youngest.link.expect("it takes links"));
    let readyz = async |nodes: &Nodes, node: usize| get(nodes.nodes[node].admin, "/readyz").await;
    let isolated = async |nodes: &Nodes, node: usize| {
        let (status, body) = readyz(nodes, node).await;
        status == 503 && body.starts_with("most other nodes cannot be reached")
    };
    eventually("the youngest node to be isolated", async || isolated(&nodes, 2).await).await;
    let (_, body) = readyz(&nodes, 2).await;
    assert!(body.contains("has to dial this node") && body.contains("cluster.link.advertise"), "{body}");
    for node in 0..2 {
        let warning = async || readyz(&nodes, node).await;
        eventually("a warning", async || warning().await.1.starts_with("ready\nwarning: ")).await;
        let (status, body) = warning().await;
        assert_eq!(status, 200, "one of two others is out of reach: {body}");
        let why = format!("node \"lonely\" ({lonely}), which takes links at \"{}\"", valve.address());
        // A dialled port without a server behind it is closed or reset.
        let error = [": closed by the other side; check", ": the connection failed: "];
        assert!(body.contains(&why) && error.iter().any(|error| body.contains(error)), "{body}");
        let says = |line: &Value| line["reason"] == "peer_unreachable";
        eventually("the line of the log", async || nodes.nodes[node].count(says) > 0).await;
        assert_eq!(nodes.nodes[node].count(says), 1, "the log says so once");
    }
    valve.lead_to(link);
    nodes.linked().await;
    for node in 0..3 {
        let ready = (200, "ready\n".to_owned());
        eventually("no warning any more", async || readyz(&nodes, node).await == ready).await;
    }

    // With two nodes, neither is ready without the other, unless the other one has died.
    nodes.kill(1).await;
    valve.shut();
    for node in 0..2 {
        eventually("the nodes to miss each other", async || isolated(&nodes, node).await).await;
        assert_eq!(
            metric(nodes.nodes[node].admin, "skirmish_not_ready{reason=\"links_dead\"}").await,
            Some(1)
        );
        let says = |line: &Value| line["reason"] == "links_dead" && line["level"] == "WARN";
        assert!(nodes.nodes[node].count(says) >= 1, "the log says so");
    }
    nodes.kill(1).await;
    ready(&nodes.nodes[0]).await;
    let over = |line: &Value| line["reason"] == "links_dead" && line["level"] == "INFO";
    nodes.nodes[0].logged("the end of it", over).await;
}
