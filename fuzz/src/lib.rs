//! Bodies of the fuzz targets.
//!
//! A target takes bytes and panics if a promised condition does not hold. The programs in `fuzz_targets/`
//! pass the bytes to libFuzzer when they are built by cargo-fuzz, and replay files when they are built by a
//! stable compiler. The test `corpora` replays all files that are committed under `corpus/`.
//!
//! The format of the bytes is defined by hand, with a header of a few bytes that selects the use of the rest.
//! So a small change of the input is a small change of the run, and inputs stay valid when code changes.

pub mod corpus;
mod frame;
mod machine;
mod message;

pub use frame::frame;
pub use machine::machine;
pub use message::message;

/// Body of a target.
pub type Body = fn(&[u8]);

/// All targets: the name, which is also that of the corpus, and the body.
pub const TARGETS: [(&str, Body); 3] = [("frame", frame), ("machine", machine), ("message", message)];
