//! The command `tree`: its exit codes and its output.

use std::process::Command;

fn tree(arguments: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_skirmish-sim"))
        .args(arguments.split_whitespace())
        .output()
        .expect("the simulator starts");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code(), text.concat())
}

#[test]
fn a_hunt_that_holds_ends_with_the_table() {
    let (code, text) = tree("tree --seeds 4 --nodes 12 --fan-out 3");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("ok: no guarantee broken"), "{text}");
    let row = text.lines().last().expect("there is a table");
    assert!(row.trim_start().starts_with("3     12 "), "{text}");
}

#[test]
fn a_planted_bug_is_reported_with_the_command_that_replays_it() {
    let (code, text) = tree("tree --nodes 12 --plant gap-unpulled");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("G5"), "{text}");
    let replay = text.lines().last().and_then(|line| line.strip_prefix("replay: cargo sim "));
    let (code, text) = tree(replay.expect("the command is in the last line"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("Attach"), "{text}");
}

#[test]
fn wrong_commands_are_refused() {
    for arguments in [
        "tree --fan-out 9",
        "tree --nodes 1",
        "tree --plant gap-unannounced",
        "hunt --plant gap-unpulled",
        "replay 3 --plant orphan-kept",
    ] {
        let (code, text) = tree(arguments);
        assert_eq!(code, Some(2), "{arguments}: {text}");
    }
}
