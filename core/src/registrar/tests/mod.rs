//! Tests of the registrar, alone with a registry that does what it is told.

mod bench;
mod deployment;
mod generation;
mod lease;
mod rooms;
mod sessions;
mod world;
mod writes;

use bench::Bench;

use super::*;
