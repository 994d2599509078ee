//! Names of types that are declared more than once.
//!
//! A search for such a name finds the wrong type. The constants below are the present numbers of repeated
//! names and their declarations, which may only fall.

use std::collections::BTreeMap;

use super::{File, files};

/// Names that are declared more than once.
const NAMES: usize = 4;
/// Declarations of these names.
const DECLARATIONS: usize = 8;

/// Names that may be repeated, each with the reason.
const IDIOMS: [(&str, &str); 4] = [
    ("Config", "is written with its module where another is in sight: `config::Config`"),
    ("Error", "is written with its module, as the libraries do: `registry::Error`"),
    ("Limits", "is written with its module, and is read at a machine's start only"),
    ("Stats", "is written with its module, and is read by metrics only"),
];

/// Directories of the checked declarations. Types of tests are visible in their own file only.
const SOURCES: [&str; 3] = ["core/src/", "io/src/", "sim/src/"];

/// Places of the declarations of each name.
type Places = BTreeMap<String, Vec<String>>;

#[test]
fn names_of_types_are_repeated_less_and_less() {
    let mut places = Places::new();
    for file in files() {
        declared(&file, &mut places);
    }
    for (idiom, _) in IDIOMS {
        assert!(
            places.get(idiom).is_some_and(|at| at.len() > 1),
            "{idiom} is not repeated any more: take it off IDIOMS"
        );
    }
    let repeated = repeated(places);
    // Printed if the test fails, and with `-- --nocapture`.
    for (name, places) in &repeated {
        eprintln!("{name}: {}", places.join(", "));
    }
    let (names, declarations) = (repeated.len(), repeated.values().map(Vec::len).sum::<usize>());
    assert!(
        names <= NAMES && declarations <= DECLARATIONS,
        "{names} names of types have {declarations} declarations; at most {NAMES} names with {DECLARATIONS} \
         declarations are allowed: give the new type a name of its own"
    );
    assert!(
        (names, declarations) == (NAMES, DECLARATIONS),
        "{names} names of types have {declarations} declarations: lower NAMES and DECLARATIONS to these numbers"
    );
}

/// Returns the repeated names that are not idioms.
fn repeated(mut places: Places) -> Places {
    places.retain(|name, places| {
        places.sort_unstable();
        places.len() > 1 && !IDIOMS.iter().any(|(idiom, _)| idiom == name)
    });
    places
}

/// Adds the types that a file declares. Two types with one name in one file are variants of one type for two
/// targets.
fn declared(file: &File, places: &mut Places) {
    let is_source = SOURCES.iter().any(|source| file.path.starts_with(source));
    let is_test = file.path.contains("/tests/") || file.path.ends_with("tests.rs");
    if !file.is_rust() || !is_source || is_test {
        return;
    }
    for (index, line) in file.without_tests().lines().enumerate() {
        if let Some(name) = type_name(line) {
            let places = places.entry(name.to_owned()).or_default();
            if !places.iter().any(|place| place.rsplit_once(':').is_some_and(|(path, _)| path == file.path)) {
                places.push(format!("{}:{}", file.path, index + 1));
            }
        }
    }
}

/// Returns the name of the type that a line declares. An indented alias belongs to a trait.
fn type_name(line: &str) -> Option<&str> {
    // `pub(in path)` is two words.
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub") || word.ends_with(')'));
    match words.next()? {
        "struct" | "enum" | "union" | "trait" => {}
        "type" if !line.starts_with(' ') => {}
        _ => return None,
    }
    let name = words.next()?;
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
    name.starts_with(|c: char| c.is_ascii_uppercase()).then_some(&name[..end])
}

#[test]
fn a_declaration_is_found() {
    for line in [
        "struct Link;",
        "pub struct Link {",
        "pub(crate) enum Link<'a> {",
        "    pub(in crate::a) trait Link: Send {",
        "type Link = u8;",
        "struct Link(",
        "struct Link<const N: usize>;",
    ] {
        assert_eq!(type_name(line), Some("Link"), "{line}");
    }
    for line in
        ["// struct Link;", "    type Output = u8;", "impl Link {", "let structure = 5;", "struct", ""]
    {
        assert_eq!(type_name(line), None, "{line}");
    }
}

#[test]
fn a_name_of_two_files_is_repeated() {
    let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
    let mut places = Places::new();
    for (path, text) in [
        ("core/src/a.rs", "struct Link;\nstruct Own;\nstruct Config;"),
        ("io/src/b.rs", "\nenum Link {}\nstruct Config;\n#[cfg(test)]\nmod tests {\nstruct Own;\n}"),
        ("sim/src/c.rs", "#[cfg(unix)]\nstruct Two;\n#[cfg(not(unix))]\nstruct Two;"),
        ("core/src/a/tests.rs", "struct Own;"),
        ("core/src/a/tests/world.rs", "struct Own;"),
        ("tests/src/d.rs", "struct Own;"),
    ] {
        declared(&file(path, text), &mut places);
    }
    let expected = [("Link".to_owned(), vec!["core/src/a.rs:1".to_owned(), "io/src/b.rs:2".to_owned()])];
    assert_eq!(repeated(places), Places::from(expected));
}
