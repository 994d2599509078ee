//! The command line without the shell world.

use crate::{HuntArgs, ReplayArgs};

const ABSENT: &str =
    "the shell world is not part of this build: run `cargo sim` from the root of the repository";

pub(crate) fn hunt_seeds(_: &HuntArgs) -> Result<bool, String> {
    Err(ABSENT.to_owned())
}

pub(crate) fn plants(_: usize) -> Result<bool, String> {
    println!("{ABSENT}");
    Ok(true)
}

pub(crate) fn replay(_: &ReplayArgs) -> Result<bool, String> {
    Err(ABSENT.to_owned())
}
