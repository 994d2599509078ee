//! Fuzzes the frame decoder with any bytes, in any chunks.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| skirmish_fuzz::frame(input));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    skirmish_fuzz::corpus::main("frame", skirmish_fuzz::frame)
}
