//! Sealed payloads.

use super::seal::{OVERHEAD, Offer, Seal, answer, public_key};
use super::*;

const SESSION: [u8; 16] = [9; 16];
const STATIC: [u8; 32] = [3; 32];

/// Returns the two ends of a connection: client, server.
fn pair(pinned: bool) -> (Seal, Seal) {
    let offer = Offer::new([1; 32], pinned.then(|| public_key(STATIC)));
    let (key, server) = answer([2; 32], pinned.then_some(STATIC), &offer.public(), &SESSION).unwrap();
    (offer.finish(&key, &SESSION).unwrap(), server)
}

fn plain(payload: &[u8]) -> Bytes {
    let metadata = Metadata { type_url: "game.v1.Attack".into(), ..Metadata::default() };
    encode_bytes(Kind::Application, &metadata, payload)
}

fn decode(bytes: Bytes) -> Frame {
    Frame::decode(bytes, MAX).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_is_opened_in_order_in_both_directions(
        pinned in any::<bool>(),
        sent in vec((any::<bool>(), any_kind(), any_metadata(), any_payload()), 1..8),
    ) {
        let (mut client, mut server) = pair(pinned);
        let mut zstd = Zstd::default();
        for (up, kind, metadata, payload) in sent {
            let (from, to) = if up { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let frame = encode_bytes(kind, &metadata, &payload);
            let smaller = zstd.deflate(&frame).unwrap_or_else(|| frame.clone());
            let sealed = from.seal(&smaller).unwrap();
            prop_assert_eq!(sealed.len(), smaller.len() + OVERHEAD);
            let got = zstd.inflate(to.open(decode(sealed)).unwrap(), MAX).unwrap();
            let direct = decode(frame);
            prop_assert_eq!(got.payload, direct.payload);
            prop_assert_eq!(got.metadata, direct.metadata);
            prop_assert_eq!(got.header, direct.header);
        }
    }

    /// Frames 0..5 are delivered in any order and number. Frames open as long as they arrive in the
    /// order of sending; after the first one out of order, no frame opens.
    #[test]
    fn lost_repeated_and_moved_frames_do_not_open(order in vec(0usize..5, 1..8)) {
        let (mut client, mut server) = pair(false);
        let sealed: Vec<_> = (0..5u8).map(|n| client.seal(&plain(&[n])).unwrap()).collect();
        let mut right = true;
        for (turn, index) in order.into_iter().enumerate() {
            right &= turn == index;
            let result = server.open(decode(sealed[index].clone()));
            prop_assert_eq!(result.map(|_| ()), if right { Ok(()) } else { Err(WireError::NotAuthentic) });
        }
    }
}

#[test]
fn no_flipped_bit_opens_even_with_the_checksum_put_right() {
    let sealed = pair(true).0.seal(&plain(b"left")).unwrap();
    for bit in 0..(sealed.len() - TRAILER_LEN) * 8 {
        let Ok(frame) = Frame::decode(flip(&sealed, bit), MAX) else { continue };
        let error = pair(true).1.open(frame).unwrap_err();
        assert!(matches!(error, WireError::NotAuthentic | WireError::NotSealed), "bit {bit}: {error}");
    }
}

#[test]
fn a_sealed_payload_shows_nothing_of_the_plain_one() {
    let text = b"the flag is under the bridge";
    let sealed = pair(false).0.seal(&plain(text)).unwrap();
    assert!(!sealed.windows(8).any(|part| part == &text[..8]));
    let again = pair(false).0.seal(&plain(text)).unwrap();
    assert_eq!(sealed, again, "the same keys and the same frame give the same bytes");
}

#[test]
fn an_error_is_the_state() {
    let (mut client, mut server) = pair(false);
    let sealed = client.seal(&plain(b"left")).unwrap();
    assert_eq!(server.open(decode(plain(b"left"))).unwrap_err(), WireError::NotSealed);
    assert_eq!(server.open(decode(sealed)).unwrap_err(), WireError::NotSealed);
}

#[test]
fn a_frame_that_comes_back_to_its_sender_does_not_open() {
    let (mut client, _) = pair(false);
    let sealed = client.seal(&plain(b"left")).unwrap();
    assert_eq!(client.open(decode(sealed)).unwrap_err(), WireError::NotAuthentic);
}

#[test]
fn a_payload_shorter_than_a_tag_does_not_open() {
    for len in 0..OVERHEAD {
        let header = Header::write(Kind::Say as u16, FLAG_SEALED, 0, u32::try_from(len).unwrap());
        let frame = decode(raw(header, &[0; OVERHEAD][..len]));
        assert_eq!(pair(false).1.open(frame).unwrap_err(), WireError::NotAuthentic);
    }
}

#[test]
fn whoever_shares_the_buffer_keeps_its_bytes() {
    let (mut client, mut server) = pair(false);
    let sealed = client.seal(&plain(b"left")).unwrap();
    let before = sealed.to_vec();
    assert_eq!(server.open(decode(sealed.clone())).unwrap().payload, "left");
    assert_eq!(sealed, before);
}

/// Every input of both sides changes the agreement.
#[test]
fn sides_that_do_not_agree_do_not_understand_each_other() {
    let pinned = Some(public_key(STATIC));
    let other = Some(public_key([4; 32]));
    for (what, pin, statik, session) in [
        ("another static key", other, Some(STATIC), SESSION),
        ("pinned by one side only", pinned, None, SESSION),
        ("mixed in by one side only", None, Some(STATIC), SESSION),
        ("another session", pinned, Some(STATIC), [8; 16]),
    ] {
        let offer = Offer::new([1; 32], pin);
        let (key, mut server) = answer([2; 32], statik, &offer.public(), &SESSION).unwrap();
        let mut client = offer.finish(&key, &session).unwrap();
        let up = client.seal(&plain(b"left")).unwrap();
        assert_eq!(server.open(decode(up)).unwrap_err(), WireError::NotAuthentic, "{what}");
        let down = server.seal(&plain(b"left")).unwrap();
        assert_eq!(client.open(decode(down)).unwrap_err(), WireError::NotAuthentic, "{what}");
    }
}

#[test]
fn keys_of_wrong_length_or_small_order_are_refused() {
    // The point 0, the point 1, and 0 again in a form that is not reduced.
    let mut prime = [0xFF; 32];
    (prime[0], prime[31]) = (0xED, 0x7F);
    let mut one = [0; 32];
    one[0] = 1;
    for weak in [[0; 32], one, prime] {
        assert_eq!(answer([2; 32], None, &weak, &SESSION).unwrap_err(), WireError::WeakPublicKey);
        assert_eq!(Offer::new([1; 32], None).finish(&weak, &SESSION).unwrap_err(), WireError::WeakPublicKey);
        let pinned = Offer::new([1; 32], Some(weak));
        assert_eq!(pinned.finish(&public_key([2; 32]), &SESSION).unwrap_err(), WireError::WeakPublicKey);
    }
    assert_eq!(answer([2; 32], None, &[1; 31], &SESSION).unwrap_err(), WireError::BadPublicKey);
    assert_eq!(Offer::new([1; 32], None).finish(&[], &SESSION).unwrap_err(), WireError::BadPublicKey);
}

#[test]
fn only_frames_are_sealed_and_each_once() {
    let (mut client, mut server) = pair(false);
    assert_eq!(client.seal(&Bytes::new()), Err(WireError::NotAFrame));
    assert_eq!(client.seal(&plain(b"left").slice(1..)), Err(WireError::NotAFrame));
    let sealed = client.seal(&plain(b"left")).unwrap();
    assert_eq!(client.seal(&sealed), Err(WireError::NotAFrame));
    let next = client.seal(&plain(b"right")).unwrap();
    assert!(server.open(decode(sealed)).is_ok());
    assert!(server.open(decode(next)).is_ok(), "a refused frame uses no nonce");
}

/// Compares with bytes of another implementation of the derivation and the cipher, which was
/// written on top of OpenSSL from the description at the head of `seal.rs`.
#[test]
fn the_seal_is_that_of_its_description() {
    let offer = Offer::new([1; 32], Some(public_key([3; 32])));
    let (key, mut server) = answer([2; 32], Some([3; 32]), &offer.public(), &[9; 16]).unwrap();
    let mut client = offer.finish(&key, &[9; 16]).unwrap();
    let hex = |bytes: Bytes| {
        bytes.iter().map(|byte| alloc::format!("{byte:02x}")).collect::<alloc::string::String>()
    };
    let mut up =
        |nonce: u8| client.seal(&encode_bytes(Kind::Pong, &Metadata::default(), &[8, nonce])).unwrap();
    assert_eq!(hex(up(1)), "f54b524d000100020000000500000012ee60510b93ad875aeaf3c499d3149bce28582b117070");
    assert_eq!(hex(up(2)), "f54b524d000100020000000500000012d14a1d4bcd9ba70673906bf69ed5f452b8d999e412d4");
    let down = server.seal(&encode_bytes(Kind::Ping, &Metadata::default(), &[8, 3])).unwrap();
    assert_eq!(hex(down), "f54b524d000100020000000400000012b55977789dd6ca62f78acc5bc4a006c00f2497fe5f74");
}

#[test]
fn debug_output_has_no_secrets() {
    let offer = Offer::new([1; 32], None);
    assert_eq!(alloc::format!("{offer:?}"), "Offer { pinned: false, .. }");
    assert_eq!(alloc::format!("{:?}", pair(true).0), "Seal { sealed: 0, opened: 0, failed: None, .. }");
}
