//! End of the program after the loss of its reader.

use std::process::{Command, Stdio};

#[test]
fn it_ends_without_a_word_when_nobody_reads_on() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_skirmish-sim"))
        .args(["replay", "3", "--trace"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the simulator starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the simulator ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(128 + 13));
}
