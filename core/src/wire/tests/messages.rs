//! Messages by kind and direction.

use prost::Message;
use skirmish_proto::v1;

use super::*;

fn frame(kind: Kind, message: &impl Message) -> Frame {
    Frame::decode(encode(kind, &Metadata::default(), message), usize::MAX).unwrap()
}

fn to_server(kind: Kind, message: &impl Message) -> Result<ToServer, WireError> {
    ToServer::decode(&frame(kind, message))
}

fn to_client(kind: Kind, message: &impl Message) -> Result<ToClient, WireError> {
    ToClient::decode(&frame(kind, message))
}

#[test]
fn every_kind_has_its_directions() {
    use Kind::*;
    let both = [Goodbye, Ping, Pong, Latest, State, Reconcile];
    let up = [Hello, Join, Leave, Say, Queue, Cancel];
    let down = [Welcome, Joined, Left, Entry, Ack, Throttle, Snapshot, Queued, Matched, Unsupported];
    let between_nodes = [
        LinkHello, Attach, Attached, Detach, Enter, Entered, Relay, Hold, Exit, Exited, Recruit, Install,
        Replicate, Stored, Lead,
    ];
    let mut seen = 0;
    for number in 0..=i32::from(u16::MAX) {
        let Ok(kind) = Kind::try_from(number) else { continue };
        seen += 1;
        if kind == Application {
            continue;
        }
        // Empty messages are valid, except `Welcome`, which must have a session.
        let message = v1::Welcome { session: Bytes::from_static(&[1; 16]), ..Default::default() };
        let at_server = if kind == Welcome { to_server(kind, &message) } else { to_server(kind, &()) };
        let at_client = if kind == Welcome { to_client(kind, &message) } else { to_client(kind, &()) };
        let wrong = Some(WireError::WrongDirection(kind));
        assert_eq!(at_server.err(), if up.contains(&kind) || both.contains(&kind) { None } else { wrong });
        assert_eq!(at_client.err(), if down.contains(&kind) || both.contains(&kind) { None } else { wrong });
    }
    assert_eq!(seen, 1 + both.len() + up.len() + down.len() + between_nodes.len());
}

#[test]
fn a_body_is_a_slice_of_the_buffer_that_was_received() {
    let say = v1::Say {
        room: "r".into(),
        client_seq: 1,
        body: Bytes::from_static(b"left"),
        type_url: "t".into(),
        ends_turn: Some(0),
    };
    let bytes = encode(Kind::Say, &Metadata::default(), &say);
    let got = ToServer::decode(&Frame::decode(bytes.clone(), MAX).unwrap()).unwrap();
    let ToServer::Say(got) = got else { panic!("{got:?}") };
    assert_eq!(got, say);
    assert!(bytes.as_ptr_range().contains(&got.body.as_ptr()));
}

#[test]
fn an_application_message_needs_a_type_url() {
    let of = |type_url: &str| {
        let metadata = Metadata { type_url: type_url.into(), ..Metadata::default() };
        let frame = Frame::decode(encode_bytes(Kind::Application, &metadata, b"left"), MAX).unwrap();
        assert_eq!(ToServer::decode(&frame).err(), ToClient::decode(&frame).err());
        ToServer::decode(&frame)
    };
    let payload = Bytes::from_static(b"left");
    assert_eq!(
        of("game.v1.Attack"),
        Ok(ToServer::Application { type_url: "game.v1.Attack".into(), payload })
    );
    assert_eq!(of(""), Err(WireError::NoTypeUrl));
    assert_eq!(of(&"x".repeat(257)), Err(WireError::BadFieldLength("Metadata.type_url")));
}

#[test]
fn sealed_and_compressed_payloads_are_not_decoded() {
    for (flags, error) in [
        (FLAG_SEALED, WireError::StillSealed),
        (FLAG_ZSTD, WireError::StillCompressed),
        (FLAG_SEALED | FLAG_ZSTD, WireError::StillSealed),
    ] {
        let frame = Frame::decode(raw(Header::write(Kind::Goodbye as u16, flags, 0, 0), b""), MAX).unwrap();
        assert_eq!(ToServer::decode(&frame), Err(error));
        assert_eq!(ToClient::decode(&frame), Err(error));
    }
}

#[test]
fn lengths_that_the_protocol_fixes_are_checked() {
    let bytes = |len: usize| Bytes::from("x".repeat(len));
    let hello = |hello: v1::Hello| to_server(Kind::Hello, &hello).map(|_| ());
    let wrong = |field| Err(WireError::BadFieldLength(field));
    assert_eq!(hello(v1::Hello { seal_key: bytes(32), ..Default::default() }), Ok(()));
    assert_eq!(hello(v1::Hello { seal_key: bytes(31), ..Default::default() }), wrong("Hello.seal_key"));
    for (agent, kept) in
        [("x".repeat(64), 64), ("x".repeat(65), 64), ("é".repeat(40), 64), ("€".repeat(40), 63)]
    {
        let message = v1::Hello { agent, ..Default::default() };
        let Ok(ToServer::Hello(hello)) = to_server(Kind::Hello, &message) else { panic!("not a hello") };
        assert_eq!(hello.agent.len(), kept);
        assert!(message.agent.starts_with(&hello.agent));
    }
    let resume = Some(v1::Resume { session: bytes(15), rooms: Vec::new(), ..v1::Resume::default() });
    assert_eq!(hello(v1::Hello { resume, ..Default::default() }), wrong("Resume.session"));
    let welcome = |welcome: v1::Welcome| to_client(Kind::Welcome, &welcome).map(|_| ());
    assert_eq!(welcome(v1::Welcome::default()), wrong("Welcome.session"));
    let message = v1::Welcome { session: bytes(16), seal_key: bytes(33), ..Default::default() };
    assert_eq!(welcome(message), wrong("Welcome.seal_key"));
    let message = v1::Goodbye { message: "x".repeat(257), ..Default::default() };
    assert_eq!(to_server(Kind::Goodbye, &message), Err(WireError::BadFieldLength("Goodbye.message")));
    let message = v1::Say { type_url: "x".repeat(257), ..Default::default() };
    assert_eq!(to_server(Kind::Say, &message), Err(WireError::BadFieldLength("Say.type_url")));
    let message = v1::Entry { type_url: "x".repeat(257), ..Default::default() };
    assert_eq!(to_client(Kind::Entry, &message), Err(WireError::BadFieldLength("Entry.type_url")));
    let message = v1::Latest { type_url: "x".repeat(257), ..Default::default() };
    assert_eq!(to_client(Kind::Latest, &message), Err(WireError::BadFieldLength("Latest.type_url")));
}

#[test]
fn repeated_fields_are_bounded_before_they_are_decoded() {
    let state =
        |len| v1::State { entries: alloc::vec![v1::StateEntry::default(); len], ..Default::default() };
    assert!(to_server(Kind::State, &state(4096)).is_ok());
    assert_eq!(to_server(Kind::State, &state(4097)), Err(WireError::TooManyItems("State.entries")));
    let nodes = alloc::vec![v1::MerkleNode::default(); 4097];
    let message = v1::Reconcile { nodes, ..Default::default() };
    assert_eq!(to_client(Kind::Reconcile, &message), Err(WireError::TooManyItems("Reconcile.nodes")));
    let members = alloc::vec![v1::Member::default(); 4097];
    let message = v1::Snapshot { members, ..Default::default() };
    assert_eq!(to_client(Kind::Snapshot, &message), Err(WireError::TooManyItems("Snapshot.members")));
    let resume = |len| v1::Resume {
        session: Bytes::new(),
        rooms: alloc::vec![v1::RoomCursor::default(); len],
        ..v1::Resume::default()
    };
    let hello = v1::Hello { resume: Some(resume(4097)), ..Default::default() };
    assert_eq!(to_server(Kind::Hello, &hello), Err(WireError::TooManyItems("Resume.rooms")));
    let joins = |len| v1::Hello { joins: alloc::vec![v1::Join::default(); len], ..Default::default() };
    assert!(to_server(Kind::Hello, &joins(16)).is_ok());
    assert_eq!(to_server(Kind::Hello, &joins(17)), Err(WireError::TooManyItems("Hello.joins")));
    // Several occurrences of a message field are merged, so they count together.
    let half = v1::Hello { resume: Some(resume(2049)), ..Default::default() }.encode_to_vec();
    let bytes = encode_bytes(Kind::Hello, &Metadata::default(), &half.repeat(2));
    let frame = Frame::decode(bytes, usize::MAX).unwrap();
    assert_eq!(ToServer::decode(&frame), Err(WireError::TooManyItems("Resume.rooms")));
}

proptest! {
    #[test]
    fn any_payload_is_a_message_or_an_error(kind in any_kind(), payload in vec(any::<u8>(), 0..100)) {
        let frame = Frame::decode(encode_bytes(kind, &Metadata::default(), &payload), MAX).unwrap();
        for error in [ToServer::decode(&frame).err(), ToClient::decode(&frame).err()].into_iter().flatten() {
            prop_assert_eq!(error.fault(), FaultSide::Misbehaved);
        }
    }

    #[test]
    fn reconciling_survives_the_wire(level in 0u32..3, nodes in vec((any::<u32>(), any::<u64>()), 0..300), leaves in vec(any::<u32>(), 0..300)) {
        let nodes = nodes.into_iter().map(|(index, hash)| v1::MerkleNode { index, hash }).collect();
        let sent = v1::Reconcile { room: "r".into(), epoch: 1, level, nodes, leaves };
        prop_assert_eq!(to_server(Kind::Reconcile, &sent), Ok(ToServer::Reconcile(sent)));
    }
}
