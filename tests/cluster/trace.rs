//! One trace id in the logs of every node that a message has passed (row T1).

use skirmish_core::wire::ToClient;
use skirmish_proto::v1::{EntryKind, Kind, Metadata};
use skirmish_tests::process::Process;
use skirmish_tests::socket::{Socket, say};

use crate::nodes::Nodes;

/// Waits until the node has logged this of the trace.
async fn logged(node: &mut Process, message: &str, trace_id: &str) {
    let is = |line: &serde_json::Value| line["message"] == message && line["trace_id"] == trace_id;
    node.logged(message, is).await;
}

#[tokio::test]
async fn the_trace_of_a_message_is_in_the_logs_of_both_nodes_and_with_the_members_of_a_third() {
    let mut nodes = Nodes::start(3).await;
    let mut alice = Socket::open(nodes.nodes[0].address, "alice").await;
    alice.join("arena").await;
    let mut bob = Socket::open(nodes.nodes[1].address, "bob").await;
    bob.join("arena").await;
    let mut carol = Socket::open(nodes.nodes[2].address, "carol").await;
    carol.join("arena").await;

    let traced = Metadata {
        trace_id: vec![0xab; 16].into(),
        span_id: vec![0xcd; 8].into(),
        trace_flags: 1,
        ..Metadata::default()
    };
    bob.send(Kind::Say, &say("arena", 1, "not traced")).await;
    bob.send_with(Kind::Say, &traced, &say("arena", 2, "traced")).await;
    let trace_id = "ab".repeat(16);
    logged(&mut nodes.nodes[1], "message passed on to the room's primary", &trace_id).await;
    logged(&mut nodes.nodes[0], "message from another node appended", &trace_id).await;
    for socket in [&mut alice, &mut carol] {
        let mut seen = Vec::new();
        while seen.len() < 2 {
            if let (metadata, ToClient::Entry(entry)) = socket.next_with_metadata().await
                && entry.kind() == EntryKind::Say
            {
                seen.push((entry.body, metadata));
            }
        }
        assert_eq!(seen, [("not traced".into(), Metadata::default()), ("traced".into(), traced.clone())]);
    }
    // Once each: the line is about the message that is traced and no other.
    for node in &nodes.nodes {
        let lines = node.log();
        let passed: Vec<_> = lines.iter().filter(|line| line["trace_id"] == trace_id.as_str()).collect();
        assert!(passed.len() <= 1, "{passed:?}");
    }
}
