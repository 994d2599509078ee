//! Tests of the whole module.

mod compressed;
mod frames;
mod messages;
mod sealed;

use alloc::vec::Vec;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use skirmish_proto::v1::{Kind, Metadata};

use super::frame::Header;
use super::*;

const MAX: usize = 64 * 1024;

/// Returns a frame with any header fields, and the right checksum.
fn raw(header: [u8; HEADER_LEN], rest: &[u8]) -> Bytes {
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(rest);
    encode::finish(bytes)
}

/// Returns the bytes with one bit flipped and, as an attacker would do, the checksum corrected.
fn flip(frame: &Bytes, bit: usize) -> Bytes {
    let mut bytes = frame[..frame.len() - TRAILER_LEN].to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    encode::finish(bytes)
}

fn any_kind() -> impl Strategy<Value = Kind> {
    (0..64i32).prop_filter_map("not a kind", |kind| Kind::try_from(kind).ok())
}

fn any_metadata() -> impl Strategy<Value = Metadata> {
    let span = prop::option::of((any::<[u8; 16]>(), any::<[u8; 8]>(), any::<u32>()));
    (span, "[a-z.]{0,40}").prop_map(|(span, type_url)| {
        let mut metadata = Metadata { type_url, ..Metadata::default() };
        if let Some((trace_id, span_id, trace_flags)) = span {
            metadata.trace_id = Bytes::copy_from_slice(&trace_id);
            metadata.span_id = Bytes::copy_from_slice(&span_id);
            metadata.trace_flags = trace_flags;
        }
        metadata
    })
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..80), vec(0u8..4, 0..4000)]
}
