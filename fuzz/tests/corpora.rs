//! Replays all committed inputs: a former finding of a fuzzer stays found, with a stable compiler too.

use std::fs;
use std::path::Path;

use skirmish_fuzz::{TARGETS, corpus};

#[test]
fn every_input_of_every_corpus_replays() {
    for (name, target) in TARGETS {
        let files = corpus::files(&corpus::directory(name)).expect("every target has a corpus");
        assert!(!files.is_empty(), "the corpus of {name} is empty");
        for file in files {
            let input = fs::read(&file).expect("a committed file can be read");
            println!("{}", file.display());
            target(&input);
        }
    }
}

#[test]
fn every_target_has_its_program_and_every_program_its_target() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
    let programs: Vec<String> = corpus::files(&directory)
        .expect("the directory of the targets can be read")
        .iter()
        .filter_map(|file| file.file_stem()?.to_str().map(str::to_owned))
        .collect();
    let mut targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    targets.sort_unstable();
    assert_eq!(programs, targets);
}

#[test]
fn short_inputs_do_no_harm() {
    for (_, target) in TARGETS {
        for length in 0..8 {
            for byte in [0, 1, 3, 0x7F, 0xFF] {
                target(&vec![byte; length]);
            }
        }
    }
}
