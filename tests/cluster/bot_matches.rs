//! Matches between players of several nodes, as seen by bots (G1 to G5, G8).

use skirmish_tests::duel::DUEL;
use skirmish_tests::eventually;
use skirmish_tests::http::metric;
use skirmish_tests::process::{KeyFile, run};

use crate::nodes::Nodes;

#[tokio::test]
async fn bots_on_two_nodes_play_whole_matches_with_each_other() {
    let nodes = Nodes::start_with(2, &[DUEL]).await;
    let (urls, key) = (format!("{},{}", nodes.url(0), nodes.url(1)), KeyFile::write());
    let arguments = ["bots", "--server", &urls, "--match", "duel", "--players", "20", "--duration", "5s"];
    let more = ["--battle", "500ms", "--json"];
    let arguments = [&arguments[..], &more, &key.options()].concat();
    // One of the two players is at the primary of their room.
    let together = eventually("players of both nodes to be in one room", async || {
        let mut followed = 0;
        for node in &nodes.nodes {
            followed += metric(node.admin, "skirmish_rooms_followed").await.unwrap_or(0);
        }
        followed > 0
    });
    let (output, ()) = tokio::join!(run(&arguments), together);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert!(output.status.success(), "{report:#}");
    assert!(report["matches"]["formed"].as_u64() > Some(10), "{report:#}");
    for node in &nodes.nodes {
        assert_eq!(metric(node.admin, "skirmish_accepted_total").await, Some(10), "every other player");
    }
}

#[tokio::test]
async fn bots_that_roam_over_three_nodes_are_told_of_no_match_that_they_have_left() {
    let nodes = Nodes::start_with(3, &[DUEL]).await;
    let urls = [0, 1, 2].map(|node| nodes.url(node)).join(",");
    let key = KeyFile::write();
    let arguments = ["bots", "--server", &urls, "--match", "duel", "--players", "18", "--duration", "6s"];
    let more = ["--battle", "200ms", "--cancel-rate", "0.3", "--disconnect-rate", "1", "--patience", "40s"];
    let arguments = [&arguments[..], &more, &["--json"], &key.options()].concat();
    let output = run(&arguments).await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert!(output.status.success(), "{report:#}");
    let verdicts = report["guarantees"].as_array().expect("a list");
    assert!(verdicts.iter().all(|guarantee| guarantee["verdict"] == "held"), "{report:#}");
    assert!(report["matches"]["formed"].as_u64() > Some(10), "{report:#}");
    assert!(report["reconnects"].as_u64() > Some(20), "{report:#}");
    // Six players begin at each node; the others come from earlier nodes.
    for node in &nodes.nodes {
        assert!(metric(node.admin, "skirmish_accepted_total").await > Some(10), "{report:#}");
    }
}
