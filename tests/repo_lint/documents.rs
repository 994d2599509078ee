//! Rules for the documents of the repository: README, CONTRIBUTING, SECURITY, CHANGELOG and the
//! pages of `docs/`.
//!
//! Links lead to existing files and headings, commands name existing scripts, packages and examples, excerpts
//! of examples are current, and the README stays short.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path};

use super::{CRATES, read, root};

/// Maximum length of the README, in lines. Everything else belongs into a page of `docs/`.
const MAX_README: usize = 150;
/// Documents in the root of the repository.
const DOCUMENTS: [&str; 4] = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
/// The two commands that the README promises.
const PROMISED: [&str; 2] = ["cargo run --release -- serve --dev", "./scripts/test"];

/// Target of a link in a document.
enum Target {
    Directory,
    /// Text of a file, from which the headings are read.
    File(String),
}

/// Finds a path of the repository, relative to its root.
type Find<'a> = &'a dyn Fn(&str) -> Option<Target>;

#[test]
fn documents_name_only_things_that_exist() {
    let cargo_config = read(".cargo/config.toml");
    let mut paths: Vec<String> = DOCUMENTS.map(str::to_owned).into();
    for entry in fs::read_dir(root().join("docs")).expect("there are pages in `docs/`") {
        let name = entry.expect("an entry can be read").file_name();
        paths.push(format!("docs/{}", name.to_str().expect("the name is text")));
    }
    paths.retain(|path| path.ends_with(".md"));
    let mut wrong = Vec::new();
    for path in &paths {
        let text = read(path);
        let broken = [
            links_broken(path, &text, &find),
            commands_broken(&text, &cargo_config, &find),
            excerpts_broken(path, &text, &find),
        ]
        .concat();
        wrong.extend(broken.into_iter().map(|broken| format!("{path}:{broken}")));
    }
    assert!(wrong.is_empty(), "{} complaints\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_readme_is_short_and_has_the_two_commands() {
    let wrong = readme_broken(&read("README.md"));
    assert!(wrong.is_empty(), "README.md\n{}", wrong.join("\n"));
    assert!(read(".ci/run").contains("./scripts/test"), "the CI runs something else than the README says");
}

fn readme_broken(readme: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = readme.lines().count();
    if lines > MAX_README {
        wrong.push(format!("{lines} lines, at most {MAX_README} are allowed: move something to docs/"));
    }
    for command in PROMISED {
        // Alone or before a comment, so that users can copy the command.
        let is_command = |line: &str| line.split('#').next().is_some_and(|code| code.trim() == command);
        if !parts(readme).any(|(_, part)| matches!(part, Part::Code(line) if is_command(line))) {
            wrong.push(format!("`{command}` is not among the commands"));
        }
    }
    wrong
}

/// Returns the links of a document that lead nowhere, each with its line.
fn links_broken(path: &str, text: &str, find: Find<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, part) in parts(text) {
        let Part::Prose(line) = part else { continue };
        for link in links(line).filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, anchor) =
                link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let resolved = if file.is_empty() { Some(path.to_owned()) } else { resolve(path, file) };
            // The document under test need not exist yet.
            let target = match resolved {
                Some(resolved) if resolved == path => Some(Target::File(text.to_owned())),
                Some(resolved) => find(&resolved),
                None => None,
            };
            let problem = match (target, anchor) {
                (None, _) => Some("which is not there"),
                (Some(_), None) => None,
                (Some(Target::File(text)), Some(anchor)) if anchors(&text).contains(anchor) => None,
                (Some(_), Some(_)) => Some("where no heading has that anchor"),
            };
            wrong.extend(problem.map(|problem| format!("{number}: links to {link}, {problem}")));
        }
    }
    wrong
}

/// Returns the commands of a document that cannot be run, each with its line.
fn commands_broken(text: &str, cargo_config: &str, find: Find<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, part) in parts(text) {
        let Part::Code(line) = part else { continue };
        let words: Vec<&str> = line.trim().trim_start_matches("$ ").split_whitespace().collect();
        match words[..] {
            [script, ..] if script.starts_with("./scripts/") && find(&script[2..]).is_none() => {
                wrong.push(format!("{number}: runs {script}, which is not there"));
            }
            ["cargo", alias @ ("sim" | "sim-test"), ..]
                if !cargo_config.contains(&format!("\n{alias} = ")) =>
            {
                wrong.push(format!("{number}: runs `cargo {alias}`, which is no alias"));
            }
            ["cargo", ..] => {
                let package = words.iter().skip_while(|word| !matches!(**word, "-p" | "--package")).nth(1);
                let known = |name: &&&str| {
                    name.strip_prefix("skirmish-").is_some_and(|short| CRATES.contains(&short))
                };
                if let Some(name) = package.filter(|name| !known(name)) {
                    wrong.push(format!("{number}: names package {name}, which is not there"));
                }
                let example = words.iter().skip_while(|word| **word != "--example").nth(1);
                let is_file = |directory: &&str| {
                    find(&format!("{directory}/examples/{}.rs", example.unwrap_or(&""))).is_some()
                };
                if let Some(name) = example.filter(|_| !CRATES.iter().any(is_file)) {
                    wrong.push(format!("{number}: runs example {name}, which is not there"));
                }
            }
            _ => {}
        }
    }
    wrong
}

/// Returns the Rust code of a document that is missing in the example linked in the line before.
fn excerpts_broken(path: &str, text: &str, find: Find<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut blocks = text.split("```rust\n");
    let mut before = blocks.next().unwrap_or_default();
    for block in blocks {
        let introduction = before.trim_end().lines().next_back().unwrap_or_default();
        let (code, after) = block.split_once("```").unwrap_or((block, ""));
        before = after;
        let Some(example) = links(introduction).find(|link| link.contains("/examples/")) else { continue };
        let Some(Target::File(source)) = resolve(path, example).and_then(|example| find(&example)) else {
            continue;
        };
        if !trimmed(&source).contains(&trimmed(code)) {
            wrong.push(format!(" an excerpt is not in {example}"));
        }
    }
    wrong
}

/// Returns a text without indentation and empty lines.
fn trimmed(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

/// Line of a document.
enum Part<'a> {
    Prose(&'a str),
    Code(&'a str),
}

/// Returns the lines of a document with their numbers, without the fences of code blocks.
fn parts(text: &str) -> impl Iterator<Item = (usize, Part<'_>)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            return None;
        }
        Some((index + 1, if in_code { Part::Code(line) } else { Part::Prose(line) }))
    })
}

/// Returns the targets of the links and of the link definitions in a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let is_definition = line.starts_with('[') && !line.starts_with("[^");
    let definition = line.split_once("]: ").filter(|_| is_definition).map(|(_, rest)| rest);
    // A title may follow the target.
    inline.chain(definition).filter_map(|target| target.split_whitespace().next())
}

/// Returns the path that a relative link of a document leads to; `None` if the path is outside of the
/// repository.
fn resolve(document: &str, link: &str) -> Option<String> {
    let mut path: Vec<&str> = document.split('/').collect();
    path.pop();
    for component in Path::new(link).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(path.pop()?),
            Component::Normal(name) => path.push(name.to_str()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path.join("/"))
}

/// Returns the anchors of a document: those that GitHub makes from headings, and explicit ones.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for (_, part) in parts(text) {
        let Part::Prose(line) = part else { continue };
        anchors.extend(
            line.split("<a id=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())),
        );
        let heading = line.trim_start_matches('#');
        let level = line.len() - heading.len();
        if !(1..=6).contains(&level) || !heading.starts_with(' ') {
            continue;
        }
        let slug = slug(heading.trim());
        let times: &mut usize = seen.entry(slug.clone()).or_default();
        anchors.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
        *times += 1;
    }
    anchors
}

fn slug(heading: &str) -> String {
    // Only the text of a link counts.
    let text: String = heading
        .split("](")
        .enumerate()
        .map(
            |(index, piece)| {
                if index == 0 { piece } else { piece.split_once(')').map_or("", |(_, rest)| rest) }
            },
        )
        .collect();
    let kept = text
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

fn find(path: &str) -> Option<Target> {
    let path = root().join(path);
    match path.is_dir() {
        true => Some(Target::Directory),
        false => fs::read(path).ok().map(|bytes| Target::File(String::from_utf8_lossy(&bytes).into_owned())),
    }
}

mod rules {
    use super::*;

    const PAGE: &str = "# A page\n\n## Two words\n\n```sh\n# no heading\n```\n## `code`, and (more)\n## Two words\n<a id=\"own\"></a>\n";

    /// Returns an entry of a repository with a page, a script, a directory and an example.
    fn small(path: &str) -> Option<Target> {
        match path {
            "docs/page.md" => Some(Target::File(PAGE.to_owned())),
            "scripts/test" | "core/src/lib.rs" | "core/examples/frames.rs" => {
                Some(Target::File(String::new()))
            }
            "docs" | "core/src" => Some(Target::Directory),
            _ => None,
        }
    }

    fn links_of(path: &str, text: &str) -> Vec<String> {
        links_broken(path, text, &small)
    }

    #[test]
    fn links_lead_to_files_and_anchors() {
        let good = "[a](docs/page.md) [b](docs/page.md#two-words), [c](core/src) [d](https://x.example/y#z)\n\
            [e](#here) ![f](docs/page.md \"title\")\n# Here\n[g]: core/src/lib.rs\n```\n[h](no/such.md)\n```";
        assert_eq!(links_of("README.md", good), Vec::<String>::new());
        for (bad, line) in [
            ("[x](no/such.md)", 1),
            ("\n[x](docs/page.md#one-word)", 2),
            ("[x](docs/page.md#no-heading)", 1),
            ("[x](#nowhere)", 1),
            ("# Here\n\n[x](#there)", 3),
            ("[x](core/src#anchor)", 1),
            ("[x](/docs/page.md)", 1),
            ("[x](../README.md)", 1),
            ("[x]: no/such.md", 1),
        ] {
            let wrong = links_of("README.md", bad);
            assert!(wrong.len() == 1 && wrong[0].starts_with(&format!("{line}: ")), "{bad}: {wrong:?}");
        }
    }

    #[test]
    fn links_are_relative_to_their_document() {
        assert_eq!(links_of("docs/other.md", "[a](page.md#two-words) [b](../core/src/lib.rs)").len(), 0);
        assert_eq!(links_of("docs/other.md", "[a](docs/page.md)").len(), 1);
        assert_eq!(links_of("docs/other.md", "[a](../../page.md)").len(), 1);
    }

    #[test]
    fn anchors_are_those_of_the_headings() {
        let expected = ["a-page", "code-and-more", "own", "two-words", "two-words-1"];
        assert_eq!(anchors(PAGE), expected.map(str::to_owned).into());
        assert_eq!(anchors("# See [the page](docs/page.md) twice"), ["see-the-page-twice".to_owned()].into());
    }

    #[test]
    fn commands_name_scripts_packages_and_examples() {
        let config = "[alias]\nsim = []\n";
        let of = |text: &str| commands_broken(&format!("```sh\n{text}\n```"), config, &small);
        for good in [
            "./scripts/test --quick",
            "cargo sim hunt",
            "cargo run -p skirmish-io",
            "cargo run -p skirmish-core --example frames",
        ] {
            assert_eq!(of(good), Vec::<String>::new(), "{good}");
        }
        for bad in [
            "./scripts/none",
            "cargo sim-test",
            "cargo run -p skirmish-none",
            "cargo test --package skirmish-none",
            "cargo run --example none",
        ] {
            let wrong = of(bad);
            assert!(wrong.len() == 1 && wrong[0].starts_with("2: "), "{bad}: {wrong:?}");
        }
        assert_eq!(commands_broken("```\ncargo sim hunt\n```", "", &small).len(), 1);
        assert_eq!(commands_broken("./scripts/none", config, &small).len(), 0, "it is no code");
    }

    #[test]
    fn excerpts_are_in_their_examples() {
        let example = |path: &str| {
            (path == "io/examples/duel.rs")
                .then(|| Target::File("fn main() {\n    a();\n\n    b();\n}\n".to_owned()))
        };
        let of = |code: &str| {
            let page = format!(
                "From\n[it](../io/examples/duel.rs):\n\n```rust\n{code}\n```\n\n```rust\nother();\n```\n"
            );
            excerpts_broken("docs/page.md", &page, &example)
        };
        assert_eq!(of("a();\nb();"), Vec::<String>::new());
        assert_eq!(of("a();\nc();").len(), 1);
        assert_eq!(of("b();\na();").len(), 1);
    }

    #[test]
    fn readme() {
        let commands = "```sh\ncargo run --release -- serve --dev    # a server\n./scripts/test\n```\n";
        let lines = |number| format!("{commands}{}", "x\n".repeat(number));
        assert_eq!(readme_broken(&lines(MAX_README - 4)), Vec::<String>::new());
        assert_eq!(readme_broken(&lines(MAX_README - 3)).len(), 1);
        assert_eq!(readme_broken("```sh\n./scripts/test\n```").len(), 1);
        assert_eq!(
            readme_broken("```sh\ncargo run --release -- serve --dev --x\n./scripts/test\n```").len(),
            1
        );
        assert_eq!(readme_broken("cargo run --release -- serve --dev\n./scripts/test\n").len(), 2);
    }
}
