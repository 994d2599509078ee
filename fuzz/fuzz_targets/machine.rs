//! Fuzzes the simulator's machine world with any steps.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| skirmish_fuzz::machine(input));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    skirmish_fuzz::corpus::main("machine", skirmish_fuzz::machine)
}
