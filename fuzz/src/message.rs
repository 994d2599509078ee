//! Target `message`: any payload under any kind.
//!
//! Input: one byte for the kind, one byte for the length of the metadata's `type_url`, the `type_url`, and
//! the payload.

use bytes::Bytes;
use skirmish_core::wire::{self, Frame, RoomMessage as R, ToClient, ToNode, ToServer};
use skirmish_proto::v1;

/// Largest payload, in bytes; larger ones find nothing more.
const MAX_PAYLOAD: usize = 64 * 1024;

/// Checks that a decoded message is the same after another encoding and decoding, and that no side accepts a
/// message that only this side sends.
///
/// # Panics
///
/// If one of these conditions does not hold.
pub fn message(input: &[u8]) {
    let [kind, length, rest @ ..] = input else { return };
    let kinds = kinds();
    let kind = kinds[usize::from(*kind) % kinds.len()];
    let (type_url, payload) = rest.split_at(usize::from(*length).min(rest.len()));
    let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
    let metadata = v1::Metadata {
        type_url: String::from_utf8_lossy(type_url).chars().take(64).collect(),
        ..v1::Metadata::default()
    };
    let frame = decode(wire::encode_bytes(kind, &metadata, payload));

    if let Ok(message) = ToServer::decode(&frame) {
        assert!(from_client(kind), "a server took {kind:?}");
        assert_eq!(ToServer::decode(&decode(to_server(&message))).as_ref(), Ok(&message));
    }
    if let Ok(message) = ToClient::decode(&frame) {
        assert!(from_server(kind), "a client took {kind:?}");
        assert_eq!(ToClient::decode(&decode(to_client(&message))).as_ref(), Ok(&message));
    }
    let bytes = wire::encode_bytes(kind, &metadata, payload);
    if let Ok(message) = ToNode::decode(&frame, bytes) {
        assert!(from_node(kind), "a node took {kind:?}");
        let again = to_node(&message);
        let message = with_frame(message, &again);
        assert_eq!(ToNode::decode(&decode(again.clone()), again).as_ref(), Ok(&message));
    }
}

/// Returns all kinds, in the order of their numbers.
fn kinds() -> Vec<v1::Kind> {
    (0..64).filter_map(|number| v1::Kind::try_from(number).ok()).collect()
}

fn decode(bytes: Bytes) -> Frame {
    // A decoded message may be longer when it is encoded again, by less than the size of a frame's other
    // parts.
    Frame::decode(bytes, 2 * MAX_PAYLOAD).expect("what was encoded is a frame")
}

/// Returns true if clients send this kind, by the description of the protocol.
fn from_client(kind: v1::Kind) -> bool {
    use v1::Kind as K;
    match kind {
        K::Application | K::Goodbye | K::Latest | K::State | K::Reconcile => true,
        K::Hello | K::Ping | K::Pong | K::Join | K::Leave | K::Say | K::Queue | K::Cancel => true,
        K::Queued | K::Matched | K::Unsupported => false,
        K::LinkHello | K::Attach | K::Attached | K::Detach | K::Enter => false,
        K::Entered | K::Relay | K::Hold | K::Exit | K::Exited => false,
        K::Recruit | K::Install | K::Replicate | K::Stored | K::Lead => false,
        K::Welcome | K::Joined | K::Left | K::Entry | K::Ack | K::Throttle | K::Snapshot => false,
    }
}

/// Returns true if servers send this kind, by the description of the protocol.
fn from_server(kind: v1::Kind) -> bool {
    use v1::Kind as K;
    match kind {
        K::Application | K::Goodbye | K::Latest | K::State | K::Reconcile => true,
        K::Hello | K::Join | K::Leave | K::Say | K::Queue | K::Cancel => false,
        K::Queued | K::Matched | K::Unsupported => true,
        K::LinkHello | K::Attach | K::Attached | K::Detach | K::Enter => false,
        K::Entered | K::Relay | K::Hold | K::Exit | K::Exited => false,
        K::Recruit | K::Install | K::Replicate | K::Stored | K::Lead => false,
        K::Welcome
        | K::Ping
        | K::Pong
        | K::Joined
        | K::Left
        | K::Entry
        | K::Ack
        | K::Throttle
        | K::Snapshot => true,
    }
}

/// Returns true if nodes send this kind to each other, by the description of the protocol.
fn from_node(kind: v1::Kind) -> bool {
    use v1::Kind as K;
    match kind {
        K::LinkHello | K::Ping | K::Pong | K::Attach | K::Attached | K::Detach | K::Enter => true,
        K::Entered | K::Relay | K::Hold | K::Exit | K::Exited => true,
        K::Recruit | K::Install | K::Replicate | K::Stored | K::Lead => true,
        K::Entry | K::Latest | K::State => true,
        K::Application | K::Goodbye | K::Reconcile | K::Hello | K::Join | K::Leave | K::Say => false,
        K::Queue | K::Cancel | K::Queued | K::Matched | K::Unsupported => false,
        K::Welcome | K::Joined | K::Left | K::Ack | K::Throttle | K::Snapshot => false,
    }
}

fn to_server(message: &ToServer) -> Bytes {
    use v1::Kind as K;
    let none = v1::Metadata::default();
    match message {
        ToServer::Application { type_url, payload } => application(type_url, payload),
        ToServer::Hello(message) => wire::encode(K::Hello, &none, message),
        ToServer::Goodbye(message) => wire::encode(K::Goodbye, &none, message),
        ToServer::Ping(message) => wire::encode(K::Ping, &none, message),
        ToServer::Pong(message) => wire::encode(K::Pong, &none, message),
        ToServer::Join(message) => wire::encode(K::Join, &none, message),
        ToServer::Leave(message) => wire::encode(K::Leave, &none, message),
        ToServer::Say(message) => wire::encode(K::Say, &none, message),
        ToServer::Latest(message) => wire::encode(K::Latest, &none, message),
        ToServer::State(message) => wire::encode(K::State, &none, message),
        ToServer::Reconcile(message) => wire::encode(K::Reconcile, &none, message),
        ToServer::Queue(message) => wire::encode(K::Queue, &none, message),
        ToServer::Cancel(message) => wire::encode(K::Cancel, &none, message),
    }
}

fn to_client(message: &ToClient) -> Bytes {
    use v1::Kind as K;
    let none = v1::Metadata::default();
    match message {
        ToClient::Application { type_url, payload } => application(type_url, payload),
        ToClient::Welcome(message) => wire::encode(K::Welcome, &none, message),
        ToClient::Goodbye(message) => wire::encode(K::Goodbye, &none, message),
        ToClient::Pong(message) => wire::encode(K::Pong, &none, message),
        ToClient::Ping(message) => wire::encode(K::Ping, &none, message),
        ToClient::Joined(message) => wire::encode(K::Joined, &none, message),
        ToClient::Left(message) => wire::encode(K::Left, &none, message),
        ToClient::Entry(message) => wire::encode(K::Entry, &none, message),
        ToClient::Ack(message) => wire::encode(K::Ack, &none, message),
        ToClient::Throttle(message) => wire::encode(K::Throttle, &none, message),
        ToClient::Snapshot(message) => wire::encode(K::Snapshot, &none, message),
        ToClient::Latest(message) => wire::encode(K::Latest, &none, message),
        ToClient::State(message) => wire::encode(K::State, &none, message),
        ToClient::Reconcile(message) => wire::encode(K::Reconcile, &none, message),
        ToClient::Queued(message) => wire::encode(K::Queued, &none, message),
        ToClient::Matched(message) => wire::encode(K::Matched, &none, message),
        ToClient::Unsupported(message) => wire::encode(K::Unsupported, &none, message),
    }
}

fn to_node(message: &ToNode) -> Bytes {
    use v1::Kind as K;
    let none = v1::Metadata::default();
    match message {
        ToNode::Hello(message) => wire::encode(K::LinkHello, &none, message),
        ToNode::Ping(message) => wire::encode(K::Ping, &none, message),
        ToNode::Pong(message) => wire::encode(K::Pong, &none, message),
        ToNode::Room(R::Attach(message)) => wire::encode(K::Attach, &none, message),
        ToNode::Room(R::Attached(message)) => wire::encode(K::Attached, &none, message),
        ToNode::Room(R::Detach(message)) => wire::encode(K::Detach, &none, message),
        ToNode::Room(R::Enter(message)) => wire::encode(K::Enter, &none, message),
        ToNode::Room(R::Entered(message)) => wire::encode(K::Entered, &none, message),
        ToNode::Room(R::Relay(message)) => wire::encode(K::Relay, &none, message),
        ToNode::Room(R::Hold(message)) => wire::encode(K::Hold, &none, message),
        ToNode::Room(R::Exit(message)) => wire::encode(K::Exit, &none, message),
        ToNode::Room(R::Exited(message)) => wire::encode(K::Exited, &none, message),
        ToNode::Room(R::Entry(message, _)) => wire::encode(K::Entry, &none, message),
        ToNode::Room(R::Latest(message, _)) => wire::encode(K::Latest, &none, message),
        ToNode::Room(R::State(message)) => wire::encode(K::State, &none, message),
        ToNode::Room(R::Recruit(message)) => wire::encode(K::Recruit, &none, message),
        ToNode::Room(R::Install(message)) => wire::encode(K::Install, &none, message),
        ToNode::Room(R::Replicate(message)) => wire::encode(K::Replicate, &none, message),
        ToNode::Room(R::Stored(message)) => wire::encode(K::Stored, &none, message),
        ToNode::Room(R::Lead(message)) => wire::encode(K::Lead, &none, message),
    }
}

/// Returns the message with the frame that a new encoding gives it.
fn with_frame(message: ToNode, frame: &Bytes) -> ToNode {
    match message {
        ToNode::Room(R::Entry(message, _)) => ToNode::Room(R::Entry(message, frame.clone())),
        ToNode::Room(R::Latest(message, _)) => ToNode::Room(R::Latest(message, frame.clone())),
        message => message,
    }
}

fn application(type_url: &str, payload: &[u8]) -> Bytes {
    let metadata = v1::Metadata { type_url: type_url.into(), ..v1::Metadata::default() };
    wire::encode_bytes(v1::Kind::Application, &metadata, payload)
}
