//! Fuzzes the decoding of messages with any payload under any kind.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| skirmish_fuzz::message(input));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    skirmish_fuzz::corpus::main("message", skirmish_fuzz::message)
}
