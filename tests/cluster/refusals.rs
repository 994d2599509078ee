//! An etcd that answers but refuses writes: the reports of its nodes, their answers to players, and the
//! recovery without help.

use etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, Client, CompactionOptions, ConnectOptions, Error, Permission,
    PermissionType,
};
use serde_json::Value;
use skirmish_core::wire::ToClient;
use skirmish_io::client::Outcome;
use skirmish_proto::v1::{Hello, Kind, Reason};
use skirmish_tests::etcd::{Etcd, Version};
use skirmish_tests::eventually;
use skirmish_tests::http::get;
use skirmish_tests::player::{Player, builder};
use skirmish_tests::process::Process;
use skirmish_tests::socket::Socket;

use crate::nodes::{Nodes, ready};

const ROOM: &str = "arena";
/// The smallest quota that an etcd works with.
const QUOTA: &str = "--quota-backend-bytes=8388608";
const USER: &str = "registry.etcd.user=\"node\"";
const PASSWORD: &str = "registry.etcd.password=\"secret\"";

/// Returns the number of log lines that begin or end a reason.
fn lines(node: &Process, reason: &str, text: &str) -> usize {
    let is = |line: &Value| {
        line["reason"] == reason && line["message"].as_str().is_some_and(|message| message.contains(text))
    };
    node.count(is)
}

/// Waits until a node is not ready and gives this advice. The log must have exactly one line about the
/// reason.
async fn refuses(node: &mut Process, reason: &str, advice: &[&str]) {
    let admin = node.admin;
    eventually("a node to say what is wrong and what to do", async || {
        let (status, body) = get(admin, "/readyz").await;
        status == 503 && advice.iter().all(|advice| body.contains(advice))
    })
    .await;
    node.logged("a line of the log", |line| line["reason"] == reason).await;
    assert_eq!(lines(node, reason, "not ready"), 1);
}

/// Waits until a node is ready and its log has one line about the end of the reason.
async fn recovers(node: &mut Process, reason: &str) {
    ready(node).await;
    let over = |line: &Value| {
        line["reason"] == reason
            && line["message"].as_str().is_some_and(|message| !message.contains("not ready:"))
    };
    node.logged("the end of the reason", over).await;
    assert_eq!((node.count(over), lines(node, reason, "not ready:")), (1, 1));
}

/// Returns the answer to a player that logs in.
async fn login_answer(node: &Process, player: &str) -> ToClient {
    let mut socket = Socket::connect(node.address, player).await;
    socket.send(Kind::Hello, &Hello::default()).await;
    socket.next().await
}

/// Checks that a player that logs in is refused, with the reason.
async fn turns_away(node: &Process, player: &str) {
    match login_answer(node, player).await {
        ToClient::Goodbye(goodbye) => {
            assert_eq!(goodbye.reason(), Reason::Overloaded);
            assert!(goodbye.message.contains("refuses writes"), "{goodbye:?}");
            assert!(goodbye.retry_after_ms > 0, "{goodbye:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// Writes until etcd has no space left. Returns the last revision.
async fn fill(etcd: &mut Client) -> i64 {
    let mut revision = 0;
    for _ in 0..10_000 {
        match etcd.put("filler", vec![b'x'; 256 * 1024], None).await {
            Ok(answer) => revision = answer.header().expect("it has a header").revision(),
            Err(Error::GRpcStatus(status)) => {
                assert!(status.message().contains("database space exceeded"), "{status:?}");
                return revision;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it has no quota");
}

/// Ends all alarms of a kind, like `etcdctl alarm disarm`.
async fn disarm(etcd: &mut Client, alarm: AlarmType) {
    let alarms = etcd.alarm(AlarmAction::Get, alarm, None).await.expect("anybody may");
    assert!(!alarms.alarms().is_empty());
    for raised in alarms.alarms() {
        let mut options = AlarmOptions::new();
        options.with_member(raised.member_id());
        etcd.alarm(AlarmAction::Deactivate, alarm, Some(options)).await.expect("anybody may");
    }
}

async fn runs_out_of_space(version: Version) {
    let mut nodes = Nodes::on(Etcd::start_with(version, &[QUOTA]).await, 1, &[]).await;
    let mut alice = Player::join(builder(&nodes.url(0), "alice"), ROOM).await;
    let mut etcd = nodes.etcd.client().await;
    let revision = fill(&mut etcd).await;
    let node = &mut nodes.nodes[0];
    let advice = [
        "no space",
        "etcdctl compact --physical",
        "etcdctl defrag",
        "etcdctl alarm disarm",
        "--quota-backend-bytes",
    ];
    refuses(node, "registry_full", &advice).await;
    turns_away(node, "bob").await;
    // A player with a session plays on.
    let message = alice.say(ROOM, "on").await;
    assert_eq!(alice.outcome(message).await, Outcome::Acknowledged);

    // Otherwise the compaction continues after the answer, and little can be defragmented yet.
    let physical = CompactionOptions::new().with_physical();
    etcd.compact(revision, Some(physical)).await.expect("it is the newest");
    etcd.defragment().await.expect("it can be done");
    disarm(&mut etcd, AlarmType::Nospace).await;
    // No log-ins are sent to this node, so none writes to the registry.
    recovers(node, "registry_full").await;
    assert!(matches!(login_answer(node, "bob").await, ToClient::Welcome(_)));
    let message = alice.say(ROOM, "still").await;
    assert_eq!(alice.outcome(message).await, Outcome::Acknowledged);
}

#[tokio::test]
async fn an_etcd_without_space_is_noticed_with_what_to_do_and_so_is_its_end() {
    for version in Version::installed() {
        runs_out_of_space(version).await;
    }
}

#[tokio::test]
async fn an_etcd_with_corrupt_data_is_noticed() {
    let mut nodes = Nodes::start(1).await;
    let mut etcd = nodes.etcd.client().await;
    etcd.alarm(AlarmAction::Activate, AlarmType::Corrupt, None).await.expect("anybody may");
    refuses(&mut nodes.nodes[0], "registry_corrupt", &["etcdctl alarm list", "etcdctl alarm disarm"]).await;
    turns_away(&nodes.nodes[0], "bob").await;
    disarm(&mut etcd, AlarmType::Corrupt).await;
    recovers(&mut nodes.nodes[0], "registry_corrupt").await;
}

/// Permission for the nodes' user.
fn role(may: PermissionType) -> Permission {
    Permission::new(may, "/").with_prefix()
}

/// Returns a client of etcd with all rights, for use with authentication.
async fn root(etcd: &Etcd) -> Client {
    let options = ConnectOptions::new().with_user("root", "secret");
    Client::connect([etcd.url()], Some(options)).await.expect("root may log in")
}

async fn add_user(root: &mut Client, user: &str, role: &str) {
    root.user_add(user, "secret", None).await.expect("there is none");
    root.user_grant_role(user, role).await.expect("there is such a role");
}

/// Returns an etcd with users, before authentication is enabled.
async fn with_users() -> (Etcd, Client) {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    for name in ["root", "node"] {
        client.role_add(name).await.expect("there is none");
        add_user(&mut client, name, name).await;
    }
    let may = role(PermissionType::Readwrite);
    client.role_grant_permission("node", may).await.expect("there is such a role");
    (etcd, client)
}

#[tokio::test]
async fn a_node_whose_user_is_refused_from_the_start_says_so() {
    let (etcd, mut client) = with_users().await;
    let mut nodes = Nodes { etcd, nodes: Vec::new() };
    let node = nodes.add(&[USER, PASSWORD]).await;
    refuses(node, "registry_denied", &["authentication is not enabled", "etcdctl auth status"]).await;
    client.auth_enable().await.expect("there is a root");
    recovers(node, "registry_denied").await;
    let wrong = "registry.etcd.password=\"wrong\"";
    let node = nodes.add(&[USER, wrong]).await;
    refuses(node, "registry_denied", &["authentication failed", "registry.etcd.password_file"]).await;
    assert_eq!(lines(node, "registry_silent", "not ready"), 0);
}

#[tokio::test]
async fn rights_that_are_taken_away_are_noticed() {
    let (etcd, mut client) = with_users().await;
    client.auth_enable().await.expect("there is a root");
    let mut root = root(&etcd).await;
    let mut nodes = Nodes::on(etcd, 1, &[USER, PASSWORD]).await;
    let node = &mut nodes.nodes[0];
    assert!(matches!(login_answer(node, "alice").await, ToClient::Welcome(_)));

    let advice = ["permission denied", "etcdctl role grant-permission", "registry.etcd.user"];
    root.role_grant_permission("node", role(PermissionType::Read)).await.expect("there is such a role");
    refuses(node, "registry_denied", &advice).await;
    turns_away(node, "bob").await;
    root.role_grant_permission("node", role(PermissionType::Readwrite)).await.expect("there is such a role");
    recovers(node, "registry_denied").await;
    assert!(matches!(login_answer(node, "bob").await, ToClient::Welcome(_)));

    // Log-ins fail even if writes are refused below one prefix only.
    for prefix in ["/generation", "/match/", "/nodes/", "/rooms/"] {
        let permission = Permission::read_write(prefix).with_prefix();
        root.role_grant_permission("node", permission).await.expect("there is such a role");
    }
    root.role_grant_permission("node", role(PermissionType::Read)).await.expect("there is such a role");
    eventually("a node to notice that it may not write sessions", async || {
        get(node.admin, "/readyz").await.0 == 503
    })
    .await;
    root.role_grant_permission("node", role(PermissionType::Readwrite)).await.expect("there is such a role");
    ready(node).await;

    root.user_delete("node").await.expect("there is such a user");
    let admin = node.admin;
    eventually("a node to notice that its user is gone", async || {
        let (status, body) = get(admin, "/readyz").await;
        status == 503 && body.contains("registry.etcd.user")
    })
    .await;
    add_user(&mut root, "node", "node").await;
    ready(node).await;
}
