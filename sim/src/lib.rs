//! The simulator of Skirmish draws a scenario from a seed, runs the real machines through the
//! scenario on a simulated network and simulated clocks, and checks the guarantees.
//!
//! [`draw`] makes a [`scenario`] from a seed. [`world`] runs the scenario and reports observations
//! to the [`oracle`]s. [`shrink`] leaves out the steps that a failure does not need. [`report`] and
//! [`picture`] show the failure. [`hunt`] repeats this for many seeds. [`tree`] is a smaller simulation,
//! of the broadcast tree alone.

pub mod clock;
pub mod coverage;
pub mod draw;
pub mod history;
pub mod hunt;
mod matches;
pub mod network;
pub mod oracle;
pub mod picture;
pub mod plants;
pub mod print;
mod records;
pub mod report;
mod rooms;
pub mod scenario;
#[cfg(all(feature = "shell", madsim))]
pub mod shell;
pub mod shrink;
pub mod tree;
pub mod world;

#[cfg(all(feature = "shell", not(madsim)))]
compile_error!(
    "the feature `shell` needs `--cfg madsim`; `cargo sim`, from the root of the repository, passes both"
);
