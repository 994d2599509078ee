//! Frames and the stream decoder.

use skirmish_proto::v1;

use super::*;

/// Decodes a stream that is cut at these lengths; the last length is repeated. Returns the frames,
/// and the result at the end.
fn drive(stream: &[u8], lengths: &[usize], max_frame: usize) -> (Vec<Frame>, Result<(), WireError>) {
    let mut decoder = Decoder::new(max_frame);
    let mut frames = Vec::new();
    let mut rest = Bytes::copy_from_slice(stream);
    let mut lengths = lengths.iter().copied();
    let mut length = 1;
    while !rest.is_empty() {
        length = lengths.next().unwrap_or(length).clamp(1, rest.len());
        decoder.push(rest.split_to(length)).unwrap();
        loop {
            match decoder.poll_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.poll_frame().unwrap_err(), error, "the error is the state");
                    assert_eq!(decoder.push(Bytes::new()), Err(error));
                    assert_eq!(decoder.finish(), Err(error));
                    return (frames, Err(error));
                }
            }
        }
    }
    (frames, decoder.finish())
}

fn parts(frame: &Frame) -> (u16, u16, Bytes, Bytes, [u8; 16]) {
    (frame.kind, frame.flags, frame.metadata.clone(), frame.payload.clone(), frame.header)
}

fn assert_same(one: &[Frame], other: &[Frame]) {
    assert_eq!(one.iter().map(parts).collect::<Vec<_>>(), other.iter().map(parts).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(kind in any_kind(), metadata in any_metadata(), payload in any_payload()) {
        let bytes = encode_bytes(kind, &metadata, &payload);
        let frame = Frame::decode(bytes.clone(), bytes.len()).unwrap();
        prop_assert_eq!(frame.message(), Ok(kind));
        prop_assert_eq!(frame.flags, 0);
        prop_assert_eq!(frame.metadata().unwrap(), metadata);
        prop_assert_eq!(&frame.payload, &payload);
        if !payload.is_empty() {
            let within = bytes.as_ptr_range();
            prop_assert!(within.contains(&frame.payload.as_ptr()), "the payload is a slice of the buffer");
        }
        prop_assert_eq!(
            Frame::decode(bytes.clone(), bytes.len() - 1).unwrap_err(),
            WireError::FrameTooLong(bytes.len() as u64)
        );
        let len = bytes.len();
        drop(frame);
        prop_assert_eq!(Vec::from(bytes).capacity(), len, "one allocation of the exact size");
    }

    #[test]
    fn any_chunking_gives_the_same_frames(
        sent in vec((any_kind(), any_metadata(), any_payload()), 0..6),
        lengths in vec(prop_oneof![1usize..20, 1usize..5000], 1..40),
    ) {
        let frames: Vec<_> = sent.iter().map(|(kind, metadata, payload)| encode_bytes(*kind, metadata, payload)).collect();
        let stream = frames.concat();
        let (got, end) = drive(&stream, &lengths, MAX);
        prop_assert_eq!(end, Ok(()));
        let whole: Vec<_> = frames.into_iter().map(|bytes| Frame::decode(bytes, MAX).unwrap()).collect();
        assert_same(&got, &whole);
    }

    #[test]
    fn any_chunking_gives_the_same_error(
        good in vec(any_payload(), 0..3),
        bad in prop_oneof![
            vec(any::<u8>(), 1..60),
            (any_payload(), 0usize..1000, any::<u8>()).prop_map(|(payload, at, xor)| {
                let mut bytes = encode_bytes(Kind::Say, &Metadata::default(), &payload).to_vec();
                let at = at % bytes.len();
                bytes[at] ^= xor;
                bytes
            }),
        ],
        lengths in vec(1usize..100, 1..40),
    ) {
        let mut stream: Vec<u8> =
            good.iter().flat_map(|payload| encode_bytes(Kind::Say, &Metadata::default(), payload)).collect();
        stream.extend_from_slice(&bad);
        let (by_chunks, chunks_end) = drive(&stream, &lengths, MAX);
        let (by_bytes, bytes_end) = drive(&stream, &[1], MAX);
        let (at_once, once_end) = drive(&stream, &[stream.len()], MAX);
        prop_assert_eq!(chunks_end, once_end);
        prop_assert_eq!(bytes_end, once_end);
        assert_same(&by_chunks, &at_once);
        assert_same(&by_bytes, &at_once);
    }

    #[test]
    fn a_buffer_of_any_bytes_is_judged_like_a_stream(bytes in vec(any::<u8>(), 0..60), valid in 0usize..16) {
        let mut bytes = bytes;
        let header = Header::write(Kind::Say as u16, 0, 0, 8);
        let valid = valid.min(bytes.len());
        bytes[..valid].copy_from_slice(&header[..valid]);
        let whole = Frame::decode(Bytes::copy_from_slice(&bytes), 64);
        let (frames, end) = drive(&bytes, &[bytes.len()], 64);
        match whole {
            Ok(frame) => assert_same(&frames, &[frame]),
            Err(WireError::TrailingBytes) => prop_assert!(frames.len() == 1 || end.is_err()),
            Err(WireError::Truncated) => prop_assert!(bytes.is_empty() || end == Err(WireError::Truncated)),
            Err(error) => prop_assert_eq!(end, Err(error)),
        }
    }
}

#[test]
fn the_layout_is_that_of_the_protocol() {
    let bytes = encode(Kind::Pong, &Metadata::default(), &v1::Pong { nonce: 300 });
    #[rustfmt::skip]
    let expected = [
        0xF5, 0x4B, 0x52, 0x4D, // magic
        0, 1,                   // version
        0, 0,                   // flags
        0, 0,                   // metadata length
        0, 5,                   // kind
        0, 0, 0, 3,             // payload length
        0x08, 0xAC, 0x02,       // nonce = 300
        0x12, 0xA6, 0x64, 0xF7, // CRC-32C
    ];
    assert_eq!(bytes[..], expected);
}

#[test]
fn a_single_flipped_bit_never_passes() {
    let metadata = Metadata { type_url: "game.v1.Attack".into(), ..Metadata::default() };
    let good = encode_bytes(Kind::Application, &metadata, b"left, then right");
    for bit in 0..good.len() * 8 {
        let mut bytes = good.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Frame::decode(bytes.into(), MAX).is_err(), "bit {bit}");
    }
}

#[test]
fn a_frame_cut_anywhere_is_truncated() {
    let metadata = Metadata { type_url: "game.v1.Attack".into(), ..Metadata::default() };
    let good = encode_bytes(Kind::Application, &metadata, b"left, then right");
    for len in 0..good.len() {
        assert_eq!(Frame::decode(good.slice(..len), MAX).unwrap_err(), WireError::Truncated, "{len} bytes");
        let (frames, end) = drive(&good[..len], &[7], MAX);
        assert!(frames.is_empty());
        assert_eq!(end, if len == 0 { Ok(()) } else { Err(WireError::Truncated) });
    }
    let longer = [&good[..], b"x"].concat();
    assert_eq!(Frame::decode(longer.into(), MAX).unwrap_err(), WireError::TrailingBytes);
}

#[test]
fn every_field_of_the_header_has_its_error() {
    let good = Header::write(Kind::Say as u16, 0, 0, 0);
    let with = |at: usize, value: u16| {
        let mut header = good;
        header[at..at + 2].copy_from_slice(&value.to_be_bytes());
        Frame::decode(raw(header, b""), MAX).map(|_| ())
    };
    assert_eq!(with(0, 0xF54B), Ok(()));
    assert_eq!(with(0, 0xF54A), Err(WireError::BadMagic));
    assert_eq!(with(2, 0x524E), Err(WireError::BadMagic));
    assert_eq!(with(4, 0), Err(WireError::UnknownVersion(0)));
    assert_eq!(with(4, 2), Err(WireError::UnknownVersion(2)));
    assert_eq!(with(6, 3), Ok(()));
    assert_eq!(with(6, 0x8001), Err(WireError::ReservedFlags(0x8001)));
    assert_eq!(with(8, 1024), Err(WireError::Truncated));
    assert_eq!(with(8, 1025), Err(WireError::MetadataTooLong(1025)));
    assert_eq!(with(12, u16::MAX), Err(WireError::FrameTooLong(20 + 0xFFFF_0000)));
    assert_eq!(with(14, 1), Err(WireError::Truncated));
}

#[test]
fn a_kind_that_is_not_known_is_found_after_all_that_is_wrong_with_its_frame() {
    for number in [7, 1000, u16::MAX] {
        let mut header =
            *encode(Kind::Leave, &Metadata::default(), &v1::Leave::default()).first_chunk::<16>().unwrap();
        header[10..12].copy_from_slice(&number.to_be_bytes());
        let frame = Frame::decode(raw(header, b""), MAX).unwrap();
        assert_eq!(frame.message(), Err(WireError::UnknownKind(number)));
        assert_eq!(ToServer::decode(&frame), Err(WireError::UnknownKind(number)));
        assert_eq!(ToClient::decode(&frame), Err(WireError::UnknownKind(number)));
        let mut broken = raw(header, b"").to_vec();
        *broken.last_mut().unwrap() ^= 1;
        assert!(matches!(Frame::decode(broken.into(), MAX), Err(WireError::BadChecksum)));
    }
}

#[test]
fn metadata_is_checked() {
    let frame = |metadata: &[u8]| {
        let header = Header::write(Kind::Say as u16, 0, u16::try_from(metadata.len()).unwrap(), 0);
        Frame::decode(raw(header, metadata), MAX).unwrap()
    };
    let encoded = |metadata: Metadata| frame(&prost::Message::encode_to_vec(&metadata)).metadata();
    assert_eq!(frame(b"").metadata(), Ok(Metadata::default()));
    assert_eq!(frame(b"\xff").metadata(), Err(WireError::BadMetadata));
    let bytes = Bytes::from_static(&[1; 15]);
    let named = Metadata { type_url: "t".into(), ..Metadata::default() };
    let traced = |trace_id: &Bytes, span_id: &Bytes| {
        let (trace_id, span_id) = (trace_id.clone(), span_id.clone());
        encoded(Metadata { trace_id, span_id, trace_flags: 1, ..named.clone() })
    };
    let (long, good, short) = (Bytes::from_static(&[1; 16]), Bytes::from_static(&[2; 8]), Bytes::new());
    assert_eq!(traced(&long, &good).map(|metadata| metadata.trace_id), Ok(long.clone()));
    assert_eq!(traced(&long, &short).map(|metadata| metadata.trace_id), Ok(long.clone()));
    for (trace_id, span_id) in [(&bytes, &good), (&long, &bytes), (&good, &long), (&bytes, &bytes)] {
        assert_eq!(traced(trace_id, span_id), Ok(named.clone()), "no trace, and the rest is kept");
    }
    assert_eq!(
        encoded(Metadata { type_url: "x".repeat(257), ..Metadata::default() }),
        Err(WireError::BadFieldLength("Metadata.type_url"))
    );
}

#[test]
fn metadata_that_no_peer_would_take_is_left_out() {
    let metadata = Metadata { type_url: "x".repeat(2_000), ..Metadata::default() };
    let frame = Frame::decode(encode_bytes(Kind::Say, &metadata, b"body"), MAX).unwrap();
    assert!(frame.metadata.is_empty());
    assert_eq!(frame.payload, "body");
}

#[test]
fn a_decoder_that_is_not_drained_takes_nothing_and_goes_on() {
    let frame = encode_bytes(Kind::Say, &Metadata::default(), b"body");
    let mut decoder = Decoder::new(MAX);
    decoder.push([&frame[..], &frame[..]].concat().into()).unwrap();
    assert!(decoder.poll_frame().unwrap().is_some());
    assert_eq!(decoder.push(frame), Err(WireError::NotDrained));
    assert!(decoder.poll_frame().unwrap().is_some());
    assert!(decoder.poll_frame().unwrap().is_none());
    assert_eq!(decoder.finish(), Ok(()));
}

#[test]
fn the_fault_is_named() {
    assert_eq!(WireError::BadChecksum.fault(), FaultSide::Misbehaved);
    assert_eq!(WireError::UnknownVersion(2).fault(), FaultSide::Incompatible);
    assert_eq!(WireError::NotDrained.fault(), FaultSide::Caller);
}
