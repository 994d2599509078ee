//! The command line without the shell world.

use skirmish_core::plant::Plant;
use skirmish_sim::outln;

use crate::{HuntArgs, ReplayArgs};

const ABSENT: &str =
    "the shell world is not part of this build: run `cargo sim` from the root of the repository";

pub(crate) fn hunt_seeds(_: &HuntArgs) -> Result<bool, String> {
    Err(ABSENT.to_owned())
}

pub(crate) fn catch(_: &[Plant], _: usize) -> Result<bool, String> {
    outln!("{ABSENT}");
    Ok(true)
}

pub(crate) fn replay(_: &ReplayArgs) -> Result<bool, String> {
    Err(ABSENT.to_owned())
}
