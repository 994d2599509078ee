//! Corpora on disk, and the main function of a target without libFuzzer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Returns the directory of a target's committed corpus.
#[must_use]
pub fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Returns the files of a directory, or the file itself, in the order of their names.
///
/// # Errors
///
/// If the path cannot be read.
pub fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Runs a target on the files and directories in the command line, or on the committed corpus without
/// arguments.
#[must_use]
pub fn main(name: &str, target: fn(&[u8])) -> ExitCode {
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        paths.push(directory(name));
    }
    match replay(&paths, target) {
        Ok(count) => {
            say(&format!("{name}: {count} inputs replayed"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("{name}: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn replay(paths: &[PathBuf], target: fn(&[u8])) -> io::Result<usize> {
    let mut count = 0;
    for path in paths {
        let found = files(path).map_err(|error| named(path, &error))?;
        for file in found {
            let input = fs::read(&file).map_err(|error| named(&file, &error))?;
            // Printed before the run, so that the last line names the input that panics.
            say(&file.display().to_string());
            target(&input);
            count += 1;
        }
    }
    Ok(count)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[allow(clippy::print_stdout, reason = "what was replayed is what this program has to say")]
fn say(line: &str) {
    println!("{line}");
}
