//! Tests of the registrar with a registry machine under the control of the test.

mod answers;
mod bench;
mod bugs;
mod deployment;
mod generation;
mod lease;
mod pairs;
mod rooms;
mod sessions;
mod swaps;
mod world;
mod writes;

use bench::Bench;

use super::*;
