//! Encoding of messages as frames.

use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message;
use skirmish_proto::v1::{Kind, Metadata};

use super::frame::Header;
use super::{HEADER_LEN, MAX_METADATA, TRAILER_LEN, checksum};

/// Encodes one plain frame (neither compressed nor sealed), checksum included, in one allocation of
/// its exact size. Equal arguments give equal bytes.
///
/// Metadata of more than [`MAX_METADATA`] bytes, which every peer would refuse, is left out. If
/// others choose the `type_url`, the caller checks its length first.
#[must_use]
pub fn encode(kind: Kind, metadata: &Metadata, message: &impl Message) -> Bytes {
    frame(kind, metadata, message.encoded_len(), |buffer| {
        message.encode(buffer).expect("a vector grows as needed");
    })
}

/// Encodes a frame around a payload that is already encoded (application messages); otherwise like
/// [`encode`].
#[must_use]
pub fn encode_bytes(kind: Kind, metadata: &Metadata, payload: &[u8]) -> Bytes {
    frame(kind, metadata, payload.len(), |buffer| buffer.extend_from_slice(payload))
}

fn frame(
    kind: Kind,
    metadata: &Metadata,
    payload_len: usize,
    write_payload: impl FnOnce(&mut Vec<u8>),
) -> Bytes {
    let metadata_len = match metadata.encoded_len() {
        len @ 0..=MAX_METADATA => len,
        _ => 0,
    };
    let mut buffer = Vec::with_capacity(HEADER_LEN + metadata_len + payload_len + TRAILER_LEN);
    // Messages are bounded far below 4 GiB. A length that does not fit makes a frame that every
    // decoder refuses.
    let payload_field = u32::try_from(payload_len).unwrap_or(u32::MAX);
    let metadata_field = u16::try_from(metadata_len).unwrap_or(u16::MAX);
    buffer.extend_from_slice(&Header::write(kind as u16, 0, metadata_field, payload_field));
    if metadata_len > 0 {
        metadata.encode(&mut buffer).expect("a vector grows as needed");
    }
    write_payload(&mut buffer);
    finish(buffer)
}

/// Appends the checksum to a header, metadata and payload.
pub(super) fn finish(mut buffer: Vec<u8>) -> Bytes {
    let sum = checksum::crc32c(&buffer);
    buffer.extend_from_slice(&sum.to_be_bytes());
    Bytes::from(buffer)
}
