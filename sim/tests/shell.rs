//! The shell world: the same seed gives the same run in every process.
#![cfg(all(feature = "shell", madsim))]

use std::process::Command;

fn replay(seed: u64) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_skirmish-sim"))
        .args(["replay", "--world", "shell", "--trace", &seed.to_string()])
        .output()
        .expect("the simulator starts");
    assert!(output.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).expect("the trace is text")
}

#[test]
fn the_same_seed_gives_the_same_trace_in_two_processes() {
    for seed in 0..10 {
        assert_eq!(replay(seed), replay(seed), "seed {seed}");
    }
}

#[test]
fn different_seeds_give_different_traces() {
    assert_ne!(replay(1), replay(2));
}
