//! The bodies of the fuzz targets.
//!
//! A target takes bytes and panics if something that is promised does not hold.
//! The programs in `fuzz_targets/` hand them to libFuzzer when they are built by
//! cargo-fuzz, and replay files when they are built by a stable compiler; the test
//! `corpora` replays everything that is committed under `corpus/`.
//!
//! The bytes are laid out by hand, with a header of a few bytes that choose how the
//! rest is used, so that a small change of the input stays a small change of the
//! run, and inputs stay valid when code changes.

pub mod corpus;
mod frame;
mod machine;
mod message;

pub use frame::frame;
pub use machine::machine;
pub use message::message;

/// The body of a target.
pub type Body = fn(&[u8]);

/// Every target: its name, which is also that of its corpus, and its body.
pub const TARGETS: [(&str, Body); 3] = [("frame", frame), ("machine", machine), ("message", message)];
