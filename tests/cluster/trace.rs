//! One trace identifier in the logs of all nodes that a message has passed (row T1).

use skirmish_core::wire::ToClient;
use skirmish_proto::v1::{EntryKind, Kind, Metadata};
use skirmish_tests::socket::{Socket, say};

use crate::nodes::Nodes;

const TAKEN: &str = "message taken by the room's primary";
const PASSED_ON: &str = "message passed on to the room's primary";
const RECEIVED: &str = "message received from the room's primary";

fn trace(byte: u8) -> Metadata {
    Metadata {
        trace_id: vec![byte; 16].into(),
        span_id: vec![0xcd; 8].into(),
        trace_flags: 1,
        ..Metadata::default()
    }
}

#[tokio::test]
async fn the_trace_of_a_message_is_in_the_logs_of_all_nodes_that_it_passes_and_with_the_members() {
    let mut nodes = Nodes::start(3).await;
    let mut alice = Socket::open(nodes.nodes[0].address, "alice").await;
    alice.join("arena").await;
    let mut bob = Socket::open(nodes.nodes[1].address, "bob").await;
    bob.join("arena").await;
    let mut carol = Socket::open(nodes.nodes[2].address, "carol").await;
    carol.join("arena").await;

    // From a member at another node than the room's primary, and from one at the primary.
    let (bobs, alices) = (trace(0xab), trace(0xef));
    bob.send(Kind::Say, &say("arena", 1, "not traced")).await;
    bob.send_with(Kind::Say, &bobs, &say("arena", 2, "bob's")).await;
    nodes.nodes[0].logged(TAKEN, |line| line["message"] == TAKEN).await;
    alice.send_with(Kind::Say, &alices, &say("arena", 1, "alice's")).await;
    for socket in [&mut alice, &mut carol] {
        let mut seen = Vec::new();
        while seen.len() < 3 {
            if let (metadata, ToClient::Entry(entry)) = socket.next_with_metadata().await
                && entry.kind() == EntryKind::Say
            {
                seen.push((entry.body, metadata));
            }
        }
        let traced = [("bob's".into(), bobs.clone()), ("alice's".into(), alices.clone())];
        assert_eq!(seen[0], ("not traced".into(), Metadata::default()));
        assert_eq!(seen[1..], traced);
    }
    // Each node logs each of its steps with the traced messages once, and none of other messages.
    let passed: [&[_]; 3] = [
        &[(0xab, TAKEN), (0xef, TAKEN)],
        &[(0xab, PASSED_ON), (0xab, RECEIVED), (0xef, RECEIVED)],
        &[(0xab, RECEIVED), (0xef, RECEIVED)],
    ];
    for (node, passed) in nodes.nodes.iter_mut().zip(passed) {
        let (byte, message) = passed.last().expect("each is passed");
        let trace_id = |byte: u8| format!("{byte:02x}").repeat(16);
        let last = trace_id(*byte);
        node.logged(message, |line| line["message"] == *message && line["trace_id"] == last.as_str()).await;
        let lines = node.log();
        let of_messages = |line: &&serde_json::Value| {
            [TAKEN, PASSED_ON, RECEIVED].iter().any(|message| line["message"] == *message)
        };
        let logged: Vec<_> = lines.iter().filter(of_messages).collect();
        let logged: Vec<_> = logged.iter().map(|l| (l["trace_id"].as_str(), l["message"].as_str())).collect();
        let passed: Vec<_> = passed.iter().map(|(byte, message)| (trace_id(*byte), *message)).collect();
        let passed: Vec<_> = passed.iter().map(|(id, message)| (Some(id.as_str()), Some(*message))).collect();
        assert_eq!(logged, passed);
    }
}
