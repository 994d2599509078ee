//! Compiles the `.proto` files in Rust: no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 7] = [
        "skirmish/v1/frame.proto",
        "skirmish/v1/session.proto",
        "skirmish/v1/room.proto",
        "skirmish/v1/state.proto",
        "skirmish/v1/registry.proto",
        "skirmish/v1/link.proto",
        "skirmish/v1/match.proto",
    ];
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    prost_build::Config::new()
        // Payloads stay slices of the buffer that was received.
        .bytes(["."])
        // It has a secret in it, which no log may show: its `Debug` is in `lib.rs`.
        .skip_debug(["skirmish.v1.Queue"])
        .compile_fds(protox::compile(FILES, ["."])?)?;
    Ok(())
}
