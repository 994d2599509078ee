//! Target `frame`: any bytes, in any chunks.
//!
//! Input: one byte of options, one byte with the number of chunk sizes (modulo 16), the chunk sizes (used in
//! turn, each plus one), and the stream.

use bytes::Bytes;
use skirmish_core::wire::{self, Decoder, Frame, WireError, Zstd, seal};

/// Largest frame that the decoders under test accept, in bytes: small enough for a fuzzer to reach, large
/// enough for a payload to be compressed.
const MAX_FRAME: usize = 4096;
/// Longest stream, in bytes; longer ones find nothing more.
const MAX_STREAM: usize = 4 * MAX_FRAME;

const HEADER: usize = 16;
const TRAILER: usize = 4;
const FLAG_ZSTD: u16 = 1;
const FLAG_SEALED: u16 = 2;

/// Option: writes the right checksum into every frame with fitting lengths, since no fuzzer guesses a
/// checksum.
const REPAIR: u8 = 1;
/// Option: seals plain frames, opens them again, and opens them damaged.
const SEAL: u8 = 2;

/// Checks the frame decoder: the stream gives the same frames and the same end in any chunks, and the same
/// frames as one-by-one decoding. Encoding restores the bytes. Inflating stops at the cap, regardless of the
/// payload's claims. Only sealed frames can be opened.
///
/// # Panics
///
/// If one of these conditions does not hold.
pub fn frame(input: &[u8]) {
    let Some((&options, rest)) = input.split_first() else { return };
    let Some((&count, rest)) = rest.split_first() else { return };
    let (sizes, stream) = rest.split_at(usize::from(count % 16).min(rest.len()));
    let mut stream = stream[..stream.len().min(MAX_STREAM)].to_vec();
    if options & REPAIR != 0 {
        repair(&mut stream);
    }

    let stream = Bytes::from(stream);
    let chunked = decode(&stream, sizes);
    assert_same(&chunked, &decode(&stream, &[0]));
    assert_same(&chunked, &decode(&stream, &[]));
    let raw = one_by_one(&stream, &chunked);

    let mut zstd = Zstd::default();
    for (frame, raw) in chunked.frames.iter().zip(&raw) {
        assert_eq!(&Bytes::from(assemble(frame)), raw, "a frame is not what it was decoded from");
        match frame.flags {
            0 => {
                encoded_again(frame);
                deflated(&mut zstd, frame, raw);
                if options & SEAL != 0 {
                    sealed(frame, raw, usize::from(count));
                }
            }
            FLAG_ZSTD => inflated(&mut zstd, frame),
            flags => {
                assert_eq!(flags & !(FLAG_ZSTD | FLAG_SEALED), 0, "unknown flags were accepted");
                assert!(pair().1.open(frame.clone()).is_err(), "a frame opened that nobody sealed");
            }
        }
    }
}

struct Decoded {
    frames: Vec<Frame>,
    end: Result<(), WireError>,
}

/// Decodes the stream in chunks of these sizes; without sizes, in one chunk.
fn decode(stream: &Bytes, sizes: &[u8]) -> Decoded {
    let mut decoder = Decoder::new(MAX_FRAME);
    let mut frames = Vec::new();
    let mut rest = stream.clone();
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| usize::from(*size) + 1);
        let chunk = rest.split_to(size.min(rest.len()));
        let mut end = decoder.push(chunk);
        while end.is_ok() {
            match decoder.poll_frame() {
                Ok(Some(frame)) => {
                    assert!(HEADER + frame.metadata.len() + frame.payload.len() + TRAILER <= MAX_FRAME);
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => end = Err(error),
            }
        }
        if let Err(error) = end {
            assert_eq!(decoder.poll_frame().err(), Some(error), "the error is not the state");
            assert!(decoder.push(Bytes::from_static(b"more")).is_err(), "bytes were taken after an error");
            return Decoded { frames, end: Err(error) };
        }
    }
    Decoded { frames, end: Ok(()) }
}

fn assert_same(one: &Decoded, other: &Decoded) {
    assert_eq!(one.frames.len(), other.frames.len(), "the chunks decide how many frames there are");
    for (one, other) in one.frames.iter().zip(&other.frames) {
        assert_same_frame(one, other);
    }
    assert_eq!(one.end, other.end, "the chunks decide how the stream ends");
}

fn assert_same_frame(one: &Frame, other: &Frame) {
    assert_eq!(one.header, other.header);
    assert_eq!((one.kind, one.flags), (other.kind, other.flags));
    assert_eq!(one.metadata, other.metadata);
    assert_eq!(one.payload, other.payload);
}

/// Decodes the frames of the stream one by one, compares them with those of the stream decoder, and returns
/// the bytes of each.
fn one_by_one(stream: &Bytes, decoded: &Decoded) -> Vec<Bytes> {
    let mut raw = Vec::new();
    let mut at = 0;
    while let Some(length) = frame_length(&stream[at..]) {
        if length > MAX_FRAME || at + length > stream.len() {
            break;
        }
        let bytes = stream.slice(at..at + length);
        match (Frame::decode(bytes.clone(), MAX_FRAME), decoded.frames.get(raw.len())) {
            (Ok(frame), Some(streamed)) => assert_same_frame(&frame, streamed),
            (Ok(_), None) => panic!("frame {} was decoded alone and not in the stream", raw.len()),
            (Err(_), Some(_)) => panic!("frame {} was decoded in the stream and not alone", raw.len()),
            (Err(_), None) => {
                assert!(decoded.end.is_err(), "the stream went on after a frame that is wrong");
                return raw;
            }
        }
        // With a byte missing or added, the bytes are not a frame.
        assert!(Frame::decode(bytes.slice(..length - 1), MAX_FRAME).is_err());
        if at + length < stream.len() {
            assert!(Frame::decode(stream.slice(at..at + length + 1), MAX_FRAME).is_err());
        }
        raw.push(bytes);
        at += length;
    }
    assert_eq!(raw.len(), decoded.frames.len(), "the stream has frames that do not stand in it");
    raw
}

/// Returns the length of the frame at the start, if its header is complete.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..HEADER)?;
    let metadata = u16::from_be_bytes([header[8], header[9]]);
    let payload = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
    Some(HEADER + usize::from(metadata) + usize::try_from(payload).ok()? + TRAILER)
}

/// Writes the right checksum at the end of every frame with fitting lengths.
fn repair(stream: &mut [u8]) {
    let mut rest = stream;
    while let Some(length) = frame_length(rest) {
        if length > rest.len() {
            break;
        }
        let (frame, after) = rest.split_at_mut(length);
        checksum(frame);
        rest = after;
    }
}

fn checksum(frame: &mut [u8]) {
    let end = frame.len() - TRAILER;
    let sum = crc32c::crc32c(&frame[..end]);
    frame[end..].copy_from_slice(&sum.to_be_bytes());
}

/// Builds a frame from its parts, by the description of the format and without the encoder.
fn assemble(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&frame.header);
    bytes.extend_from_slice(&frame.metadata);
    bytes.extend_from_slice(&frame.payload);
    bytes.extend_from_slice(&[0; TRAILER]);
    checksum(&mut bytes);
    bytes
}

/// Checks that encoding the content of a plain frame gives a frame with the same content.
fn encoded_again(frame: &Frame) {
    let Ok(metadata) = frame.metadata() else { return };
    let Ok(kind) = frame.message() else { return };
    let bytes = wire::encode_bytes(kind, &metadata, &frame.payload);
    let again = Frame::decode(bytes, 2 * MAX_FRAME).expect("what was encoded decodes");
    assert_eq!((again.kind, again.flags), (frame.kind, 0));
    assert_eq!(again.payload, frame.payload);
    assert_eq!(again.metadata(), Ok(metadata));
}

fn deflated(zstd: &mut Zstd, frame: &Frame, raw: &Bytes) {
    let Some(smaller) = zstd.deflate(raw) else { return };
    assert!(smaller.len() < raw.len(), "compression that makes a frame larger");
    let smaller = Frame::decode(smaller, MAX_FRAME).expect("what was compressed is a frame");
    assert_eq!(smaller.flags, FLAG_ZSTD);
    let again = zstd.inflate(smaller.clone(), frame.payload.len()).expect("what was compressed inflates");
    assert_same_frame(&again, frame);
    if let Some(short) = frame.payload.len().checked_sub(1) {
        assert!(zstd.inflate(smaller, short).is_err(), "inflated beyond the cap");
    }
}

fn inflated(zstd: &mut Zstd, frame: &Frame) {
    for cap in [0, 64, MAX_FRAME] {
        if let Ok(inflated) = zstd.inflate(frame.clone(), cap) {
            assert!(inflated.payload.len() <= cap, "inflated beyond the cap");
            assert_eq!(inflated.flags, 0);
        }
    }
}

/// Checks that a sealed frame opens to the same frame, and that a damaged one with a right checksum is
/// refused.
fn sealed(frame: &Frame, raw: &Bytes, damage: usize) {
    let (mut client, mut server) = pair();
    let sealed = client.seal(raw).expect("a plain frame can be sealed");
    let closed = Frame::decode(sealed.clone(), 2 * MAX_FRAME).expect("what was sealed is a frame");
    assert_eq!(closed.flags, FLAG_SEALED);

    let mut damaged = sealed.to_vec();
    let at = HEADER + damage % (damaged.len() - HEADER - TRAILER);
    damaged[at] ^= 1 << (damage % 8);
    checksum(&mut damaged);
    if let Ok(damaged) = Frame::decode(Bytes::from(damaged), 2 * MAX_FRAME) {
        let (_, mut server) = pair();
        assert!(server.open(damaged).is_err(), "a damaged frame opened");
    }

    let opened = server.open(closed.clone()).expect("what was sealed opens");
    assert_same_frame(&opened, frame);
    assert!(server.open(closed).is_err(), "a frame opened twice");
}

/// Returns the client's and the server's seal of one session, the same in every run.
fn pair() -> (seal::Seal, seal::Seal) {
    let offer = seal::Offer::new([1; 32], None);
    let session = [3; 16];
    let (public, server) =
        seal::answer([2; 32], None, &offer.public(), &session).expect("the key of the offer is a good one");
    let client = offer.finish(&public, &session).expect("the key of the answer is a good one");
    (client, server)
}
