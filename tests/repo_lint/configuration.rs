//! Rules for `docs/configuration.md`: the page names every setting, with the program's default, and its
//! examples can be loaded.

use std::path::PathBuf;

use skirmish_io::config::{Config, Sources};

use super::read;

#[test]
fn the_configuration_page_is_that_of_the_program() {
    let wrong = page_broken(&read("docs/configuration.md"));
    assert!(wrong.is_empty(), "docs/configuration.md\n{}", wrong.join("\n"));
}

fn page_broken(page: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let rows: Vec<(&str, &str)> = page.lines().filter_map(row).collect();
    for (key, default) in &rows {
        let Some(value) = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else { continue };
        let flag = ((*key).to_owned(), value.to_owned(), "a row".to_owned());
        match Config::load(&Sources { flags: vec![flag], ..Sources::default() }) {
            Ok(config) if config == Config::default() => {}
            Ok(_) => wrong.push(format!("{key}: the default is not {value}")),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    let covered =
        |key: &String| rows.iter().any(|(row, _)| key == row || key.starts_with(&format!("{row}.")));
    wrong.extend(keys().iter().filter(|key| !covered(key)).map(|key| format!("{key}: has no row")));

    let examples: Vec<Result<Config, String>> = examples(page).iter().map(|text| load(text)).collect();
    wrong.extend(examples.iter().filter_map(|example| example.clone().err()));
    if examples.first() != Some(&Ok(Config::default())) {
        wrong.push("the first example does not have the defaults".to_owned());
    }
    wrong
}

/// Returns the key and the default in a row of a settings table.
fn row(line: &str) -> Option<(&str, &str)> {
    let mut cells = line.strip_prefix("| `")?.split(" | ");
    let key = cells.next()?.strip_suffix('`')?;
    let default = cells.nth(1)?;
    key.contains('.').then_some((key, default.trim()))
}

/// Returns all keys with a default.
fn keys() -> Vec<String> {
    let text = Config::default().to_toml().expect("the defaults can be written");
    let mut section = "";
    let mut keys = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((key, _)) = line.split_once(" = ") {
            keys.push(format!("{section}.{key}"));
        }
    }
    keys
}

/// Returns the TOML blocks of a page.
fn examples(page: &str) -> Vec<&str> {
    page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

fn load(text: &str) -> Result<Config, String> {
    let file = Some((PathBuf::from("example"), text.to_owned()));
    Config::load(&Sources { file, ..Sources::default() }).map_err(|error| error.to_string())
}

mod rules {
    use super::*;

    #[test]
    fn a_page_has_every_key_and_its_default() {
        let defaults = Config::default().to_toml().unwrap();
        let rows = |except: &str, rows: &str| {
            let all = keys().into_iter().filter(|key| key != except);
            let all: String = all.map(|key| format!("| `{key}` | something | see above | |\n")).collect();
            format!("{all}{rows}```toml\n{defaults}```\n")
        };
        assert_eq!(page_broken(&rows("", "")), Vec::<String>::new());
        let good = "| `rates.reliable` | a rate | `{ per_second = 60, burst = 120 }` | |\n";
        assert_eq!(page_broken(&rows("rates.reliable.burst", good)), Vec::<String>::new());
        for (except, more) in [
            ("drain.timeout", ""),
            ("", "| `drain.timeout` | a time | `\"31s\"` | |\n"),
            ("", "| `drain.time` | a time | `\"30s\"` | |\n"),
            ("", "| `sessions.total` | a number | `0` | |\n"),
        ] {
            let wrong = page_broken(&rows(except, more));
            assert_eq!(wrong.len(), 1, "{except} {more}: {wrong:?}");
        }
    }

    #[test]
    fn examples_can_be_loaded() {
        let rows: String = keys().into_iter().map(|key| format!("| `{key}` | a | b | |\n")).collect();
        let page = |examples: &str| page_broken(&format!("{rows}{examples}"));
        let defaults = format!("```toml\n{}```\n", Config::default().to_toml().unwrap());
        assert_eq!(
            page(&format!("{defaults}```toml\n[drain]\ntimeout = \"1s\"\n```\n")),
            Vec::<String>::new()
        );
        assert_eq!(page(&format!("{defaults}```toml\n[drain]\ntime = \"1s\"\n```\n")).len(), 1);
        assert_eq!(page("```toml\n[drain]\ntimeout = \"1s\"\n```\n").len(), 1, "it is not the default");
    }
}
