//! Rules of this repository that a program can check.
//!
//! Many rules are lints of the compiler and of clippy (`Cargo.toml`, `clippy.toml`). The others are here:
//! layout, names that the core may use, constructs that the simulator cannot run, dependencies, and the
//! documentation (`documents`: its links and commands; `configuration`: its settings; `operations`: its
//! metrics). A rule is a function that returns the errors of a file, so each rule is tested on a text that
//! breaks it.

#[path = "repo_lint/configuration.rs"]
mod configuration;
#[path = "repo_lint/documents.rs"]
mod documents;
#[path = "repo_lint/operations.rs"]
mod operations;

#[path = "repo_lint/modules.rs"]
mod modules;
#[path = "repo_lint/names.rs"]
mod names;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Maximum length of a source file, in lines.
const MAX_LINES: usize = 600;
/// Maximum number of packages in a build for this platform, the repository's own included.
const MAX_PACKAGES: usize = 360;
/// Directories with files that are not sources: build output, findings of fuzzers, git's own data.
const SKIPPED: [&str; 5] = ["target", ".git", "artifacts", "coverage", "corpus"];
/// Directories of the crates.
const CRATES: [&str; 6] = ["proto", "core", "io", "sim", "fuzz", "tests"];

/// Text file of the repository.
struct File {
    /// Path relative to the root, with `/`.
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Returns the text before the inline module of tests. A module of tests in another file does not count.
    fn without_tests(&self) -> &str {
        let mut at = 0;
        while let Some(found) = self.text[at..].find("#[cfg(test)]\nmod ") {
            let end = at + found;
            if self.text[end..].lines().nth(1).is_some_and(|line| line.ends_with('{')) {
                return &self.text[..end];
            }
            at = end + 1;
        }
        &self.text
    }

    /// Returns an error for each line for which `wrong` returns a description.
    fn lines(&self, mut wrong: impl FnMut(&str) -> Option<String>) -> Vec<String> {
        self.text
            .lines()
            .enumerate()
            .filter_map(|(index, line)| Some(format!("{}:{}: {}", self.path, index + 1, wrong(line)?)))
            .collect()
    }
}

#[test]
fn source_files_are_of_a_length_to_read() {
    check(too_long);
}

fn too_long(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    if file.is_rust() && lines > MAX_LINES {
        return vec![format!("{}: {lines} lines, at most {MAX_LINES} are allowed: split it", file.path)];
    }
    Vec::new()
}

#[test]
fn source_files_say_what_they_are() {
    check(undocumented);
}

fn undocumented(file: &File) -> Vec<String> {
    if file.is_rust() && !file.text.starts_with("//!") {
        return vec![format!("{}: does not begin with a line `//! ...` that says what it is", file.path)];
    }
    Vec::new()
}

#[test]
fn nothing_is_left_over() {
    check(left_over);
}

fn left_over(file: &File) -> Vec<String> {
    // In pieces, so that this file does not break the rule.
    let markers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("#[ig", "nore"),
    ];
    file.lines(|line| {
        let marker = markers.iter().find(|marker| has_word(line, marker))?;
        Some(format!("`{marker}` is left over"))
    })
}

#[test]
fn no_file_depends_on_one_machine() {
    check(machine_bound);
}

fn machine_bound(file: &File) -> Vec<String> {
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Use", "rs/")];
    let mut wrong = file.lines(|line| {
        let path = paths.iter().find(|path| line.contains(*path))?;
        Some(format!("`{path}` is there on one machine only"))
    });
    if file.path == "Cargo.lock" {
        wrong.extend(file.lines(|line| {
            let source = line.strip_prefix("source = ")?;
            // Only the default index of cargo is allowed.
            (source != concat!("\"registry+https://github.com/rust-lang/crates", ".io-index\""))
                .then(|| format!("a dependency from {source}"))
        }));
    }
    wrong
}

#[test]
fn the_core_names_nothing_that_surrounds_it() {
    check(impure);
    for path in ["core/src/lib.rs", "proto/src/lib.rs"] {
        let text = fs::read_to_string(root().join(path)).expect("the crate has a root");
        assert!(text.lines().any(|line| line == "#![no_std]"), "{path} is not `#![no_std]` any more");
    }
}

/// The compiler keeps the standard library out of the core, but not a declaration that links it, nor a
/// dependency that reads the clock. Tests may use both.
fn impure(file: &File) -> Vec<String> {
    if !file.is_rust() || !file.path.starts_with("core/src/") || file.path.contains("/tests/") {
        return Vec::new();
    }
    let file = File { path: file.path.clone(), text: file.without_tests().to_owned() };
    let banned = [
        "std::",
        "extern crate std",
        "tokio::",
        "rand::",
        "getrandom::",
        "OsRng",
        "SysRng",
        "thread_rng",
        "SystemTime",
    ];
    file.lines(|line| {
        let code = line.split("//").next().unwrap_or_default();
        let name = banned.iter().find(|name| has_word(code, name))?;
        Some(format!("the core has nothing to do with `{name}`"))
    })
}

#[test]
fn selects_are_biased() {
    check(unbiased);
}

/// `tokio::select!` without `biased;` draws from a generator that no seed determines.
fn unbiased(file: &File) -> Vec<String> {
    let mut wrong = Vec::new();
    if !file.is_rust() {
        return wrong;
    }
    let call = concat!("sel", "ect! {");
    let mut at = 0;
    while let Some(found) = file.text[at..].find(call) {
        at += found + call.len();
        let mut body = file.text[at..].lines().map(str::trim);
        let first = body.find(|line| !line.is_empty() && !line.starts_with("//")).unwrap_or_default();
        if !first.starts_with("biased;") {
            let line = file.text[..at].lines().count();
            wrong.push(format!("{}:{line}: `{call}` does not begin with `biased;`", file.path));
        }
    }
    wrong
}

#[test]
fn every_crate_is_under_the_lints_of_the_workspace() {
    for name in CRATES {
        let manifest = read(&format!("{name}/Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name}/Cargo.toml has lints of its own");
    }
}

#[test]
fn scripts_stop_at_the_first_failure_and_can_be_run() {
    let mut scripts = vec![root().join(".ci/run")];
    let directory = fs::read_dir(root().join("scripts")).expect("there are scripts");
    scripts.extend(directory.map(|entry| entry.expect("an entry can be read").path()));
    for script in scripts {
        let text = fs::read_to_string(&script).expect("a script is a text");
        // Python stops at an error, other than a shell.
        if !text.starts_with("#!/usr/bin/env python3\n\"\"\"") {
            assert!(text.starts_with("#!/usr/bin/env bash\n#"), "{}: no first comment", script.display());
            assert!(text.contains("\nset -euo pipefail\n"), "{}: goes on after a failure", script.display());
            // `.ci/run` starts another script, and the file does not read itself.
            let alone = script.ends_with(".ci/run") || script.ends_with("scripts/environment");
            let reads = |line: &str| line.starts_with(". ") && line.contains("scripts/environment");
            let name = script.display();
            assert!(alone || text.lines().any(reads), "{name}: works in its caller's environment");
        }
        assert!(is_executable(&script), "{}: cannot be run", script.display());
    }
}

#[test]
fn dependencies_are_few_and_free() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("cargo lists packages");
    assert!(
        packages.len() <= MAX_PACKAGES,
        "{} packages, at most {MAX_PACKAGES} are allowed: do without some, or raise the bound and say why",
        packages.len()
    );
    let allowed = allowed_licences(&read("deny.toml"));
    let wrong: Vec<String> = packages
        .iter()
        .filter_map(|package| {
            let licence = package["license"].as_str().unwrap_or("no licence");
            (!is_allowed(licence, &allowed)).then(|| format!("{}: {licence}", package["name"]))
        })
        .collect();
    assert!(wrong.is_empty(), "licences that deny.toml does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn the_core_depends_on_nothing_that_surrounds_it() {
    let tree = cargo(&["tree", "--locked", "-p", "skirmish-core", "-e", "normal", "--prefix", "none"]);
    for name in ["tokio", "mio", "socket2", "getrandom", "rand", "tracing", "libc", "async-trait", "chrono"] {
        let found = tree.lines().any(|line| line.split(' ').next() == Some(name));
        assert!(!found, "skirmish-core depends on {name}");
    }
}

/// Returns the list `allow` of the licences in `deny.toml`.
fn allowed_licences(deny: &str) -> BTreeSet<String> {
    let (_, list) = deny.split_once("\nallow = [").expect("deny.toml lists what is allowed");
    let (list, _) = list.split_once(']').expect("the list ends");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn is_allowed(licence: &str, allowed: &BTreeSet<String>) -> bool {
    // Lax, since old manifests contain "MIT/Apache-2.0".
    spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX)
        .is_ok_and(|licence| licence.evaluate(|needed| allowed.contains(&needed.to_string())))
}

fn metadata() -> Value {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo says its host");
    let json = cargo(&["metadata", "--format-version", "1", "--locked", "--filter-platform", host]);
    serde_json::from_str(&json).expect("cargo writes JSON")
}

fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    // This program reads the output, so the output must have no colours.
    command.env("CARGO_TERM_COLOR", "never");
    let output = command.args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes text")
}

/// Applies a rule to all text files of the repository.
fn check(rule: fn(&File) -> Vec<String>) {
    let wrong: Vec<String> = files().iter().flat_map(rule).collect();
    assert!(wrong.is_empty(), "{} complaints\n{}", wrong.len(), wrong.join("\n"));
}

fn files() -> Vec<File> {
    let mut files = Vec::new();
    collect(&root(), &mut files);
    assert!(files.len() > 20, "the repository was not found");
    files
}

fn collect(directory: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(directory).expect("a directory of the repository can be read") {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if SKIPPED.contains(&name) {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let relative = path.strip_prefix(root()).expect("it was found under the root");
            let path = relative.to_string_lossy().replace('\\', "/");
            files.push(File { path, text });
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_path_buf()
}

/// Returns true if `line` contains `word` other than as the end of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || before == '_')
    })
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(_: &Path) -> bool {
    true
}

mod rules {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    #[test]
    fn length_and_first_line() {
        assert_eq!(too_long(&file("a.rs", &"x\n".repeat(MAX_LINES))), Vec::<String>::new());
        assert_eq!(too_long(&file("a.rs", &"x\n".repeat(MAX_LINES + 1))).len(), 1);
        assert_eq!(undocumented(&file("a.rs", "//! Says it.\n")).len(), 0);
        assert_eq!(undocumented(&file("a.rs", "use x;\n")).len(), 1);
    }

    #[test]
    fn leftovers_and_machines() {
        assert_eq!(left_over(&file("a.sh", concat!("a\n# TO", "DO later"))).len(), 1);
        assert_eq!(left_over(&file("a.rs", concat!("#[ig", "nore = \"slow\"]"))).len(), 1);
        assert_eq!(machine_bound(&file("a.md", concat!("in /ro", "ot/x"))).len(), 1);
        let lock = "source = \"registry+https://mirror.example/index\"\n";
        assert_eq!(machine_bound(&file("Cargo.lock", lock)).len(), 1);
    }

    #[test]
    fn purity() {
        for line in ["use std::fmt;", "let now = SystemTime::now();", "tokio::spawn(x)", "rand::random()"] {
            assert_eq!(impure(&file("core/src/a.rs", line)).len(), 1, "{line}");
            assert_eq!(impure(&file("io/src/a.rs", line)).len(), 0, "{line}");
        }
        assert_eq!(impure(&file("core/src/a.rs", "use core::fmt; // not std::fmt")).len(), 0);
        let test = "fn x() {}\n#[cfg(test)]\nmod tests {\n    extern crate std;\n}\n";
        assert_eq!(impure(&file("core/src/a.rs", test)).len(), 0);
        assert_eq!(impure(&file("core/src/a.rs", "extern crate std;")).len(), 1);
        let elsewhere = "#[cfg(test)]\nmod tests;\nmod other;\n\nuse std::fmt;\n";
        assert_eq!(impure(&file("core/src/a.rs", elsewhere)).len(), 1);
    }

    #[test]
    fn selects() {
        let select = |first: &str| file("a.rs", &format!(concat!("tokio::sel", "ect! {{\n  {}\n}}"), first));
        assert_eq!(unbiased(&select("biased;")).len(), 0);
        assert_eq!(unbiased(&select("// first: what is due\n  biased;")).len(), 0);
        assert_eq!(unbiased(&select("x = y => {}")).len(), 1);
    }

    #[test]
    fn licences() {
        let allowed = allowed_licences("x\nallow = [\n  \"MIT\",\n  \"ISC\",\n]\n[bans]");
        assert!(is_allowed("MIT OR GPL-3.0-only", &allowed));
        assert!(is_allowed("MIT/Apache-2.0", &allowed));
        assert!(!is_allowed("MIT AND GPL-3.0-only", &allowed));
        assert!(!is_allowed("no licence", &allowed));
    }
}
