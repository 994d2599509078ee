//! Compressed payloads.

use zstd_safe::CCtx;

use super::*;

/// Returns a frame whose flag says that the payload is zstd.
fn zstd_frame(payload: &[u8]) -> Frame {
    let header = Header::write(Kind::Say as u16, FLAG_ZSTD, 0, u32::try_from(payload.len()).unwrap());
    Frame::decode(raw(header, payload), usize::MAX).unwrap()
}

fn inflate(payload: &[u8], max_payload: usize) -> Result<Bytes, WireError> {
    Zstd::default().inflate(zstd_frame(payload), max_payload).map(|frame| frame.payload)
}

fn compress(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
    CCtx::create().compress(&mut out, content, 1).unwrap();
    out
}

proptest! {
    #[test]
    fn what_is_deflated_is_inflated(kind in any_kind(), metadata in any_metadata(), payload in any_payload()) {
        let plain = encode_bytes(kind, &metadata, &payload);
        let mut zstd = Zstd::default();
        let Some(small) = zstd.deflate(&plain) else { return Ok(()) };
        prop_assert!(small.len() < plain.len());
        prop_assert_eq!(zstd.deflate(&plain).unwrap(), small.clone(), "deterministic");
        prop_assert_eq!(zstd.deflate(&small), None, "not twice");
        let frame = Frame::decode(small, MAX).unwrap();
        prop_assert_eq!(frame.flags, FLAG_ZSTD);
        prop_assert_eq!(
            zstd.inflate(frame.clone(), payload.len() - 1).unwrap_err(),
            WireError::InflatedTooLong(payload.len() as u64)
        );
        let back = zstd.inflate(frame, payload.len()).unwrap();
        let direct = Frame::decode(plain, MAX).unwrap();
        prop_assert_eq!(back.payload, direct.payload);
        prop_assert_eq!(back.metadata, direct.metadata);
        prop_assert_eq!(back.header, direct.header);
        prop_assert_eq!((back.kind, back.flags), (direct.kind, 0));
    }

    #[test]
    fn any_payload_inflates_within_the_cap_or_not_at_all(payload in vec(any::<u8>(), 0..100), magic in any::<bool>()) {
        let mut payload = payload;
        if magic {
            payload.splice(0..0, [0x28, 0xB5, 0x2F, 0xFD]);
        }
        if let Ok(content) = inflate(&payload, 1000) {
            prop_assert!(content.len() <= 1000);
        }
    }
}

#[test]
fn repetitive_payloads_get_smaller_and_random_ones_are_left_alone() {
    let mut zstd = Zstd::default();
    let repetitive = encode_bytes(Kind::Snapshot, &Metadata::default(), &b"position ".repeat(200));
    assert!(zstd.deflate(&repetitive).unwrap().len() < 100);
    let random: [u8; 512] = crate::base::rng::Rng::new([7; 32]).bytes();
    assert_eq!(zstd.deflate(&encode_bytes(Kind::Snapshot, &Metadata::default(), &random)), None);
    assert_eq!(zstd.deflate(&encode_bytes(Kind::Snapshot, &Metadata::default(), b"")), None);
    assert_eq!(zstd.deflate(&Bytes::from_static(b"no frame")), None);
}

#[test]
fn a_claim_of_a_gibibyte_is_refused_by_its_claim() {
    // Single segment, 4 bytes of content size, then one empty last block.
    let mut payload = [0x28, 0xB5, 0x2F, 0xFD, 0xA0, 0, 0, 0, 0, 1, 0, 0];
    payload[5..9].copy_from_slice(&(1u32 << 30).to_le_bytes());
    assert_eq!(inflate(&payload, MAX), Err(WireError::InflatedTooLong(1 << 30)));
}

#[test]
fn a_bomb_is_refused_with_its_true_size_and_with_a_false_one() {
    let mut bomb = compress(&alloc::vec![0; 8 << 20]);
    assert!(bomb.len() < 2048);
    assert_eq!(inflate(&bomb, MAX), Err(WireError::InflatedTooLong(8 << 20)));
    // The content size is in the 4 bytes after the frame's descriptor and window.
    let size = bomb.windows(4).position(|bytes| bytes == (8u32 << 20).to_le_bytes()).unwrap();
    bomb[size..size + 4].copy_from_slice(&1000u32.to_le_bytes());
    assert!(matches!(inflate(&bomb, MAX), Err(WireError::CompressionWindow(_))));
    assert_eq!(inflate(&bomb, 4 << 20), Err(WireError::BadCompression));
}

#[test]
fn a_frame_without_its_content_size_is_refused() {
    // No content size, a window of 1 KiB, one raw last block "abc".
    let payload = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x00, 0x19, 0, 0, b'a', b'b', b'c'];
    assert_eq!(inflate(&payload, MAX), Err(WireError::NoContentSize));
}

#[test]
fn nothing_but_one_whole_frame_is_inflated() {
    let good = compress(&b"position ".repeat(20));
    assert_eq!(inflate(&good, MAX).unwrap(), b"position ".repeat(20));
    for len in 0..good.len() {
        assert_eq!(inflate(&good[..len], MAX), Err(WireError::BadCompression), "{len} bytes");
    }
    let empty = compress(b"");
    assert_eq!(inflate(&[&good[..], &empty[..]].concat(), MAX), Err(WireError::TrailingCompression));
    assert_eq!(inflate(&[&good[..], b"x"].concat(), MAX), Err(WireError::TrailingCompression));
}

#[test]
fn skippable_frames_are_refused_wherever_they_stand() {
    let good = compress(&b"position ".repeat(20));
    for magic in 0x50..=0x5F {
        for content in [&b""[..], b"hidden"] {
            let length = u32::try_from(content.len()).unwrap().to_le_bytes();
            let skippable = [&[magic, 0x2A, 0x4D, 0x18][..], &length, content].concat();
            assert_eq!(inflate(&skippable, MAX), Err(WireError::SkippableCompression));
            let before = [&skippable[..], &good].concat();
            assert_eq!(inflate(&before, MAX), Err(WireError::SkippableCompression));
            let after = [&good[..], &skippable].concat();
            assert_eq!(inflate(&after, MAX), Err(WireError::TrailingCompression));
        }
    }
    assert_eq!(inflate(b"", MAX), Err(WireError::BadCompression));
    assert_eq!(inflate(b"plain", MAX), Err(WireError::BadCompression));
}

#[test]
fn a_dictionary_is_refused_whatever_the_length_of_its_number() {
    for (flag, number) in [(1u8, &[7u8][..]), (2, &[7, 0]), (3, &[7, 0, 0, 0])] {
        // A single segment of three bytes: one raw last block.
        let head = [&[0x28, 0xB5, 0x2F, 0xFD, 0x20 | flag][..], number].concat();
        let payload = [&head[..], &[3, 0x19, 0, 0, b'a', b'b', b'c']].concat();
        assert_eq!(inflate(&payload, MAX), Err(WireError::CompressionDictionary));
    }
    assert_eq!(
        inflate(&[0x28, 0xB5, 0x2F, 0xFD, 0x20, 3, 0x19, 0, 0, b'a', b'b', b'c'], MAX).unwrap(),
        "abc"
    );
}

#[test]
fn a_window_is_at_most_as_large_as_the_largest_payload() {
    // A window and two bytes of content size: 256 + 1.
    let with = |window: u8, max| {
        let block = (257u32 << 3 | 1).to_le_bytes();
        let head = [0x28, 0xB5, 0x2F, 0xFD, 0x40, window, 1, 0, block[0], block[1], block[2]];
        inflate(&[&head[..], &[b'a'; 257]].concat(), max)
    };
    assert_eq!(with(0, 300).unwrap().len(), 257, "the smallest window there is");
    assert_eq!(with(6 << 3, 1 << 16).unwrap().len(), 257);
    assert_eq!(with(6 << 3 | 1, 1 << 16), Err(WireError::CompressionWindow((1 << 16) + (1 << 13))));
    assert_eq!(with(21 << 3, 1 << 16), Err(WireError::CompressionWindow(1 << 31)));
    assert_eq!(with(0xFF, 1 << 16), Err(WireError::BadCompression), "beyond what there is");
}

#[test]
fn a_plain_frame_passes_and_a_sealed_one_must_be_opened_first() {
    let plain = Frame::decode(encode_bytes(Kind::Say, &Metadata::default(), b"body"), MAX).unwrap();
    assert_eq!(Zstd::default().inflate(plain, 0).unwrap().payload, "body");
    let header = Header::write(Kind::Say as u16, FLAG_ZSTD | FLAG_SEALED, 0, 4);
    let sealed = Frame::decode(raw(header, b"body"), MAX).unwrap();
    assert_eq!(Zstd::default().inflate(sealed, MAX).unwrap_err(), WireError::StillSealed);
}

#[test]
fn an_error_leaves_the_contexts_usable() {
    let mut zstd = Zstd::default();
    let good = compress(&b"position ".repeat(20));
    assert!(zstd.inflate(zstd_frame(&good[..good.len() - 1]), MAX).is_err());
    assert!(zstd.inflate(zstd_frame(&good), MAX).is_ok());
}
