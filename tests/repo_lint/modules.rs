//! Graph of the core's top modules: few modules, few arrows, and no cycle.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, files};

/// Maximum number of modules at the top of the core.
const MODULES: usize = 12;
/// Maximum number of pairs in which the first module uses the second.
const ARROWS: usize = 40;
/// Maximum number of modules on a path from a module to one that uses no other.
const LAYERS: usize = 7;

/// Modules that each module uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_modules_of_the_core_are_layers() {
    let wrong = wrong(&graph(&files()));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Returns the top module of a file of the core that is not a test; `None` for other files.
fn module(file: &File) -> Option<&str> {
    let path = file.path.strip_prefix("core/src/")?.strip_suffix(".rs")?;
    let is_test = path.split('/').any(|part| part == "tests" || part == "transitions");
    (path != "lib" && !is_test).then(|| path.split('/').next().unwrap_or(path))
}

fn graph(files: &[File]) -> Graph {
    let mut graph: Graph =
        files.iter().filter_map(module).map(|name| (name.to_owned(), BTreeSet::new())).collect();
    let names: Vec<String> = graph.keys().cloned().collect();
    for file in files {
        let Some(name) = module(file) else { continue };
        let code = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for used in code.flat_map(|line| line.split("crate::").skip(1)).flat_map(named) {
            if used != name && names.iter().any(|known| known == used) {
                graph.entry(name.to_owned()).or_default().insert(used.to_owned());
            }
        }
    }
    graph
}

/// Returns the modules in a path of the crate, which may be a list in braces.
fn named(path: &str) -> Vec<&str> {
    let list = path.strip_prefix('{').map_or(path, |list| list.split('}').next().unwrap_or(list));
    let parts = if list.len() < path.len() { list.split(',').collect() } else { vec![path] };
    let first = |part: &'_ str| part.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(part.len());
    parts.into_iter().map(str::trim).map(|part| &part[..first(part)]).collect()
}

fn wrong(graph: &Graph) -> Vec<String> {
    let mut wrong = Vec::new();
    if graph.len() > MODULES {
        wrong.push(format!("{} modules, at most {MODULES} are allowed", graph.len()));
    }
    let arrows: usize = graph.values().map(BTreeSet::len).sum();
    if arrows > ARROWS {
        wrong.push(format!("{arrows} arrows between modules, at most {ARROWS} are allowed"));
    }
    // Layer of each module; known once the layers of all used modules are known.
    let mut layers: BTreeMap<&str, usize> = BTreeMap::new();
    loop {
        let known: Vec<(&str, usize)> = graph
            .iter()
            .filter(|(name, _)| !layers.contains_key(name.as_str()))
            .filter_map(|(name, used)| {
                let below: Option<Vec<usize>> =
                    used.iter().map(|used| layers.get(used.as_str()).copied()).collect();
                Some((name.as_str(), below?.into_iter().max().map_or(1, |layer| layer + 1)))
            })
            .collect();
        if known.is_empty() {
            break;
        }
        layers.extend(known);
    }
    let circle: Vec<&str> =
        graph.keys().map(String::as_str).filter(|name| !layers.contains_key(name)).collect();
    if !circle.is_empty() {
        wrong.push(format!("in a circle, or above one: {}", circle.join(", ")));
    }
    let most = layers.values().copied().max().unwrap_or(0);
    if most > LAYERS {
        wrong.push(format!("{most} layers of modules, at most {LAYERS} are allowed"));
    }
    wrong
}

#[test]
fn a_module_too_many_and_a_circle_are_found() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let small = [
        file(
            "core/src/a.rs",
            "use crate::b::B;\n// crate::c is not used\n#[cfg(test)]\nmod tests {\nuse crate::c;\n}",
        ),
        file("core/src/b/mod.rs", "use crate::{wire, c::d, b::B};"),
        file("core/src/b/deep.rs", "fn f() { crate::e::f() }"),
        file("core/src/e.rs", ""),
        file("core/src/c.rs", ""),
        file("core/src/c/tests/x.rs", "use crate::a;"),
        file("io/src/d.rs", "use crate::a;"),
    ];
    let mut graph = graph(&small);
    assert_eq!(format!("{graph:?}"), r#"{"a": {"b"}, "b": {"c", "e"}, "c": {}, "e": {}}"#);
    assert_eq!(wrong(&graph), Vec::<String>::new());
    graph.entry("c".to_owned()).or_default().insert("b".to_owned());
    assert_eq!(wrong(&graph), ["in a circle, or above one: a, b, c"]);
    let chain = |n: usize| (format!("m{n:02}"), BTreeSet::from([format!("m{:02}", n + 1)]));
    let mut long: Graph = (0..MODULES).map(chain).collect();
    long.insert(format!("m{MODULES:02}"), BTreeSet::new());
    let found = wrong(&long);
    assert_eq!(found.len(), 2, "{found:?}");
}
