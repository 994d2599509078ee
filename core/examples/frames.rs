//! Prints the first frames of a client, byte by byte, for comparison with a client in another
//! language. `cargo run --example frames -p skirmish-core`
#![allow(clippy::print_stdout, reason = "printing is what this program does")]

use bytes::Bytes;
use skirmish_core::wire::{Frame, HEADER_LEN, TRAILER_LEN, encode};
use skirmish_proto::v1::{Hello, Join, Kind, Metadata, Say};

fn main() {
    let plain = Metadata::default();
    let hello = Hello { agent: "my-client/1".into(), ..Hello::default() };
    dump("Hello", &encode(Kind::Hello, &plain, &hello));
    let join = Join { room: "arena".into(), history: 0, request: 1 };
    dump("Join", &encode(Kind::Join, &plain, &join));
    let say = Say {
        room: "arena".into(),
        client_seq: 1,
        body: Bytes::from_static(b"hi"),
        type_url: "mygame.v1.Chat".into(),
        ends_turn: None,
    };
    dump("Say", &encode(Kind::Say, &plain, &say));
}

/// Prints a frame with its header, payload and checksum on separate lines.
fn dump(name: &str, frame: &Bytes) {
    let decoded = Frame::decode(frame.clone(), frame.len()).expect("the encoder makes frames that decode");
    let trailer = frame.len() - TRAILER_LEN;
    println!("{name}: {} bytes, kind {}", frame.len(), decoded.kind as i32);
    for (part, range) in
        [("header", 0..HEADER_LEN), ("payload", HEADER_LEN..trailer), ("crc32c", trailer..frame.len())]
    {
        for (index, line) in frame[range].chunks(16).enumerate() {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let text: String = line
                .iter()
                .map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '.' })
                .collect();
            let part = if index == 0 { part } else { "" };
            println!("  {part:<8}{:<48}{text}", hex.join(" "));
        }
    }
}
