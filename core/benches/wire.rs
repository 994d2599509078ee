//! Cost of decoding and encoding a frame (row W5): `cargo bench -p skirmish-core --bench wire`.
//!
//! Decoding works on slices of a shared buffer, like received buffers, so decoding does not
//! allocate.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use skirmish_core::wire::{Frame, ToServer, encode, encode_bytes};
use skirmish_proto::v1::{Kind, Metadata, Say};

const MAX_FRAME: usize = 64 * 1024;

fn frames(c: &mut Criterion) {
    let metadata = Metadata::default();
    for (name, len) in [("64", 64), ("1k", 1024)] {
        let payload: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap_or(0)).collect();
        let frame = encode_bytes(Kind::Application, &metadata, &payload);
        let mut group = c.benchmark_group("wire");
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(format!("decode_{name}"), |b| {
            b.iter(|| Frame::decode(black_box(&frame).clone(), MAX_FRAME));
        });
        group.bench_function(format!("encode_{name}"), |b| {
            b.iter(|| encode_bytes(Kind::Application, &metadata, black_box(&payload)));
        });
        let say = Say { room: "lobby".into(), client_seq: 7, body: Bytes::from(payload), ..Say::default() };
        let frame = encode(Kind::Say, &metadata, &say);
        group.bench_function(format!("decode_say_{name}"), |b| {
            b.iter(|| {
                Frame::decode(black_box(&frame).clone(), MAX_FRAME).map(|frame| ToServer::decode(&frame))
            });
        });
        group.bench_function(format!("encode_say_{name}"), |b| {
            b.iter(|| encode(Kind::Say, &metadata, black_box(&say)));
        });
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
